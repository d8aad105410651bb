"""Carry bytes between a server's connection and the loop, in the request's WSGI thread."""

import importlib
import math
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from bridge.asgi_to_wsgi.servers import maybe_hang_up_check
from bridge.asgi_to_wsgi.sockets import ClientConnection, Descriptor, copy_of, tune

_BLOCK_SIZE = 64 * 1024
# How often a thread that carries a connection checks whether the loop still runs, in seconds.
_LOOK_AROUND = 1.0
# How long a client may take to read the last bytes, and then to hang up, in seconds.
_LINGER = 2.0

_Wait: TypeAlias = Callable[[list[Any], list[Any], float], object]


def carry(
    connection: ClientConnection, ours: socket.socket, alive: Callable[[], bool], client_left: Callable[[], object]
) -> None:
    """Carry bytes between the server's socket and `ours` until either has ended; in the WSGI thread.

    At most one block waits in each direction, so a client that does not read slows down the other end
    of `ours`. The client ends each wait, or the other end of `ours` by closing. So does `alive`, which
    is called at least once a second: once it returns False, the client has a moment to read the rest.
    Calls `client_left` if the client hangs up while the other end leaves bytes unread.
    """
    wait = _wait_for(connection.green)
    sock = connection.sock
    if isinstance(sock, Descriptor):
        sock = copy_of(sock.number)
    try:
        sock.setblocking(False)  # for eventlet's TLS, settimeout(0) does something else
        ours.setblocking(False)
        tune(sock)
        inward, outward = _Direction(sock, ours), _Direction(ours, sock)
        deadline = math.inf
        has_hung_up, next_look = maybe_hang_up_check(sock), time.monotonic() + _LOOK_AROUND
        while not outward.ended and time.monotonic() < deadline:
            moved = inward.move()
            if not (outward.move() or moved):
                wait(
                    [direction.awaited for direction in (inward, outward) if direction.awaited_event == "read"],
                    [direction.awaited for direction in (inward, outward) if direction.awaited_event == "write"],
                    _LOOK_AROUND,
                )
            if inward.awaited_event == "write" and has_hung_up is not None and time.monotonic() >= next_look:
                next_look = time.monotonic() + _LOOK_AROUND
                if has_hung_up():
                    client_left()
                    has_hung_up = None
            if deadline == math.inf and not alive():
                deadline = time.monotonic() + _LINGER
        _await_hang_up(sock, wait)
    except OSError:
        pass  # the client has left
    finally:
        ours.close()
        try:
            # Even if the server kills this greenlet, so that nothing it sends now reaches the client.
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is already closed
        if sock is not connection.sock:
            sock.close()
        connection.end()


class _Direction:
    """One direction of a connection whose bytes are carried."""

    def __init__(self, source: Any, target: Any) -> None:
        self.ended = False
        self.awaited: Any = source
        self.awaited_event: Literal["read", "write", ""] = ""
        self._source = source
        self._target = target
        self._block = memoryview(b"")

    def move(self) -> bool:
        """Move what can be moved without waiting; return whether that was anything."""
        if self.ended:
            return False
        self.awaited = self._source
        try:
            if not self._block:
                self._block = memoryview(self._source.recv(_BLOCK_SIZE))
            if self._block:
                self.awaited = self._target
                sent = self._target.send(self._block)
                self._block = self._block[sent:]
                self.awaited_event = "" if sent else "write"  # gevent's TLS returns 0 instead of raising
                return bool(sent)
        except ssl.SSLWantReadError:
            self.awaited_event = "read"
            return False
        except (ssl.SSLWantWriteError, BlockingIOError) as error:
            reading = self.awaited is self._source and isinstance(error, BlockingIOError)
            self.awaited_event = "read" if reading else "write"
            return False
        except OSError:
            pass  # the source or the target is closed
        self.ended = True
        self.awaited_event = ""
        try:
            self._target.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the target is closed
        return True


def _await_hang_up(sock: Any, wait: _Wait) -> None:
    """Wait for the client to hang up first.

    Closing with unread bytes resets the connection, and the client may then lose what we sent last.
    """
    sock.shutdown(socket.SHUT_WR)
    deadline = time.monotonic() + _LINGER
    while time.monotonic() < deadline:
        try:
            if not sock.recv(_BLOCK_SIZE):
                return
        except BlockingIOError:
            wait([sock], [], _LOOK_AROUND)


def _wait_for(green: str | None) -> _Wait:
    """Return a function that waits for sockets in the current thread or greenlet."""
    if green is not None:
        select_function = importlib.import_module(
            {"gevent": "gevent.select", "eventlet": "eventlet.green.select"}[green]
        )
        return lambda readers, writers, timeout: select_function.select(readers, writers, [], timeout)
    if hasattr(select, "poll"):
        return _poll  # select() supports no descriptor above 1023
    return lambda readers, writers, timeout: select.select(readers, writers, [], timeout)


def _poll(readers: list[Any], writers: list[Any], timeout: float) -> None:
    poll = select.poll()
    for sock in {*readers, *writers}:
        poll.register(sock, select.POLLIN * (sock in readers) | select.POLLOUT * (sock in writers))
    poll.poll(timeout * 1000)
