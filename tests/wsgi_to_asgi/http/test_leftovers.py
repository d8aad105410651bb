"""Nothing that refers to a request remains after it."""

import contextlib
import contextvars
import gc
import threading
import weakref
from collections.abc import Iterable
from typing import Any

import anyio
import anyio.lowlevel

from bridge import WSGIToASGI
from bridge.types import Environ, StartResponse
from tests.fakes import ASGIServer, eventually, http_scope, request
from tests.references import is_freed
from tests.wsgi_to_asgi.http.apps import OK, app_of


async def test_nothing_of_a_request_is_left(anyio_backend_name: str) -> None:
    """After a request no reference to its environ remains, so nothing waits for the garbage collector."""

    class Token:
        pass

    references: list[weakref.ref[Token]] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        token = Token()
        environ["test.token"] = token
        references.append(weakref.ref(token))
        start_response(OK, [])
        return [b"x"]

    adapter = app_of(app, workers=1)
    gc.disable()
    try:
        await request(adapter)
        await eventually(lambda: is_freed(references[0]))  # the worker thread is about to drop it
    finally:
        gc.enable()


async def test_nothing_waits_for_the_garbage_collector() -> None:
    """A request's objects form no cycle, because collecting it would cost more than the request."""

    class OfServer(dict[str, Any]):
        pass

    variable: contextvars.ContextVar[Environ] = contextvars.ContextVar("environ")

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        variable.set(environ)  # never reset, as some libraries do
        start_response(OK, [("Content-Length", "1")])
        return [b"x"]

    adapter = app_of(app, workers=1)
    gc.disable()
    try:
        for blocks in ([b""], [b"one", b"two"]):
            server = ASGIServer(adapter, OfServer(http_scope()), blocks)
            scope = weakref.ref(server.scope)
            await server.run()
            del server
            await eventually(lambda scope=scope: is_freed(scope))  # type: ignore[misc]
    finally:
        gc.enable()


async def test_nothing_of_a_context_is_left_where_the_app_never_ran() -> None:
    """A request that is cancelled in the queue drops its context, however long the entry stays there."""

    class Token:
        pass

    variable: contextvars.ContextVar[Token] = contextvars.ContextVar("token")
    references: list[weakref.ref[Token]] = []
    entered, proceed = threading.Event(), threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        entered.set()
        assert proceed.wait(5)
        start_response(OK, [])
        return []

    async def wait_in_vain(adapter: WSGIToASGI) -> None:
        token = Token()
        references.append(weakref.ref(token))
        variable.set(token)
        await ASGIServer(adapter).run()

    async def be_cancelled(adapter: WSGIToASGI) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_in_vain, adapter)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()

    adapter = app_of(app, workers=1)
    async with ASGIServer(adapter).running():
        assert await anyio.to_thread.run_sync(entered.wait, 5)
        await be_cancelled(adapter)
        gc.collect()  # collects what the cancellation itself has left
        try:
            assert is_freed(references[0])
        finally:
            proceed.set()


async def test_nothing_of_an_error_is_left() -> None:
    """An app's error does not refer to itself through its request."""

    class Oops(Exception):
        pass

    references: list[weakref.ref[Oops]] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        error = Oops()
        references.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    adapter = app_of(app, workers=1)
    gc.disable()
    try:
        with contextlib.suppress(Oops):
            await ASGIServer(adapter).run()
        await eventually(lambda: is_freed(references[0]))
    finally:
        gc.enable()
