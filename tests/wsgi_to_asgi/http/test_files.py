"""`wsgi.file_wrapper`, and files that the server sends by path."""

import gzip
import io
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import flask
import pytest

from bridge import WSGIToASGI
from bridge.types import Environ, Message, StartResponse
from tests.fakes import ASGIServer, http_scope, request
from tests.wsgi_to_asgi.http.apps import OK


def sends_file(file: Any, *arguments: int, headers: list[tuple[str, str]] | None = None) -> WSGIToASGI:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, headers or [])
        return environ["wsgi.file_wrapper"](file, *arguments)  # type: ignore[no-any-return]

    return WSGIToASGI(app)


async def test_a_file_is_sent_by_path_where_the_server_can(tmp_path: Path) -> None:
    """A plain file at its start becomes http.response.pathsend, and is closed."""
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    file = path.open("rb")
    scope = http_scope(extensions={"http.response.pathsend": {}})
    server = await request(sends_file(file, 8192, headers=[("Content-Length", "3")]), scope)
    assert server.sent[1:] == [{"type": "http.response.pathsend", "path": str(path)}]
    assert file.closed


async def test_a_server_may_change_the_message_of_a_file(tmp_path: Path) -> None:
    """Middleware may change the message, for example to read the file itself: the app's wait ends all the same."""

    class Changes(ASGIServer):
        async def _send(self, message: Message, /) -> None:
            await super()._send(dict(message))
            message["type"] = "http.response.body"

    path = tmp_path / "file"
    path.write_bytes(b"abc")
    file = path.open("rb")
    server = Changes(sends_file(file), http_scope(extensions={"http.response.pathsend": {}}))
    with anyio.fail_after(5):
        await server.run()
    assert file.closed


async def test_a_file_is_closed_when_its_server_has_it(tmp_path: Path) -> None:
    """close(), which may delete the file, runs after send() of its path has returned."""
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    file = path.open("rb")
    server = ASGIServer(sends_file(file), http_scope(extensions={"http.response.pathsend": {}}))
    async with server.running():
        server.hold_sends()
        await server.until_sent(1)
        await anyio.wait_all_tasks_blocked()
        assert not file.closed
        server.release_sends()
    assert file.closed


@pytest.mark.parametrize("why", ["no extension", "offset", "length", "head", "no name", "decodes"])
async def test_a_file_that_is_not_fit_for_it_is_sent_in_blocks(tmp_path: Path, why: str) -> None:
    """The file is read here without the extension, from an offset, with another length or without a name."""
    path = tmp_path / "file"
    path.write_bytes(b"abcdef")
    file: Any = io.BytesIO(b"abcdef") if why == "no name" else path.open("rb")
    if why == "decodes":
        file.close()
        path.write_bytes(gzip.compress(b"abcdef"))
        file = gzip.open(path)  # noqa: SIM115  # as the others: the adapter closes it
    if why == "offset":
        file.seek(2)
    scope = http_scope(
        "HEAD" if why == "head" else "GET",
        extensions={} if why == "no extension" else {"http.response.pathsend": {}},
    )
    headers = [("Content-Length", "4")] if why in ("offset", "length") else []
    server = await request(sends_file(file, headers=headers), scope)
    expected = {"offset": b"cdef", "length": b"abcd", "head": b""}.get(why, b"abcdef")
    assert (server.body, server.complete, file.closed) == (expected, True, True)


class Counted(io.BytesIO):
    """A file that counts how many bytes are read from it."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        block = super().read(size)
        self.count += len(block)
        return block


async def test_a_range_of_a_file_is_all_that_is_read_of_it() -> None:
    """Werkzeug seeks to the start of a range through the wrapper, reads the range alone, and closes the file."""
    content = bytes(range(256)) * 40_000
    file = Counted(content)
    app = flask.Flask("ranges")

    @app.get("/")
    def view() -> flask.Response:
        return flask.send_file(file, "application/octet-stream", conditional=True)

    server = await request(WSGIToASGI(app), http_scope(headers=[(b"host", b"h"), (b"range", b"bytes=-100")]))
    assert (server.status, server.body) == (206, content[-100:])
    assert file.count == 100
    assert file.closed


@pytest.mark.parametrize("names", [[], ["tell"], ["seek", "tell"], ["seek", "tell", "seekable"]], ids=repr)
async def test_a_file_wrapper_can_do_what_its_file_can(names: list[str]) -> None:
    """The wrapper has exactly those of its optional methods that the file has."""
    whole = io.BytesIO(b"abcdef")
    file = SimpleNamespace(**{name: getattr(whole, name) for name in ["read", *names]})
    seen: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [])
        wrapper = environ["wsgi.file_wrapper"](file)
        seen.extend(name for name in ("close", "seek", "tell", "seekable") if hasattr(wrapper, name))
        if "seek" in names:
            wrapper.seek(2)
            assert wrapper.tell() == 2
        return wrapper  # type: ignore[no-any-return]

    assert (await request(WSGIToASGI(app))).body == (b"cdef" if "seek" in names else b"abcdef")
    assert seen == names


@pytest.mark.parametrize("move", ["seek", "next"])
async def test_a_file_that_its_wrapper_has_moved_is_not_sent_by_path(tmp_path: Path, move: str) -> None:
    """A file is sent from its position, and by path it would be sent from its start."""
    path = tmp_path / "file"
    path.write_bytes(b"ab" * 100_000)

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [])
        wrapper = environ["wsgi.file_wrapper"](path.open("rb"))
        _ = wrapper.seek(1) if move == "seek" else next(wrapper)
        return wrapper  # type: ignore[no-any-return]

    server = await request(WSGIToASGI(app), http_scope(extensions={"http.response.pathsend": {}}))
    assert server.body == (b"ab" * 100_000)[1 if move == "seek" else 64 * 1024 :]
