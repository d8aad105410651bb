"""A WebSocket client at the other end of a server's connection, and an app that talks to it."""

import contextlib
import select
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Self, TypeAlias

from wsgi_asgi_conformance.exchange import Hang
from wsgi_asgi_conformance.frames import CLOSE, KEY, Frame, client_frame, close_payload, maybe_frame
from wsgi_asgi_conformance.samples import http_environ
from wsgi_asgi_conformance.types import ASGIApp, Environ, Message, Receive, Scope, Send
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIServer

# One step of an app: it sends a message, receives ("receive"), raises an error, or awaits something else.
Step: TypeAlias = dict[str, Any] | str | BaseException | Callable[[], Awaitable[object]]
Connect: TypeAlias = Callable[..., "Client"]

ACCEPT = {"type": "websocket.accept"}


def send(payload: bytes | str) -> dict[str, Any]:
    return {"type": "websocket.send", "text" if isinstance(payload, str) else "bytes": payload}


def close(**keys: Any) -> dict[str, Any]:
    return {"type": "websocket.close", **keys}


class Script:
    """An app for WebSockets only that takes steps, and notes its scope, what it received and what its sends raised."""

    def __init__(self, *steps: Step) -> None:
        self.scope: Scope = {}
        self.receive: Receive
        self.received: list[Message] = []
        self.raised: list[Exception] = []
        self.ended = threading.Event()
        self._steps = steps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            raise ValueError(f"this app knows of WebSockets alone, not of {scope['type']}")
        self.scope, self.receive = scope, receive
        try:
            for step in self._steps:
                if step == "receive":
                    self.received.append(await receive())
                elif isinstance(step, BaseException):
                    raise step
                elif isinstance(step, dict):
                    try:
                        await send(step)
                    except Exception as error:
                        self.raised.append(error)
                elif callable(step):
                    await step()
        finally:
            self.ended.set()

    @property
    def types(self) -> list[str]:
        """The types of the messages that were received."""
        return [message["type"] for message in self.received]


def handshake(**variables: Any) -> Environ:
    """Return the environ of a valid handshake without a connection, with `variables` in place of its own."""
    return http_environ(
        **{
            "HTTP_UPGRADE": "websocket",
            "HTTP_CONNECTION": "Upgrade",
            "HTTP_SEC_WEBSOCKET_VERSION": "13",
            "HTTP_SEC_WEBSOCKET_KEY": KEY,
            **variables,
        }
    )


class Client:
    """One handshake, and what comes of it; `head` is the response to it on the connection."""

    def __init__(self, serve: WSGIServer, app: Any, early: bytes, **variables: Any) -> None:
        self.socket, self.servers_end = socket.socketpair()
        self.socket.sendall(early)
        self.head = b""
        self._unread = b""
        self.request = serve(app, handshake(**{"werkzeug.socket": self.servers_end, **variables}))

    # What the client does

    def send(self, opcode: int, payload: bytes = b"", **how: Any) -> None:
        """Send one frame, valid or not."""
        self.socket.sendall(client_frame(opcode, payload, **how))

    def leave(self) -> None:
        """Lose the connection."""
        self.socket.close()

    # What it sees

    @property
    def unanswered(self) -> bool:
        """Whether the server has sent no bytes."""
        return not self._unread and not select.select([self.socket], [], [], 0)[0]

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers of the answer to the handshake, with names in lower case."""
        lines = [line.partition(":") for line in self.head.decode("latin-1").split("\r\n")[1:]]
        return [(name.lower(), value.strip()) for name, _, value in lines]

    # What it waits for

    def is_accepted(self) -> bool:
        """Wait for the answer to the handshake, and return whether it is a 101 on the connection."""
        while b"\r\n\r\n" not in self._unread:
            if not (block := self._block(or_refused=True)):
                return False
            self._unread += block
        self.head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        return self.head.startswith(b"HTTP/1.1 101 ")

    def open(self) -> Self:
        """Wait until the handshake is accepted."""
        assert self.is_accepted(), f"{self.head!r}, {self.request.starts}, {self.request.error!r}"
        return self

    def refused(self) -> str:
        """Wait until the handshake is refused; return the status, which is 500 for an error that the server gets."""
        assert not self.is_accepted(), self.head
        assert self.request.until_ended().starts or isinstance(self.request.error, Exception)
        return "500" if self.request.error else self.request.status

    def receive(self) -> Frame:
        """Wait for a whole frame."""
        while (parsed := maybe_frame(self._unread)) is None:
            block = self._block()
            assert block, f"the server hung up after {self._unread!r:.100}"
            self._unread += block
        frame, self._unread = parsed
        return frame

    def receive_close(self) -> tuple[int, str]:
        """Wait for a Close frame, answer it, and wait until the server has hung up; return its code and reason."""
        frame = self.receive()
        assert frame.opcode == CLOSE, f"not a Close frame: {frame!r:.200}"
        with contextlib.suppress(OSError):  # it need not wait for the answer to wrong frames
            self.socket.sendall(client_frame(CLOSE, frame.payload[:2]))
        assert self.rest() == b""
        self.leave()
        return int.from_bytes(frame.payload[:2], "big") or 1005, frame.payload[2:].decode()

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close as a client should, and wait until the server has hung up."""
        self.send(CLOSE, close_payload(code, reason))
        frame = self.receive()
        assert (frame.opcode, frame.payload[:2]) == (CLOSE, close_payload(code))
        assert self.rest() == b""
        self.leave()

    def rest(self) -> bytes:
        """Wait until the server hangs up, and return what it has sent until then."""
        while block := self._block():
            self._unread += block
        return self._unread

    def until_ended(self, app: Script) -> None:
        """Wait until the app has taken all its steps."""
        self.request.until(app.ended.is_set, "the end of the app")

    def _block(self, or_refused: bool = False) -> bytes:
        end = time.monotonic() + self.request.deadline
        while not select.select([self.socket], [], [], 0.002)[0]:
            if or_refused and self.request.ended and not self._is_101():
                return b""
            if time.monotonic() > end:
                raise Hang(f"waited {self.request.deadline:g} s for bytes of the server")
        try:
            return self.socket.recv(1 << 16)
        except ConnectionResetError:
            return b""

    def _is_101(self) -> bool:
        """Whether the server believes that the handshake was accepted."""
        return self.request.error is None and (not self.request.starts or self.request.status.startswith("101"))


@contextlib.contextmanager
def connecting(adapt: ToWSGI, serve: WSGIServer) -> Iterator[Connect]:
    """Yield a function that starts a handshake with an app; end all of them afterwards."""
    clients: list[Client] = []

    def connect(app: ASGIApp, early: bytes = b"", **variables: Any) -> Client:
        clients.append(Client(serve, adapt(app), early, **variables))
        return clients[-1]

    yield connect
    for client in clients:
        client.leave()
    for client in clients:
        with contextlib.suppress(Hang):  # which is for the server to judge
            client.request.until_ended()
        client.servers_end.close()


def offers_websockets(adapt: ToWSGI, serve: WSGIServer) -> bool:
    """Return whether a valid handshake on a connection in the environ is accepted."""
    with connecting(adapt, serve) as connect:
        try:
            return connect(Script("receive", ACCEPT)).is_accepted()
        except Hang:
            return False
