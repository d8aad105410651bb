"""The layer between a server and an app, which checks each scope, message and return before passing it on."""

import inspect
from collections.abc import Iterator
from typing import Any, Final, Literal, TypeAlias, get_args

from bridge.errors import AppProtocolError, BridgeError, ServerProtocolError
from bridge.sansio.messages import DONE, event_from_message
from bridge.sansio.redacted import shown
from bridge.sansio.rules import is_plain
from bridge.sansio.shapes import EXTENSION_MESSAGES, MESSAGES, SCOPES, TLS, Shape
from bridge.types import ASGIApp, Message, Receive, Scope, Send
from bridge.validate.order import AFTER, PROTOCOLS
from bridge.validate.side import Side

# Whose faults are reported.
Judge: TypeAlias = Literal["app", "server", "both"]
_UNHEARD_OF: Final = Shape("ASGI spec, Extensions", "ASGI-CORE-039")  # of an extension that no spec describes


def validator(app: ASGIApp, *, judge: Judge = "both") -> ASGIApp:
    """Return an ASGI app that does what `app` does, and raises where `app` or its server breaks the ASGI spec.

    It raises AppProtocolError and ServerProtocolError, and issues ASGIWarning, as the docstring of the module says.
    `judge` says whose faults these are: "app" and "server" let the other side do what it wants. Use "app" behind test
    clients, whose scopes lack what the spec demands. Raises ValueError for another value.
    """
    if judge not in get_args(Judge):
        raise ValueError(f"judge: expected 'app', 'server' or 'both', got {judge!r}")
    return Validator(app, judge)


class Validator:
    """The app that `validator` returns."""

    def __init__(self, app: ASGIApp, judge: Judge) -> None:
        self._app = app
        self._judge = judge
        self._lifespans: list[_Connection] = []  # the running ones; each loop has its own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _has_type(scope) and self._judge != "app":
            raise ServerProtocolError(
                f"the server passed a scope that is not a dict with str keys and a str 'type', got {shown(scope)} "
                "(ASGI spec, Applications; ASGI-CORE-015)"
            )
        if not _has_type(scope) or scope["type"] not in PROTOCOLS:
            await self._app(scope, receive, send)
            return
        connection = _Connection(_settled(scope), receive, send, self._judge)
        connection.check_scope([each for each in self._lifespans if each.app.state == "serving"])
        if scope["type"] != "lifespan":
            await connection.run(self._app)
            return
        self._lifespans.append(connection)
        try:
            await connection.run(self._app)
        finally:
            self._lifespans.remove(connection)


class _Connection:
    """One call of the app: what both sides have said in it, which decides what they may say next."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, judge: Judge) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self._protocol = PROTOCOLS[scope["type"]]
        self.server = Side("server", ServerProtocolError, self._protocol.from_server, judge != "app")
        self.app = Side("ASGI app", AppProtocolError, self._protocol.from_app, judge != "server")
        self._seen: set[str] = set()  # the types of messages
        self._gone = False  # the app has been told that the client has left
        self._returned = False
        self._offered: list[str] = []
        self._fault: BridgeError | None = None

    def check_scope(self, lifespans: "list[_Connection]") -> None:
        """Raise unless the scope has the spec's shape, and has `state` as one of the serving lifespans had."""
        scope_type = self.scope["type"]
        self.server.check(self.scope, SCOPES[scope_type], f"passed a scope of type {scope_type!r}")
        extensions = self.scope.get("extensions") or {}
        if "tls" in extensions:
            self.server.check(extensions["tls"], TLS, "passed a tls extension")
        # Noted now, because the app may change the scope. The name of an extension may leave out the protocol.
        self._offered = [*extensions, *(f"{scope_type}.{name}" for name in extensions)]
        differs = [("state" in each.scope) != ("state" in self.scope) for each in lifespans]
        if scope_type != "lifespan" and differs and all(differs):
            text = "put 'state' into only one of the two scopes, the lifespan's and the connection's"
            self.server.blame(text, "ASGI lifespan spec, Lifespan State", "ASGI-LS-013")

    async def run(self, app: ASGIApp) -> None:
        """Call the app, and check how it returns."""
        try:
            awaitable: Any = app(self.scope, self.receive, self.send)
            if not inspect.isawaitable(awaitable):
                text = f"must be a coroutine function, but its call returned {shown(awaitable)}"
                self.app.blame(text, "ASGI spec, Applications", "ASGI-CORE-013")
            result = await awaitable
        finally:
            self._returned = True
        if self._fault is not None:
            raise self._fault
        if result is not None:
            self.app.blame(f"returned {shown(result)}, not None", "ASGI spec, Applications", "ASGI-CORE-005")
        clause = self._protocol.unfinished.get(self.app.state)
        if clause and not self._gone:
            self.app.blame(f"returned too early ({self.app.state})", self._protocol.section, clause)

    async def receive(self) -> Message:
        """The `receive` that the app gets."""
        self._check_not_returned("receive")
        responded = (
            self.app.state == DONE
        )  # before the call, because one that waits now may still get a part of the request
        message = self._judge(self.server, await self._receive(), responded)
        message_type = message["type"] if _has_type(message) else None  # a server that is not judged may send anything
        self._gone |= message_type in ("http.disconnect", "websocket.disconnect")
        if message_type == "lifespan.shutdown":
            self.app.state = "stopping"
        return message

    async def send(self, message: Message, /) -> None:
        """The `send` that the app gets."""
        self._check_not_returned("send")
        message = self._judge(self.app, message)
        try:
            await self._send(message)
        except OSError:  # a server may raise it for a client that has left (ASGI HTTP spec, Disconnected Client)
            self._gone = True
            raise

    def _check_not_returned(self, name: str) -> None:
        if self._returned:
            self.app.blame(f"called {name} after it had returned", "ASGI spec, Applications", "ASGI-CORE-005")

    def _judge(self, side: Side, message: Message, responded: bool = False) -> Message:
        """Return the message if it is legal. If not, raise the fault, and note it in case the app catches it."""
        try:
            return self._checked(side, message, responded)
        except (AppProtocolError, ServerProtocolError) as fault:
            self._fault = self._fault or fault
            raise

    def _checked(self, side: Side, message: Message, responded: bool) -> Message:
        if not _has_type(message):
            text = f"sent {shown(message)} instead of a dict with str keys and a str 'type'"
            side.blame(text, "ASGI spec, Events", "ASGI-CORE-011")
            return message
        message = _settled(message)
        message_type = message["type"]
        what = f"sent {message_type!r}"
        core = MESSAGES.get(message_type) if message_type in side.types else None
        if core is None and not self._is_offered(message_type):
            text = f"{what}, which neither this protocol nor an extension in the scope lets it send"
            side.blame(text, "ASGI spec, Extensions", "ASGI-CORE-039")
        shape = core or EXTENSION_MESSAGES.get(message_type, _UNHEARD_OF)
        side.check(message, shape, what)
        for key in message.keys() - shape.keys.keys():
            if side.judged and not is_plain(message[key]):
                text = f"{what} whose {key!r} could not be sent over a network, got {shown(message[key])}"
                side.blame(text, "ASGI spec, Events", "ASGI-CORE-012")
        if message_type not in side.types:
            return message
        if message_type == "http.response.debug" and side.state not in ("nothing sent", "debug sent"):
            text = f"{what} after 'http.response.start'"  # as behind Starlette's BaseHTTPMiddleware
            side.blame(text, shape.section, shape.clause, tolerated=True)
            return message
        event = event_from_message(message)
        if event == "http.response.start+" and not self._is_offered("http.response.trailers"):
            text = f"{what} with trailers, an extension that the scope does not offer"
            side.blame(text, "ASGI spec, Extensions", "ASGI-CORE-039")
        if AFTER.get(message_type, message_type) not in self._seen | {message_type}:
            side.blame(f"{what} before {AFTER[message_type]!r}", shape.section, shape.clause)
        if responded and message_type == "http.request":
            side.blame(
                f"{what} after the response, not 'http.disconnect'", "ASGI HTTP spec, Disconnect", "ASGI-HTTP-079"
            )
        # "Messages received after the connection has been closed are generally not considered errors."
        if side is self.server or not self._gone:
            side.step(event, shape, what)
        self._seen.add(message_type)
        return message

    def _is_offered(self, name: str) -> bool:
        return any(name == each or name.startswith(f"{each}.") for each in self._offered)


def _has_type(given: object) -> bool:
    return isinstance(given, dict) and all(isinstance(key, str) for key in given) and isinstance(given.get("type"), str)


def _settled(given: Message) -> Message:
    """Return the scope or message with lists in place of iterators, so that checking it does not use it up."""
    lists: dict[str, Any] = {}
    for key in ("headers", "client", "server", "subprotocols", "links"):
        value = given.get(key)
        if isinstance(value, Iterator):
            lists[key] = value = list(value)
        if isinstance(value, list) and any(isinstance(item, Iterator) for item in value):
            lists[key] = [list(item) if isinstance(item, Iterator) else item for item in value]
    return {**given, **lists} if lists else given
