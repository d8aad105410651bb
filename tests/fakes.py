"""Fakes of both kinds of server. They call an app directly, and record what it sends, and in which thread."""

import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import anyio
import anyio.lowlevel

from bridge.sansio.messages import WEBSOCKET, event_from_message, next_state
from bridge.types import ASGIApp, Environ, ExcInfo, Headers, Message, Scope, Write, WSGIApp
from wsgi_asgi_conformance.exchange import in_thread as in_thread
from wsgi_asgi_conformance.samples import http_environ as http_environ
from wsgi_asgi_conformance.samples import http_scope as http_scope
from wsgi_asgi_conformance.samples import websocket_scope as websocket_scope


class ASGIServer:
    """One connection of an ASGI server, on the test's own loop.

    The request's body comes in `blocks`; `feed` adds more. After `disconnect()`, `send` does what
    servers do: nothing ("silent", the default), or raise. While `hold_sends` is set, `send` does not return.
    """

    def __init__(self, app: ASGIApp, scope: Scope | None = None, blocks: Iterable[bytes] = (b"",)) -> None:
        self.app = app
        self.scope = http_scope() if scope is None else scope
        self.sent: list[Message] = []
        self.send_threads: set[int] = set()
        self.receive_calls = 0
        self.send_error: Exception | None = None
        self.finished = anyio.Event()
        self._incoming: list[Message] = []
        self._changed = anyio.Event()
        self._open = anyio.Event()
        self._open.set()
        self._disconnected = False
        blocks = list(blocks)
        for index, block in enumerate(blocks):
            self.feed(block, more_body=index < len(blocks) - 1)

    # What the test does

    def feed(self, body: bytes, more_body: bool = False) -> None:
        """Add a block to the request's body."""
        self.feed_message({"type": "http.request", "body": body, "more_body": more_body})

    def feed_message(self, message: Any) -> None:
        """Add a message that `receive` will return."""
        self._incoming.append(message)
        self._tell()

    def disconnect(self, send_error: Exception | None = None) -> None:
        """Have the client leave."""
        self._disconnected = True
        self.send_error = send_error
        self._incoming.append({"type": "http.disconnect"})
        self._open.set()
        self._tell()

    def hold_sends(self) -> None:
        """Make `send` wait, as it does for a client that does not read."""
        self._open = anyio.Event()

    def release_sends(self) -> None:
        """Let `send` return again."""
        self._open.set()

    async def run(self) -> None:
        """Serve the connection to its end; raises what the app raises."""
        try:
            assert await self.app(self.scope, self._receive, self._send) is None  # type: ignore[func-returns-value]
        finally:
            self.finished.set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve the connection while the block runs, and wait for its end after the block."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.run)
            yield

    @contextlib.asynccontextmanager
    async def running_cancellable(self) -> AsyncIterator[Callable[[], None]]:
        """Serve the connection while the block runs; the block gets a function that cancels the connection."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.run)
            yield tasks.cancel_scope.cancel

    async def until_sent(self, count: int, timeout: float = 5) -> None:
        """Wait until the app has sent `count` messages."""
        with anyio.fail_after(timeout):
            while len(self.sent) < count:
                changed = self._changed
                await changed.wait()

    # What the test looks at

    @property
    def status(self) -> int:
        """The status of the response."""
        start = next(message for message in self.sent if message["type"] == "http.response.start")
        status: int = start["status"]
        return status

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of the response."""
        start = next(message for message in self.sent if message["type"] == "http.response.start")
        return list(start["headers"])

    @property
    def body(self) -> bytes:
        """The part of the response's body that was sent."""
        return b"".join(message.get("body", b"") for message in self.sent if message["type"] == "http.response.body")

    @property
    def complete(self) -> bool:
        """Whether the response has ended."""
        return bool(self.sent) and self.sent[-1]["type"] == "http.response.body" and not self.sent[-1].get("more_body")

    # What the app calls

    async def _receive(self) -> Message:
        self.receive_calls += 1
        while not (self._incoming or self.complete):
            changed = self._changed
            await changed.wait()
        if self._disconnected or not self._incoming:  # servers report a disconnect after the response has ended, too
            return {"type": "http.disconnect"}
        return self._incoming.pop(0)

    async def _send(self, message: Message, /) -> None:
        assert not self.finished.is_set(), f"sent after the app had returned: {message!r}"
        self.send_threads.add(threading.get_ident())
        if not self._disconnected:
            self.sent.append(message)
            self._tell()
        await anyio.lowlevel.checkpoint()
        await self._open.wait()
        if self.send_error is not None:
            raise self.send_error

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


async def eventually(condition: Callable[[], object], timeout: float = 5) -> None:
    """Wait until `condition` is true, for threads that set no event; fail after `timeout` seconds."""
    with anyio.fail_after(timeout):
        while not condition():
            await anyio.sleep(0.001)


async def request(app: ASGIApp, scope: Scope | None = None, *blocks: bytes) -> ASGIServer:
    """Serve one whole request, within five seconds."""
    server = ASGIServer(app, scope, blocks or (b"",))
    with anyio.fail_after(5):
        await server.run()
    return server


class WSGIServer:
    """One request of a WSGI server, in the test's own thread."""

    def __init__(self, app: WSGIApp, environ: Environ | None = None) -> None:
        self.app = app
        self.environ = http_environ() if environ is None else environ
        self.starts: list[tuple[Any, ...]] = []
        self.blocks: list[bytes] = []
        self.threads: set[int] = set()
        self.iterable: Iterable[bytes] = ()

    def start_response(self, *args: Any, **kwargs: Any) -> Write:
        """Record a call; WSGI has no keyword arguments."""
        assert not kwargs
        self.threads.add(threading.get_ident())
        status: str
        headers: Headers
        exc_info: ExcInfo | None
        status, headers, exc_info = (*args, None)[:3]
        assert type(status) is str
        assert type(headers) is list
        assert all(type(header) is tuple and [type(part) for part in header] == [str, str] for header in headers)
        assert exc_info is not None or not self.starts, "start_response was called again"
        self.starts.append(args)

        def write(data: bytes) -> None:
            raise AssertionError("write() is for apps that cannot do otherwise")

        return write

    def call(self) -> Iterator[bytes]:
        """Call the app, and return the iterator over its blocks."""
        self.iterable = self.app(self.environ, self.start_response)
        return iter(self.iterable)

    def close(self) -> None:
        """Close the iterable, as a server must."""
        if hasattr(self.iterable, "close"):
            self.iterable.close()

    def run(self) -> None:
        """Serve the request to its end."""
        try:
            for block in self.call():
                assert type(block) is bytes
                assert self.starts or not block
                self.blocks.append(block)
        finally:
            self.close()

    @property
    def status(self) -> str:
        """The status of the response."""
        status: str = self.starts[-1][0]
        return status

    @property
    def headers(self) -> Headers:
        """The headers of the response."""
        headers: Headers = self.starts[-1][1]
        return headers

    @property
    def body(self) -> bytes:
        """The part of the response's body that was yielded."""
        return b"".join(self.blocks)


def respond(app: WSGIApp, environ: Environ | None = None) -> WSGIServer:
    """Serve one whole request in a thread of its own, within five seconds."""
    server = WSGIServer(app, environ)
    in_thread(server.run)
    return server


class ASGIWebSocket(ASGIServer):
    """One WebSocket of an ASGI server, which has sent `websocket.connect`.

    It checks the order of messages, and that there is one call of `receive` at a time; `receiving`
    tells whether there is one now.
    """

    def __init__(self, app: ASGIApp, scope: Scope | None = None) -> None:
        super().__init__(app, websocket_scope() if scope is None else scope, blocks=())
        self.receiving = False
        self._state = "connecting"
        self.feed_message({"type": "websocket.connect"})

    def feed_content(self, *contents: str | bytes) -> None:
        """Let the client send messages."""
        for content in contents:
            key = "text" if isinstance(content, str) else "bytes"
            self.feed_message({"type": "websocket.receive", key: content})

    def leave(self, code: int = 1006, reason: str = "") -> None:
        """Have the client leave."""
        self.feed_message({"type": "websocket.disconnect", "code": code, "reason": reason})

    @property
    def contents(self) -> list[str | bytes]:
        """The messages that the app has sent to the client."""
        sent = [message for message in self.sent if message["type"] == "websocket.send"]
        assert all(("text" in message) != ("bytes" in message) for message in sent)
        return [message.get("text", message.get("bytes")) for message in sent]

    async def _receive(self) -> Message:
        assert not self.receiving
        self.receiving = True
        try:
            return await super()._receive()
        finally:
            self.receiving = False

    async def _send(self, message: Message, /) -> None:
        self._state = next_state(WEBSOCKET, self._state, event_from_message(message))
        if message["type"] != "websocket.accept" and message["type"] != "websocket.send":
            assert not self.receiving, "some servers keep the answer to themselves while there is a receive"
        await super()._send(message)
