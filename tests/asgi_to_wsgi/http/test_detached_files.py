"""Files that detached responses send by path."""

import errno
import http.client
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.asgi_to_wsgi.http import access
from bridge.asgi_to_wsgi.http.access import Answered
from bridge.asgi_to_wsgi.http.streams import File
from bridge.types import Message, Receive, Scope, Send
from tests.asgi_to_wsgi.apps import Adapt
from tests.asgi_to_wsgi.http.detachable import connected, detached_responses, start
from tests.fakes import in_thread
from tests.processes import wait_until
from tests.sockets import read_all


@pytest.mark.parametrize("headers", [(), ((b"content-length", b"1000000"),)])
def test_a_file_leaves(adapt: Adapt, tmp_path: Path, headers: tuple[tuple[bytes, bytes], ...]) -> None:
    """A file (http.response.pathsend) holds no thread while its client reads."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789" * 100_000)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, *headers)
        await send({"type": "http.response.pathsend", "path": str(path)})

    with connected(adapt(app, detach="always", detach_after=60, pathsend=True)) as server:
        in_thread(server.run)
        assert server.has_left
        assert server.read() == (200, path.read_bytes())


def test_a_file_that_cannot_be_read_cuts_the_response(
    adapt: Adapt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The disk's error is logged with the request, and the client can tell that its response is incomplete."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    receives: list[Message] = []

    def blocks(file: File) -> Iterator[bytes]:
        yield file.file.read(5)
        raise OSError(errno.EIO, "the disk is broken")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        await send({"type": "http.response.pathsend", "path": str(path)})
        await receive()
        receives.append(await receive())

    monkeypatch.setattr(File, "__iter__", blocks)
    with connected(adapt(app, detach="always", detach_after=60, pathsend=True)) as server:
        in_thread(server.run)
        assert server.has_left
        with pytest.raises(http.client.IncompleteRead):
            server.read()
    assert "GET /: a file could not be read in mid-response (200)" in caplog.text
    assert "the disk is broken" in caplog.text


@pytest.mark.parametrize(("size", "is_whole"), [(300_000, True), (100_000, False)])
def test_a_file_that_changes_while_it_is_sent_does_not_break_the_framing(
    adapt: Adapt,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    size: int,
    is_whole: bool,
) -> None:
    """A file that grows is sent up to its Content-Length. If one shrinks, the response is cut, and the log says why."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 200_000)
    noted: list[Answered] = []
    read = File.__iter__

    def change_and_read(file: File) -> Iterator[bytes]:
        os.truncate(path, size)
        return read(file)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, (b"content-length", b"200000"))
        await send({"type": "http.response.pathsend", "path": str(path)})

    monkeypatch.setattr(File, "__iter__", change_and_read)
    monkeypatch.setattr(access, "listeners", [noted.append])
    with connected(adapt(app, detach="always", detach_after=60, pathsend=True)) as server:
        in_thread(server.run)
        assert server.has_left
        assert read_all(server.client).partition(b"\r\n\r\n")[2] == b"x" * min(size, 200_000)
        wait_until(lambda: noted)
    assert (noted[0].whole, noted[0].size) == (is_whole, min(size, 200_000))
    assert ("its file has shrunk to 100000 bytes" in caplog.text) is not is_whole


def test_a_file_is_given_up_with_its_client(adapt: Adapt, tmp_path: Path) -> None:
    """A client that half-closes has left, even if it could still read."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 20_000_000)  # more than the system's buffers hold

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        await send({"type": "http.response.pathsend", "path": str(path)})

    adapter = adapt(app, detach="always", detach_after=60, pathsend=True)
    with connected(adapter) as server:
        server.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # for less than a block
        in_thread(server.run)
        (response,) = detached_responses(adapter)
        wait_until(lambda: response._client._room, what="the wait for the client to read")
        server.client.shutdown(socket.SHUT_WR)
        wait_until(lambda: not detached_responses(adapter))
