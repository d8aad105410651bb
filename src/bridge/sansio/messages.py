"""The legal order of the messages that an ASGI app sends, as tables.

A table maps each state to the events that are legal in it, and each event to the state that it leads to. An event is
a message's type, followed by `+` if the message says that more of its kind will come.
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

# ASGI HTTP spec, "Response Start" and "Response Body"; docs/extensions, "Path Send" ("must not be mixed with
# http.response.body"), "Early Hints" (legal before the start, as the spec intends, and after it, as it says), and "HTTP
# Trailers" (only if the start announced them, which adds a `+` to it).
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

# ASGI WebSocket spec, "Accept", "Send", "Close"; docs/extensions, "WebSocket Denial Response". An app refuses the
# connection by a close or an HTTP response instead of an accept.
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

# ASGI lifespan spec. The server's lifespan.shutdown message changes "serving" to "stopping".
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
    # Only for `bridge.validate`, which also checks servers, and extensions that the adapters do not offer:
    "http.request": "more_body",
    "http.response.zerocopysend": "more_body",
}


def event_from_message(message: Message) -> str:
    """Return the type of an app's message, with a `+` if more of its kind will come. Raises AppProtocolError."""
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
            f"an ASGI message is a dict with a str 'type', got {type(message).__name__} from the server "
            "(ASGI spec, Events)"
        )
    return message_type


def next_state(order: Order, state: str, event: str) -> str:
    """Return the state that `event` leads to. Raises AppProtocolError if `event` is not legal in `state`."""
    try:
        return order[state][event]
    except (KeyError, TypeError):
        legal = " or ".join(dict.fromkeys(repr(legal.rstrip("+")) for legal in order[state])) or "no message"
        raise AppProtocolError(
            f"the ASGI app sent {str(event).rstrip('+')!r:.200} where the spec allows {legal} ({state})"
        ) from None
