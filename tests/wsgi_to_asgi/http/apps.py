"""WSGI apps, and a scope, that the tests of this folder share."""

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from bridge import WSGIToASGI
from bridge.types import Environ, StartResponse
from tests.fakes import ASGIServer, http_scope

OK = "200 OK"


def app_of(function: Callable[[Environ, StartResponse], Iterable[bytes]], **options: Any) -> WSGIToASGI:
    return WSGIToASGI(function, **options)


def answers(*blocks: bytes, status: str = OK, headers: list[tuple[str, str]] | None = None) -> WSGIToASGI:
    """Return an app that yields `blocks` from a generator, one by one."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, headers or [])
        return (block for block in blocks)

    return WSGIToASGI(app)


def types(server: ASGIServer) -> list[str]:
    return [message["type"].removeprefix("http.response.") for message in server.sent]


def chunked() -> dict[str, Any]:
    """Return the scope of a request that announces a body of unknown length."""
    return http_scope("POST", headers=[(b"transfer-encoding", b"chunked")])


class Blocks:
    """An iterable of a WSGI app that records what is done to it, and in which thread."""

    def __init__(self, blocks: Iterable[bytes], close_error: BaseException | None = None) -> None:
        self._blocks = iter(blocks)
        self._close_error = close_error
        self.taken = 0
        self.threads: list[int] = []
        self.closed = 0
        self.done = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self.threads.append(threading.get_ident())
        block = next(self._blocks)
        self.taken += 1
        return block

    def close(self) -> None:
        self.threads.append(threading.get_ident())
        self.closed += 1
        self.done.set()
        if self._close_error is not None:
            raise self._close_error

    def app(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        self.threads.append(threading.get_ident())
        start_response(OK, [])
        return self


def endless() -> Iterator[bytes]:
    """Blocks without end. Several requests may iterate it at the same time, unlike a generator."""
    return itertools.repeat(b"x" * 1000)
