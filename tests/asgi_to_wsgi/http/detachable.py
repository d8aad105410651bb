"""Requests whose connection can be taken, and apps that wait, for tests of detached responses."""

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio

from bridge import ASGIToWSGI
from bridge.asgi_to_wsgi.http.detached import DetachedResponse
from bridge.asgi_to_wsgi.http.exchange import HTTPExchange
from bridge.asgi_to_wsgi.http.patience import Patience
from bridge.asgi_to_wsgi.http.place import Place
from bridge.types import Message, Receive, Scope, Send
from tests.fakes import WSGIServer, http_environ


class Detachable(WSGIServer):
    """A request on a TCP connection that can be taken; `client` is its other end."""

    def __init__(self, app: ASGIToWSGI, method: str = "GET", body: bytes | None = None, /, **keys: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.client = socket.create_connection(listener.getsockname(), timeout=10)
            self.connection, _ = listener.accept()
        super().__init__(app, http_environ(method, "/", body, **{"gunicorn.socket": self.connection, **keys}))

    @property
    def has_left(self) -> bool:
        """Whether the call returned without the app's response."""
        return self.starts[0][0] == "202 Accepted" and not self.blocks

    def read(self) -> tuple[int, bytes]:
        """Return status and body of the response, as a client reads it."""
        response = http.client.HTTPResponse(self.client, method=self.environ["REQUEST_METHOD"])
        response.begin()
        return response.status, response.read()


@contextlib.contextmanager
def connected(app: ASGIToWSGI, method: str = "GET", body: bytes | None = None, /, **keys: Any) -> Iterator[Detachable]:
    server = Detachable(app, method, body, **keys)
    with server.client, server.connection:
        yield server


class NotedPlace(Place):
    """A place of its own that notes what it is told."""

    def __init__(self, exchange: HTTPExchange, notes: list[str]) -> None:
        super().__init__(set(), Patience(0.05), exchange)
        self._notes = notes

    def free(self) -> None:
        self._notes.append("released")

    def note(self, status: str, size: int, whole: bool) -> None:
        self._notes.append(f"{status} {size} {whole}")


def detached_responses(adapter: ASGIToWSGI) -> list[DetachedResponse]:
    """Return the detached responses that have not ended."""
    jobs = adapter._private_loop.get().get().jobs()
    return [job for job in jobs if isinstance(job, DetachedResponse)]


class Gate:
    """A gate for which an app waits; any thread may open it."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.disconnected = threading.Event()
        self._opened = threading.Event()

    def open(self) -> None:
        self._opened.set()

    async def wait(self) -> None:
        self.reached.set()
        while not self._opened.is_set():
            await anyio.sleep(0.001)


async def start(send: Send, *headers: tuple[bytes, bytes], status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def block(send: Send, body: bytes = b"", more_body: bool = False) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more_body})


def waiting(gate: Gate, *messages: Message, error: Exception | None = None) -> Callable[[Scope, Receive, Send], Any]:
    """Return an app that waits for `gate`, then sends `messages`, and then raises `error`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        for message in messages:
            await send(message)
        if error is not None:
            raise error

    return app


def started(*headers: tuple[bytes, bytes], status: int = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body_of(body: bytes = b"", more_body: bool = False) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more_body}
