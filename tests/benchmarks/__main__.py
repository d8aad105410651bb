"""What a small request costs through `bridge` and through a2wsgi, side by side in one run.

    python -m tests.benchmarks

Rounds are interleaved, and medians compared: times vary from minute to minute, and ratios less so.
"""

import asyncio
import io
import statistics
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import a2wsgi
import uvloop

from bridge import ASGIToWSGI, WSGIToASGI
from bridge.types import Environ, Receive, Scope, Send, StartResponse

ROUNDS = 9
REQUESTS = 1600


def wsgi_app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]


async def asgi_app(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


def scope() -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), (b"accept", b"*/*"), (b"user-agent", b"benchmark")],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
    }


def environ() -> Environ:
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "50000",
        "HTTP_HOST": "localhost",
        "HTTP_ACCEPT": "*/*",
        "HTTP_USER_AGENT": "benchmark",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
    }


async def request_asgi(app: Any) -> None:
    received = False

    async def receive() -> dict[str, Any]:
        nonlocal received
        if received:
            await asyncio.get_running_loop().create_future()
        received = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        pass

    await app(scope(), receive, send)


def time_asgi(app: Any, at_once: int, run: Callable[[Any], Any]) -> float:
    """Return microseconds a request, with `at_once` requests in flight on one loop."""

    async def serve() -> float:
        async def worker() -> None:
            for _ in range(REQUESTS // at_once):
                await request_asgi(app)

        start = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(at_once)))
        return (time.perf_counter() - start) / REQUESTS * 1e6

    result: float = run(serve())
    return result


def request_wsgi(app: Any) -> None:
    iterable = app(environ(), lambda *arguments: None)
    try:
        for _ in iterable:
            pass
    finally:
        if hasattr(iterable, "close"):
            iterable.close()


def time_wsgi(app: Any, at_once: int) -> float:
    """Return microseconds a request, with `at_once` threads that make one after the other."""

    def worker() -> None:
        for _ in range(REQUESTS // at_once):
            request_wsgi(app)

    threads = [threading.Thread(target=worker) for _ in range(at_once)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - start) / REQUESTS * 1e6


def compare(what: str, measure: Callable[[Any], float], ours: Any, theirs: Any) -> None:
    """Print the medians of interleaved rounds, and their ratio."""
    measure(ours), measure(theirs)
    rounds = [(measure(ours), measure(theirs)) for _ in range(ROUNDS)]
    median_ours, median_theirs = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratio = statistics.median(theirs / ours for ours, theirs in rounds)
    print(f"{what:<44} {median_ours:8.0f} us {median_theirs:8.0f} us {ratio:8.1f} x")


def main() -> None:
    print(f"{'small response, a request':<44} {'bridge':>11} {'a2wsgi':>11} {'a2wsgi/bridge':>10}")
    for name, run in (("asyncio", asyncio.run), ("uvloop", uvloop.run)):
        for at_once in (1, 32):
            compare(
                f"WSGIToASGI on {name}, {at_once} at a time",
                lambda app, at_once=at_once, run=run: time_asgi(app, at_once, run),  # type: ignore[misc]
                WSGIToASGI(wsgi_app),
                a2wsgi.WSGIMiddleware(wsgi_app, workers=40),  # type: ignore[arg-type]
            )
    for at_once in (1, 16):
        compare(
            f"ASGIToWSGI on asyncio, {at_once} threads",
            lambda app, at_once=at_once: time_wsgi(app, at_once),  # type: ignore[misc]
            ASGIToWSGI(asgi_app, lifespan="off"),
            a2wsgi.ASGIMiddleware(asgi_app),  # type: ignore[arg-type]
        )


if __name__ == "__main__":
    main()
