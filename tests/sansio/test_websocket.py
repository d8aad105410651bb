import re
from typing import Any

import pytest

from bridge.errors import AppProtocolError
from bridge.sansio.request import (
    environ_from_scope,
    scope_from_environ,
)
from bridge.sansio.websocket import (
    accept_from_key,
    code_and_reason_from_close,
    is_websocket_request,
    maybe_refusal,
    payload_from_send,
    response_from_accept,
    websocket_scope_from_http,
)
from bridge.types import Environ
from tests.fakes import http_environ
from tests.sansio.requests import scope_with
from wsgi_asgi_conformance.frames import ACCEPT, KEY


def handshake(method: str = "GET", **keys: Any) -> Environ:
    return http_environ(
        method,
        **{
            "HTTP_UPGRADE": "websocket",
            "HTTP_CONNECTION": "keep-alive, Upgrade",
            "HTTP_SEC_WEBSOCKET_VERSION": "13",
            "HTTP_SEC_WEBSOCKET_KEY": KEY,
            **keys,
        },
    )


@pytest.mark.parametrize(
    ("keys", "asks"),
    [
        ({}, True),
        ({"HTTP_UPGRADE": "WebSocket", "HTTP_CONNECTION": "upgrade"}, True),
        ({"HTTP_UPGRADE": "h2c, websocket"}, True),
        ({"HTTP_UPGRADE": "h2c,websocket"}, True),
        ({"HTTP_UPGRADE": "h2c"}, False),
        ({"HTTP_UPGRADE": None}, False),
        ({"HTTP_CONNECTION": "keep-alive"}, False),
        ({"HTTP_CONNECTION": "no-upgrade"}, False),
        ({"HTTP_CONNECTION": None}, False),
    ],
)
def test_a_handshake_is_told_by_its_tokens(keys: dict[str, Any], asks: bool) -> None:
    """Upgrade names websocket, and Connection names upgrade, perhaps among others, in any case (RFC 6455 4.2.1)."""
    assert is_websocket_request(handshake(**keys)) is asks


@pytest.mark.parametrize(
    ("keys", "status", "header"),
    [
        ({"REQUEST_METHOD": "POST"}, 405, ("Allow", "GET")),
        ({"HTTP_SEC_WEBSOCKET_VERSION": "8"}, 426, ("Sec-WebSocket-Version", "13")),
        ({"HTTP_SEC_WEBSOCKET_VERSION": None}, 426, ("Sec-WebSocket-Version", "13")),
        ({"HTTP_SEC_WEBSOCKET_KEY": None}, 400, None),
        ({"HTTP_SEC_WEBSOCKET_KEY": "c2hvcnQ="}, 400, None),
        ({"HTTP_SEC_WEBSOCKET_KEY": "!" * 24}, 400, None),
        ({"HTTP_SEC_WEBSOCKET_KEY": f"!{KEY}"}, 400, None),
        ({"HTTP_SEC_WEBSOCKET_KEY": "\xe9" * 24}, 400, None),
        ({"CONTENT_LENGTH": "5"}, 400, None),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, 400, None),
    ],
)
def test_a_bad_handshake_is_refused(keys: dict[str, Any], status: int, header: tuple[str, str] | None) -> None:
    """A handshake that breaks RFC 6455 4.2.1 gets the status that says what is wrong."""
    refusal = maybe_refusal(handshake(**keys))
    assert refusal is not None
    assert refusal.status.startswith(f"{status} ")
    assert refusal.text.endswith(".")
    assert refusal.headers == ([header] if header else [])


@pytest.mark.parametrize("keys", [{}, {"CONTENT_LENGTH": "0"}, {"CONTENT_LENGTH": 0}, {"CONTENT_LENGTH": ""}])
def test_a_good_handshake_is_not_refused(keys: dict[str, Any]) -> None:
    """A server may show in each of these ways that there is no body."""
    assert maybe_refusal(handshake(**keys)) is None


def test_the_scope_is_a_websockets() -> None:
    """Type, scheme and versions change, the method goes, and everything else stays (ASGI WebSocket spec)."""
    environ = handshake(
        **{"wsgi.url_scheme": "https", "HTTP_SEC_WEBSOCKET_PROTOCOL": "a, b,,c", "SERVER_PROTOCOL": "HTTP/1.0"}
    )
    http = scope_from_environ(environ)
    http["extensions"] = {"tls": {}, "http.response.pathsend": {}}
    http["state"] = {"key": "value"}
    websocket = websocket_scope_from_http(http)
    assert websocket.pop("type") == "websocket"
    assert websocket.pop("asgi") == {"version": "3.0", "spec_version": "2.5"}
    assert websocket.pop("scheme") == "wss"
    assert websocket.pop("http_version") == "1.1"
    assert websocket.pop("subprotocols") == ["a", "b", "c"]
    assert websocket.pop("extensions") == {"tls": {}, "websocket.http.response": {}}
    replaced = {"type", "asgi", "scheme", "http_version", "extensions", "method"}
    assert websocket == {key: value for key, value in http.items() if key not in replaced}
    assert websocket_scope_from_http(scope_from_environ(handshake()))["scheme"] == "ws"
    assert websocket_scope_from_http(scope_from_environ(handshake()))["subprotocols"] == []


def test_the_key_is_answered_as_in_the_rfc() -> None:
    """The key of RFC 6455 1.3 has the answer that is given there."""
    assert accept_from_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert accept_from_key(KEY) == ACCEPT


def test_accept_is_a_101_response() -> None:
    """The response has the subprotocol, the extensions and the app's headers, in order."""
    message = {"subprotocol": "b", "headers": [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=\xe9")]}
    assert response_from_accept(message, KEY, ["a", "b"], "permessage-deflate").split(b"\r\n") == [
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        f"Sec-WebSocket-Accept: {ACCEPT}".encode(),
        b"Sec-WebSocket-Protocol: b",
        b"Sec-WebSocket-Extensions: permessage-deflate",
        b"set-cookie: a=1",
        b"set-cookie: b=\xe9",
        b"",
        b"",
    ]
    assert response_from_accept({}, KEY, ["a"], None).count(b"\r\n") == 5


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"subprotocol": "c"}, "a subprotocol, str of length 1, which is not one of the 2 that the client offered"),
        ({"subprotocol": 5}, "the app chose a subprotocol, 5, which is not one"),
        ({"headers": [(b"sec-websocket-protocol", b"a")]}, "must not hold 'sec-websocket-protocol'"),
        ({"headers": [(b"Sec-WebSocket-Accept", b"a")]}, "must not hold 'Sec-WebSocket-Accept'"),
        ({"headers": [(b"x", b"a\r\nb: c")]}, "header 'x' holds CR, LF"),
        ({"headers": [("x", "y")]}, "headers must be pairs of bytes"),
    ],
)
def test_an_accept_that_agrees_on_nothing_offered_is_refused(message: dict[str, Any], text: str) -> None:
    """Only what the client offered can be chosen, and the headers hold nothing of the handshake's own."""
    with pytest.raises(AppProtocolError, match=re.escape(text)):
        response_from_accept(message, KEY, ["a", "b"], None)


@pytest.mark.parametrize(
    ("message", "payload"),
    [
        ({"text": "a"}, "a"),
        ({"text": "", "bytes": None}, ""),
        ({"bytes": b"a"}, b"a"),
        ({"bytes": b"", "text": None}, b""),
        ({"bytes": bytearray(b"a")}, b"a"),
        ({"bytes": memoryview(b"a")}, b"a"),
    ],
)
def test_send_carries_text_or_bytes(message: dict[str, Any], payload: bytes | str) -> None:
    """Text stays text and bytes stay bytes."""
    found = payload_from_send(message)
    assert found == payload
    assert type(found) is type(payload)


@pytest.mark.parametrize(
    "message", [{}, {"text": None, "bytes": None}, {"text": "a", "bytes": b"a"}, {"text": b"a"}, {"bytes": "a"}]
)
def test_send_of_both_or_neither_is_refused(message: dict[str, Any]) -> None:
    """Exactly one is not None, and of its type (ASGI WebSocket spec, Send)."""
    with pytest.raises(AppProtocolError, match="either 'bytes' or a str 'text'"):
        payload_from_send(message)


@pytest.mark.parametrize(
    ("message", "code_and_reason"),
    [
        ({}, (1000, "")),
        ({"code": None, "reason": None}, (1000, "")),
        ({"code": 1001}, (1001, "")),
        ({"code": 1014, "reason": "why"}, (1014, "why")),
        ({"code": 3000}, (3000, "")),
        ({"code": 4999}, (4999, "")),
    ],
)
def test_close_has_a_code_and_a_reason(message: dict[str, Any], code_and_reason: tuple[int, str]) -> None:
    """1000 and no reason are the defaults (ASGI WebSocket spec, Close)."""
    assert code_and_reason_from_close(message) == code_and_reason


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, "1000", [1000]])
def test_a_code_that_never_stands_in_a_frame_is_refused(code: Any) -> None:
    """RFC 6455 7.4: some codes may only be reported locally, and some are not assigned."""
    with pytest.raises(AppProtocolError, match=r"the code of websocket.close must be"):
        code_and_reason_from_close({"code": code})


def test_a_reason_is_text() -> None:
    """A reason that is not a str is refused (ASGI WebSocket spec, Close)."""
    with pytest.raises(AppProtocolError, match="'reason' must be a str"):
        code_and_reason_from_close({"reason": b"why"})


# --- WebSockets -----------------------------------------------------------------------------------


@pytest.mark.parametrize("http_version", ["1.1", "2"])
def test_websocket_looks_as_over_http_1_1(http_version: str) -> None:
    """The headers of an HTTP/1.1 handshake are added, which HTTP/2 lacks (RFC 8441); the server's own are removed."""
    headers = [
        (b"connection", b"keep-alive, Upgrade"),
        (b"upgrade", b"WebSocket"),
        (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
        (b"sec-websocket-extensions", b"permessage-deflate"),
        (b"sec-websocket-protocol", b"chat, v2"),
        (b"content-length", b"5"),
        (b"origin", b"https://example.org"),
    ]
    scope = scope_with(
        type="websocket",
        scheme="wss",
        http_version=http_version,
        headers=headers if http_version == "1.1" else headers[-1:],
        subprotocols=["chat", "v2"],
    )
    del scope["method"]
    environ = environ_from_scope(scope)
    check = {key: environ.get(key) for key in environ if key.startswith(("HTTP_", "CONTENT_", "REQUEST_METHOD"))}
    assert check == {
        "REQUEST_METHOD": "GET",
        "HTTP_CONNECTION": "Upgrade",
        "HTTP_UPGRADE": "websocket",
        "HTTP_HOST": f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}",
        "HTTP_ORIGIN": "https://example.org",
        "HTTP_SEC_WEBSOCKET_PROTOCOL": "chat, v2",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
    }
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert environ["wsgi.url_scheme"] == "https"


@pytest.mark.parametrize("subprotocols", [None, [], ["", "a b", "ü", "a\r\nb"]])
def test_websocket_offers_no_subprotocol_that_is_no_token(subprotocols: list[str] | None) -> None:
    """A subprotocol that is not a token (RFC 6455 4.1) is left out, because a server may let it through."""
    headers = [(b"sec-websocket-protocol", b"a b")]
    scope = scope_with(type="websocket", scheme="ws", headers=headers, subprotocols=subprotocols)
    assert "HTTP_SEC_WEBSOCKET_PROTOCOL" not in environ_from_scope(scope)


@pytest.mark.parametrize("header", [(b"content-length", b"5"), (b"transfer-encoding", b"chunked")])
def test_websocket_begins_with_a_get_that_has_no_body(header: tuple[bytes, bytes]) -> None:
    """The method becomes GET (RFC 6455 4.1), although HTTP/2 uses CONNECT (RFC 8441)."""
    environ = environ_from_scope(scope_with(type="websocket", scheme="ws", method="CONNECT", headers=[header]))
    assert environ["REQUEST_METHOD"] == "GET"
    assert "CONTENT_LENGTH" not in environ
    assert "HTTP_TRANSFER_ENCODING" not in environ
