"""A client of real ASGI servers, and the notes of the app that they serve."""

import http.client
import io
import itertools
import json
import socket
from collections.abc import Iterator
from typing import Any, Self

from tests.processes import Server, wait_until
from tests.sockets import reset

APP = "tests.servers.wsgi_apps:app"
# How long it may take until an app knows that its client has left: "at once", on a busy machine.
AT_ONCE = 3.0


def notes(server: Server, request_id: str) -> list[str]:
    """Return what apps have noted for requests of this id."""
    start = f"{request_id} "
    return [line.removeprefix(start) for line in server.output().splitlines() if line.startswith(start)]


def wait_for_note(server: Server, request_id: str, note: str, count: int = 1, timeout: float = 10.0) -> None:
    """Wait until an app has noted something, `count` times."""
    wait_until(lambda: notes(server, request_id).count(note) >= count, timeout, f"{count} of {note!r}")


def head(target: str, *lines: str, method: str = "GET") -> bytes:
    """Return the head of a request."""
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode("latin-1")


class Client:
    """A connection to a server; what is sent by it need not be a whole request."""

    def __init__(self, server: Server) -> None:
        self.sock = server.connect()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self.sock.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def send(self, content: bytes) -> None:
        self.sock.sendall(content)

    def get(self, target: str, *lines: str) -> None:
        """Send a request without a body."""
        self.send(head(target, *lines))

    def post(self, target: str, *lines: str, body: bytes = b"") -> None:
        """Send a request whose body is not complete, or is in `body`."""
        self.send(head(target, *lines, method="POST") + body)

    def answer(self, method: str = "GET") -> http.client.HTTPResponse:
        """Return the next response, its body still unread."""
        response = http.client.HTTPResponse(_Unclosed(self._file), method=method)  # type: ignore[arg-type]  # as a socket
        response.begin()
        return response

    def json(self) -> Any:
        """Return what the next response says."""
        return json.loads(self.answer().read())

    def close(self) -> None:
        """Leave as a client does that has read all it wants."""
        self._file.close()
        self.sock.close()

    def reset(self) -> None:
        """Leave by RST, as a client does that is killed with data unread."""
        self._file.close()
        reset(self.sock)


class _Unclosed:
    """What http.client takes for a socket and then for its file; stays open behind a response, for the next one."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file

    def makefile(self, mode: str) -> Self:
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def close(self) -> None:
        pass


def in_odd_pieces(content: bytes) -> Iterator[bytes]:
    """Cut `content` to pieces of one byte and more."""
    start = 0
    for size in itertools.cycle([1, 4, 1, 2, 13, 700, 3]):
        if start >= len(content):
            return
        yield content[start : start + size]
        start += size


def chunk(piece: bytes) -> bytes:
    """Return a piece of body as chunked transfer coding has it."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)
