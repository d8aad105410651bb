"""What a fallback costs: `python -m tests.benchmarks.fallback` prints the CPU time of a request with and without it.

Both apps have 100 routes, and the last one is asked for, again and again, so that the decision is remembered. There is
no server: with one, the fallback's share is smaller.
"""

import asyncio
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from fastapi import FastAPI
from flask import Flask

from bridge import ASGIToWSGI, WSGIToASGI
from bridge.migration import ASGIFallback, WSGIFallback
from tests.fakes import http_environ, http_scope

ROUTES = 100
REQUESTS = 60  # in a row; the two sides take turns, so that both see the same machine
ROUNDS = 60


class Cost(NamedTuple):
    """Microseconds of a request without the fallback, and the median ratio of those with it to those without."""

    alone: float
    ratio: float


def two_apps() -> tuple[FastAPI, Flask]:
    """Return a new app and an old one, each with its own hundred routes."""
    new, old = FastAPI(), Flask("old")

    async def answer() -> str:
        return "new"

    for number in range(ROUTES):
        new.add_api_route(f"/new/{number}", answer)
        old.add_url_rule(f"/old/{number}", f"old {number}", lambda: "old")
    return new, old


def asgi_requests(app: Any, path: str) -> float:
    """Return the seconds of CPU time that requests to an ASGI app take."""
    scope = http_scope("GET", path)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        pass

    async def run() -> float:
        for count in (2, REQUESTS):
            start = time.process_time()
            for _ in range(count):
                await app(dict(scope), receive, send)
        return time.process_time() - start

    return asyncio.run(run())


def wsgi_requests(app: Any, path: str) -> float:
    """Return the seconds of CPU time that requests to a WSGI app take."""
    for count in (2, REQUESTS):
        start = time.process_time()
        for _ in range(count):
            blocks = app(http_environ("GET", path), lambda *values: None)
            for _ in blocks:
                pass
            if hasattr(blocks, "close"):
                blocks.close()
    return time.process_time() - start


@contextlib.contextmanager
def contenders() -> Iterator[Mapping[str, tuple[Callable[[Any, str], float], Any, Any, str]]]:
    """Yield how to ask, the app alone, the fallback and the path, for each kind of server and each app."""
    new, old = two_apps()
    with ASGIToWSGI(new) as new_wsgi, WSGIFallback(new, old) as wsgi_fallback:
        asgi_fallback = ASGIFallback(new, old)
        last = ROUTES - 1
        yield {
            "ASGIFallback, new": (asgi_requests, new, asgi_fallback, f"/new/{last}"),
            "ASGIFallback, old": (asgi_requests, WSGIToASGI(old), asgi_fallback, f"/old/{last}"),
            "WSGIFallback, new": (wsgi_requests, new_wsgi, wsgi_fallback, f"/new/{last}"),
            "WSGIFallback, old": (wsgi_requests, old, wsgi_fallback, f"/old/{last}"),
        }


def costs() -> dict[str, Cost]:
    """Measure all contenders."""
    found = {}
    with contenders() as pairs:
        for name, (ask, app, fallback, path) in pairs.items():
            rounds = [(ask(app, path), ask(fallback, path)) for _ in range(ROUNDS)]
            alone = statistics.median(without for without, _ in rounds) / REQUESTS * 1e6
            found[name] = Cost(alone, statistics.median(having / without for without, having in rounds))
    return found


if __name__ == "__main__":
    for name, (alone, ratio) in costs().items():
        print(f"{name:<20} {alone:8.0f} us alone, {100 * (ratio - 1):5.1f} % more with the fallback")
