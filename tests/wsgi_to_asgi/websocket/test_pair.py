import gc
import socket
import threading
from collections.abc import Iterator

import anyio
import anyio.lowlevel
import pytest
from wsproto.frame_protocol import FrameProtocol

from bridge.errors import WouldBlockLoop
from bridge.runtime import Loop, running_loop
from bridge.wsgi_to_asgi.websocket.pair import AppSocket, BridgeSocket, client_frame
from tests.fakes import eventually

MIB = 1024 * 1024
# A loop that no thread runs.
ELSEWHERE = Loop(object(), anyio.Event, lambda function: None, lambda: True)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, AppSocket]]:
    ours, theirs = socket.socketpair()
    with ours, AppSocket(theirs.detach(), ELSEWHERE) as app_socket:
        yield ours, app_socket


def test_threads_do_not_interrupt_each_other(pair: tuple[socket.socket, AppSocket]) -> None:
    """What one thread sends arrives in one piece, even if the buffers are full and another thread sends."""
    ours, app_socket = pair
    letters = [b"a", b"b", b"c"]
    threads = [threading.Thread(target=app_socket.send, args=[letter * MIB]) for letter in letters]
    for thread in threads:
        thread.start()
    received = b""
    while len(received) < 3 * MIB:
        received += ours.recv(MIB)
    for thread in threads:
        thread.join(5)
    assert {received[start : start + MIB] for start in range(0, 3 * MIB, MIB)} == {letter * MIB for letter in letters}


def test_send_returns_how_much_it_was(pair: tuple[socket.socket, AppSocket]) -> None:
    """send returns the size of the whole buffer in bytes, whatever its type."""
    assert pair[1].send(memoryview(bytearray(8)).cast("I")) == 8


def test_a_socket_that_nobody_has_is_closed() -> None:
    """A socket to which nobody refers is closed, without a ResourceWarning."""
    ours, theirs = socket.socketpair()
    with ours:
        app_socket = AppSocket(theirs.detach(), ELSEWHERE)
        del app_socket
        gc.collect()
        assert ours.recv(1) == b""


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65535, 65536])
@pytest.mark.parametrize("text", [False, True])
def test_a_frame_is_what_a_client_sends(length: int, text: bool) -> None:
    """A server accepts the frame, which must be masked."""
    message = "x" * length if text else b"\xff" * length
    server = FrameProtocol(client=False, extensions=[])
    server.receive_bytes(client_frame(message))
    (frame,) = server.received_frames()
    assert frame.payload == message
    assert frame.message_finished


async def test_reading_pauses_until_what_was_read_is_taken(pair: tuple[socket.socket, AppSocket]) -> None:
    """While nobody takes a block, no more than two are read."""
    ours, app_socket = pair
    bridge_socket = BridgeSocket(ours, running_loop())
    sender = threading.Thread(target=app_socket.sendall, args=[b"x" * 4 * MIB])
    sender.start()
    for _ in range(100):
        await anyio.wait_all_tasks_blocked()
        await anyio.lowlevel.checkpoint()
    assert sender.is_alive()
    received = 0
    while received < 4 * MIB:
        received += len(await bridge_socket.read())
    sender.join(5)
    app_socket.shutdown(socket.SHUT_WR)
    assert await bridge_socket.read() == b""
    assert await bridge_socket.read() == b""
    bridge_socket.close(b"")


async def test_a_read_that_is_cancelled_loses_nothing(pair: tuple[socket.socket, AppSocket]) -> None:
    """The next read returns the block."""
    ours, app_socket = pair
    bridge_socket = BridgeSocket(ours, running_loop())
    with anyio.move_on_after(0.01) as scope:
        await bridge_socket.read()
    assert scope.cancelled_caught
    app_socket.sendall(b"hello")
    assert await bridge_socket.read() == b"hello"
    bridge_socket.close(b"")


async def test_what_is_written_at_once_comes_in_one_piece_each(pair: tuple[socket.socket, AppSocket]) -> None:
    """Tasks that write wait for each other, and after a block that was cut off nothing more is written."""
    ours, app_socket = pair
    bridge_socket = BridgeSocket(ours, running_loop())
    async with anyio.create_task_group() as tasks:
        for letter in (b"a", b"b"):
            tasks.start_soon(bridge_socket.write, letter * MIB)
        await anyio.wait_all_tasks_blocked()
        assert bridge_socket.mid_block
        received = bytearray()

        def receive() -> None:
            while len(received) < 2 * MIB:
                received.extend(app_socket.recv(MIB))

        reader = threading.Thread(target=receive)
        reader.start()
    assert not bridge_socket.mid_block
    await eventually(lambda: not reader.is_alive())
    assert bytes(received) in (b"a" * MIB + b"b" * MIB, b"b" * MIB + b"a" * MIB)
    bridge_socket.close(b"")


async def test_writing_ends_when_the_app_has_closed_its_end(pair: tuple[socket.socket, AppSocket]) -> None:
    """Writing ends, even in the middle of a block, because nobody will read it."""
    ours, app_socket = pair
    bridge_socket = BridgeSocket(ours, running_loop())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bridge_socket.write, b"x" * 4 * MIB)
        await anyio.wait_all_tasks_blocked()
        app_socket.close()
    await bridge_socket.write(b"more")
    assert await bridge_socket.read() == b""
    bridge_socket.close(b"last")


async def test_what_would_sleep_on_the_loop_raises() -> None:
    """On the loop, a library can read what has arrived, and gets an error where its call would stop the loop."""
    ours, theirs = socket.socketpair()
    with ours, AppSocket(theirs.detach(), running_loop()) as app_socket:
        for timeout in (None, 5.0):
            app_socket.settimeout(timeout)
            with pytest.raises(WouldBlockLoop, match="lend_loop"):
                app_socket.recv(10)
            with pytest.raises(WouldBlockLoop):
                app_socket.recv_into(bytearray(10))
            with pytest.raises(WouldBlockLoop):
                app_socket.makefile("rb").read(1)
            ours.sendall(b"ab")
            assert (app_socket.recv(1), app_socket.recv_into(bytearray(10))) == (b"a", 1)
            assert app_socket.send(b"small") == 5
            assert ours.recv(10) == b"small"
        app_socket.settimeout(0)
        with pytest.raises(BlockingIOError):
            app_socket.recv(1)
        app_socket.settimeout(None)
        with pytest.raises(WouldBlockLoop):
            app_socket.sendall(bytes(10 * MIB))


async def test_a_send_behind_one_that_waits_raises_on_the_loop() -> None:
    """The send would wait for another thread's message, which only the loop can read."""
    ours, theirs = socket.socketpair()
    with ours, AppSocket(theirs.detach(), running_loop()) as app_socket:
        thread = threading.Thread(target=app_socket.sendall, args=[bytes(10 * MIB)])
        thread.start()
        await eventually(app_socket._sending.locked)
        with pytest.raises(WouldBlockLoop):
            app_socket.send(b"x")
        left = 10 * MIB
        while left:
            left -= len(ours.recv(MIB))
        await anyio.to_thread.run_sync(thread.join, 5)
        app_socket.send(b"x")
        assert ours.recv(10) == b"x"
