"""Files that an app sends by path."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import starlette.responses
from starlette.middleware.base import BaseHTTPMiddleware

from bridge import AppProtocolError
from bridge.types import ASGIApp, Message, Receive, Scope, Send
from tests.asgi_to_wsgi.apps import Adapt
from tests.asgi_to_wsgi.http.apps import answers, body, start
from tests.fakes import WSGIServer, http_environ, in_thread, respond

# --- Files --------------------------------------------------------------------------------------


class FileWrapper:
    """A server's own `wsgi.file_wrapper`."""

    def __init__(self, file: Any, block_size: int) -> None:
        self.file = file
        self.close = file.close

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.file.read(2), b"")


@pytest.mark.parametrize("wrapper", [None, FileWrapper])
@pytest.mark.parametrize("length", [None, b"6", b"4"])
def test_a_file_is_sent_by_path(adapt: Adapt, tmp_path: Path, wrapper: Any, length: bytes | None) -> None:
    """The server's own file wrapper gets a whole file. The adapter reads a part of a file, or one without a wrapper."""
    path = tmp_path / "file"
    path.write_bytes(b"abcdef")
    headers = [] if length is None else [(b"content-length", length)]
    app = answers(start(200, *headers), {"type": "http.response.pathsend", "path": str(path)})
    server = respond(adapt(app, pathsend=True), http_environ(**{"wsgi.file_wrapper": wrapper}))
    assert server.body == (b"abcd" if length == b"4" else b"abcdef")
    assert isinstance(server.iterable, FileWrapper) == (wrapper is not None and length != b"4")
    assert server.iterable.file.closed  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("path", "error"), [("relative", AppProtocolError), (b"/bytes", AppProtocolError), ("/nowhere", FileNotFoundError)]
)
def test_a_path_that_leads_nowhere_raises_into_the_app(adapt: Adapt, path: Any, error: type[Exception]) -> None:
    """send() raises for a path that is not absolute, not a str, or not there."""
    with pytest.raises(error):
        respond(adapt(answers(start(), {"type": "http.response.pathsend", "path": path}), pathsend=True))


def test_a_file_for_head_or_shorter_than_promised_is_not_sent(adapt: Adapt, tmp_path: Path) -> None:
    """HEAD has no body, and a file shorter than its Content-Length is the app's error."""
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    message = {"type": "http.response.pathsend", "path": str(path)}
    assert respond(adapt(answers(start(), message), pathsend=True), http_environ("HEAD")).body == b""
    with pytest.raises(AppProtocolError, match="Content-Length"):
        respond(adapt(answers(start(200, (b"content-length", b"4")), message), pathsend=True))


@pytest.mark.parametrize("wrapper", [None, FileWrapper])
@pytest.mark.parametrize("length", [b"6", b"4"])
def test_a_file_that_grows_is_sent_up_to_its_length(adapt: Adapt, tmp_path: Path, wrapper: Any, length: bytes) -> None:
    """The body does not exceed the Content-Length, by which clients tell where it ends."""
    path = tmp_path / "file"
    path.write_bytes(b"abcdef")
    app = answers(start(200, (b"content-length", length)), {"type": "http.response.pathsend", "path": str(path)})
    server = WSGIServer(adapt(app, pathsend=True), http_environ(**{"wsgi.file_wrapper": wrapper}))
    blocks = server.call()
    path.write_bytes(b"abcdefghi")
    assert b"".join(blocks) == b"abcdef"[: int(length)]
    server.close()


def test_a_file_that_shrinks_raises_into_the_server(adapt: Adapt, tmp_path: Path) -> None:
    """A body short of its Content-Length is an error at its end, so that the server cuts the response."""
    path = tmp_path / "file"
    path.write_bytes(b"abcdef")
    app = answers(start(200, (b"content-length", b"6")), {"type": "http.response.pathsend", "path": str(path)})
    server = WSGIServer(adapt(app, pathsend=True))
    blocks = server.call()
    path.write_bytes(b"abcd")
    assert next(blocks) == b"abcd"
    with pytest.raises(AppProtocolError, match="a Content-Length of 6, but its file has shrunk to 4 bytes"):
        next(blocks)
    server.close()


def test_a_file_nobody_takes_is_closed(adapt: Adapt, tmp_path: Path) -> None:
    """A server that refuses the headers of a file response leaves no open file behind."""
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    adapter = adapt(answers(start(), {"type": "http.response.pathsend", "path": str(path)}), pathsend=True)

    def refuse(*arguments: Any) -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        in_thread(lambda: adapter(http_environ(), refuse))
    gc.collect()  # a file left open would be a ResourceWarning, which is an error


# --- Middleware that knows no extensions ----------------------------------------------------------


class Compress:
    """Middleware that holds the start until the body comes, as brotli_asgi does, and drops all other messages."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        held: list[Message] = []

        async def compressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                held.append(message)
            elif message["type"] == "http.response.body":
                while held:
                    await send(held.pop())
                await send({**message, "body": message["body"].swapcase()})

        await self._app(scope, receive, compressed)


def with_base_http_middleware(app: ASGIApp) -> ASGIApp:
    async def change(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        blocks = [block.swapcase() async for block in response.body_iterator]
        return starlette.responses.Response(b"".join(blocks), headers=dict(response.headers))

    return BaseHTTPMiddleware(app, dispatch=change)


@pytest.mark.parametrize("middleware", [Compress, with_base_http_middleware])
def test_middleware_that_knows_no_extensions_gets_a_files_blocks(adapt: Adapt, tmp_path: Path, middleware: Any) -> None:
    """Starlette's FileResponse sends a path wherever that is offered, so it is offered only if the option is set."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    app = middleware(starlette.responses.FileResponse(path))
    environ = http_environ(**{"wsgi.early_hints": lambda headers: None, "wsgi.file_wrapper": FileWrapper})
    assert respond(adapt(app), environ).body == b"CONTENT"


def test_a_path_that_was_not_asked_for_is_refused(adapt: Adapt, tmp_path: Path) -> None:
    """The error names the option, and the app can still respond."""
    path = tmp_path / "file"
    path.write_bytes(b"content")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        with pytest.raises(AppProtocolError, match=r"pathsend is not in .*: ASGIToWSGI\(pathsend=True\) offers it"):
            await send({"type": "http.response.pathsend", "path": str(path)})
        await send(body(b"x"))

    assert respond(adapt(app)).body == b"x"
