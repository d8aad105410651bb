"""Tests of behaviour that planted faults showed to be untested."""

import threading
from collections.abc import Mapping

import anyio
import anyio.lowlevel

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import http_app
from wsgi_asgi_conformance.asgi_to_wsgi.recording import END, START, LifespanApp, block, is_refused, until_set
from wsgi_asgi_conformance.samples import http_environ
from wsgi_asgi_conformance.types import Message, Receive, Scope, Send
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIServer


@clause("ASGI-HTTP-082")
def test_a_receive_that_waits_is_woken_by_the_end_of_the_response(adapt: ToWSGI, serve: WSGIServer) -> None:
    """A task that has waited in receive() for a while returns when another task completes the response."""
    received: list[Message] = []
    heard = threading.Event()

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

        async def listen() -> None:
            received.append(await receive())
            heard.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            for _ in range(10):
                await anyio.lowlevel.checkpoint()
            await send(START)
            await send(END)

    serve(adapt(app)).until_ended().until(heard.is_set, "http.disconnect")
    assert received == [{"type": "http.disconnect"}]


@clause("ASGI-EXT-025")
def test_trailers_are_no_body(adapt: ToWSGI, serve: WSGIServer) -> None:
    """send() refuses http.response.trailers in place of a body, and the body may still follow."""
    errors: list[Exception] = []

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        try:
            await send({"type": "http.response.trailers", "headers": [], "more_trailers": False})
        except Exception as error:
            errors.append(error)
        await send({**END, "body": b"one"})

    assert serve(adapt(app)).finish().body == b"one"
    assert len(errors) == 1


@clause("ASGI-CORE-034", "ASGI-HTTP-071", "ASGI-HTTP-072")
def test_an_app_that_was_cancelled_ends_its_request(adapt: ToWSGI, serve: WSGIServer) -> None:
    """A task that cancels itself, before its response or within it, counts as one that has raised."""

    def cancelled_after(*messages: Message) -> bool:
        @http_app
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            for message in messages:
                await send(message)
            raise anyio.get_cancelled_exc_class()

        return is_refused(serve(adapt(app)))

    assert cancelled_after()
    assert cancelled_after(START)
    assert cancelled_after(START, block(b"one"))


@clause("ASGI-LS-021")
def test_a_failure_needs_no_message(adapt: ToWSGI, serve: WSGIServer) -> None:
    """send() accepts a lifespan.startup.failed without a message."""
    errors: list[Exception] = []

    async def startup(scope: Scope, send: Send) -> None:
        try:
            await send({"type": "lifespan.startup.failed"})
        except Exception as error:
            errors.append(error)

    app = LifespanApp(startup)
    assert is_refused(serve(adapt(app)))
    app.skip_without_lifespan()
    assert errors == []


@clause("ASGI-HTTP-074")
def test_nothing_is_sent_once_close_has_returned(adapt: ToWSGI, serve: WSGIServer) -> None:
    """After close(), the server gets nothing more, even if the app kept the loop from noticing the close."""
    streaming, closed, ended = threading.Event(), threading.Event(), threading.Event()
    errors: list[BaseException] = []

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(block(b"one"))
        streaming.set()
        closed.wait(serve.deadline / 2)
        try:
            await send(block(b"two"))
        except BaseException as error:
            errors.append(error)
            raise
        finally:
            ended.set()

    request = serve(adapt(app), hold_after=1).until(streaming.is_set, "the first block").until_logged("block")
    request.disconnect()
    try:
        request.until_ended()
    finally:
        closed.set()
    request.until(ended.is_set, "the end of send()")
    assert [isinstance(error, OSError) for error in errors] == [True]


@clause("ASGI-CORE-009")
def test_a_response_whose_every_byte_was_taken_is_complete(adapt: ToWSGI, serve: WSGIServer) -> None:
    """If the server stops at Content-Length, the app's empty last block is dropped, and send() does not raise."""
    taken, closed, ended = threading.Event(), threading.Event(), threading.Event()
    errors: list[BaseException] = []

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({**START, "headers": [(b"content-length", b"6")]})
            await send(block(b"one"))
            await until_set(taken, serve.deadline)
            await send(block(b"two"))
            await until_set(closed, serve.deadline)
            await send(END)
        except BaseException as error:
            errors.append(error)
            raise
        finally:
            ended.set()

    request = serve(adapt(app), hold_after=2).until_logged("block")
    taken.set()
    request.until(lambda: request.body == b"onetwo", "the last byte").disconnect()
    request.until_ended()
    closed.set()
    request.until(ended.is_set, "the end of the app")
    assert errors == []


@clause("ASGI-CORE-010")
def test_what_the_scope_holds_of_an_environ_stays_its_requests(adapt: ToWSGI, serve: WSGIServer) -> None:
    """A server may clear its environ after the call and reuse it for the next request, as uWSGI does."""
    served, done = threading.Event(), threading.Event()
    found: list[str | None] = []

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(END)
        await until_set(served, serve.deadline)
        environs = [value for value in scope.values() if isinstance(value, Mapping) and "REQUEST_METHOD" in value]
        found.extend(environ.get("HTTP_COOKIE") for environ in environs)
        done.set()

    environ = http_environ(HTTP_COOKIE="user=first")
    request = serve(adapt(app), environ).finish()
    environ.clear()
    environ.update(http_environ(HTTP_COOKIE="user=second"))
    served.set()
    request.until(done.is_set, "the end of the app")
    assert set(found) <= {"user=first"}
