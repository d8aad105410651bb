"""An ASGI twin of `wsgiref.validate`: a layer that tells who breaks the ASGI spec, and which clause of it.

    from bridge.validate import validator

    app = validator(app)  # uvicorn module:app, ASGIToWSGI(validator(app)), validator(WSGIToASGI(app))

It goes between a server and an app, in tests and in development, and looks at the scope and at every message
of http, websocket and lifespan connections, both ways: its keys and their types, and whether its turn has
come. What is legal passes as it is, with it unknown keys, extensions that were offered, and connections of
other protocols; only an iterator becomes a list, as to look at it uses it up. What is not legal is an error,
raised to the one who can be told:

AppProtocolError
    Out of `send` and `receive`, for what the app sends, and for calls after its return; to the server, for an
    app that returns too early, or anything but None.
ServerProtocolError
    To the server, for its scope; out of `receive`, for its messages.

What the app catches of these is raised again when it returns. Each ends with the document, the section and
the clause (tests/conformance/clauses). What a server should do and need not is an ASGIWarning, and so are
response headers that are not in lower case, as all of Django's are not. A server that takes any error in the
lifespan for a lack of support hides what it would tell: set uvicorn's to "on".

`validator(app)` may serve any number of connections and loops, asyncio or trio, at once. `send` and `receive`
belong to the loop that the app was called on. They wait for nothing of their own.
"""

import inspect
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from bridge.errors import AppProtocolError, BridgeError, ServerProtocolError
from bridge.sansio.messages import DONE, LIFESPAN, RESPONSE, WEBSOCKET, Order, event_from_message
from bridge.sansio.redacted import shown
from bridge.sansio.shapes import EXTENSION_MESSAGES, MESSAGES, SCOPES, TLS, TOLERATED, Shape, is_plain
from bridge.types import ASGIApp, Message, Receive, Scope, Send


class ASGIWarning(Warning):
    """Issued for what the ASGI spec advises against, or forbids in vain."""


def validator(app: ASGIApp) -> ASGIApp:
    """Return an ASGI app that does what `app` does, and raises where `app` or its server breaks the spec."""
    return _Validator(app)


# --- Whose turn it is ---------------------------------------------------------------------------


def _with_all_extensions(order: Order) -> Order:
    """Add what the adapters do not offer: push and zero copy send where a body may come, one debug before all."""
    extended = {state: dict(events) for state, events in order.items()}
    for state, events in order.items():
        for event in ("http.response.body", "http.response.body+"):
            if event in events:
                extended[state]["http.response.push"] = state
                extended[state][event.replace("body", "zerocopysend")] = events[event]
    first = "nothing sent"
    extended["debug sent"] = {event: "debug sent" if to == first else to for event, to in extended[first].items()}
    extended[first]["http.response.debug"] = "debug sent"
    return extended


class _Protocol(NamedTuple):
    """Who says what in which order, which begins at its first state; and when the app must not return yet."""

    from_server: Order
    from_app: Order
    unfinished: Mapping[str, str]  # state -> clause
    section: str  # of those clauses


_PROTOCOLS: Final[Mapping[str, _Protocol]] = {
    "http": _Protocol(
        {
            "request due": {"http.request+": "request due", "http.request": "request ended", "http.disconnect": "gone"},
            "request ended": {"http.disconnect": "gone"},
            "gone": {"http.disconnect": "gone"},
        },
        _with_all_extensions(RESPONSE),
        {
            **dict.fromkeys(RESPONSE.keys() - {DONE}, "ASGI-HTTP-072"),
            **dict.fromkeys(("nothing sent", "debug sent"), "ASGI-HTTP-071"),
        },
        "ASGI HTTP spec, Response Start",
    ),
    "websocket": _Protocol(
        {
            "connect due": {"websocket.connect": "connected"},
            "connected": {"websocket.receive": "connected", "websocket.disconnect": "gone"},
            "gone": {"websocket.disconnect": "gone"},
        },
        WEBSOCKET,
        {"connecting": "ASGI-WS-011", "denial started": "ASGI-WS-026"},
        "ASGI WebSocket spec, Connect",
    ),
    "lifespan": _Protocol(
        {"startup due": {"lifespan.startup": "started"}, "started": {"lifespan.shutdown": "stopping"}},
        LIFESPAN,
        {"starting": "ASGI-LS-007", "serving": "ASGI-LS-019", "stopping": "ASGI-LS-026"},
        "ASGI lifespan spec",
    ),
}
# What is an answer to the other side, and so comes after it. Not so accept and close: in the spec's words
# they may come before the app has received its websocket.connect, and Starlette closes so.
_AFTER: Final = {
    "websocket.receive": "websocket.accept",
    "lifespan.startup.complete": "lifespan.startup",
    "lifespan.startup.failed": "lifespan.startup",
    "lifespan.shutdown": "lifespan.startup.complete",
}
_UNHEARD_OF: Final = Shape("ASGI spec, Extensions", "ASGI-CORE-039")  # an extension of somebody's own


class _Side:
    """The app or the server of a connection: what it may say next, and how to report it."""

    def __init__(self, name: str, error: type[BridgeError], order: Order) -> None:
        self.name = name
        self.error = error
        self.order = order
        self.state = next(iter(order))
        self.types = {event.rstrip("+") for events in order.values() for event in events}

    def fault(self, text: str, section: str, clause: str) -> BridgeError:
        return self.error(f"the {self.name} {text} ({section}; {clause})")

    def check(self, given: Mapping[str, Any], shape: Shape, what: str) -> None:
        """Raise unless what this side gave is made as it must be; warn if not as it should be."""
        for key in shape.required:
            if key not in given:
                raise self.fault(f"{what} without {key!r}", shape.section, shape.keys[key][0].clause)
        values = [(f"{what} whose {key!r} must be", given[key], shape.keys[key]) for key in shape.keys if key in given]
        for text, value, rules in [*values, (f"{what}, which must be", given, shape.whole)]:
            for rule in rules:
                if not rule.allows(value):
                    fault = self.fault(f"{text} {rule.text}, got {shown(value)}", shape.section, rule.clause)
                    if rule.clause not in TOLERATED:
                        raise fault
                    warnings.warn(str(fault), ASGIWarning, stacklevel=2)

    def step(self, event: str, shape: Shape, what: str) -> None:
        """Take the turn, or raise."""
        events = self.order.get(self.state, {})
        if event not in events:
            legal = " or ".join(dict.fromkeys(repr(event.rstrip("+")) for event in events)) or "no message"
            raise self.fault(f"{what} where the spec has {legal} ({self.state})", shape.section, shape.clause)
        self.state = events[event]


# --- The layer ----------------------------------------------------------------------------------


class _Validator:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._lifespans: list[_Connection] = []  # that run, on one loop each

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _has_type(scope):
            raise ServerProtocolError(
                f"the server gave no dict with str keys and a str 'type' for a scope, got {shown(scope)} "
                "(ASGI spec, Applications; ASGI-CORE-015)"
            )
        if scope["type"] not in _PROTOCOLS:
            await self._app(scope, receive, send)
            return
        connection = _Connection(_settled(scope), receive, send)
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
    """One call of the app: what has been said in it, and by that may be said next."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self._protocol = _PROTOCOLS[scope["type"]]
        self.server = _Side("server", ServerProtocolError, self._protocol.from_server)
        self.app = _Side("ASGI app", AppProtocolError, self._protocol.from_app)
        self._seen: set[str] = set()  # the types of messages
        self._gone = False  # the client has left, and the app has been told
        self._returned = False
        self._offered: list[str] = []
        self._fault: BridgeError | None = None

    def check_scope(self, lifespans: "list[_Connection]") -> None:
        """Raise unless the scope is what the spec has, and what the lifespans that are serving had."""
        scope_type = self.scope["type"]
        self.server.check(self.scope, SCOPES[scope_type], f"gave a scope of {scope_type!r}")
        extensions = self.scope.get("extensions", {})
        if "tls" in extensions:
            self.server.check(extensions["tls"], TLS, "gave a tls extension")
        # Now, as the app may change the scope. An extension's name may leave out the protocol.
        self._offered = [*extensions, *(f"{scope_type}.{name}" for name in extensions)]
        differs = [("state" in each.scope) != ("state" in self.scope) for each in lifespans]
        if scope_type != "lifespan" and differs and all(differs):
            text = "gave the state to only one of lifespan and connection"
            raise self.server.fault(text, "ASGI lifespan spec, Lifespan State", "ASGI-LS-013")

    async def run(self, app: ASGIApp) -> None:
        """Call the app, and look at how it returns."""
        try:
            awaitable: object = app(self.scope, self.receive, self.send)
            if not inspect.isawaitable(awaitable):
                text = f"must be a coroutine function, and its call gave {shown(awaitable)}"
                raise self.app.fault(text, "ASGI spec, Applications", "ASGI-CORE-013")
            result = await awaitable
        finally:
            self._returned = True
        if self._fault is not None:
            raise self._fault
        if result is not None:
            raise self.app.fault(f"returned {shown(result)}, not None", "ASGI spec, Applications", "ASGI-CORE-005")
        clause = self._protocol.unfinished.get(self.app.state)
        if clause and not self._gone:
            raise self.app.fault(f"returned too early ({self.app.state})", self._protocol.section, clause)

    async def receive(self) -> Message:
        """What the app gets for the server's `receive`."""
        self._check_not_returned("receive")
        responded = self.app.state == DONE  # before the call: one that waits may still get of the request
        message = self._judge(self.server, "gave", await self._receive(), responded)
        self._gone |= message["type"] in ("http.disconnect", "websocket.disconnect")
        if message["type"] == "lifespan.shutdown":
            self.app.state = "stopping"
        return message

    async def send(self, message: Message, /) -> None:
        """What the app gets for the server's `send`."""
        self._check_not_returned("send")
        message = self._judge(self.app, "sent", message)
        try:
            await self._send(message)
        except OSError:  # ASGI HTTP spec, Disconnected Client: the server's right
            self._gone = True
            raise

    def _check_not_returned(self, name: str) -> None:
        if self._returned:
            raise self.app.fault(f"called {name} after its return", "ASGI spec, Applications", "ASGI-CORE-005")

    def _judge(self, side: _Side, verb: str, message: Message, responded: bool = False) -> Message:
        """Return the message if it is legal; else keep what there is to say of it, and raise that."""
        try:
            return self._checked(side, verb, message, responded)
        except (AppProtocolError, ServerProtocolError) as fault:
            self._fault = self._fault or fault
            raise

    def _checked(self, side: _Side, verb: str, message: Message, responded: bool) -> Message:
        if not _has_type(message):
            text = f"{verb} {shown(message)}, and not a dict with str keys and a str 'type'"
            raise side.fault(text, "ASGI spec, Events", "ASGI-CORE-011")
        message = _settled(message)
        message_type = message["type"]
        what = f"{verb} {message_type!r}"
        core = MESSAGES.get(message_type) if message_type in side.types else None
        if core is None and not self._is_offered(message_type):
            text = f"{what}, which neither this protocol nor an extension in the scope has it say"
            raise side.fault(text, "ASGI spec, Extensions", "ASGI-CORE-039")
        shape = core or EXTENSION_MESSAGES.get(message_type, _UNHEARD_OF)
        side.check(message, shape, what)
        for key in message.keys() - shape.keys.keys():
            if not is_plain(message[key]):
                text = f"{what} whose {key!r} could not be sent over a network, {shown(message[key])}"
                raise side.fault(text, "ASGI spec, Events", "ASGI-CORE-012")
        if message_type not in side.types:
            return message
        event = event_from_message(message)
        if event == "http.response.start+" and not self._is_offered("http.response.trailers"):
            text = f"{what} with trailers, an extension that the scope does not offer"
            raise side.fault(text, "ASGI spec, Extensions", "ASGI-CORE-039")
        if _AFTER.get(message_type, message_type) not in self._seen | {message_type}:
            raise side.fault(f"{what} before {_AFTER[message_type]!r}", shape.section, shape.clause)
        if responded and message_type == "http.request":
            raise side.fault(f"{what} after the response", "ASGI HTTP spec, Disconnect", "ASGI-HTTP-079")
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
    """Return a scope or message that can be looked at and still be used: with lists in place of iterators."""
    lists: dict[str, Any] = {}
    for key in ("headers", "client", "server", "subprotocols", "links"):
        value = given.get(key)
        if isinstance(value, Iterator):
            lists[key] = value = list(value)
        if isinstance(value, list) and any(isinstance(item, Iterator) for item in value):
            lists[key] = [list(item) if isinstance(item, Iterator) else item for item in value]
    return {**given, **lists} if lists else given
