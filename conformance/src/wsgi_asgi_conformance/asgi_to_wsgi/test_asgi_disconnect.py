import gc
import logging
import threading

import anyio
import anyio.lowlevel
import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import asgi_response, http_app
from wsgi_asgi_conformance.asgi_to_wsgi.recording import END, START, block, until_set
from wsgi_asgi_conformance.samples import http_environ
from wsgi_asgi_conformance.types import Message, Receive, Scope, Send, WSGIApp
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIRequest, WSGIServer


class Leaving:
    """An app that streams until its client has left, and notes what `receive` and `send` do then.

    Before it sends on, it calls `receive` so many times. Other paths than "/" are answered at once.
    """

    def __init__(self, deadline: float, receives: int = 0, catch: bool = True) -> None:
        self.scope: Scope = {}
        self.received: list[Message] = []
        self.returned = 0  # how many send() did
        self.errors: list[Exception] = []
        self.left = threading.Event()
        self.ended = threading.Event()
        self._deadline = deadline
        self._receives = receives
        self._catch = catch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/":
            await asgi_response(b"other")(scope, receive, send)
            return
        self.scope = scope
        try:
            await receive()
            await send(START)
            await send(block(b"one"))
            await until_set(self.left, self._deadline)
            for _ in range(self._receives):
                self.received.append(await receive())
            with anyio.move_on_after(self._deadline / 4):
                while not self.errors:  # the news may take a moment
                    await self._send(send)
            await self._send(send)
            await self._send(send)
        finally:
            self.ended.set()

    async def _send(self, send: Send) -> None:
        try:
            await send(block(b"two"))
            self.returned += 1
            await anyio.sleep(0.001)
        except Exception as error:
            self.errors.append(error)
            if not self._catch:
                raise


def leave(serve: WSGIServer, adapter: WSGIApp, app: Leaving) -> WSGIRequest:
    """Make the client leave in the middle of the response, and wait for the effect on the app."""
    request = serve(adapter, hold_after=1).until_logged("block")
    request.disconnect()
    request.until_ended()
    app.left.set()
    return request.until(app.ended.is_set, "the end of the app")


@clause("ASGI-HTTP-002")
def test_the_spec_version_is_kept(adapt: ToWSGI, serve: WSGIServer) -> None:
    """If the adapter claims 2.4 or later, send() raises once the client has left, as that version requires."""
    app = Leaving(serve.deadline)
    leave(serve, adapt(app), app)
    version = app.scope["asgi"].get("spec_version", "2.0")
    assert version in ("2.0", "2.1", "2.2", "2.3", "2.4", "2.5")
    assert version < "2.4" or [isinstance(error, OSError) for error in app.errors] == [True] * 3


@clause("ASGI-HTTP-074")
def test_send_raises_once_the_client_has_left(adapt: ToWSGI, serve: WSGIServer) -> None:
    """After the server has closed the response, each send() raises an OSError of the adapter's own class."""
    app = Leaving(serve.deadline)
    leave(serve, adapt(app), app)
    assert [isinstance(error, OSError) for error in app.errors] == [True] * 3
    assert "builtins" not in {type(error).__module__ for error in app.errors}


@clause("ASGI-HTTP-076", "ASGI-HTTP-077")
def test_the_error_of_a_disconnect_may_leave_the_app(
    adapt: ToWSGI, serve: WSGIServer, caplog: pytest.LogCaptureFixture
) -> None:
    """If an app does not catch the error that send() raises, it ends, and nothing is logged."""
    app = Leaving(serve.deadline, catch=False)
    adapter = adapt(app)
    assert leave(serve, adapter, app).error is None
    assert len(app.errors) == 1
    other = serve(adapter, http_environ("GET", "/other")).finish()
    assert other.body == b"other"  # from the same loop, so the first app's task is over by then
    app.errors.clear()
    gc.collect()  # because asyncio then reports exceptions that nobody has retrieved
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@clause("ASGI-HTTP-079")
def test_receive_gives_a_disconnect_after_the_response(adapt: ToWSGI, serve: WSGIServer) -> None:
    """Once the response is complete, each receive() returns http.disconnect."""
    received: list[Message] = []

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await asgi_response(b"one")(scope, receive, send)
        received.extend([await receive(), await receive()])

    request = serve(adapt(app)).finish()
    request.until(lambda: len(received) == 2, "http.disconnect")
    assert received == [{"type": "http.disconnect"}] * 2


@clause("ASGI-HTTP-080")
def test_receive_gives_a_disconnect_once_the_client_has_left(adapt: ToWSGI, serve: WSGIServer) -> None:
    """After the server has closed the response, each receive() returns http.disconnect."""
    app = Leaving(serve.deadline, receives=2)
    leave(serve, adapt(app), app)
    assert app.received == [{"type": "http.disconnect"}] * 2


@clause("ASGI-HTTP-084")
def test_send_raises_after_a_disconnect_was_received(adapt: ToWSGI, serve: WSGIServer) -> None:
    """After the app has received http.disconnect, send() raises."""
    app = Leaving(serve.deadline, receives=1)
    leave(serve, adapt(app), app)
    assert app.received == [{"type": "http.disconnect"}]
    assert app.returned == 0
    assert [isinstance(error, OSError) for error in app.errors] == [True] * 3


@clause("ASGI-HTTP-081")
def test_receive_waits_while_there_is_nothing_to_say(adapt: ToWSGI, serve: WSGIServer) -> None:
    """Between the end of the request's body and the end of the response, receive() does not return."""
    early: list[Message] = []

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for message in (START, block(b"one"), END):
            with anyio.move_on_after(0.02):  # enough time for an adapter that does not wait
                early.append(await receive())
            await send(message)

    assert serve(adapt(app)).finish().body == b"one"
    assert early == []


@clause("ASGI-HTTP-082")
@pytest.mark.parametrize("leaves", [False, True], ids=["completion", "disconnect"])
def test_receive_is_woken_by_the_end_of_the_response(adapt: ToWSGI, serve: WSGIServer, leaves: bool) -> None:
    """A receive() that waits returns when the client leaves, or when another task completes the response."""
    received: list[Message] = []
    go_on = threading.Event()

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

        async def listen() -> None:
            received.append(await receive())
            go_on.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            await send(START)
            await send(block(b"one"))
            if leaves:
                await until_set(go_on, serve.deadline)
            else:
                await send(END)

    request = serve(adapt(app), hold_after=1 if leaves else None)
    if leaves:
        request.until_logged("block").disconnect()
    request.until_ended().until(go_on.is_set, "http.disconnect")
    assert received == [{"type": "http.disconnect"}]


@clause("ASGI-HTTP-085")
def test_one_task_may_listen_while_another_streams(adapt: ToWSGI, serve: WSGIServer) -> None:
    """A framework streams in one task and listens for the disconnect in another; the first to end cancels the other."""

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with anyio.create_task_group() as tasks:

            async def listen() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                tasks.cancel_scope.cancel()

            tasks.start_soon(listen)
            await asgi_response(*[b"%d," % number for number in range(20)])(scope, receive, send)
            tasks.cancel_scope.cancel()

    assert serve(adapt(app)).finish().body == b"".join(b"%d," % number for number in range(20))


@clause("ASGI-HTTP-085")
def test_many_tasks_may_send(adapt: ToWSGI, serve: WSGIServer) -> None:
    """If several tasks send, their blocks are interleaved, and each task's blocks stay in order."""

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def stream(name: bytes) -> None:
            for number in range(20):
                await send(block(b"%s%d," % (name, number)))
                await anyio.lowlevel.checkpoint()

        await send(START)
        async with anyio.create_task_group() as tasks:
            for name in (b"a", b"b", b"c"):
                tasks.start_soon(stream, name)
        await send(END)

    parts = serve(adapt(app)).finish().body.split(b",")
    assert len(parts) == 61
    for name in (b"a", b"b", b"c"):
        assert [part for part in parts if part.startswith(name)] == [b"%s%d" % (name, number) for number in range(20)]
