from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import http_app
from wsgi_asgi_conformance.asgi_to_wsgi.recording import END, START, block, is_refused, sending, skip_without
from wsgi_asgi_conformance.samples import http_environ
from wsgi_asgi_conformance.types import Environ, Message, Receive, Scope, Send
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIServer

NAME = "http.response.pathsend"


def pathsend(path: object) -> dict[str, Any]:
    return {"type": NAME, "path": path}


@pytest.fixture
def path(tmp_path: Path) -> str:
    """The path of a small file."""
    (tmp_path / "file").write_bytes(b"content")
    return str(tmp_path / "file")


@clause("ASGI-EXT-011")
@pytest.mark.parametrize("variables", [{}, {"wsgi.file_wrapper": FileWrapper}], ids=["blocks", "file_wrapper"])
@pytest.mark.parametrize("size", [0, 1, 300_000])
def test_a_file_is_sent(
    adapt_for_files: ToWSGI, serve: WSGIServer, tmp_path: Path, variables: Environ, size: int
) -> None:
    """The response is the file, in blocks, with the server's wsgi.file_wrapper and without it."""
    skip_without(adapt_for_files, serve, NAME)
    content = bytes(number % 251 for number in range(size))
    (tmp_path / "file").write_bytes(content)
    errors: list[Exception] = []
    app = sending(START, pathsend(str(tmp_path / "file")), errors=errors)
    request = serve(adapt_for_files(app), http_environ(**variables)).finish()
    assert (request.status, request.body == content, errors) == ("200 OK", True, [])
    assert max(map(len, request.blocks), default=0) <= max(1, size // 2)


@clause("ASGI-EXT-012")
@pytest.mark.parametrize(
    "surplus",
    [block(b"more"), {**END, "body": b"more"}, "the file again"],
    ids=["block", "end", "pathsend"],
)
def test_a_file_is_the_whole_body(adapt_for_files: ToWSGI, serve: WSGIServer, path: str, surplus: Any) -> None:
    """The response ends with the file; later messages are ignored, as after any response, or refused."""
    skip_without(adapt_for_files, serve, NAME)
    app = sending(START, pathsend(path), pathsend(path) if isinstance(surplus, str) else surplus, errors=[])
    assert serve(adapt_for_files(app)).finish().body == b"content"


@clause("ASGI-EXT-012")
@pytest.mark.parametrize("before", [[], [START, block(b"one")]], ids=["before the start", "in the body"])
def test_a_file_is_not_mixed_with_a_body(
    adapt_for_files: ToWSGI, serve: WSGIServer, path: str, before: list[Message]
) -> None:
    """send() raises before the start and after a block, and none of the file is in the response."""
    skip_without(adapt_for_files, serve, NAME)
    errors: list[Exception] = []
    after = [START, block(b"one"), END][len(before) :]
    request = serve(adapt_for_files(sending(*before, pathsend(path), *after, errors=errors))).finish()
    assert request.body == b"one"
    assert len(errors) == 1


@clause("ASGI-EXT-013")
@pytest.mark.parametrize(
    "wrong",
    ["/no/such/file", "README.md", "/", b"/etc/hostname", None, 0],
    ids=["none", "relative", "folder", "bytes", "None", "int"],
)
def test_a_path_that_cannot_be_sent_is_an_error(adapt_for_files: ToWSGI, serve: WSGIServer, wrong: object) -> None:
    """send() raises into the app, and because nothing was sent, the client gets a 500."""
    skip_without(adapt_for_files, serve, NAME)
    errors: list[Exception] = []

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        try:
            await send(pathsend(wrong))
        except Exception as error:
            errors.append(error)
            raise

    request = serve(adapt_for_files(app))
    assert is_refused(request)
    assert request.blocks == [] or request.status.startswith("5")
    assert len(errors) == 1


@clause("ASGI-EXT-014")
@pytest.mark.parametrize("variables", [{}, {"wsgi.file_wrapper": FileWrapper}], ids=["blocks", "file_wrapper"])
@pytest.mark.parametrize(
    "headers", [[], [(b"content-length", b"7"), (b"content-type", b"text/x-mine")]], ids=["none", "the app's"]
)
def test_a_file_has_the_headers_of_the_app(
    adapt_for_files: ToWSGI, serve: WSGIServer, path: str, variables: Environ, headers: list[tuple[bytes, bytes]]
) -> None:
    """The adapter guesses no Content-Type from the file, and adds no header."""
    skip_without(adapt_for_files, serve, NAME)
    app = sending({**START, "headers": headers}, pathsend(path), errors=[])
    request = serve(adapt_for_files(app), http_environ(**variables)).finish()
    assert request.headers == [(name.decode(), value.decode()) for name, value in headers]
    assert request.body == b"content"
