"""Clients and apps that the tests of an ASGI app's WebSockets share."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio

from bridge import ASGIToWSGI
from bridge.types import ASGIApp, Environ, Message, Receive, Scope, Send
from tests.asgi_to_wsgi.apps import Adapt
from tests.fakes import WSGIServer, http_environ, in_thread
from tests.sockets import FrameClient
from wsgi_asgi_conformance.frames import CLOSE, KEY, Frame, close_payload


class Carried(socket.socket):
    """A socket that looks as if it used TLS, so that it cannot be taken from its server."""

    do_handshake = None


class Client(FrameClient):
    """A WebSocket client, and the server's end of its connection."""

    def __init__(self, adapter: ASGIToWSGI, *, carried: bool = False, **keys: Any) -> None:
        ours, theirs = socket.socketpair()
        self.socket = ours
        self.socket.settimeout(5)
        self.servers = Carried(fileno=theirs.detach()) if carried else theirs
        self.environ: Environ = http_environ(
            **{
                "HTTP_UPGRADE": "websocket",
                "HTTP_CONNECTION": "Upgrade",
                "HTTP_SEC_WEBSOCKET_VERSION": "13",
                "HTTP_SEC_WEBSOCKET_KEY": KEY,
                "werkzeug.socket": self.servers,
                "wsgi.input": None,  # which nobody must read
                **keys,
            }
        )
        self.server = WSGIServer(adapter, self.environ)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.error: BaseException | None = None
        self.unread = b""
        self.head = b""

    def _run(self) -> None:
        try:
            self.server.run()
        except BaseException as error:
            self.error = error

    def open(self) -> "Client":
        """Serve the request in a thread, and read the response to the handshake."""
        self.thread.start()
        while b"\r\n\r\n" not in self.unread:
            block = self.socket.recv(65_536)
            assert block, f"the server hung up after {self.unread!r}"
            self.unread += block
        self.head, _, self.unread = self.unread.partition(b"\r\n\r\n")
        assert self.head.startswith(b"HTTP/1.1 101 "), self.head
        return self

    def refused(self) -> WSGIServer:
        """Serve the request to its end, and return the server."""
        with self:
            in_thread(self.server.run)
            return self.server

    def close(self, code: int = 1000) -> None:
        """Close as a client should, and check that the other side does so, too."""
        self.send(CLOSE, close_payload(code))
        assert self.receive() == Frame(CLOSE, close_payload(code))
        assert self.rest() == b""

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close()
        if self.thread.ident is not None:
            self.thread.join(5)
            assert not self.thread.is_alive()
        self.servers.close()


class Script:
    """An app that plays a list of steps: it sends messages, receives at "receive", raises errors and awaits callables.

    It records what it received, and what its sends raised.
    """

    def __init__(self, *steps: Any) -> None:
        self.received: list[Message] = []
        self.raised: list[BaseException] = []
        self.scope: Scope = {}
        self.done = threading.Event()
        self._steps = steps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        try:
            for step in self._steps:
                if step == "receive":
                    self.received.append(await receive())
                elif isinstance(step, BaseException):
                    raise step
                elif callable(step):
                    await step()
                else:
                    try:
                        await send(step)
                    except Exception as error:
                        self.raised.append(error)
        finally:
            self.done.set()

    def wait(self) -> None:
        assert self.done.wait(5), "the app does not end"


def accept(**keys: Any) -> Message:
    return {"type": "websocket.accept", **keys}


def send(payload: bytes | str) -> Message:
    return {"type": "websocket.send", "text" if isinstance(payload, str) else "bytes": payload}


def close(**keys: Any) -> Message:
    return {"type": "websocket.close", **keys}


def disconnect(code: int, reason: str = "") -> Message:
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


def until(event: threading.Event) -> Callable[[], Any]:
    """Return a function that waits on the loop for an event that a thread sets."""

    async def wait() -> None:
        with anyio.fail_after(5):
            while not event.is_set():
                await anyio.sleep(0.001)

    return wait


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send(accept())
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


@contextlib.contextmanager
def connected(adapt: Adapt, app: ASGIApp, way: dict[str, Any] | None = None, **options: Any) -> Iterator[Client]:
    """Open a WebSocket in one of `WAYS`."""
    way = dict(way or {})
    carried = way.pop("carried", False)
    with Client(adapt(app, **way, **options), carried=carried) as client:
        yield client.open()
