"""Conversations of an app and a server through the validator: the messages, and a function that plays them."""

from typing import Any, NamedTuple

from bridge.sansio.shapes import EXTENSION_MESSAGES
from bridge.types import Message, Receive, Scope, Send
from bridge.validate import validator
from tests.fakes import http_scope


class Said(NamedTuple):
    """A message, and who sends it."""

    by_app: bool
    message: Any


def gives(message_type: str, **keys: Any) -> Said:
    """Return a message of the server."""
    return Said(False, {"type": message_type, **keys})


def sends(message_type: str, **keys: Any) -> Said:
    """Return a message of the app."""
    return Said(True, {"type": message_type, **keys})


async def converse(scope: Any, *conversation: Said, returned: Any = None) -> list[Message]:
    """Play a conversation with the validator between app and server; return the messages that either received."""
    got: list[Message] = []
    given = iter([said.message for said in conversation if not said.by_app])

    async def app(scope: Scope, receive: Receive, send: Send) -> Any:
        for said in conversation:
            if said.by_app:
                await send(said.message)
            else:
                got.append(await receive())
        return returned

    async def receive() -> Message:
        return next(given)

    async def send(message: Message) -> None:
        got.append(message)

    await validator(app)(scope, receive, send)
    return got


def websocket_scope(**keys: Any) -> dict[str, Any]:
    """Return the scope of a plain WebSocket, with `keys` in place of its own."""
    scope = {**http_scope(), "type": "websocket", "scheme": "ws", "subprotocols": ["chat"], **keys}
    del scope["method"]
    return scope


def lifespan_scope(**keys: Any) -> dict[str, Any]:
    """Return the scope of a lifespan, with `keys` in place of its own."""
    return {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}, **keys}


def without(scope: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the scope without one key."""
    return {name: value for name, value in scope.items() if name != key}


EXTENSIONS: dict[str, Any] = {
    name: {}
    for name in [*EXTENSION_MESSAGES, "websocket.http.response"]
    if not name.startswith("websocket.http.response.")
}
HTTP = http_scope()
OFFERING = http_scope(extensions=EXTENSIONS)
WEBSOCKET = websocket_scope(extensions=EXTENSIONS)
LIFESPAN = lifespan_scope()

REQUEST = gives("http.request", body=b"", more_body=False)
GONE = gives("http.disconnect")
START = sends("http.response.start", status=200, headers=[(b"content-type", b"text/plain")])
TRAILED = sends("http.response.start", status=200, trailers=True)
MIXED_CASE = sends("http.response.start", status=200, headers=[(b"Content-Type", b"text/plain")])
BODY = sends("http.response.body", body=b"whole")
MORE = sends("http.response.body", body=b"part", more_body=True)
HINT = sends("http.response.early_hint", links=[b"</style.css>; rel=preload"])
PUSH = sends("http.response.push", path="/style.css", headers=[])
FILE = sends("http.response.pathsend", path="/etc/hostname")
TRAILERS = sends("http.response.trailers", headers=[(b"digest", b"x")])
DEBUG = sends("http.response.debug", info={"template": object()})
CONNECT = gives("websocket.connect")
ACCEPT = sends("websocket.accept")
TEXT = gives("websocket.receive", text="text")
REPLY = sends("websocket.send", bytes=b"bytes")
CLOSE = sends("websocket.close")
LEFT = gives("websocket.disconnect", code=1001)
DENIAL = sends("websocket.http.response.start", status=401)
DENIAL_MIXED_CASE = sends("websocket.http.response.start", status=401, headers=[(b"A", b"b")])
DENIED = sends("websocket.http.response.body", body=b"no")
STARTUP = gives("lifespan.startup")
COMPLETE = sends("lifespan.startup.complete")
SHUTDOWN = gives("lifespan.shutdown")
STOPPED = sends("lifespan.shutdown.complete")
LINES = [(b"a", b"b\r\nc: d")]  # one header that would become two


def zero_copy(**keys: Any) -> Said:
    return sends("http.response.zerocopysend", **keys)


class Descriptor:
    """The smallest file object for zero copy send."""

    def fileno(self) -> int:
        return 1
