"""What the adapters themselves cost: no server, no socket, one process."""

import asyncio
import functools
import io
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import a2wsgi
import uvloop
from asgiref.wsgi import WsgiToAsgi
from starlette.middleware.wsgi import WSGIMiddleware

from bridge import ASGIToWSGI, WSGIToASGI
from bridge.types import Environ, Receive, Scope, Send, StartResponse
from tests.benchmarks import apps
from tests.benchmarks.rounds import Row, measure

REQUESTS = 1600


def scope(**keys: Any) -> dict[str, Any]:
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
        **keys,
    }


def environ(**keys: Any) -> Environ:
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
        **keys,
    }


# --- An ASGI server -------------------------------------------------------------------------------


async def request_asgi(app: Any, blocks: int = 1) -> None:
    """Make one request, with a body of so many blocks, the last of them empty."""
    left = blocks

    async def receive() -> dict[str, Any]:
        nonlocal left
        if not left:
            await asyncio.get_running_loop().create_future()
        left -= 1
        return {"type": "http.request", "body": apps.BLOCK if left else b"", "more_body": left > 0}

    async def send(message: Any) -> None:
        pass

    await app(scope(method="POST" if blocks > 1 else "GET"), receive, send)


def time_asgi(run: Callable[[Any], Any], app: Any, requests: int, at_once: int, blocks: int = 1) -> float:
    """Return microseconds a request, with `at_once` requests in flight on one loop."""

    async def serve() -> float:
        async def client() -> None:
            for _ in range(requests // at_once):
                await request_asgi(app, blocks)

        start = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(at_once)))
        return (time.perf_counter() - start) / requests * 1e6

    result: float = run(serve())
    return result


class BareHop:
    """A hop to a thread and back, and nothing else: one SimpleQueue.put, one call_soon_threadsafe."""

    def __init__(self, threads: int) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        for _ in range(threads):
            threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            self._jobs.get()()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self._jobs.put(lambda: loop.call_soon_threadsafe(done.set_result, None))
        await done


# --- A WSGI server --------------------------------------------------------------------------------


class Upload(io.RawIOBase):
    """A request body that costs nothing to make."""

    def __init__(self, size: int) -> None:
        self._left = size

    def read(self, size: int = -1, /) -> bytes:
        size = self._left if size < 0 else min(size, self._left)
        self._left -= size
        return bytes(size)


def request_wsgi(app: Any, blocks: int = 1) -> None:
    size = (blocks - 1) * len(apps.BLOCK)
    upload = {"CONTENT_LENGTH": str(size), "REQUEST_METHOD": "POST", "wsgi.input": Upload(size)} if size else {}
    iterable = app(environ(**upload), lambda *arguments: None)
    try:
        for _ in iterable:
            pass
    finally:
        if hasattr(iterable, "close"):
            iterable.close()


def time_wsgi(app: Any, requests: int, at_once: int, blocks: int = 1) -> float:
    """Return microseconds a request, with `at_once` threads that make one after the other."""

    def client() -> None:
        for _ in range(requests // at_once):
            request_wsgi(app, blocks)

    threads = [threading.Thread(target=client) for _ in range(at_once)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - start) / requests * 1e6


def bare_hop_wsgi() -> Callable[[Environ, StartResponse], Iterable[bytes]]:
    """Return what only asks a loop in a thread for a result, by asyncio.run_coroutine_threadsafe."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    async def nothing() -> None:
        pass

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        asyncio.run_coroutine_threadsafe(nothing(), loop).result()
        return []

    return app


# --- The rows -------------------------------------------------------------------------------------


def _to_asgi(app: Any) -> dict[str, Any]:
    return {
        "bridge": WSGIToASGI(app),
        "a2wsgi": a2wsgi.WSGIMiddleware(app, workers=40),
        "asgiref": WsgiToAsgi(app),  # type: ignore[no-untyped-call]
        "starlette": WSGIMiddleware(app),
    }


def _to_wsgi(app: Any) -> dict[str, Any]:
    return {"bridge": ASGIToWSGI(app, lifespan="off"), "a2wsgi": a2wsgi.ASGIMiddleware(app)}


def wsgi_to_asgi_rows(rounds: int) -> Iterator[Row]:
    for name, run in (("asyncio", asyncio.run), ("uvloop", uvloop.run)):
        for at_once in (1, 32):
            contenders = {"a bare hop": BareHop(40), **_to_asgi(apps.hello_wsgi)}
            yield measure(
                f"WSGIToASGI, a small response, {at_once} at a time, {name}",
                "µs a request",
                "bridge",
                {key: functools.partial(time_asgi, run, app, REQUESTS, at_once) for key, app in contenders.items()},
                rounds,
            )
    download = _to_asgi(apps.blocks_wsgi(apps.BLOCK, apps.LARGE_BLOCKS))
    small = _to_asgi(apps.blocks_wsgi(apps.SMALL_BLOCK, apps.SMALL_BLOCKS))
    upload = _to_asgi(apps.upload_wsgi)
    waiting = {"bridge": WSGIToASGI(apps.waiting_wsgi, workers=100)}
    for what, contenders, requests, at_once, blocks in (
        ("16 MiB down in blocks of 64 KiB", download, 2, 1, 1),
        ("16 MiB up in blocks of 64 KiB", upload, 2, 1, apps.LARGE_BLOCKS + 1),
        ("20,000 blocks of 100 bytes", small, 1, 1, 1),
        ("100 requests that wait 0.1 s each, workers=100, a hundredth of all", waiting, 100, 100, 1),
    ):
        yield measure(
            f"WSGIToASGI, {what}, uvloop",
            "µs a request",
            "bridge",
            {
                key: functools.partial(time_asgi, uvloop.run, app, requests, at_once, blocks)
                for key, app in contenders.items()
            },
            max(3, rounds // 2),
        )


def asgi_to_wsgi_rows(rounds: int) -> Iterator[Row]:
    for at_once in (1, 16):
        contenders = {"run_coroutine_threadsafe": bare_hop_wsgi(), **_to_wsgi(apps.hello_asgi)}
        yield measure(
            f"ASGIToWSGI, a small response, {at_once} thread{'s' * (at_once > 1)}",
            "µs a request",
            "bridge",
            {key: functools.partial(time_wsgi, app, REQUESTS, at_once) for key, app in contenders.items()},
            rounds,
        )
    download = _to_wsgi(apps.blocks_asgi(apps.BLOCK, apps.LARGE_BLOCKS))
    small = _to_wsgi(apps.blocks_asgi(apps.SMALL_BLOCK, apps.SMALL_BLOCKS))
    upload = _to_wsgi(apps.upload_asgi)
    for what, contenders, requests, blocks in (
        ("16 MiB down in blocks of 64 KiB", download, 2, 1),
        ("16 MiB up in blocks of 64 KiB", upload, 2, apps.LARGE_BLOCKS + 1),
        ("20,000 blocks of 100 bytes", small, 1, 1),
    ):
        yield measure(
            f"ASGIToWSGI, {what}",
            "µs a request",
            "bridge",
            {key: functools.partial(time_wsgi, app, requests, 1, blocks) for key, app in contenders.items()},
            max(3, rounds // 2),
        )
