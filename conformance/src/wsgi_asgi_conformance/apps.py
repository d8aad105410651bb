"""Parts for the apps of the tests."""

import functools
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

from wsgi_asgi_conformance.types import ASGIApp, Environ, Receive, Scope, Send, StartResponse, WSGIApp


class Blocks:
    """The iterable of a WSGI app, which counts how it was used.

    An exception among the blocks is raised when its turn comes. `close()` raises `close_error`, if there is one.
    """

    def __init__(self, blocks: Iterable[Any], close_error: Exception | None = None) -> None:
        self.started = 0  # how many blocks the adapter asked for
        self.closed = 0
        self.closed_inside = False  # whether close() was called while a block was being made
        self.close_called = threading.Event()
        self.close_thread: int | None = None
        self._blocks = blocks
        self._close_error = close_error
        self._inside = False

    def __iter__(self) -> Iterator[bytes]:
        iterator = iter(self._blocks)
        while True:
            self.started += 1
            self._inside = True
            try:
                block = next(iterator)
                if isinstance(block, Exception):
                    raise block
            except StopIteration:
                return
            finally:
                self._inside = False
            yield block

    def close(self) -> None:
        self.closed_inside |= self._inside
        self.close_thread = threading.get_ident()
        self.closed += 1
        self.close_called.set()
        if self._close_error is not None:
            raise self._close_error


def wsgi_response(
    iterable: Iterable[bytes], status: str = "200 OK", headers: Iterable[tuple[str, str]] = ()
) -> WSGIApp:
    """Return a WSGI app that returns `iterable` itself for each request."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, list(headers))
        return iterable

    return app


def asgi_response(*blocks: bytes, status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()) -> ASGIApp:
    """Return an ASGI app that answers each request with one message per block and a last one that ends the body."""

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        for block in blocks:
            await send({"type": "http.response.body", "body": block, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return app


def http_app(function: Callable[[Scope, Receive, Send], Awaitable[None]]) -> ASGIApp:
    """Make an ASGI app raise on any scope but http, as the ASGI spec asks of apps that handle only HTTP."""

    @functools.wraps(function)
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"this app handles only HTTP, got the scope type {scope['type']!r}")
        await function(scope, receive, send)

    return app
