"""Thousands of connections from one process: requests that all come at once, and streams that all stay open."""

import contextlib
import errno
import resource
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

_PATIENCE = 120.0  # seconds until what has not answered is lost


class Connection:
    """One client, which sends its request once it is connected."""

    def __init__(self, port: int, target: str, number: int) -> None:
        self.number = number
        self.received = b""
        request = f"GET {target}?{number} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        self._request = request.encode()
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sock.connect_ex(("127.0.0.1", port))

    def sends(self) -> bool:
        """Send the request; return False if the connection is not there yet."""
        try:
            self.sock.send(self._request)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ENOTCONN):
                return False
            raise
        return True

    def receive(self) -> bytes | None:
        """Return the bytes that have arrived, b"" at the end, or None if there are none yet."""
        try:
            return self.sock.recv(65536)
        except BlockingIOError:
            return None
        except OSError:
            return b""


class Connections:
    """All clients of a burst, and what comes on them."""

    def __init__(self, port: int, target: str, count: int) -> None:
        self._epoll = select.epoll()
        self.open: dict[int, Connection] = {}
        for number in range(count):
            connection = Connection(port, target, number)
            self.open[connection.sock.fileno()] = connection
            self._epoll.register(connection.sock, select.EPOLLIN if connection.sends() else select.EPOLLOUT)

    def __enter__(self) -> "Connections":
        return self

    def __exit__(self, *exc_info: object) -> None:
        for connection in self.open.values():
            connection.sock.close()
        self._epoll.close()

    def received(self) -> Iterator[tuple[Connection, bytes]]:
        """Yield the bytes that have arrived, b"" at the end; wait for a moment if there are none."""
        for descriptor, events in self._epoll.poll(0.05):
            connection = self.open[descriptor]
            if not events & ~select.EPOLLOUT:
                with contextlib.suppress(OSError):
                    if connection.sends():
                        self._epoll.modify(descriptor, select.EPOLLIN)
            elif (part := connection.receive()) is not None:
                yield connection, part

    def close(self, connection: Connection) -> None:
        del self.open[connection.sock.fileno()]
        connection.sock.close()


class Burst(NamedTuple):
    """What became of requests that came at once."""

    seconds: float  # until the last response was whole
    lost: int  # requests without a whole response
    wrong: int  # those whose response was not their own, or had more


def burst(port: int, target: str, count: int) -> Burst:
    """Send `count` requests at once, each with a number that its response has to repeat."""
    start = last = time.monotonic()
    lost = wrong = 0
    with Connections(port, target, count) as connections:
        while connections.open and time.monotonic() < start + _PATIENCE:
            for connection, part in connections.received():
                connection.received += part
                head, _, body = connection.received.partition(b"\r\n\r\n")
                expected = b"%d" % connection.number
                if part and len(body) < len(expected):
                    continue
                if not head.startswith(b"HTTP/1.1 200") or len(body) < len(expected):
                    lost += 1
                elif body != expected:
                    wrong += 1
                connections.close(connection)
                last = time.monotonic()
        return Burst(last - start, lost + len(connections.open), wrong)


class Streams(NamedTuple):
    """What became of event streams that were opened at once."""

    seconds: float  # until each had ticked twice
    silent: int  # streams that did not
    cut: int  # streams that ended
    ticks: int  # the fewest of a stream during `hold`


def streams(port: int, count: int, hold: float, look: Callable[[], object]) -> Streams:
    """Open `count` streams, wait until each ticks, then count for `hold` seconds, and `look` while all are open."""
    start = time.monotonic()
    seconds, cut = 0.0, 0
    ticks = [0] * count
    with Connections(port, "/ticks", count) as connections:
        waiting = count
        while waiting and time.monotonic() < start + _PATIENCE:
            for connection, part in connections.received():
                before = ticks[connection.number]
                ticks[connection.number] += part.count(b"data:")
                waiting -= before < 2 <= ticks[connection.number]
                if not part:
                    cut += 1
                    connections.close(connection)
        seconds = time.monotonic() - start
        ticks = [0] * count
        end = time.monotonic() + hold
        while time.monotonic() < end:
            for connection, part in connections.received():
                ticks[connection.number] += part.count(b"data:")
                if not part:
                    cut += 1
                    connections.close(connection)
        look()
    return Streams(seconds, waiting, cut, min(ticks))


def read_slowly(port: int, look: Callable[[], object]) -> int:
    """Ask for 100 MB and read it at some 20 MB a second; `look` meanwhile. Return how many bytes have come."""
    received, looked = 0, 0
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        sock.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        while part := sock.recv(65536):
            received += len(part)
            time.sleep(len(part) / 20e6)
            if received - looked > 10_000_000:
                looked = received
                look()
    return received


def raise_limit_of_descriptors() -> None:
    """Allow this process and its children all the descriptors that the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def dropped_connections() -> int:
    """Return how often the system has dropped a connection since it started, because a listen queue was full."""
    names, values = [line.split() for line in Path("/proc/net/netstat").read_text().splitlines()[:2]]
    return int(dict(zip(names, values, strict=True))["ListenDrops"])
