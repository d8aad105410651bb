"""RFC 6455, as far as it concerns the server: the handshake, the frames and the end."""

from typing import Any

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.asgi_to_wsgi.websocket_client import ACCEPT, Connect, Script, close, send
from wsgi_asgi_conformance.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    client_frame,
    close_payload,
)


@clause("RFC6455-001")
@pytest.mark.parametrize(
    ("key", "accept"),
    [
        ("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),  # the RFC's own
        ("AAAAAAAAAAAAAAAAAAAAAA==", "ICX+Yqv66kxgM0FcWaLWlFLwTAI="),
    ],
)
def test_the_handshake_is_answered_as_its_key_asks(connect: Connect, key: str, accept: str) -> None:
    """The answer is a 101 with the three required headers, and without an extension that nobody has offered."""
    client = connect(Script("receive", ACCEPT), HTTP_SEC_WEBSOCKET_KEY=key).open()
    headers = dict(client.headers)
    assert (headers["upgrade"].lower(), headers["connection"].lower()) == ("websocket", "upgrade")
    assert headers["sec-websocket-accept"] == accept
    assert "sec-websocket-extensions" not in headers


@clause("RFC6455-001")
@pytest.mark.parametrize("offered", [None, "v1, v2"])
def test_a_subprotocol_is_one_that_the_client_listed(connect: Connect, offered: str | None) -> None:
    """Any other subprotocol is an error of the app, and does not appear in the 101."""
    app = Script("receive", {**ACCEPT, "subprotocol": "v3"}, ACCEPT)
    client = connect(app, HTTP_SEC_WEBSOCKET_PROTOCOL=offered).open()
    assert len(app.raised) == 1
    assert "sec-websocket-protocol" not in dict(client.headers)


@clause("RFC6455-002")
@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000])
def test_an_app_closes_with_no_code_that_must_not_be_sent(connect: Connect, code: int) -> None:
    """Such a close raises, or the Close frame has no code or another one; the client gets a Close frame in any case."""
    app = Script("receive", ACCEPT, close(code=code))
    client = connect(app).open()
    frame = client.receive()
    assert frame.opcode == CLOSE
    sent = int.from_bytes(frame.payload[:2], "big")
    assert not frame.payload or sent in (1000, 1001, 1002, 1003) or 1007 <= sent <= 1014 or 3000 <= sent <= 4999


@clause("RFC6455-002")
@pytest.mark.parametrize("reason", ["x" * 200, "☃" * 50, "x" + "😀" * 40])
def test_a_long_reason_is_cut_or_refused(connect: Connect, reason: str) -> None:
    """A Close frame has room for 123 bytes of the reason, which must be valid UTF-8 to the last byte."""
    app = Script("receive", ACCEPT, close(code=4000, reason=reason), close(code=4000))
    client = connect(app).open()
    frame = client.receive()
    assert (frame.opcode, frame.payload[:2]) == (CLOSE, close_payload(4000))
    assert len(frame.payload) <= 125
    assert reason.startswith(frame.payload[2:].decode())


@clause("RFC6455-002")
@pytest.mark.parametrize("code", [1000, 1001, 1003, 1011, 3000, 4999])
def test_a_clients_close_is_answered_with_its_code(connect: Connect, code: int) -> None:
    """The server answers the Close frame with the same code, and then hangs up."""
    connect(Script("receive", ACCEPT, "receive")).open().close(code, "why")


@clause("RFC6455-002")
def test_nothing_is_said_after_a_close_frame(connect: Connect) -> None:
    """What an app sends after its close raises, and does not reach the client."""
    app = Script("receive", ACCEPT, close(code=4000), send("one"), close(code=4001))
    client = connect(app).open()
    assert client.receive_close() == (4000, "")
    client.until_ended(app)
    assert len(app.raised) >= 1


@clause("RFC6455-003")
@pytest.mark.parametrize(
    "frames",
    [
        [client_frame(TEXT, b"\xc3(")],
        [client_frame(TEXT, b"gr\xc3")],
        [client_frame(TEXT, b"\xed\xa0\x80")],  # a surrogate
        [client_frame(TEXT, b"\xc3", fin=False), client_frame(CONTINUATION, b"(")],
    ],
    ids=["broken", "cut", "surrogate", "in-fragments"],
)
def test_text_is_utf_8(connect: Connect, frames: list[bytes]) -> None:
    """Other bytes fail the connection with 1007, and none of them reach the app."""
    app = Script("receive", ACCEPT, "receive", "receive")
    client = connect(app).open()
    client.socket.sendall(client_frame(TEXT, "grüße".encode()) + b"".join(frames))
    assert client.receive_close()[0] == 1007
    client.until_ended(app)
    assert app.types[1:] == ["websocket.receive", "websocket.disconnect"]
    assert app.received[1]["text"] == "grüße"


@clause("RFC6455-004")
@pytest.mark.parametrize(
    ("variables", "statuses"),
    [
        ({"HTTP_SEC_WEBSOCKET_VERSION": "8"}, ("426",)),
        ({"HTTP_SEC_WEBSOCKET_VERSION": None}, ("400", "426")),
        ({"HTTP_SEC_WEBSOCKET_KEY": None}, ("400",)),
        ({"HTTP_SEC_WEBSOCKET_KEY": "c2hvcnQ="}, ("400",)),
        ({"HTTP_SEC_WEBSOCKET_KEY": "not base64!"}, ("400",)),
        ({"REQUEST_METHOD": "POST"}, ("400", "405")),
    ],
    ids=["old-version", "no-version", "no-key", "short-key", "wrong-key", "post"],
)
def test_what_is_no_handshake_is_refused(
    connect: Connect, variables: dict[str, Any], statuses: tuple[str, ...]
) -> None:
    """The answer is a client error, and the app is not called; for an unknown version, the answer names a known one."""
    app = Script("receive", ACCEPT)
    client = connect(app, **variables)
    status = client.refused()
    assert status[:3] in statuses
    assert app.scope == {}
    if status[:3] == "426":
        assert ("sec-websocket-version", "13") in [(name.lower(), value) for name, value in client.request.headers]


@clause("RFC6455-004")
@pytest.mark.parametrize(
    "variables", [{"HTTP_UPGRADE": "WebSocket"}, {"HTTP_CONNECTION": "keep-alive, upgrade"}], ids=["case", "list"]
)
def test_what_is_a_handshake_is_accepted(connect: Connect, variables: dict[str, str]) -> None:
    """The tokens in the headers count in any case, and among other tokens."""
    connect(Script("receive", ACCEPT), **variables).open()


@clause("RFC6455-005")
@pytest.mark.parametrize(
    "frames",
    [
        client_frame(TEXT, b"one", masked=False),
        client_frame(TEXT, b"one", rsv=4),
        client_frame(0x3, b"one"),
        client_frame(0xB, b"one"),
        client_frame(CONTINUATION, b"one"),
        client_frame(TEXT, b"one", fin=False) + client_frame(TEXT, b"two"),
        client_frame(PING, b"one", fin=False),
        client_frame(PING, bytes(126)),
        client_frame(CLOSE, b"\x03"),
        client_frame(CLOSE, close_payload(1005)),
        client_frame(CLOSE, close_payload(999)),
    ],
    ids=[
        *("unmasked", "reserved-bit", "data-opcode", "control-opcode", "continues-nothing", "message-in-a-message"),
        *("ping-in-fragments", "long-ping", "half-a-code", "code-1005", "code-999"),
    ],
)
def test_frames_that_break_the_protocol_end_the_connection(connect: Connect, frames: bytes) -> None:
    """The server closes with 1002; the app receives what came before, and then the disconnect."""
    app = Script("receive", ACCEPT, "receive", "receive")
    client = connect(app).open()
    client.socket.sendall(client_frame(BINARY, b"right") + frames)
    assert client.receive_close()[0] == 1002
    client.until_ended(app)
    assert app.types[1:] == ["websocket.receive", "websocket.disconnect"]
    assert app.received[1]["bytes"] == b"right"


@clause("RFC6455-005")
@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536], ids=str)
def test_frames_of_any_length_are_read_and_written(connect: Connect, size: int) -> None:
    """Lengths work in all three encodings, at their limits, and so does a Ping of the greatest length."""
    app = Script("receive", ACCEPT, "receive", send(bytes(size)))
    client = connect(app).open()
    client.send(PING, bytes(125))
    assert client.receive() == Frame(PONG, bytes(125))
    client.send(BINARY, bytes(size))
    assert client.receive() == Frame(BINARY, bytes(size))
    assert app.received[1]["bytes"] == bytes(size)
