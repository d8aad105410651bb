"""The opening handshake of a WebSocket (RFC 6455 4), its messages, and its close codes (7.4)."""

import base64
import binascii
import hashlib
import re
from typing import Any, NamedTuple

from bridge.errors import AppProtocolError
from bridge.sansio.redacted import shown
from bridge.sansio.response_headers import native_from_raw_headers
from bridge.types import Environ, Headers, Message, Scope

# RFC 6455 1.3: a server adds this to the key, so that no server accepts a WebSocket by accident.
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# The adapter sends these headers, so an app's `headers` must not hold them (ASGI WebSocket spec, Accept).
_OF_THE_HANDSHAKE = {"sec-websocket-accept", "sec-websocket-extensions", "sec-websocket-protocol"}
# RFC 6455 7.4: the codes that a Close frame may hold; 1004 to 1006 and 1015 are never sent.
_CLOSE_CODES = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
# RFC 6455 4.1: a subprotocol is a token.
_SUBPROTOCOL = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class Refusal(NamedTuple):
    """A response that refuses a handshake; `text` says why."""

    status: str
    text: str
    headers: Headers = []  # noqa: RUF012  # read only


def add_upgrade(environ: Environ, scope: Scope) -> None:
    """Add to `environ` what a handshake holds over HTTP/1.1, even if it came over HTTP/2 (RFC 8441).

    The adapter, which plays the client, adds a key later. The variables of extensions and of a body are removed,
    because the server handles compression and a handshake has no body. Raises TypeError for values of a wrong type.
    """
    for name in ("EXTENSIONS", "KEY", "PROTOCOL"):
        environ.pop(f"HTTP_SEC_WEBSOCKET_{name}", None)
    for key in ("CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"):
        environ.pop(key, None)
    environ["REQUEST_METHOD"] = "GET"
    environ["SERVER_PROTOCOL"] = "HTTP/1.1"
    environ["HTTP_CONNECTION"] = "Upgrade"
    environ["HTTP_UPGRADE"] = "websocket"
    environ["HTTP_SEC_WEBSOCKET_VERSION"] = "13"
    environ.setdefault("HTTP_HOST", f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}")
    offered = scope.get("subprotocols") or ()
    if isinstance(offered, str) or not all(isinstance(scope.get(key) or {}, dict) for key in ("asgi", "extensions")):
        raise TypeError
    if subprotocols := [text for text in offered if _SUBPROTOCOL.fullmatch(text)]:
        environ["HTTP_SEC_WEBSOCKET_PROTOCOL"] = ", ".join(subprotocols)


def is_websocket_request(environ: Environ) -> bool:
    """Return whether the client asks for a WebSocket. `maybe_refusal` tells whether the handshake is correct."""
    return (
        "HTTP_UPGRADE" in environ  # first, because it is cheap and most requests have none
        and "websocket" in _tokens(environ, "HTTP_UPGRADE")
        and "upgrade" in _tokens(environ, "HTTP_CONNECTION")
    )


def maybe_refusal(environ: Environ) -> Refusal | None:
    """Return the response to a handshake that breaks RFC 6455 4.2.1, or None if it is correct."""
    if environ.get("REQUEST_METHOD") != "GET":
        return Refusal("405 Method Not Allowed", "A WebSocket handshake is a GET request.", [("Allow", "GET")])
    if _text(environ, "HTTP_SEC_WEBSOCKET_VERSION").strip() != "13":
        # RFC 6455 4.4. RFC 9110 15.5.22 also requires an Upgrade header, but PEP 3333 forbids it to an app.
        return Refusal(
            "426 Upgrade Required", "Only version 13 of WebSocket is supported.", [("Sec-WebSocket-Version", "13")]
        )
    try:
        key = base64.b64decode(_text(environ, "HTTP_SEC_WEBSOCKET_KEY").strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 16:
        return Refusal("400 Bad Request", "Sec-WebSocket-Key must be 16 bytes in base64.")
    if environ.get("CONTENT_LENGTH") not in (None, "", "0", 0) or "HTTP_TRANSFER_ENCODING" in environ:
        # The bytes of a body would be taken for frames.
        return Refusal("400 Bad Request", "A WebSocket handshake has no body.")
    return None


def websocket_scope_from_http(scope: Scope) -> dict[str, Any]:
    """Return the websocket scope of a handshake that came as an http scope (ASGI WebSocket spec)."""
    websocket = {key: value for key, value in scope.items() if key != "method"}
    websocket.update(
        type="websocket",
        asgi={"version": "3.0", "spec_version": "2.5"},
        http_version="1.1",  # not the server's, because eventlet reports 1.0 for each
        scheme="wss" if scope["scheme"] == "https" else "ws",
        subprotocols=[
            token.strip()
            for name, value in scope["headers"]
            if name == b"sec-websocket-protocol"
            for token in value.decode("latin-1").split(",")
            if token.strip()
        ],
        extensions={"websocket.http.response": {}},
    )
    if "tls" in scope["extensions"]:
        websocket["extensions"]["tls"] = scope["extensions"]["tls"]
    return websocket


def accept_from_key(key: str) -> str:
    """Return the value of Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.strip().encode("latin-1") + _GUID).digest()).decode()


def response_from_accept(message: Message, key: str, subprotocols: list[str], extensions: str | None) -> bytes:
    """Return the 101 response for a websocket.accept, as bytes.

    `subprotocols` are those that the client offered; `extensions` is the header that accepts some, if any. Raises
    AppProtocolError if the message chooses another subprotocol or sets one of the handshake's own headers.
    """
    headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept_from_key(key))]
    subprotocol = message.get("subprotocol")
    if subprotocol is not None:
        if subprotocol not in subprotocols:
            raise AppProtocolError(
                f"the app chose a subprotocol, {shown(subprotocol)}, which is not one of the {len(subprotocols)} "
                "that the client offered (RFC 6455 4.2.2)"
            )
        headers.append(("Sec-WebSocket-Protocol", subprotocol))
    if extensions is not None:
        headers.append(("Sec-WebSocket-Extensions", extensions))
    for name, value in native_from_raw_headers(message.get("headers") or ()):
        if name.lower() in _OF_THE_HANDSHAKE:
            raise AppProtocolError(
                f"the headers of websocket.accept must not hold {name!r} (ASGI WebSocket spec, Accept)"
            )
        headers.append((name, value))
    lines = ["HTTP/1.1 101 Switching Protocols", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def payload_from_send(message: Message) -> bytes | str:
    """Return the payload of a websocket.send. Raises AppProtocolError unless it has exactly one of bytes and text."""
    payload, text = message.get("bytes"), message.get("text")
    if isinstance(text, str) and payload is None:
        return text
    if isinstance(payload, bytes) and text is None:
        return payload
    if isinstance(payload, (bytearray, memoryview)) and text is None:
        return bytes(payload)
    raise AppProtocolError(
        f"websocket.send carries either 'bytes' or a str 'text', got {shown(message)} (ASGI WebSocket spec, Send)"
    )


def code_and_reason_from_close(message: Message) -> tuple[int, str]:
    """Return the code and the reason of a websocket.close, by default 1000 and "". Raises AppProtocolError."""
    code = message.get("code")
    code = 1000 if code is None else code
    if not isinstance(code, int) or code not in _CLOSE_CODES:
        raise AppProtocolError(
            f"the code of websocket.close must be from 1000 to 1003, 1007 to 1014 or 3000 to 4999, got {shown(code)} "
            "(RFC 6455 7.4)"
        )
    reason = message.get("reason") or ""
    if not isinstance(reason, str):
        raise AppProtocolError(f"'reason' must be a str, got {shown(reason)} (ASGI WebSocket spec, Close)")
    return int(code), reason


def _tokens(environ: Environ, key: str) -> list[str]:
    return [token.strip().lower() for token in _text(environ, key).split(",")]


def _text(environ: Environ, key: str) -> str:
    """Return a request header, or "" if it is not a str. The scope's headers leave these out, too."""
    value = environ.get(key)
    return value if isinstance(value, str) else ""
