"""wsgi.file_wrapper, as a WSGI server offers it."""

import io
from pathlib import Path
from typing import Any

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.notes import Notes
from wsgi_asgi_conformance.serving import RunningServer
from wsgi_asgi_conformance.types import Environ, StartResponse
from wsgi_asgi_conformance.wsgi_servers.test_environ import TEXT

FILE = Path(__file__)


class OnlyReads:
    """A file-like object with the methods that PEP 3333 names, and no others."""

    def __init__(self, notes: Notes) -> None:
        self._stream = io.BytesIO(FILE.read_bytes())
        self._notes = notes

    def read(self, size: int = -1) -> bytes:
        self._notes("read")
        return self._stream.read(size)

    def close(self) -> None:
        self._notes("closed")


class RealFile(io.FileIO):
    def __init__(self, notes: Notes) -> None:
        super().__init__(FILE)
        self._notes = notes

    def close(self) -> None:
        if not self.closed:
            self._notes("closed")
        super().close()


def wraps(environ: Environ, start_response: StartResponse, notes: Notes) -> Any:
    wrapper = environ.get("wsgi.file_wrapper")
    notes("offered", wrapper is not None)
    start_response("200 OK", [*TEXT])
    if wrapper is None:
        return []
    kind = environ["QUERY_STRING"]
    if kind == "bytes":
        return wrapper(io.BytesIO(FILE.read_bytes()))
    stream: Any = RealFile(notes) if kind in ("file", "position") else OnlyReads(notes)
    if kind == "position":
        stream.seek(100)
    return wrapper(stream, 1000)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("file", marks=clause("P3333-170", "P3333-171", "P3333-175", "P3333-178")),
        pytest.param("read", marks=clause("P3333-172", "P3333-173")),
        pytest.param("bytes", marks=clause("P3333-177")),
        pytest.param("position", marks=clause("P3333-176")),
    ],
)
def test_a_file_is_sent(server: RunningServer, kind: str) -> None:
    """The server sends a file from its position to its end, whatever kind of file it is."""
    exchange = server.exchange(wraps).request(target=f"/?{kind}")
    response = exchange.response()
    if not exchange.value("offered"):
        pytest.skip("wsgi.file_wrapper is not offered")
    assert response.body == FILE.read_bytes()[100 if kind == "position" else 0 :]
    assert response.complete


@clause("P3333-174")
@pytest.mark.parametrize("kind", ["file", "read"])
def test_a_file_is_closed(server: RunningServer, kind: str) -> None:
    """The server closes the file after it has sent it."""
    exchange = server.exchange(wraps).request(target=f"/?{kind}")
    exchange.response()
    if not exchange.value("offered"):
        pytest.skip("wsgi.file_wrapper is not offered")
    exchange.value("closed")
