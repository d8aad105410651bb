import asyncio
import contextvars
import gc
import logging
import os
import threading
from collections.abc import Iterable, Iterator

import pytest
import trio

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import Blocks
from wsgi_asgi_conformance.asgi_server import ASGIConnection, ASGIServer, ToASGI
from wsgi_asgi_conformance.samples import http_scope
from wsgi_asgi_conformance.types import ASGIApp, Environ, Receive, Scope, Send, StartResponse

user = contextvars.ContextVar("user", default="nobody")
FD_FOLDER = "/proc/self/fd"


@clause("CONV-015")
def test_a_request_has_one_thread_and_one_context(adapt: ToASGI, serve: ASGIServer) -> None:
    """The call, the iteration and close() share one thread and one context, which has the caller's variables."""
    local = threading.local()
    seen: list[tuple[int, str, object]] = []

    class Looking:
        def __iter__(self) -> Iterator[bytes]:
            look()
            yield b"one"
            look()
            yield b"two"

        def close(self) -> None:
            look()

    def look() -> None:
        seen.append((threading.get_ident(), user.get(), getattr(local, "value", None)))

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        assert user.get() == "middleware"
        user.set("app")
        local.value = "here"
        look()
        start_response("200 OK", [])
        return Looking()

    adapter = adapt(app)

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        user.set("middleware")
        await adapter(scope, receive, send)

    serve(middleware).finish()
    assert len(seen) in (3, 4)
    assert set(seen) == {(seen[0][0], "app", "here")}


def mixed_requests(serve: ASGIServer, adapter: ASGIApp) -> ASGIConnection:
    """Run requests that end in every possible way."""
    for path in ("/", "/raises", "/breaks-off"):
        connection = serve(adapter, http_scope("POST", path), b"x" * 1024, b"y").until_ended()
        assert (connection.error is None) == (path == "/")
    for leave in (ASGIConnection.disconnect, ASGIConnection.cancel):
        connection = serve(adapter, http_scope("POST", "/long"), hold_after=1).until_logged("send", 2)
        leave(connection)
        connection.until_ended()
    return connection


def tasks_on_loop(connection: ASGIConnection, backend: str) -> int:
    """Return the number of tasks on the loop."""
    counts: list[int] = []

    def count() -> None:
        if backend == "asyncio":
            counts.append(len(asyncio.all_tasks()))
        else:
            tasks = [trio.lowlevel.current_root_task()]
            for task in tasks:
                tasks += [] if task is None else [child for each in task.child_nurseries for child in each.child_tasks]
            counts.append(len(tasks))

    connection.loop.call_soon(count)
    connection.until(lambda: counts, "the loop")
    return counts[0]


def open_files() -> int:
    """Return the number of open files, or 0 if the system cannot tell."""
    return len(os.listdir(FD_FOLDER)) if os.path.isdir(FD_FOLDER) else 0


@clause("CONV-017")
def test_nothing_remains_of_requests(adapt: ToASGI, serve: ASGIServer, caplog: pytest.LogCaptureFixture) -> None:
    """However requests end, they leave no task, thread or file behind, and log nothing."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/raises":
            raise ValueError("one")
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/breaks-off":
            return Blocks([b"one", ValueError("two")])
        return Blocks([b"x" * 1024] * (1000 if environ["PATH_INFO"] == "/long" else 2))

    adapter = adapt(app)
    connection = mixed_requests(serve, adapter)
    gc.collect()
    tasks, threads, files = tasks_on_loop(connection, serve.backend), threading.active_count(), open_files()
    rounds = 8
    for _ in range(rounds):
        connection = mixed_requests(serve, adapter)
    gc.collect()
    connection.until(lambda: tasks_on_loop(connection, serve.backend) <= tasks, "the end of tasks")
    assert threading.active_count() < threads + rounds
    assert open_files() <= files
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
