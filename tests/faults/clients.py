"""Clients that can send anything, and leave at any time and in any way."""

import contextlib
import http.client
import json
import socket
import time
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from tests.faults.ledger import Status
from tests.processes import Server

# How many seconds anything that a test waits for may take on a busy machine.
SOON = 20.0


class Answer(NamedTuple):
    status: int
    number: str | None
    body: bytes


class Client:
    """A client that keeps its connection alive, as long as the server does."""

    def __init__(self, port: int, *headers: tuple[str, str]) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SOON)
        self._headers = dict(headers)

    def request(
        self, method: str, path: str, number: int = 0, body: bytes | None = None, chunked: bool = False
    ) -> Answer:
        """Send a request and read the response. Raises http.client's errors for one that is cut off."""
        headers = {**self._headers, "X-Number": str(number)}
        blocks = iter([body[:1000], body[1000:]] if body else []) if chunked and body is not None else body
        self._connection.request(method, path, blocks, headers, encode_chunked=chunked)
        response = self._connection.getresponse()
        return Answer(response.status, response.headers["X-Number"], response.read())

    def close(self) -> None:
        self._connection.close()


def ask(server: Server, path: str, number: int = 0, body: bytes | None = None) -> Answer:
    """Send one request, on a connection of its own."""
    with contextlib.closing(Client(server.port, ("Connection", "close"))) as client:
        return client.request("GET" if body is None else "POST", path, number, body)


def status_of(server: Server) -> Status:
    status: Status = json.loads(ask(server, "/status").body)
    return status


def runs_of(server: Server) -> bytes:
    """Return how often each number was run."""
    return zlib.decompress(ask(server, "/runs").body)


def request_head(path: str, *headers: str, method: str = "GET", number: int = 0) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: a", f"X-Number: {number}", *headers, "", ""]).encode()


@contextlib.contextmanager
def listening() -> Iterator[tuple[socket.socket, int]]:
    """Yield a listener for apps that hold their requests, and its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(SOON)
        try:
            yield listener, listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # ends an accept(), and resets connections that were not accepted


class Idle(NamedTuple):
    """What a server has open while it is idle."""

    tasks: int
    descriptors: int
    threads: int


def idle_of(server: Server, spare_threads: int) -> Idle:
    """Return what `server` has open while it is idle, and how many threads it may have."""
    ask(server, "/hello")
    status = status_of(server)
    return Idle(status["tasks"], status["descriptors"], status["threads"] + spare_threads)


def wait_until_idle(server: Server, idle: Idle) -> None:
    """Wait until no app runs, and there are no more tasks, descriptors and threads than before."""
    found = status_of(server)
    deadline = time.monotonic() + SOON
    while found["running"] or any(found[name] > most for name, most in idle._asdict().items()):  # type: ignore[literal-required]
        assert time.monotonic() < deadline, f"{found} is not {idle}"
        time.sleep(0.01)
        found = status_of(server)
