import threading
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import asgi_response, http_app
from wsgi_asgi_conformance.asgi_to_wsgi.recording import END, START, Recording, block, until_set
from wsgi_asgi_conformance.exchange import joined
from wsgi_asgi_conformance.samples import http_environ
from wsgi_asgi_conformance.types import Receive, Scope, Send
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIServer

EVERY_BYTE = bytes(range(256)) + b"\r\n\n"


@clause("P3333-024")
@pytest.mark.parametrize(
    "blocks",
    [(EVERY_BYTE,), (EVERY_BYTE[:13], EVERY_BYTE[13:]), tuple(bytes([byte]) for byte in EVERY_BYTE)],
    ids=["whole", "split at a line end", "byte by byte"],
)
def test_a_response_body_is_any_bytes(adapt: ToWSGI, serve: WSGIServer, blocks: tuple[bytes, ...]) -> None:
    """Each byte arrives unchanged and in its place."""
    assert serve(adapt(asgi_response(*blocks))).finish().body == EVERY_BYTE


@clause("P3333-024")
def test_a_request_body_is_any_bytes(adapt: ToWSGI, serve: WSGIServer) -> None:
    """The adapter treats the body as bytes, not as text or lines."""
    content = EVERY_BYTE * 500
    app = Recording()
    serve(adapt(app), http_environ("POST", "/", content)).finish()
    assert joined(message["body"] for message in app.received) == content


@clause("P3333-128", "P3333-164")
@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"transfer-encoding", b"chunked")],
        [(b"content-encoding", b"gzip")],
        [(b"content-type", b"text/plain; charset=utf-16")],
    ],
    ids=["plain", "chunked", "gzip", "charset"],
)
def test_no_coding_is_applied_to_the_body(adapt: ToWSGI, serve: WSGIServer, headers: list[tuple[bytes, bytes]]) -> None:
    """Whatever the app says about its body, and whatever the client accepts, the bytes stay the app's."""
    environ = http_environ(HTTP_ACCEPT_ENCODING="gzip, br", HTTP_TE="trailers, chunked")
    request = serve(adapt(asgi_response(b"one" * 1000, b"\r\n", headers=headers)), environ).finish()
    assert request.body == b"one" * 1000 + b"\r\n"
    codings = [value for name, value in request.headers if name.lower() == "content-encoding"]
    assert codings == [value.decode() for name, value in headers if name == b"content-encoding"]


@clause("P3333-131", "P3333-132", "P3333-133")
def test_each_block_comes_without_waiting_for_the_next(adapt: ToWSGI, serve: WSGIServer) -> None:
    """An app that makes a block only after the server has the previous one reaches its end."""
    taken = [threading.Event() for _ in range(4)]

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        for number, event in enumerate(taken):
            await send(block(b"%d" % number))
            await until_set(event, serve.deadline)
        await send(END)

    request = serve(adapt(app))
    for number, event in enumerate(taken):
        request.until(lambda number=number: len(request.body) > number, f"block {number}")  # type: ignore[misc]
        assert request.body == b"0123"[: number + 1]
        event.set()
    request.finish()
    assert [block for block in request.blocks if block] == [b"0", b"1", b"2", b"3"]


@clause("P3333-134", "P3333-141", "P3333-142")
@pytest.mark.parametrize("blocks", [(), (b"one",), (b"one", b"", b"two")], ids=repr)
def test_write_is_not_used(adapt: ToWSGI, serve: WSGIServer, blocks: tuple[bytes, ...]) -> None:
    """The adapter yields the whole body; write() is for apps that cannot do that."""
    request = serve(adapt(asgi_response(*blocks))).finish()
    assert request.values("write") == []
    assert b"".join(request.blocks) == b"".join(blocks)


class FileWrapper:
    """The `wsgi.file_wrapper` of a server."""

    def __init__(self, file: BinaryIO, block_size: int = 8192) -> None:
        self.file = file
        self.close = file.close

    def __iter__(self) -> Any:
        return iter(lambda: self.file.read(4), b"")


@clause("P3333-179")
@pytest.mark.parametrize("leave", [False, True], ids=["to the end", "until the client leaves"])
def test_a_file_is_sent_by_the_servers_file_wrapper(
    adapt_for_files: ToWSGI, serve: WSGIServer, tmp_path: Path, leave: bool
) -> None:
    """The adapter returns the server's own wrapper around a file that the app sends by path; the wrapper closes it."""
    path = tmp_path / "file"
    path.write_bytes(b"content of the file")
    offered: list[bool] = []

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        offered.append("http.response.pathsend" in scope.get("extensions", {}))
        await send(START)
        await send({"type": "http.response.pathsend", "path": str(path)} if offered[0] else END)

    environ = http_environ(**{"wsgi.file_wrapper": FileWrapper})
    request = serve(adapt_for_files(app), environ, hold_after=1 if leave else None)
    if leave:
        request.until(lambda: request.blocks or request.ended).disconnect()
    request.finish()
    if not offered[0]:
        pytest.skip("the adapter does not offer http.response.pathsend")
    (returned,) = request.values("return")
    assert request.body == (b"cont" if leave else b"content of the file")
    assert isinstance(returned, FileWrapper)
    assert returned.file.closed
