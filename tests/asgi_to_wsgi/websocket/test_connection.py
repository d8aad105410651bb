"""`WebSocketConnection` on a transport that only records calls, and some of its ends on real sockets."""

import socket
import tracemalloc
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage
from wsproto.extensions import Extension, PerMessageDeflate

from bridge import ClientDisconnected, WebSocketOptions
from bridge.asgi_to_wsgi.websocket.connection import WebSocketConnection
from bridge.asgi_to_wsgi.websocket.exchange import WebSocketExchange
from bridge.asgi_to_wsgi.websocket.handshake import _hand_to_loop
from bridge.runtime import LoopClosed, running_loop
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


class NotedTransport:
    """A transport that records everything, and sends nothing."""

    def __init__(self) -> None:
        self.written = b""
        self.reading = True
        self.calls: list[str] = []

    def write(self, block: bytes) -> None:
        assert not self.calls, "nothing is written after the end"
        self.written += block

    def frames(self) -> list[Frame]:
        """Return the frames since the last call."""
        written, self.written = self.written, b""
        return frames(written)

    def write_eof(self) -> None:
        self.calls.append("write_eof")

    def pause_reading(self) -> None:
        assert self.reading
        assert "close" not in self.calls
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        assert "close" not in self.calls
        self.reading = True

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")


def opened(*extensions: Extension, **options: Any) -> tuple[WebSocketConnection, NotedTransport]:
    connection = WebSocketConnection(running_loop(), WebSocketOptions(**options), list(extensions))
    transport = NotedTransport()
    connection.connection_made(transport)
    return connection, transport


async def test_a_message_may_come_byte_by_byte() -> None:
    """However the bytes are cut, the messages are the same."""
    connection, transport = opened()
    data = client_frame(TEXT, "ä".encode()) + client_frame(PING, b"?") + client_frame(BINARY, bytes(200))
    for index in range(len(data)):
        connection.data_received(data[index : index + 1])
    assert await connection.receive() == "ä"
    assert await connection.receive() == bytes(200)
    assert transport.frames() == [Frame(PONG, b"?")]


async def test_reading_pauses_while_much_is_not_received() -> None:
    """Many small messages fill the inbox like a few large ones; reading goes on once half of them are received."""
    for payload, count in ((b"", 1024), (bytes(66_000), 4)):
        connection, transport = opened()
        for index in range(count):
            assert transport.reading, index
            connection.data_received(client_frame(BINARY, payload))
        received = 0
        while not transport.reading:
            assert await connection.receive() == payload
            received += 1
        assert count // 2 <= received < count


async def test_the_last_of_many_pings_is_answered_once_there_is_room() -> None:
    """A client that pings and does not read costs no memory, because only its last ping is answered."""
    connection, transport = opened()
    connection.data_received(client_frame(PING, b"1"))
    connection.pause_writing()
    for number in range(2, 1000):
        connection.data_received(client_frame(PING, b"%d" % number))
    connection.resume_writing()
    connection.pause_writing()
    connection.resume_writing()
    assert transport.frames() == [Frame(PONG, b"1"), Frame(PONG, b"999")]
    connection.pause_writing()
    connection.data_received(client_frame(PING, b"too late"))
    connection.data_received(client_frame(CLOSE))
    connection.resume_writing()
    assert transport.frames() == [Frame(CLOSE, b"")]


async def test_a_close_frame_behind_a_full_inbox_ends_it_once_there_is_room() -> None:
    """The messages before it are delivered, and the transport is left alone after its end."""
    connection, transport = opened()
    connection.data_received(client_frame(BINARY, bytes(300_000)) + client_frame(CLOSE, close_payload(1000)))
    assert not transport.reading
    assert await connection.receive() == bytes(300_000)
    assert transport.frames() == [Frame(CLOSE, close_payload(1000))]
    assert transport.calls == ["write_eof", "close"]
    connection.data_received(client_frame(TEXT, b"still here"))
    assert await connection.receive() is None
    assert connection.end == (1000, "")


@pytest.mark.parametrize("kind", [PING, TEXT, CONTINUATION])
async def test_tiny_frames_are_parsed_in_turns(kind: int) -> None:
    """A block of thousands of frames does not delay other tasks, which run between parts of it."""
    connection, transport = opened()
    handled = 0
    handle = connection._handle

    def count(event: Any) -> None:
        nonlocal handled
        handled += 1
        handle(event)

    connection._handle = count  # type: ignore[method-assign]
    if kind == CONTINUATION:
        connection.data_received(client_frame(TEXT, fin=False))
    data = client_frame(kind, fin=kind != CONTINUATION) * 1000
    connection.data_received(data)
    assert not transport.reading
    most = 0
    with anyio.fail_after(5):
        while handled < 1000:
            before = handled
            await anyio.lowlevel.checkpoint()
            most = max(most, handled - before)
    assert most <= 256  # one turn, or two


async def test_a_block_of_messages_does_not_overfill_the_inbox() -> None:
    """Frames for which there is no room stay unparsed."""
    connection, transport = opened()
    connection.data_received(client_frame(TEXT, b"x") * 40_000)
    with anyio.fail_after(5):
        while not connection._full:
            await anyio.lowlevel.checkpoint()
        assert connection._inbox._size <= 257 * 1024
        for _ in range(40_000):
            assert await connection.receive() == "x"
    assert transport.reading


@pytest.mark.parametrize(("opcode", "part"), [(BINARY, b"\r\n"), (TEXT, b"\r\n"), (TEXT, "ä".encode())])
async def test_a_message_in_many_fragments_takes_no_more_than_its_bytes(opcode: int, part: bytes) -> None:
    """A message in tiny fragments takes memory for its bytes, not for an object per frame."""
    connection, transport = opened()
    tracemalloc.start()
    try:
        connection.data_received(client_frame(opcode, fin=False))
        for _ in range(20):
            connection.data_received(client_frame(CONTINUATION, part, fin=False) * 1000)
            with anyio.fail_after(5):
                while not transport.reading:
                    await anyio.lowlevel.checkpoint()
        assert tracemalloc.get_traced_memory()[0] < 400_000
    finally:
        tracemalloc.stop()
    connection.data_received(client_frame(CONTINUATION))
    whole = part * 20_000
    assert await connection.receive() == (whole if opcode == BINARY else whole.decode())


async def test_an_app_that_receives_lets_others_have_their_turn() -> None:
    """Other tasks run even if an app never has to wait for its next message."""
    connection, _ = opened()
    connection.data_received(client_frame(TEXT, b"x") * 30)
    turns = []

    async def other() -> None:
        turns.append(received)

    received = 0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        for _ in range(200):
            connection.data_received(client_frame(TEXT, b"x"))
            await connection.receive()
            received += 1
    assert turns[0] < 200


async def test_what_was_read_before_the_connection_was_lost_is_received() -> None:
    """All messages are received, and then the Close frame's code; `send` raises at once."""
    connection, transport = opened()
    connection.data_received(client_frame(TEXT, b"x") * 2000 + client_frame(CLOSE, close_payload(4000)))
    connection.connection_lost(None)
    with pytest.raises(ClientDisconnected):
        await connection.send("?")
    with anyio.fail_after(5):
        for _ in range(2000):
            assert await connection.receive() == "x"
        assert await connection.receive() is None
    assert connection.end == (4000, "")
    assert transport.written == b""
    assert transport.calls == []


async def test_a_lost_connection_can_be_closed() -> None:
    """Messages that were not received are dropped, and nothing is written."""
    connection, transport = opened()
    connection.data_received(client_frame(TEXT, b"x") * 2000)
    connection.connection_lost(None)
    connection.close(1000)
    with anyio.fail_after(5):
        assert await connection.receive() is None
    assert connection.end == (1006, "")
    assert transport.written == b""


async def test_closing_drops_what_is_not_received() -> None:
    """The client's Close frame is found behind unread messages, and ours is sent only once."""
    connection, transport = opened()
    connection.data_received(client_frame(BINARY, bytes(300_000)))
    connection.data_received(client_frame(TEXT, b"unread"))
    paused = not transport.reading
    connection.close(1000, "enough")
    connection.close(1001)
    assert paused
    assert transport.reading
    assert transport.frames() == [Frame(CLOSE, close_payload(1000, "enough"))]
    assert await connection.receive() is None
    with pytest.raises(ClientDisconnected):
        await connection.send("too late")
    connection.data_received(client_frame(TEXT, b"unread too") + client_frame(CLOSE, close_payload(1000)))
    assert transport.calls == ["write_eof", "close"]
    assert await connection.receive() is None
    assert connection.end == (1000, "enough")


async def test_nonsense_after_our_close_ends_it() -> None:
    """A client that breaks the protocol after our Close frame gets no second one."""
    connection, transport = opened()
    connection.close(1000)
    connection.data_received(client_frame(TEXT, b"unmasked", masked=False))
    assert transport.frames() == [Frame(CLOSE, close_payload(1000))]
    assert transport.calls == ["write_eof"]
    connection.connection_lost(None)
    assert connection.end == (1000, "")


async def test_send_waits_for_room_and_lets_others_have_their_turn() -> None:
    """send waits until there is room or the connection has ended; a flood lets other tasks run now and then."""
    connection, transport = opened()
    connection.pause_writing()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connection.send, "one")
            await anyio.wait_all_tasks_blocked()
            assert transport.frames() == [Frame(TEXT, b"one")]
            connection.resume_writing()
        connection.pause_writing()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connection.send, "two")
            await anyio.wait_all_tasks_blocked()
            connection.connection_lost(None)

    connection, transport = opened()
    turns = []

    async def other() -> None:
        turns.append(len(frames(transport.written)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        for _ in range(1000):
            await connection.send(b"")
    assert turns[0] < 1000


async def test_what_is_inflated_waits_its_turn() -> None:
    """A block of a few kilobytes that holds sixty megabytes is not inflated at once."""
    deflates = [PerMessageDeflate(), PerMessageDeflate()]
    for deflate in deflates:
        deflate.finalize("permessage-deflate")
    peer = Connection(ConnectionType.CLIENT, [deflates[0]])
    data = b"".join(peer.send(BytesMessage(bytes(1_000_000))) for _ in range(60))
    assert len(data) < 256 * 1024
    connection, transport = opened(deflates[1])
    tracemalloc.start()
    try:
        connection.data_received(data)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
        assert not transport.reading
        for _ in range(60):
            assert await connection.receive() == bytes(1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert transport.reading


async def test_a_socket_that_is_none_is_closed() -> None:
    """A socket that cannot be used raises to the caller, and is closed."""
    connection = WebSocketConnection(running_loop(), WebSocketOptions(), [])
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with pytest.raises(ValueError, match=r"(?i)stream|connect"):
        await connection.run(sock, b"", lambda: None)
    assert sock.fileno() == -1
    assert connection.lost
    assert connection.end == (1006, "")


async def test_run_ends_with_the_connection() -> None:
    """run returns when the client leaves or its task is cancelled, and the socket is closed then."""
    for given_up in (False, True):
        ours, theirs = socket.socketpair()
        theirs.settimeout(5)
        connection = WebSocketConnection(running_loop(), WebSocketOptions(), [])
        ready = anyio.Event()
        with theirs, anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(connection.run, ours, b"HTTP/1.1 101\r\n\r\n", ready.set)
                await ready.wait()
                if given_up:
                    tasks.cancel_scope.cancel()
                else:
                    theirs.shutdown(socket.SHUT_WR)
            assert connection.lost
            await anyio.sleep(0.01)  # asyncio closes the socket one turn of the loop later
            assert theirs.recv(100) in (b"HTTP/1.1 101\r\n\r\n", b"")
            assert theirs.recv(100) == b""


async def test_a_socket_that_comes_too_late_is_closed() -> None:
    """A socket is closed if its exchange is over, or was given up."""

    def call_soon(function: Any, *args: Any) -> None:
        function(*args)

    app: Any = None
    for over in (True, False):
        loop_thread: Any = SimpleNamespace(loop=SimpleNamespace(call_soon=call_soon, event=running_loop().event))
        exchange = WebSocketExchange(app, loop_thread, {}, WebSocketOptions(), print)
        if over:
            exchange.over.set()
        else:
            exchange.give_up()
        ours, theirs = socket.socketpair()
        with theirs:
            exchange.hand_over(ours)
            assert ours.fileno() == -1


def test_a_socket_for_a_loop_that_has_ended_is_closed() -> None:
    """The socket has been taken from the server, so nobody else would close it."""

    def call_soon(function: Any, *args: Any) -> None:
        raise LoopClosed("the event loop has ended")

    app: Any = None
    loop_thread: Any = SimpleNamespace(loop=SimpleNamespace(call_soon=call_soon, event=print))
    exchange = WebSocketExchange(app, loop_thread, {}, WebSocketOptions(), print)
    ours, theirs = socket.socketpair()
    with theirs:
        _hand_to_loop(exchange, ours)
        assert theirs.recv(100) == b""
    exchange.give_up()
