"""WebSockets through the adapter: its environ holds one end of a socket pair, and the test has the other."""

import asyncio
import contextlib
import select
import socket
import ssl
import threading
from typing import Any

import anyio
import pytest

from bridge import AppProtocolError, ClientDisconnected, WebSocketOptions
from bridge.asgi_to_wsgi import carry
from bridge.asgi_to_wsgi.websocket import connection as websocket_connection
from bridge.types import Message, Receive, Scope, Send
from bridge.validate import validator
from tests.asgi_to_wsgi.apps import Adapt
from tests.asgi_to_wsgi.websocket.clients import Client, Script, accept, close, connected, disconnect, echo, send, until
from tests.processes import wait_until
from tests.sockets import BROKEN_FRAMES
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
    frames,
)

WAYS: list[dict[str, Any]] = [{}, {"websocket": "hold"}, {"carried": True}]
ways = pytest.mark.parametrize("way", WAYS, ids=["taken", "held", "carried"])


# --- Messages and the end, in all ways ------------------------------------------------------------


@ways
def test_messages_go_both_ways(adapt: Adapt, way: dict[str, Any]) -> None:
    """Text stays text, bytes stay bytes, and fragments become one message."""
    with connected(adapt, echo, way) as client:
        for opcode, payload in [(TEXT, "grüße".encode()), (BINARY, b""), (TEXT, b""), (BINARY, bytes(300_000))]:
            sender = threading.Thread(target=client.send, args=(opcode, payload))
            sender.start()
            assert client.receive() == Frame(opcode, payload)
            sender.join()
        client.send(TEXT, b"\xc3", fin=False)
        client.send(PING, b"?")
        client.send(CONTINUATION, b"\xa4")
        assert client.receive() == Frame(PONG, b"?")
        assert client.receive() == Frame(TEXT, b"\xc3\xa4")
        client.close()


@ways
def test_the_server_is_told_of_a_101_and_cannot_reach_the_client(adapt: Adapt, way: dict[str, Any]) -> None:
    """The request ends in the ordinary way, and what the server then writes does not reach the client."""
    with connected(adapt, echo, way) as client:
        if not way:
            client.thread.join(5)  # while the WebSocket is open
        client.send(TEXT, b"here")
        assert client.receive() == Frame(TEXT, b"here")
        assert client.thread.is_alive() == bool(way)
        client.close()
        client.thread.join(5)
        assert client.error is None
        assert client.server.status == "101 Switching Protocols"
        assert client.server.body == b""
        with pytest.raises((BrokenPipeError, ssl.SSLError)):
            client.servers.sendall(b"HTTP/1.1 500 Oops")
        assert client.servers.recv(100) == b""


@ways
@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (client_frame(CLOSE, close_payload(4000, "why")), disconnect(4000, "why")),
        (client_frame(CLOSE, close_payload(1001)), disconnect(1001)),
        (client_frame(CLOSE), disconnect(1005)),
        (b"", disconnect(1006)),
    ],
    ids=["4000", "1001", "1005", "1006"],
)
def test_the_app_is_told_how_its_client_left(adapt: Adapt, way: dict[str, Any], frame: bytes, message: Message) -> None:
    """After the messages comes the Close frame's code and reason: 1005 without a code, 1006 without a frame."""
    app = Script("receive", accept(), "receive", "receive", send("too late"), close(), "receive")
    with connected(adapt, app, way) as client:
        client.socket.sendall(client_frame(TEXT, b"last words") + frame)
        if not frame:
            client.socket.close()
        app.wait()
    assert (
        app.received
        == [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "last words"}] + [message] * 2
    )
    assert [type(error) for error in app.raised] == [ClientDisconnected]  # from the send; the close is ignored


@ways
def test_the_app_closes(adapt: Adapt, way: dict[str, Any]) -> None:
    """The app's code and reason reach the client; then the app gets them too, and can send no more."""
    app = Script("receive", accept(), close(code=4001, reason="x" * 200), "receive", close(), send("?"))
    with connected(adapt, app, way) as client:
        assert client.receive() == Frame(CLOSE, close_payload(4001, "x" * 123))
        client.send(CLOSE, close_payload(4001))
        assert client.rest() == b""
    app.wait()
    assert app.received[-1] == disconnect(4001, "x" * 200)
    (error,) = app.raised
    assert isinstance(error, AppProtocolError)
    assert "sent 'websocket.send' where the spec allows no message (done)" in str(error)


@ways
@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ((), 1000),
        ((ValueError("deliberate"),), 1011),
        ((asyncio.CancelledError("deliberate"),), 1011),
        ((SystemExit("deliberate"),), 1011),
        ((BaseExceptionGroup("deliberate", [SystemExit()]),), 1011),
    ],
)
def test_an_app_that_ends_ends_its_websocket(
    adapt: Adapt, way: dict[str, Any], ending: Any, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    """An app that returns closes with 1000; one that raises closes with 1011, and the error is logged."""
    with connected(adapt, Script("receive", accept(), send("hello"), *ending), way) as client:
        assert client.receive() == Frame(TEXT, b"hello")
        assert client.receive() == Frame(CLOSE, close_payload(code))
        client.send(CLOSE, close_payload(code))
        assert client.rest() == b""
    errors = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert errors == list(ending)


@ways
def test_close_of_the_adapter_says_goodbye(adapt: Adapt, way: dict[str, Any]) -> None:
    """Clients and the app get 1012, "service restart"."""
    app = Script("receive", accept(), "receive")
    with connected(adapt, app, way) as client:
        closer = threading.Thread(target=client.server.app.close)  # type: ignore[attr-defined]
        closer.start()
        assert client.receive() == Frame(CLOSE, close_payload(1012))
        client.send(CLOSE, close_payload(1012))
        assert client.rest() == b""
        closer.join(5)
        assert not closer.is_alive()
    app.wait()
    assert app.received[-1] == disconnect(1012)


@ways
def test_goodbye_can_be_said_while_the_loop_goes_on(adapt: Adapt, way: dict[str, Any]) -> None:
    """close_websockets ends those that are open, and the next ones are served."""
    adapter = adapt(echo)
    adapter.close_websockets()  # does nothing, because there is no loop yet
    with connected(adapt, echo, way) as client:
        client.server.app.close_websockets()  # type: ignore[attr-defined]
        assert client.receive() == Frame(CLOSE, close_payload(1012))
        client.send(CLOSE, close_payload(1012))
        assert client.rest() == b""
        with Client(client.server.app) as another:  # type: ignore[arg-type]
            another.open().close()


@ways
def test_an_app_that_stays_does_not_keep_the_adapter_from_closing(adapt: Adapt, way: dict[str, Any]) -> None:
    """An app that does not end by itself is cancelled, and its client is not left waiting."""
    forever = threading.Event()

    async def sleep() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            forever.set()

    with connected(adapt, Script("receive", accept(), sleep), way, shutdown_timeout=0.2) as client:
        client.server.app.close()  # type: ignore[attr-defined]
        assert forever.is_set()
        assert client.receive() == Frame(CLOSE, close_payload(1012))
        client.rest()


@ways
def test_a_thread_is_free_once_its_client_has_left(adapt: Adapt, way: dict[str, Any]) -> None:
    """The server's thread is free although the app goes on."""
    go_on = threading.Event()
    app = Script("receive", accept(), "receive", until(go_on))
    with connected(adapt, app, way) as client:
        client.close()
        client.thread.join(5)
        assert not client.thread.is_alive()
        assert not app.done.is_set()
        go_on.set()
        app.wait()


def test_the_validator_finds_nothing(adapt: Adapt) -> None:
    """Scope and messages follow the spec, of WebSockets that are accepted and that are refused."""
    with connected(adapt, validator(echo)) as client:
        client.send(TEXT, b"text")
        client.send(BINARY, b"bytes")
        assert [client.receive().payload, client.receive().payload] == [b"text", b"bytes"]
        client.close()
    refusing = Script("receive", close(), "receive")
    assert Client(adapt(validator(refusing))).refused().status == "403 Forbidden"
    denying = Script(
        "receive",
        {"type": "websocket.http.response.start", "status": 401, "headers": []},
        {"type": "websocket.http.response.body", "body": b"who is it?"},
    )
    assert Client(adapt(validator(denying))).refused().body == b"who is it?"


def test_an_app_that_is_stopped_by_its_clients_absence_is_no_error(
    adapt: Adapt, caplog: pytest.LogCaptureFixture
) -> None:
    """The error of a send after the client has left is not logged, whether it is the app's error or its cause."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(accept())
        while (await receive())["type"] == "websocket.receive":
            pass
        try:
            await send({"type": "websocket.send", "text": "too late"})
        except OSError as error:
            raise RuntimeError from error
        finally:
            ended.set()

    ended = threading.Event()
    with connected(adapt, app) as client:
        client.close()
        assert ended.wait(5)
        client.server.app.close()  # type: ignore[attr-defined]
    assert caplog.records == []


def test_an_accept_at_the_last_moment_is_a_goodbye(adapt: Adapt) -> None:
    """A handshake that is accepted while the adapter closes is followed by 1012 at once."""
    go_on = threading.Event()
    late = Script("receive", until(go_on), accept(), "receive")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (late if scope["path"] == "/late" else echo)(scope, receive, send)

    with connected(adapt, app) as early, Client(early.server.app, PATH_INFO="/late") as client:  # type: ignore[arg-type]
        client.thread.start()
        wait_until(lambda: late.received)
        closer = threading.Thread(target=early.server.app.close)  # type: ignore[attr-defined]
        closer.start()
        assert early.receive() == Frame(CLOSE, close_payload(1012))
        go_on.set()
        while b"\r\n\r\n" not in client.unread:
            client.unread += client.socket.recv(65_536)
        client.unread = client.unread.partition(b"\r\n\r\n")[2]
        assert client.receive() == Frame(CLOSE, close_payload(1012))
        for each in (early, client):
            each.send(CLOSE, close_payload(1012))
            assert each.rest() == b""
        closer.join(5)
        assert not closer.is_alive()


# --- The client's faults, and its silence ---------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        *BROKEN_FRAMES,
        (client_frame(3, b"x"), 1002),
        (client_frame(CLOSE, b"\x03"), 1002),
        (client_frame(CLOSE, close_payload(1006)), 1002),
        (client_frame(TEXT, "ä".encode() * 501), 1009),
        (client_frame(BINARY, bytes(600), fin=False) + client_frame(CONTINUATION, bytes(401)), 1009),
    ],
)
def test_a_client_that_breaks_the_protocol_is_told_how(adapt: Adapt, frame: bytes, code: int) -> None:
    """The Close frame and the app's disconnect have the right code; what follows is ignored."""
    app = Script("receive", accept(), "receive")
    with connected(adapt, app, websocket_options=WebSocketOptions(max_message_size=1000)) as client:
        client.socket.sendall(frame)
        opcode, payload, _ = client.receive()
        assert (opcode, payload[:2]) == (CLOSE, close_payload(code))
        assert client.socket.recv(100) == b""
        with contextlib.suppress(BrokenPipeError):
            client.send(TEXT, b"still here")
    app.wait()
    assert app.received[-1]["code"] == code


def test_a_message_may_be_as_long_as_the_limit(adapt: Adapt) -> None:
    """Only a longer message is refused."""
    with connected(adapt, echo, websocket_options=WebSocketOptions(max_message_size=1000)) as client:
        client.send(BINARY, bytes(1000))
        assert client.receive() == Frame(BINARY, bytes(1000))
        client.close()


def test_a_silent_client_that_answers_pings_stays(adapt: Adapt) -> None:
    """The client gets a ping after each interval without a frame of its own, and its answer is enough."""
    options = WebSocketOptions(ping_interval=0.05, pong_timeout=30)
    with connected(adapt, echo, websocket_options=options) as client:
        for _ in range(3):
            assert client.receive() == Frame(PING, b"")
            client.send(PONG)


def test_a_client_that_does_not_answer_a_ping_is_given_up(adapt: Adapt) -> None:
    """The WebSocket is closed with 1011, and the app is told."""
    options = WebSocketOptions(ping_interval=0.05, pong_timeout=0.05)
    app = Script("receive", accept(), "receive")
    with connected(adapt, app, websocket_options=options) as client:
        assert client.receive() == Frame(PING, b"")
        assert client.receive() == Frame(CLOSE, close_payload(1011, "keepalive ping timeout"))
        app.wait()
    assert app.received[-1] == disconnect(1011, "keepalive ping timeout")


def test_without_an_interval_nobody_is_pinged(adapt: Adapt) -> None:
    """With ping_interval=None there are no pings, and the end is the same."""
    with connected(adapt, echo, websocket_options=WebSocketOptions(ping_interval=None)) as client:
        client.close()


def test_a_client_that_does_not_answer_a_close_is_cut_off(adapt: Adapt, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client has some seconds to answer."""
    monkeypatch.setattr(websocket_connection, "_CLOSE_TIMEOUT", 0.05)
    with connected(adapt, Script("receive", accept())) as client:
        assert client.receive() == Frame(CLOSE, close_payload(1000))
        assert client.rest() == b""


# --- Flow -----------------------------------------------------------------------------------------


@ways
def test_an_app_that_floods_waits_for_its_client(adapt: Adapt, way: dict[str, Any]) -> None:
    """send returns as the client reads, and raises once the client has left."""
    sent = 0
    ended = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await receive()
        await send(accept())
        try:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(65_536)})
                sent += 1
        except ClientDisconnected:
            ended.set()

    with connected(adapt, app, way) as client:
        for _ in range(100):
            assert client.receive() == Frame(BINARY, bytes(65_536))
        assert sent < 150  # the sockets' buffers take a part
        client.socket.close()
        assert ended.wait(5)


@ways
def test_a_client_that_floods_waits_for_the_app(adapt: Adapt, way: dict[str, Any]) -> None:
    """What the app does not receive is not read, and no message or ping is lost."""
    go_on = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(accept())
        await until(go_on)()
        total = 0
        while (message := await receive())["type"] == "websocket.receive":
            total += len(message["bytes"])
        results.append(total)

    results: list[int] = []
    with connected(adapt, app, way) as client:
        block, sent = client_frame(BINARY, bytes(65_000)), 0
        client.socket.settimeout(0.5)
        unsent = b""
        with contextlib.suppress(TimeoutError):
            while sent < 200:
                unsent = unsent or block
                unsent = unsent[client.socket.send(unsent) :]
                sent += not unsent
        assert 0 < sent < 100
        client.socket.settimeout(5)
        go_on.set()
        client.socket.sendall(unsent)
        client.send(PING, b"after all that")
        assert client.receive() == Frame(PONG, b"after all that")
        client.close()
    wait_until(lambda: results)
    assert results == [65_000 * (sent + 1)]


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="only Linux tells of an end behind unread bytes")
@ways
def test_a_client_that_leaves_behind_a_flood_cannot_be_sent_to(
    adapt: Adapt, way: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The app learns of the end although unread messages come before it."""
    monkeypatch.setattr(websocket_connection, "_LOOK_AROUND", 0.02)
    monkeypatch.setattr(carry, "_LOOK_AROUND", 0.02)
    received: list[Message] = []
    left, ended = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(accept())
        try:
            while True:
                await send({"type": "websocket.send", "text": "push"})
                await anyio.sleep(0.01)
        except ClientDisconnected:
            left.set()
        while not received or received[-1]["type"] == "websocket.receive":
            received.append(await receive())
        ended.set()

    with connected(adapt, app, way) as client:
        messages = threading.Thread(target=client.socket.sendall, args=(client_frame(BINARY, bytes(1000)) * 250,))
        messages.start()
        messages.join(5)
        assert not messages.is_alive()
        client.send(CLOSE, close_payload(4000))
        client.socket.shutdown(socket.SHUT_WR)
        assert left.wait(5)
        assert ended.wait(5)
    assert received == [{"type": "websocket.receive", "bytes": bytes(1000)}] * 250 + [disconnect(4000)]


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="only Linux tells of an end behind unread bytes")
@ways
def test_a_client_that_leaves_behind_a_flood_does_not_hold_its_connection(
    adapt: Adapt, way: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the app does not receive, what it has not received is dropped after a while, and the connection is closed."""
    monkeypatch.setattr(websocket_connection, "_LOOK_AROUND", 0.02)
    monkeypatch.setattr(carry, "_LOOK_AROUND", 0.02)
    options = WebSocketOptions(pong_timeout=0.05)
    over: list[int] = []
    run = websocket_connection.WebSocketConnection.run

    async def run_and_note(self: Any, *args: Any) -> None:
        await run(self, *args)
        over.append(1)

    monkeypatch.setattr(websocket_connection.WebSocketConnection, "run", run_and_note)
    app = Script("receive", accept(), anyio.sleep_forever)
    with connected(adapt, app, way, websocket_options=options, shutdown_timeout=0.1) as client:
        client.socket.setblocking(False)
        while select.select([], [client.socket], [], 0.2)[1]:  # until it stays full
            client.socket.send(client_frame(BINARY, bytes(1000)))
        assert not over
        client.socket.close()
        wait_until(lambda: over)
        client.thread.join(5)
        assert not client.thread.is_alive()


def test_a_close_behind_a_flood_is_found(adapt: Adapt) -> None:
    """Once the app receives, it gets the messages that had no room, and then the Close frame."""
    go_on = threading.Event()
    app = Script("receive", accept(), until(go_on), *["receive"] * 2_001)
    with connected(adapt, app) as client:
        client.socket.sendall(client_frame(TEXT, b"x") * 2_000 + client_frame(CLOSE, close_payload(4000)))
        go_on.set()
        assert client.receive() == Frame(CLOSE, close_payload(4000))
        assert client.rest() == b""
        app.wait()
    assert app.received[1:] == [{"type": "websocket.receive", "text": "x"}] * 2_000 + [disconnect(4000)]


def test_compression_is_agreed_where_it_is_on(adapt: Adapt) -> None:
    """A sensible offer is accepted, and any other is declined."""
    from wsproto.connection import Connection, ConnectionType
    from wsproto.events import BytesMessage, Event
    from wsproto.extensions import PerMessageDeflate

    adapter = adapt(echo, websocket_options=WebSocketOptions(compression=True))
    offer = "permessage-deflate; client_max_window_bits=ten, x-unheard-of"
    with Client(adapter, HTTP_SEC_WEBSOCKET_EXTENSIONS=offer) as client:
        assert b"Sec-WebSocket-Extensions" not in client.open().head
        client.close()
    with Client(adapter, HTTP_SEC_WEBSOCKET_EXTENSIONS="permessage-deflate; client_max_window_bits") as client:
        assert b"Sec-WebSocket-Extensions: permessage-deflate" in client.open().head
        deflate = PerMessageDeflate()
        deflate.finalize("permessage-deflate")
        peer = Connection(ConnectionType.CLIENT, [deflate])
        sent = peer.send(BytesMessage(bytes(1_000_000)))
        assert len(sent) < 5_000
        client.socket.sendall(sent)
        received: list[Event] = []
        while not received or not received[-1].message_finished:  # type: ignore[attr-defined]
            peer.receive_data(client.socket.recv(65_536))
            received += peer.events()
        assert b"".join(event.data for event in received) == bytes(1_000_000)  # type: ignore[attr-defined]


def test_what_little_data_inflates_to_is_bounded(adapt: Adapt) -> None:
    """A message that exceeds the limit only once it is inflated is 1009 too."""
    from wsproto.connection import Connection, ConnectionType
    from wsproto.events import BytesMessage
    from wsproto.extensions import PerMessageDeflate

    options = WebSocketOptions(compression=True, max_message_size=100_000)
    with Client(adapt(echo, websocket_options=options), HTTP_SEC_WEBSOCKET_EXTENSIONS="permessage-deflate") as client:
        client.open()
        deflate = PerMessageDeflate()
        deflate.finalize("permessage-deflate")
        client.socket.sendall(Connection(ConnectionType.CLIENT, [deflate]).send(BytesMessage(bytes(10_000_000))))
        assert frames(client.rest())[0].payload[:2] == close_payload(1009)


def test_receive_may_be_given_up_and_called_again(adapt: Adapt) -> None:
    """A cancelled receive loses no message, whichever task it ran in."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        with anyio.move_on_after(0.01):
            await receive()
        await send(accept())
        with anyio.move_on_after(0.01):
            await receive()
        await send({"type": "websocket.send", "text": "ready"})
        await send({**(await receive()), "type": "websocket.send"})

    with connected(adapt, app) as client:
        assert client.receive() == Frame(TEXT, b"ready")
        client.send(TEXT, b"hello")
        assert client.receive() == Frame(TEXT, b"hello")
