"""The legal order of the messages an ASGI app sends, as tables.

A table maps a state to the events that are legal in it and the state each leads to. An event is a
message's type, with a `+` behind it if the message says that more of its kind will follow.
"""

from collections.abc import Mapping
from typing import Final, TypeAlias

from bridge.errors import AppProtocolError, ServerProtocolError
from bridge.sansio.redacted import shown
from bridge.types import Message

Order: TypeAlias = Mapping[str, Mapping[str, str]]

DONE: Final = "done"

_START = "http.response.start"
_BODY = "http.response.body"
_PATHSEND = "http.response.pathsend"
_TRAILERS = "http.response.trailers"
_EARLY_HINT = "http.response.early_hint"
_DENIAL_START = "websocket.http.response.start"
_DENIAL_BODY = "websocket.http.response.body"

# ASGI HTTP spec, "Response Start" and "Response Body"; docs/extensions, "Path Send" ("must not be
# mixed with http.response.body"), "Early Hints" (before the final response, though the text has it
# after the start: both), "HTTP Trailers" (only if the start promised them, which adds a `+` to it).
RESPONSE: Final[Order] = {
    "nothing sent": {
        _START: "started",
        f"{_START}+": "started, trailers promised",
        _EARLY_HINT: "nothing sent",
    },
    "started": {
        f"{_BODY}+": "streaming",
        _BODY: DONE,
        _PATHSEND: DONE,
        _EARLY_HINT: "started",
    },
    "streaming": {
        f"{_BODY}+": "streaming",
        _BODY: DONE,
        _EARLY_HINT: "streaming",
    },
    "started, trailers promised": {
        f"{_BODY}+": "streaming, trailers promised",
        _BODY: "trailers due",
        _PATHSEND: "trailers due",
        _EARLY_HINT: "started, trailers promised",
    },
    "streaming, trailers promised": {
        f"{_BODY}+": "streaming, trailers promised",
        _BODY: "trailers due",
        _EARLY_HINT: "streaming, trailers promised",
    },
    "trailers due": {
        f"{_TRAILERS}+": "trailers due",
        _TRAILERS: DONE,
    },
    DONE: {},
}

# ASGI WebSocket spec, "Accept", "Send", "Close"; docs/extensions, "WebSocket Denial Response": a close
# or an HTTP response in place of accept refuses the connection.
WEBSOCKET: Final[Order] = {
    "connecting": {
        "websocket.accept": "open",
        "websocket.close": DONE,
        _DENIAL_START: "denial started",
    },
    "open": {
        "websocket.send": "open",
        "websocket.close": DONE,
    },
    "denial started": {
        f"{_DENIAL_BODY}+": "denial started",
        _DENIAL_BODY: DONE,
    },
    DONE: {},
}

# ASGI lifespan spec. The server moves "serving" to "stopping" by its lifespan.shutdown message.
LIFESPAN: Final[Order] = {
    "starting": {
        "lifespan.startup.complete": "serving",
        "lifespan.startup.failed": "failed",
    },
    "serving": {},
    "stopping": {
        "lifespan.shutdown.complete": DONE,
        "lifespan.shutdown.failed": DONE,
    },
    "failed": {},
    DONE: {},
}

_MORE_KEYS: Final[Mapping[str, str]] = {
    _START: "trailers",
    _BODY: "more_body",
    _TRAILERS: "more_trailers",
    _DENIAL_BODY: "more_body",
    # For `bridge.validate`, which looks at the server too, and at what the adapters do not offer:
    "http.request": "more_body",
    "http.response.zerocopysend": "more_body",
}


def event_from_message(message: Message) -> str:
    """Return the message's type, with a `+` if more will follow. Raises AppProtocolError."""
    try:
        message_type = message["type"]
        more_key = _MORE_KEYS.get(message_type)
        return f"{message_type}+" if more_key and message.get(more_key) else message_type
    except (TypeError, KeyError, AttributeError):
        raise AppProtocolError(
            f"an ASGI message is a dict with a str 'type', got {shown(message)} (ASGI spec, Events)"
        ) from None


def type_from_message(message: Message) -> str:
    """Return the type of a server's message. Raises ServerProtocolError."""
    try:
        message_type = message["type"]
    except (TypeError, KeyError):
        message_type = None
    if not isinstance(message_type, str):
        raise ServerProtocolError(
            f"an ASGI message is a dict with a str 'type', the server gave {type(message).__name__} (ASGI spec, Events)"
        )
    return message_type


def next_state(order: Order, state: str, event: str) -> str:
    """Return the state that `event` leads to; raises AppProtocolError where it is not legal."""
    try:
        return order[state][event]
    except (KeyError, TypeError):
        legal = " or ".join(dict.fromkeys(repr(legal.rstrip("+")) for legal in order[state])) or "no message"
        raise AppProtocolError(
            f"ASGI app sent {str(event).rstrip('+')!r:.200} where the spec has {legal} ({state})"
        ) from None
