"""A client of real ASGI servers, and a reader for what their app writes to the log."""

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
# How long an app may take, on a busy machine, to notice "at once" that its client has left.
AT_ONCE = 3.0


def notes(server: Server, request_id: str) -> list[str]:
    """Return what apps have written to the log for requests with this id."""
    start = f"{request_id} "
    return [line.removeprefix(start) for line in server.output().splitlines() if line.startswith(start)]


def wait_for_note(server: Server, request_id: str, note: str, count: int = 1, timeout: float = 10.0) -> None:
    """Wait until an app has written a note `count` times."""
    wait_until(lambda: notes(server, request_id).count(note) >= count, timeout, f"{count} of {note!r}")


def head(target: str, *lines: str, method: str = "GET") -> bytes:
    """Return the head of a request."""
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode("latin-1")


class Client:
    """A connection to a server, which may also send a part of a request."""

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
        """Send a request whose body is `body`, or incomplete without it."""
        self.send(head(target, *lines, method="POST") + body)

    def answer(self, method: str = "GET") -> http.client.HTTPResponse:
        """Return the next response before its body is read."""
        response = http.client.HTTPResponse(_Unclosed(self._file), method=method)  # type: ignore[arg-type]  # as a socket
        response.begin()
        return response

    def json(self) -> Any:
        """Return the JSON of the next response."""
        return json.loads(self.answer().read())

    def close(self) -> None:
        """Close the connection, as a client does that has read all it wants."""
        self._file.close()
        self.sock.close()

    def reset(self) -> None:
        """Reset the connection, as a killed client with unread data does."""
        self._file.close()
        reset(self.sock)


class _Unclosed:
    """A socket, and its own file, for http.client; it stays open after a response, so that another one can follow."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file

    def makefile(self, mode: str) -> Self:
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def close(self) -> None:
        pass


def in_odd_pieces(content: bytes) -> Iterator[bytes]:
    """Cut `content` into pieces of one byte and more."""
    start = 0
    for size in itertools.cycle([1, 4, 1, 2, 13, 700, 3]):
        if start >= len(content):
            return
        yield content[start : start + size]
        start += size


def chunk(piece: bytes) -> bytes:
    """Return a piece of body as a chunk of the chunked transfer coding."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)
