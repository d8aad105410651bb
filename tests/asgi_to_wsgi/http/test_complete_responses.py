"""A response is complete once the server has taken every byte, however it is closed."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from bridge import ASGIToWSGI, ClientDisconnected, WSGIToASGI
from bridge.asgi_to_wsgi.http import exchange as http_module
from bridge.types import Receive, Scope, Send
from tests.asgi_to_wsgi.apps import Adapt
from tests.asgi_to_wsgi.http.apps import body, start, until
from tests.fakes import ASGIServer, WSGIServer, http_environ, in_thread


class Tail:
    """An app that sends ten bytes, waits until the server has closed the response, and then sends the end."""

    def __init__(self, *headers: tuple[bytes, bytes], status: int = 200) -> None:
        self.start = start(status, *headers)
        self.called = threading.Event()
        self.closed = threading.Event()
        self.done = threading.Event()
        self.error: BaseException | None = None
        self.received: list[Any] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await receive()
            await send(self.start)
            await send(body(b"hello", True))
            await until(self.called)  # otherwise both would be sent as one
            await send(body(b"world", True))
            await until(self.closed)
            await self.finish(receive, send)
        except BaseException as error:
            self.error = error
        finally:
            self.done.set()

    async def finish(self, receive: Receive, send: Send) -> None:
        await send(body())
        self.received.append(await receive())


class ReceivesFirst(Tail):
    """The same, but it calls `receive` before its end, as Starlette does beside a stream."""

    async def finish(self, receive: Receive, send: Send) -> None:
        self.received.append(await receive())
        await send(body(b"", True))
        await send(body())


def take(adapter: ASGIToWSGI, app: Tail) -> None:
    """Iterate as a server does that stops at Content-Length: only up to the last byte."""
    server = WSGIServer(adapter)
    blocks = server.call()
    app.called.set()
    assert [next(blocks), next(blocks)] == [b"hello", b"world"]
    server.close()
    app.closed.set()


@pytest.mark.parametrize("make", [Tail, ReceivesFirst])
def test_a_server_that_stops_at_content_length(adapt: Adapt, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The app's last send does not raise, although the server has closed the response."""
    monkeypatch.setattr(http_module, "_SURPLUS_TIME", 0.05)
    app = make((b"content-length", b"10"))
    in_thread(lambda: take(adapt(app), app))
    assert app.done.wait(5)
    assert app.error is None
    assert app.received == [{"type": "http.disconnect"}]


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_a_response_without_a_body(adapt: Adapt, method: str, status: int) -> None:
    """A streaming app runs to its end although its response has no body (RFC 9110 6.4.1)."""
    app = Tail(status=status)

    def run() -> None:
        server = WSGIServer(adapt(app), http_environ(method))
        app.called.set()
        assert list(server.call()) == []
        server.close()
        app.closed.set()

    in_thread(run)
    assert app.done.wait(5)
    assert app.error is None


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"11")]], ids=["chunked", "one byte short"])
def test_a_server_that_stops_before_the_end(adapt: Adapt, headers: list[tuple[bytes, bytes]]) -> None:
    """If more bytes could follow, closing means that the client has left (ASGI HTTP spec, Disconnected Client)."""
    app = Tail(*headers)
    in_thread(lambda: take(adapt(app), app))
    assert app.done.wait(5)
    assert isinstance(app.error, ClientDisconnected)


def test_a_server_that_closes_before_it_takes_the_last_block(adapt: Adapt) -> None:
    """A response is not complete if its last block was ready but never taken."""
    called, sent, closed, done = (threading.Event() for _ in range(4))
    errors: list[Exception] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, (b"content-length", b"5")))
        await send(body(b"", True))
        await until(called)
        await send(body(b"hello", True))
        sent.set()
        await until(closed)
        try:
            await send(body())
        except ClientDisconnected as error:
            errors.append(error)
        done.set()

    def run() -> None:
        server = WSGIServer(adapt(app))
        blocks = server.call()
        assert next(blocks) == b""
        called.set()
        assert sent.wait(5)
        server.close()
        closed.set()

    in_thread(run)
    assert done.wait(5)
    assert len(errors) == 1


@pytest.mark.parametrize("last", [b"", b"data: 2\n\n"], ids=["only the end", "an event"])
def test_an_event_stream_ends_without_its_client(adapt: Adapt, last: bytes) -> None:
    """Its client leaves when it has what it wanted. Then an empty last message is no error, but another event is."""

    class Events(Tail):
        async def finish(self, receive: Receive, send: Send) -> None:
            await send(body(last))

    app = Events((b"content-type", b"text/event-stream"))
    in_thread(lambda: take(adapt(app), app))
    assert app.done.wait(5)
    assert isinstance(app.error, ClientDisconnected) == bool(last)


async def test_starlettes_stream_behind_the_other_direction(adapt: Adapt) -> None:
    """Starlette's generator ends and its background task runs, although WSGIToASGI stops at Content-Length."""
    begun, closed, done = threading.Event(), threading.Event(), threading.Event()

    def blocks() -> Iterator[str]:  # runs in one of Starlette's threads
        yield "hello"
        assert begun.wait(5)
        yield "world"
        assert closed.wait(5)

    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(blocks(), headers={"content-length": "10"}, background=BackgroundTask(done.set))

    server = ASGIServer(WSGIToASGI(adapt(Starlette(routes=[Route("/", stream)]))))
    async with server.running():
        await server.until_sent(2)
        begun.set()
    closed.set()
    assert server.body == b"helloworld"
    await until(done)
