"""A fake ASGI server that records everything; an adapter that hangs does not block the tests.

Connections run on a loop in another thread. The test tells the client what to do, waits up to the deadline, and checks
the log.
"""

import contextlib
import copy
import math
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Self, TypeAlias

import anyio
import anyio.lowlevel

from wsgi_asgi_conformance.exchange import Exchange, Server, joined
from wsgi_asgi_conformance.lint import SERVER_FAULTS, validator
from wsgi_asgi_conformance.loops import Loop, Loops
from wsgi_asgi_conformance.samples import http_scope
from wsgi_asgi_conformance.types import ASGIApp, Message, Receive, Scope, Send

# The class under test; a test passes options only if it checks them.
ToASGI: TypeAlias = Callable[..., ASGIApp]


class ASGIConnection(Exchange):
    """One connection of an ASGI server.

    Logged: "receive" and "send" when the adapter calls them, with the message; "received" and "sent" when they
    return; "disconnect" and "cancel" when the test makes that happen.
    """

    def __init__(
        self, app: ASGIApp, scope: Scope, loop: Loop, deadline: float, hold_after: int | None, incoming: list[Message]
    ) -> None:
        super().__init__(deadline, hold_after)
        self.app = app
        self.scope = scope
        self.loop = loop
        self._send_error: Exception | None = None
        self._incoming = deque(incoming)
        self._waiters: list[anyio.Event] = []  # used on the loop only
        self._cancel = loop.start(self._run)

    # What the client does

    def feed(self, body: bytes, more_body: bool = False) -> None:
        """Add a block to the request's body."""
        self.feed_message({"type": "http.request", "body": body, "more_body": more_body})

    def feed_message(self, message: Message) -> None:
        """Add a message for `receive` to return."""
        self._incoming.append(message)
        self.loop.call_soon(self._wake)

    def hold(self) -> None:
        """Make each `send` wait from now on, as for a client that does not read."""
        self._hold_after = self._counts["send"]

    def release(self) -> None:
        """Let `send` return again."""
        self._hold_after = math.inf
        self.loop.call_soon(self._wake)

    def disconnect(self, send_error: Exception | None = None) -> None:
        """Make the client leave: `receive` reports it, and `send` does nothing or raises `send_error`."""
        self._record("disconnect")
        self._send_error = send_error
        self._disconnected = True
        self.release()

    def cancel(self) -> None:
        """Cancel the task, as servers do when they will not wait any longer."""
        self._record("cancel")
        self._cancel()

    def settle(self) -> Self:
        """Let the loop run a few iterations, so that everything that is ready runs."""
        for _ in range(10):
            turned = threading.Event()
            self.loop.call_soon(turned.set)
            assert turned.wait(self.deadline), "the loop is stuck"
        return self

    # What the test looks at

    @property
    def failed(self) -> bool:
        """Whether the client learns of an error: the call raised, or the adapter sent a 500."""
        starts = [message for message in self.sent if message["type"] == "http.response.start"]
        return self.error is not None or (bool(starts) and starts[0]["status"] == 500)

    @property
    def sent(self) -> list[Any]:
        """The messages that `send` was called with."""
        return self.values("send")

    @property
    def status(self) -> int:
        """The status of the response."""
        return int(self._start()["status"])

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of the response, in pairs."""
        return [(name, value) for name, value in self._start().get("headers", ())]

    @property
    def body(self) -> bytes:
        """The part of the response's body that was sent."""
        return joined(message.get("body", b"") for message in self.sent if message["type"] == "http.response.body")

    @property
    def complete(self) -> bool:
        """Whether the response has ended."""
        return any(message["type"] == "http.response.body" and not message.get("more_body") for message in self.sent)

    def _start(self) -> Any:
        starts = [message for message in self.sent if message["type"] == "http.response.start"]
        assert starts, f"there is no response; the call ended with {self.error!r}"
        return starts[0]

    # ON THE LOOP

    async def _run(self) -> None:
        self._record("call")
        try:
            await self.app(self.scope, self._receive, self._send)
        except BaseException as error:
            self._end(error)
        else:
            self._end(None)

    async def _receive(self) -> Message:
        self._record("receive")
        while (message := self._maybe_message()) is None:
            await self._changed()
        self._record("received", message)
        return message

    def _maybe_message(self) -> Message | None:
        """Return the client's next message, if there is one. After a response, only its disconnect is left."""
        if self.scope["type"] == "http" and (self._disconnected or self.complete):
            return {"type": "http.disconnect"}
        if self.scope["type"] == "websocket" and self._disconnected:
            return {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        return self._incoming.popleft() if self._incoming else None

    async def _send(self, message: Message) -> None:
        number = self._counts["send"]
        self._record("send", copy.copy(message))
        self._wake()  # a receive() may have waited for the end of the response
        await anyio.lowlevel.checkpoint()
        while number >= self._hold_after:
            await self._changed()
        if self._send_error is not None:
            raise self._send_error
        self._record("sent", message)

    async def _changed(self) -> None:
        event = anyio.Event()
        self._waiters.append(event)
        await event.wait()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for event in waiters:
            event.set()


class ASGIServer(Server):
    """Serves connections on a loop in another thread; called with an app, it starts one.

    The request's body is `blocks`, or empty; with `more_body`, the test feeds more of it later. The first
    `hold_after` calls of `send` return at once, and later ones after `release()`. For scopes other than http, the
    test feeds all messages.
    """

    def __init__(self, loops: Loops, backend: str, deadline: float, strict: bool = True) -> None:
        super().__init__(deadline, strict)
        self.backend = backend
        self._loops = loops
        self._connections: list[ASGIConnection] = []

    def __call__(
        self,
        app: ASGIApp,
        scope: Scope | None = None,
        *blocks: bytes,
        more_body: bool = False,
        hold_after: int | None = None,
    ) -> ASGIConnection:
        scope = http_scope() if scope is None else scope
        incoming: list[Message] = []
        if scope["type"] == "http":
            incoming = [{"type": "http.request", "body": block, "more_body": True} for block in blocks]
            if not more_body:
                incoming = incoming or [{"type": "http.request", "body": b""}]
                incoming[-1]["more_body"] = False
        loop = self._loops.get(self.backend)
        connection = ASGIConnection(app, scope, loop, self.deadline, hold_after, incoming)
        self._connections.append(connection)
        return connection

    def close(self) -> None:
        """End all connections, and abandon the loops of those that do not end."""
        for connection in self._connections:
            if connection.scope["type"] == "lifespan":  # no client's leaving ends it
                connection.cancel()
        try:
            self._end_all(self._connections)
        finally:
            for connection in self._connections:
                if not connection.ended:
                    connection.cancel()
                    self._loops.abandon(connection.loop)

    def check_messages(self) -> None:
        """Make `bridge.validate` check every message that was sent, including those that the test did not check."""
        for connection in self._connections:
            if connection.scope["type"] == "http":
                _check_messages(connection)


class _EndOfLog(Exception):
    """Raised when the replay of a connection has no more messages."""


def _check_messages(connection: ASGIConnection) -> None:
    """Replay a connection through the validator, up to where the test made the server break the spec."""
    received = iter(connection.values("received"))
    scope = http_scope(extensions=connection.scope.get("extensions") or {})

    async def replay(scope: Scope, receive: Receive, send: Send) -> None:
        for entry in connection.entries("received", "send"):
            if entry.kind == "received":
                await receive()
            else:
                await send(entry.value)
        raise _EndOfLog

    async def receive() -> Message:
        return next(received)

    async def send(message: Message) -> None:
        pass

    with contextlib.suppress(_EndOfLog, *SERVER_FAULTS):
        validator(replay)(scope, receive, send).send(None)  # type: ignore[attr-defined]  # a coroutine: nothing waits
