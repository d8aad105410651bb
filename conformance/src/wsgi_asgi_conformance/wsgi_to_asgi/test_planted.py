"""Tests of behaviour that planted faults showed no other test to check."""

import asyncio
import gzip
import io
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.asgi_server import ASGIServer, ToASGI
from wsgi_asgi_conformance.samples import http_scope
from wsgi_asgi_conformance.types import Environ, StartResponse


@clause("P3333-140")
def test_an_app_that_writes_without_end_is_stopped(adapt: ToASGI, serve: ASGIServer) -> None:
    """If the client has left, write() raises, because nothing else would stop the app."""
    ended, stop = threading.Event(), threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            write = start_response("200 OK", [])
            while not stop.is_set():
                write(b"x")
        finally:
            ended.set()
        return []

    connection = serve(adapt(app), hold_after=2).until_logged("send", 2)
    connection.disconnect()
    try:
        connection.until(ended.is_set, "the end of the app")
    finally:
        stop.set()


@clause("P3333-156")
@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError()], ids=repr)
def test_an_app_does_not_end_the_loop(adapt: ToASGI, serve: ASGIServer, error: BaseException) -> None:
    """SystemExit and the like in the app are not raised in the server's task, where they would stop the loop."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        raise error

    connection = serve(adapt(app)).until_ended()
    assert connection.error is None or isinstance(connection.error, Exception)
    assert connection.failed


def compressed_file(path: Path) -> Any:
    path.write_bytes(gzip.compress(b"content"))
    return gzip.open(path)


def unlinked_file(path: Path) -> Any:
    path.write_bytes(b"content")
    file = path.open("rb")
    path.unlink()
    return file


def replaced_file(path: Path) -> Any:
    file = unlinked_file(path)
    path.write_bytes(b"another")
    return file


class Readable:
    def __init__(self, path: Path) -> None:
        self.read = io.BytesIO(b"content").read


@clause("P3333-177", "ASGI-EXT-016")
@pytest.mark.parametrize(
    "open_file", [compressed_file, unlinked_file, replaced_file, Readable, lambda path: io.BytesIO(b"content")]
)
def test_what_its_path_does_not_lead_to_is_read(
    adapt: ToASGI, serve: ASGIServer, tmp_path: Path, open_file: Callable[[Path], Any]
) -> None:
    """The adapter reads a file whose path is missing or leads elsewhere, even if the server accepts paths."""
    found: list[bool] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        found.append("wsgi.file_wrapper" in environ)
        start_response("200 OK", [])
        blocks: Iterable[bytes] = environ["wsgi.file_wrapper"](open_file(tmp_path / "file")) if found[0] else []
        return blocks

    connection = serve(adapt(app), http_scope(extensions={"http.response.pathsend": {}})).finish()
    if not found[0]:
        pytest.skip("the adapter has no wsgi.file_wrapper")
    assert connection.body == b"content"
