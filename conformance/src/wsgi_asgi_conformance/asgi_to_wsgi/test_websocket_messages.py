"""The messages of an ASGI app's WebSocket, and how it ends."""

import asyncio
import logging
from typing import Any

import anyio
import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.asgi_to_wsgi.recording import close_of
from wsgi_asgi_conformance.asgi_to_wsgi.websocket_client import ACCEPT, Connect, Script, close, send
from wsgi_asgi_conformance.exchange import in_thread
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


@clause("ASGI-WS-003")
def test_pings_are_answered_and_are_not_the_apps_matter(connect: Connect) -> None:
    """A Pong has the payload of its Ping, and the app receives only the messages around them."""
    app = Script("receive", ACCEPT, "receive")
    client = connect(app).open()
    client.send(PING, b"?")
    assert client.receive() == Frame(PONG, b"?")
    client.send(PONG, b"unasked")
    client.send(TEXT, b"one")
    client.until_ended(app)
    assert app.types == ["websocket.connect", "websocket.receive"]
    assert app.received[1]["text"] == "one"


@clause("ASGI-WS-004")
def test_fragments_are_one_message(connect: Connect) -> None:
    """Three frames, one of them empty and with a Ping between them, are one websocket.receive."""
    app = Script("receive", ACCEPT, "receive", "receive")
    client = connect(app).open()
    client.send(TEXT, b"gr\xc3", fin=False)  # half of a letter
    client.send(CONTINUATION, b"", fin=False)
    client.send(PING)
    client.send(CONTINUATION, b"\xbc\xc3\x9fe")
    client.send(BINARY, b"\x00", fin=False)
    client.send(CONTINUATION, b"\x01")
    client.until_ended(app)
    assert app.received[1].get("text") == "grüße"
    assert app.received[2].get("bytes") == b"\x00\x01"


@clause("ASGI-WS-006")
@pytest.mark.parametrize(
    ("error", "code"),
    [(None, 1000), (ValueError("deliberate"), 1011), (asyncio.CancelledError(), 1011), (SystemExit(), 1011)],
    ids=["returns", "raises", "is cancelled", "exits"],
)
def test_the_connection_ends_with_the_app(connect: Connect, error: BaseException | None, code: int) -> None:
    """When the app ends, the client gets a Close frame whose code says whether it raised, and the server hangs up."""
    client = connect(Script("receive", ACCEPT, send("one"), *([error] if error else []))).open()
    assert client.receive() == Frame(TEXT, b"one")
    assert client.receive_close()[0] == code


@clause("ASGI-WS-006")
@pytest.mark.parametrize("steps", [("receive", ValueError("deliberate")), ("receive",)], ids=["raises", "returns"])
def test_an_app_that_dies_before_accept_refuses(connect: Connect, steps: tuple[Any, ...]) -> None:
    """The handshake is not completed, and the answer is an error."""
    client = connect(Script(*steps))
    assert client.refused()[:1] in "45"
    client.servers_end.close()
    assert client.rest() == b""


@clause("ASGI-WS-006")
def test_the_apps_input_ends_with_the_connection(connect: Connect) -> None:
    """When the connection is lost, a receive() that waits returns websocket.disconnect."""
    app = Script("receive", ACCEPT, "receive", "receive")
    client = connect(app).open()
    client.send(TEXT, b"one")
    client.request.until(lambda: len(app.received) == 2, "the message")
    client.leave()
    client.until_ended(app)
    assert app.types[1:] == ["websocket.receive", "websocket.disconnect"]


@clause("ASGI-WS-017")
@pytest.mark.parametrize(
    ("opcode", "payload", "key", "content"),
    [
        (TEXT, "grüße".encode(), "text", "grüße"),
        (TEXT, b"", "text", ""),
        (BINARY, b"\x00\xff", "bytes", b"\x00\xff"),
        (BINARY, b"", "bytes", b""),
        (BINARY, bytes(70_000), "bytes", bytes(70_000)),
    ],
    ids=["text", "empty-text", "bytes", "empty-bytes", "long"],
)
def test_a_message_is_received_as_what_it_is(
    connect: Connect, opcode: int, payload: bytes, key: str, content: str | bytes
) -> None:
    """A text frame is a str in `text`, a binary one is bytes in `bytes`; the other key is None or missing."""
    app = Script("receive", ACCEPT, "receive")
    client = connect(app).open()
    client.send(opcode, payload)
    client.until_ended(app)
    message = {name: value for name, value in app.received[1].items() if value is not None}
    assert message == {"type": "websocket.receive", key: content}
    assert type(message[key]) is type(content)


@clause("ASGI-WS-018")
@pytest.mark.parametrize(
    ("keys", "frame"),
    [
        ({"text": "grüße"}, Frame(TEXT, "grüße".encode())),
        ({"text": "", "bytes": None}, Frame(TEXT, b"")),
        ({"bytes": b"\x00\xff"}, Frame(BINARY, b"\x00\xff")),
        ({"bytes": b"", "text": None}, Frame(BINARY, b"")),
        ({"bytes": bytes(70_000)}, Frame(BINARY, bytes(70_000))),
    ],
    ids=["text", "empty-text", "bytes", "empty-bytes", "long"],
)
def test_a_message_is_sent_as_what_it_is(connect: Connect, keys: dict[str, Any], frame: Frame) -> None:
    """`text` leaves as a text frame, `bytes` as a binary one, empty ones too."""
    client = connect(Script("receive", ACCEPT, {"type": "websocket.send", **keys})).open()
    assert client.receive() == frame


@clause("ASGI-WS-018")
@pytest.mark.parametrize("keys", [{}, {"text": None, "bytes": None}, {"text": "one", "bytes": b"one"}], ids=repr)
def test_a_message_is_either_text_or_bytes(connect: Connect, keys: dict[str, Any]) -> None:
    """To send neither or both raises, and nothing reaches the client."""
    app = Script("receive", ACCEPT, {"type": "websocket.send", **keys}, send("two"))
    client = connect(app).open()
    assert client.receive() == Frame(TEXT, b"two")
    assert len(app.raised) == 1


@clause("ASGI-WS-019")
@pytest.mark.parametrize(
    ("frame", "code", "reason"),
    [
        (client_frame(CLOSE, close_payload(4000, "warum, größer?")), 4000, "warum, größer?"),
        (client_frame(CLOSE, close_payload(1001)), 1001, ""),
        (client_frame(CLOSE), 1005, ""),
        (b"", 1006, ""),
    ],
    ids=["code-and-reason", "code", "neither", "lost"],
)
def test_the_app_is_told_how_the_client_left(connect: Connect, frame: bytes, code: int, reason: str) -> None:
    """The app gets the Close frame's code and reason, 1005 if it has no code, 1006 for a lost connection."""
    app = Script("receive", ACCEPT, "receive")
    client = connect(app).open()
    client.socket.sendall(frame)
    if not frame:
        client.leave()
    client.until_ended(app)
    message = app.received[1]
    assert (message["type"], message["code"], message.get("reason") or "") == ("websocket.disconnect", code, reason)
    assert type(message["code"]) is int


@clause("ASGI-WS-020")
@pytest.mark.parametrize("who", ["app", "client"])
def test_the_app_is_told_whoever_closes(connect: Connect, who: str) -> None:
    """After its own close, as after the client's, the app receives websocket.disconnect, and nothing after that."""

    async def receive_again() -> None:
        with anyio.move_on_after(0.02):  # it may as well wait
            app.received.append(await app.receive())

    app = Script("receive", ACCEPT, *([close(code=4000)] if who == "app" else []), "receive", receive_again)
    client = connect(app).open()
    if who == "app":
        assert client.receive_close() == (4000, "")
    else:
        client.close(4000)
    client.until_ended(app)
    assert set(app.types[1:]) == {"websocket.disconnect"}
    assert {message["code"] for message in app.received[1:]} == {4000}


@clause("ASGI-WS-021")
def test_send_to_a_client_that_left_raises_an_oserror(connect: Connect) -> None:
    """After websocket.disconnect, send() raises a subclass of OSError of the adapter's own."""
    app = Script("receive", ACCEPT, "receive", send("one"))
    client = connect(app).open()
    client.leave()
    client.until_ended(app)
    assert [isinstance(error, OSError) for error in app.raised] == [True]


@clause("ASGI-WS-021")
def test_an_app_may_die_of_that_error(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """An app that does not catch the error is not logged as failed, and the server gets no error."""

    async def raise_what_send_raises() -> None:
        raise app.raised[0]

    app = Script("receive", ACCEPT, "receive", send("one"), raise_what_send_raises)
    client = connect(app).open()
    client.close()
    client.until_ended(app)
    in_thread(close_of(client.request.app), client.request.deadline)  # so that there is nothing left to log
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert client.request.finish().error is None


@clause("ASGI-WS-023")
@pytest.mark.parametrize(
    ("keys", "code", "reason"),
    [
        ({}, 1000, ""),
        ({"code": 4000, "reason": None}, 4000, ""),
        ({"code": 3000, "reason": "warum, größer?"}, 3000, "warum, größer?"),
        ({"code": 4999}, 4999, ""),
        ({"reason": "done"}, 1000, "done"),
    ],
    ids=["default", "none", "code-and-reason", "code", "reason"],
)
def test_close_has_a_code_and_a_reason(connect: Connect, keys: dict[str, Any], code: int, reason: str) -> None:
    """The Close frame has the app's code and reason, and 1000 if the app gives no code."""
    client = connect(Script("receive", ACCEPT, close(**keys))).open()
    assert client.receive_close() == (code, reason)
