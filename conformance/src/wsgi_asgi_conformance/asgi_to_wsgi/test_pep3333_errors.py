import contextlib
import gc
import logging
import threading
import weakref
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

import anyio
import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import asgi_response, http_app
from wsgi_asgi_conformance.asgi_to_wsgi.recording import START, block
from wsgi_asgi_conformance.types import Environ, Message, Receive, Scope, Send, StartResponse
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIServer


class AppError(Exception):
    """The error that the apps here raise."""


def raises_after(*messages: Message) -> Any:
    """Return an app that sends some messages, and then raises."""

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        raise AppError("no more")

    return app


class Endless:
    """An app that sends until it learns, in any way, that its client has left; then it sets `ended`."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.ended = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError("this app knows of HTTP alone")
        self.started.set()
        try:
            with contextlib.suppress(OSError):
                await send(START)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._until_disconnect, receive, tasks.cancel_scope)
                with contextlib.suppress(OSError):
                    for _ in range(1000):  # many more than can be on the way
                        await send(block(bytes(1024)))
                    await anyio.sleep_forever()
                tasks.cancel_scope.cancel()
        finally:
            self.ended.set()

    async def _until_disconnect(self, receive: Receive, scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()


@clause("P3333-037")
@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_the_server_may_close_the_response_at_any_point(adapt: ToWSGI, serve: WSGIServer, blocks: int) -> None:
    """If the server closes the response, the app hears of it and ends."""
    app = Endless()
    request = serve(adapt(app), hold_after=blocks)
    request.until_logged("return").until_logged("block", blocks)
    request.disconnect()
    request.finish()
    if blocks or app.started.is_set():
        request.until(app.ended.is_set, "the end of the app")


@clause("P3333-114")
@pytest.mark.parametrize("blocks", [(), (b"",), (b"one", b"two")], ids=repr)
def test_exc_info_is_for_errors_alone(adapt: ToWSGI, serve: WSGIServer, blocks: tuple[bytes, ...]) -> None:
    """The adapter passes exc_info only for an error."""
    request = serve(adapt(asgi_response(*blocks, status=500))).finish()
    assert [start.args[2:] for start in request.starts] in ([()], [(None,)])


@clause("P3333-114")
@pytest.mark.parametrize("messages", [(), (START,)], ids=["at once", "after the start"])
def test_exc_info_is_that_of_the_error(adapt: ToWSGI, serve: WSGIServer, messages: tuple[Message, ...]) -> None:
    """If the adapter answers for an app that raised, it passes the app's error as exc_info; else it raises that."""
    request = serve(adapt(raises_after(*messages))).until_ended()
    if request.error is None:
        error_type, error, traceback = request.starts[-1].args[2]
        assert error_type is type(error) is AppError
        assert isinstance(traceback, TracebackType)
    else:
        assert isinstance(request.error, AppError)


@clause("P3333-115")
@pytest.mark.parametrize("messages", [(), (START,), (START, block(b"one"))], ids=["at once", "started", "late"])
def test_what_start_response_raises_for_exc_info_is_raised(
    adapt: ToWSGI, serve: WSGIServer, messages: tuple[Message, ...]
) -> None:
    """If the server can no longer change its answer, it raises the error again, and that ends the response."""
    adapter = adapt(raises_after(*messages))

    def server(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        def strict(status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], object]:
            if exc_info is not None:
                raise exc_info[1]
            return start_response(status, headers)

        return adapter(environ, strict)

    request = serve(server).until_ended()
    assert isinstance(request.error, AppError)
    assert request.body in (b"", b"one")


@clause("P3333-115")
def test_what_start_response_raises_is_raised(adapt: ToWSGI, serve: WSGIServer) -> None:
    """The server's own exception comes back to it, and no block of the response does."""

    def server(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        def refusing(*args: Any) -> Callable[[bytes], object]:
            raise BufferError("refused")

        return adapter(environ, refusing)

    adapter = adapt(asgi_response(b"one"))
    request = serve(server).until_ended()
    assert isinstance(request.error, BufferError)
    assert request.body == b""


@clause("P3333-120")
@pytest.mark.parametrize("messages", [(), (START,), (START, block(b"one"))], ids=["at once", "started", "late"])
def test_an_error_is_not_kept(adapt: ToWSGI, serve: WSGIServer, messages: tuple[Message, ...]) -> None:
    """Afterwards nothing refers to the app's exception, so its frames can be freed."""
    errors: list[weakref.ref[Exception]] = []

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        error = AppError("no more")
        errors.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    request = serve(adapt(app)).until_ended()
    request.error = None
    request.log.clear()
    request.until(lambda: errors[0]() is None or gc.collect() < 0, "the end of the error")


@clause("P3333-153", "ASGI-CORE-034")
@pytest.mark.parametrize("messages", [(), (START,)], ids=["at once", "after the start"])
def test_an_error_before_any_output_is_told(
    adapt: ToWSGI, serve: WSGIServer, messages: tuple[Message, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """The server gets the error itself, or a 500 and the error as exc_info or in the log."""
    with caplog.at_level(logging.DEBUG):
        request = serve(adapt(raises_after(*messages))).until_ended()
    if request.error is None:
        assert request.status.startswith("500 ")
        told = [start.args[2][1] for start in request.starts if len(start.args) == 3 and start.args[2]]
        told += [record.exc_info[1] for record in caplog.records if record.exc_info]
        assert [type(error) for error in told if error is not None] == [AppError]
    else:
        assert isinstance(request.error, AppError)


@clause("P3333-154", "ASGI-CORE-034")
@pytest.mark.parametrize("blocks", [(b"one",), (b"one", b"two")], ids=repr)
def test_an_error_after_some_output_ends_the_response_by_an_error(
    adapt: ToWSGI, serve: WSGIServer, blocks: tuple[bytes, ...]
) -> None:
    """The server must not take the part that has arrived for the whole response."""
    request = serve(adapt(raises_after(START, *(block(each) for each in blocks)))).until_ended()
    assert isinstance(request.error, AppError)
    assert b"".join(blocks).startswith(request.body)


@clause("ASGI-CORE-034")
def test_an_app_that_raised_is_done_with(adapt: ToWSGI, serve: WSGIServer) -> None:
    """After the request, the next one is served as usual."""
    calls: list[str] = []

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append("call")
        if len(calls) == 1:
            raise AppError("once")
        await asgi_response(b"one")(scope, receive, send)

    adapter = adapt(app)
    serve(adapter).until_ended()
    assert serve(adapter).finish().body == b"one"
    assert len(calls) == 2
