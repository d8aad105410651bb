import os
import select
import socket
import ssl
import threading
import time
from typing import Any

import pytest

from bridge.asgi_to_wsgi import carry as carry_module
from bridge.asgi_to_wsgi.carry import carry
from bridge.asgi_to_wsgi.sockets import ClientConnection, Descriptor
from tests.processes import wait_until


class Carrier:
    """A connection that is carried in a thread: the client's end, and the loop's."""

    def __init__(self, server: socket.socket) -> None:
        self.alive = True
        self.ended = threading.Event()
        self.left = threading.Event()
        self.loops, ours = socket.socketpair()
        self.loops.settimeout(5)
        connection = ClientConnection(server, None, False, self.ended.set)
        self.thread = threading.Thread(
            target=carry, args=(connection, ours, lambda: self.alive, self.left.set), daemon=True
        )
        self.thread.start()

    def join(self, timeout: float = 5) -> None:
        self.loops.close()
        self.thread.join(timeout)
        assert not self.thread.is_alive()
        assert self.ended.is_set()


def test_what_is_carried_arrives_both_ways(pair: tuple[socket.socket, socket.socket]) -> None:
    """Megabytes move in both directions at the same time, and then the last bytes of the loop's end."""
    server, client = pair
    carrier = Carrier(server)
    block = os.urandom(2_000_000)

    def send(sock: socket.socket) -> None:
        sock.sendall(block)

    senders = [threading.Thread(target=send, args=(sock,)) for sock in (client, carrier.loops)]
    received: dict[socket.socket, bytes] = {}

    def receive(sock: socket.socket) -> None:
        whole = b""
        while len(whole) < len(block):
            whole += sock.recv(65_536)
        received[sock] = whole

    receivers = [threading.Thread(target=receive, args=(sock,)) for sock in (client, carrier.loops)]
    for thread in senders + receivers:
        thread.start()
    for thread in senders + receivers:
        thread.join(5)
    assert received == {client: block, carrier.loops: block}
    carrier.loops.sendall(b"goodbye")
    carrier.loops.close()
    assert client.recv(100) == b"goodbye"
    assert client.recv(100) == b""
    client.close()
    carrier.join()
    with pytest.raises(OSError, match="Broken pipe"):
        server.sendall(b"HTTP/1.1 500 Oops")


def test_a_client_that_leaves_is_felt_at_the_loops_end(pair: tuple[socket.socket, socket.socket]) -> None:
    """When the client leaves, the loop's end reads its last bytes and then the end of file."""
    carrier = Carrier(pair[0])
    pair[1].sendall(b"goodbye")
    pair[1].close()
    assert carrier.loops.recv(100) == b"goodbye"
    assert carrier.loops.recv(100) == b""
    carrier.join()


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="only Linux tells of an end behind unread bytes")
def test_a_client_that_leaves_behind_unread_bytes_is_told_of(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's leaving is reported once, and its bytes still arrive when the loop's end reads on."""
    monkeypatch.setattr(carry_module, "_LOOK_AROUND", 0.05)
    carrier = Carrier(pair[0])
    pair[1].setblocking(False)
    sent = 0
    while select.select([], [pair[1]], [], 0.2)[1]:  # until it stays full
        sent += pair[1].send(bytes(65_536))
    assert not carrier.left.is_set()
    pair[1].close()
    assert carrier.left.wait(5)
    received = 0
    while block := carrier.loops.recv(1 << 20):
        received += len(block)
    assert received == sent
    carrier.join()


def test_a_client_that_reads_nothing_does_not_hold_a_dead_loops_thread(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the loop has ended, the last bytes have a moment to be sent, and no more."""
    monkeypatch.setattr(carry_module, "_LOOK_AROUND", 0.05)
    monkeypatch.setattr(carry_module, "_LINGER", 0.1)
    carrier = Carrier(pair[0])
    carrier.loops.setblocking(False)
    while select.select([], [carrier.loops], [], 0.2)[1]:  # until it stays full
        carrier.loops.send(bytes(65_536))
    carrier.alive = False
    carrier.join()


def test_a_client_that_does_not_hang_up_is_not_waited_for(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client has a moment to hang up, and what it sends meanwhile is read and dropped."""
    monkeypatch.setattr(carry_module, "_LOOK_AROUND", 0.05)
    monkeypatch.setattr(carry_module, "_LINGER", 0.2)
    carrier = Carrier(pair[0])
    carrier.loops.sendall(b"goodbye")
    carrier.loops.close()
    assert pair[1].recv(100) == b"goodbye"
    assert pair[1].recv(100) == b""
    pair[1].sendall(b"still here")
    start = time.monotonic()
    carrier.join()
    assert time.monotonic() - start < 2


class Renegotiating(socket.socket):
    """A TLS socket whose reads first have to write, and whose writes first have to read or send nothing, once each."""

    whims: list[Exception | int]

    def recv(self, *args: Any) -> bytes:
        if len(self.whims) == 3:
            self.whims.pop()
            raise ssl.SSLWantWriteError
        return super().recv(*args)

    def send(self, *args: Any) -> int:
        if self.whims:
            whim = self.whims.pop()
            if isinstance(whim, Exception):
                raise whim
            return whim
        return super().send(*args)


def test_tls_may_want_the_other_direction(pair: tuple[socket.socket, socket.socket]) -> None:
    """A TLS read may have to wait for room and a write for data, and a send of nothing is repeated."""
    server = Renegotiating(fileno=os.dup(pair[0].fileno()))
    server.whims = [0, ssl.SSLWantReadError(), ssl.SSLWantWriteError()]
    with server:
        carrier = Carrier(server)
        carrier.loops.sendall(b"outward")
        pair[1].sendall(b"inward")
        assert pair[1].recv(100) == b"outward"
        assert carrier.loops.recv(100) == b"inward"
        pair[1].close()
        carrier.join()


def test_a_process_without_poll_has_select(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without poll, as on Windows, select is used."""
    monkeypatch.delattr("select.poll")
    carrier = Carrier(pair[0])
    carrier.loops.sendall(b"outward")
    assert pair[1].recv(100) == b"outward"
    pair[1].close()
    carrier.join()


def test_a_carried_descriptor_is_left_alone_but_for_its_end(pair: tuple[socket.socket, socket.socket]) -> None:
    """For uWSGI under gevent, a copy of its descriptor is carried and closed."""
    ended = threading.Event()
    ours, loops = socket.socketpair()
    connection = ClientConnection(Descriptor(pair[0].fileno()), None, False, ended.set)
    thread = threading.Thread(target=carry, args=(connection, ours, lambda: True, print), daemon=True)
    thread.start()
    with loops:
        pair[1].sendall(b"inward")
        assert loops.recv(100) == b"inward"
        pair[1].close()
        wait_until(lambda: loops.recv(100) == b"")
    thread.join(5)
    assert ended.is_set()
    assert pair[0].fileno() >= 0
