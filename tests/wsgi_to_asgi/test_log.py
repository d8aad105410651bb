"""The log names a request by its method and path, and tells the status if there was one."""

import logging
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

import anyio
import pytest

from bridge import ClientDisconnected, WSGIToASGI
from bridge.types import Environ, StartResponse
from tests.fakes import ASGIServer, ASGIWebSocket, http_scope, request, websocket_scope

QUERY: dict[str, Any] = {"query_string": b"token=secret"}


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


class Closes(list[bytes]):
    """An iterable whose close() raises."""

    def close(self) -> None:
        raise ValueError("in close")


async def test_an_error_after_the_response_names_the_request(caplog: pytest.LogCaptureFixture) -> None:
    """The log says with which status the app had answered."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("404 Not Found", [])
        return Closes([b"x"])

    await request(WSGIToASGI(app), http_scope("POST", "/a b", **QUERY))
    assert errors(caplog) == ["POST /a%20b: the WSGI app raised after it had answered with 404"]
    assert "ValueError: in close" in caplog.text
    assert "secret" not in caplog.text


async def test_a_body_that_is_too_long_names_the_request(caplog: pytest.LogCaptureFixture) -> None:
    """The warning about an app's Content-Length names the request."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "3")])
        return [b"hello"]

    await request(WSGIToASGI(app), http_scope(path="/long", **QUERY))
    (text,) = errors(caplog)
    assert text.startswith("GET /long: the app's body is longer than its Content-Length of 3")


class Streams:
    """An app that streams until its client has left, and then raises what it was told to."""

    def __init__(self, error: Exception, how: str) -> None:
        self.error = error
        self.how = how

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write: Any = start_response("200 OK", [])
        try:
            while True:
                write(b"x" * 1000)
        except ClientDisconnected as left:
            if self.how == "from it":
                raise self.error from left
            raise
        finally:
            if self.how == "in finally":
                raise self.error


async def cancelled(app: Any) -> None:
    """Serve a request that the server cancels in mid-response, and wait for the end of its thread's work."""

    def dispatch(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/stream":
            return app(environ, start_response)  # type: ignore[no-any-return]
        start_response("200 OK", [])
        return [b"x"]

    adapter = WSGIToASGI(dispatch, workers=1)
    server = ASGIServer(adapter, http_scope(path="/stream", **QUERY))
    async with server.running_cancellable() as cancel:
        await server.until_sent(2)
        cancel()
    assert (await request(adapter)).body == b"x"  # after it, in the same thread


async def test_an_error_in_an_apps_own_finally_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """An error in a `finally` that ClientDisconnected reached is still the app's own."""
    await cancelled(Streams(ValueError("in finally"), "in finally"))
    assert errors(caplog) == ["GET /stream: the WSGI app raised after its request was cancelled"]


async def test_an_error_because_of_the_disconnect_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Frameworks raise errors of their own from ours, and those are not logged either."""
    await cancelled(Streams(ValueError("the client left"), "from it"))
    assert errors(caplog) == []


async def test_an_error_because_of_the_disconnect_is_not_raised_to_the_server() -> None:
    """A client that left is not an error for the server."""
    server = ASGIServer(WSGIToASGI(Streams(ValueError("the client left"), "from it")))
    async with server.running():
        await server.until_sent(2)
        server.disconnect()


async def test_an_error_beside_the_disconnect_is_raised_to_the_server() -> None:
    """An error that is not caused by the disconnect is the app's own."""
    server = ASGIServer(WSGIToASGI(Streams(ValueError("in finally"), "in finally")))
    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="in finally")):
        async with server.running():
            await server.until_sent(2)
            server.disconnect()


async def test_write_of_nothing_behind_the_last_byte_does_not_raise() -> None:
    """A response is complete once the server has taken every byte, even if its last send raised."""
    results: list[object] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write: Any = start_response("200 OK", [("Content-Length", "5")])
        write(b"hello")
        while not environ["bridge.disconnected"].is_set():
            time.sleep(0.001)
        results.append(write(b""))
        return []

    server = ASGIServer(WSGIToASGI(app))
    server.send_error = OSError("the client left")
    with anyio.fail_after(5):
        await server.run()
    assert results == [None]


def fails_behind_its_end(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    websocket = environ["wsgi.websocket"]
    try:
        while websocket.receive() is not None:
            pass
        websocket.send("more")
    finally:
        os.remove("/nowhere/at/all")
    yield b""


async def test_an_error_of_a_files_behind_the_end_of_a_websocket_is_the_apps() -> None:
    """An OSError of the closed socket is not an error of the app, but one that names a file is."""
    server = ASGIWebSocket(WSGIToASGI(fails_behind_its_end), websocket_scope("/chat", **QUERY))
    server.feed_content("hello")
    server.leave()
    with anyio.fail_after(5), pytest.raises(FileNotFoundError):
        await server.run()
