import asyncio
import contextlib
import subprocess
import sys
import threading
from collections.abc import Awaitable, Iterable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import bridge.wsgi_to_asgi.call
from bridge import WSGIToASGI
from bridge.types import Environ, Message, StartResponse
from tests.fakes import ASGIServer, http_scope, request
from tests.processes import ROOT


def hello(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"hello"]


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("never called")


@pytest.mark.parametrize("app", [None, "module:app", 42])
def test_what_cannot_be_called_is_refused(app: Any) -> None:
    """A thing that is no callable is a TypeError at construction."""
    with pytest.raises(TypeError, match="not"):
        WSGIToASGI(app)


def test_an_asgi_app_is_refused_by_the_name_of_the_other_class() -> None:
    """Wrapping an ASGI app says which class to use instead."""
    with pytest.raises(TypeError, match="use ASGIToWSGI"):
        WSGIToASGI(asgi_app)  # type: ignore[arg-type]


@pytest.mark.parametrize("scope", [{"type": "mqtt"}, {"type": None}])
async def test_an_unknown_scope_is_refused(scope: dict[str, Any]) -> None:
    """A scope of another type raises, and nothing is sent (ASGI spec, Applications)."""
    server = ASGIServer(WSGIToASGI(hello), scope)
    with pytest.raises(ValueError, match="scope"):
        await server.run()
    assert server.sent == []


async def test_receive_and_send_may_be_any_callables() -> None:
    """They need not be coroutine functions, only return what can be awaited (granian's)."""
    server = ASGIServer(WSGIToASGI(hello))

    class Awaiting:
        def __init__(self, awaitable: Awaitable[Any]) -> None:
            self._awaitable = awaitable

        def __await__(self) -> Any:
            return self._awaitable.__await__()

    def receive() -> Awaitable[Message]:
        return Awaiting(server._receive())

    def send(message: Message) -> Awaitable[None]:
        return Awaiting(server._send(message))

    await WSGIToASGI(hello)(server.scope, receive, send)
    assert server.body == b"hello"


async def test_the_scope_is_left_as_it_was() -> None:
    """An app may do to its environ what it likes; the server's scope stays."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ.clear()
        start_response("200 OK", [])
        return [b"x"]

    scope = http_scope(root_path="/app", path="/app/x", raw_path=None)
    before = {**scope, "headers": list(scope["headers"])}
    await request(WSGIToASGI(app), scope)
    assert scope == before


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # asgiref knows no other
async def test_async_views_run_on_the_servers_loop() -> None:
    """asgiref's async_to_sync, which Flask and Django use, runs a coroutine on the loop of the server."""
    from asgiref.sync import async_to_sync

    loops: list[asyncio.AbstractEventLoop] = []

    @async_to_sync
    async def view() -> bytes:
        loops.append(asyncio.get_running_loop())
        await asyncio.sleep(0)
        return b"hello"

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [view()]

    adapter = WSGIToASGI(app)
    assert (await request(adapter)).body == (await request(adapter)).body == b"hello"
    assert loops == [asyncio.get_running_loop()] * 2


async def test_a_worker_thread_is_not_taken_for_the_loop() -> None:
    """Code in a worker thread may run a loop of its own, whatever the server runs on."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        async def inner() -> bytes:
            await anyio.lowlevel.checkpoint()
            return b"inner"

        start_response("200 OK", [])
        return [anyio.run(inner)]

    assert (await request(WSGIToASGI(app))).body == b"inner"


def test_a_fork_makes_new_threads() -> None:
    """An adapter that served before a fork serves after it, in threads of the child's own."""
    script = """
import asyncio, os
from bridge import WSGIToASGI
from tests.fakes import request
def app(environ, start_response):
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
adapter = WSGIToASGI(app)
def serve():
    assert asyncio.run(request(adapter)).body == str(os.getpid()).encode()
serve()
if (pid := os.fork()) == 0:
    serve()
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30, cwd=ROOT)


def test_the_interpreter_exits_whatever_is_in_flight() -> None:
    """A request that never ends does not keep the process."""
    script = """
import asyncio, threading, time
from bridge import WSGIToASGI
from tests.fakes import ASGIServer
def app(environ, start_response):
    threading.Event().wait()
async def main():
    task = asyncio.create_task(ASGIServer(WSGIToASGI(app)).run())
    await asyncio.sleep(0.1)
    task.cancel()
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=5, cwd=ROOT)


def test_a_closed_loop_frees_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that waits for a loop which was closed under it finds out, and close() runs."""
    monkeypatch.setattr(bridge.wsgi_to_asgi.call, "_LOOP_CHECK", 0.05)
    closed = threading.Event()

    class Endless:
        def __iter__(self) -> Any:
            return iter([b"x" * 100_000] * 1000)

        def close(self) -> None:
            closed.set()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return Endless()

    loop = asyncio.new_event_loop()
    server = ASGIServer(WSGIToASGI(app))

    async def main() -> asyncio.Task[None]:
        server.hold_sends()
        task = asyncio.get_running_loop().create_task(server.run())
        await server.until_sent(1)
        return task

    task = loop.run_until_complete(main())
    loop.close()
    assert closed.wait(5)
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # that is what this test does to it
    with contextlib.suppress(RuntimeError):
        task.get_coro().close()


async def test_threads_are_back_where_they_were() -> None:
    """After a thousand requests, a third of them abandoned, there are no more threads than workers."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/endless":
            return iter(lambda: b"x" * 100, None)
        return [b"x"]

    adapter = WSGIToASGI(app, workers=3)
    before = {thread for thread in threading.enumerate() if thread.name.startswith("WSGIToASGI")}

    async def abandon() -> None:
        server = ASGIServer(adapter, http_scope(path="/endless"))
        async with server.running():
            await server.until_sent(2, timeout=30)
            server.disconnect()

    for _ in range(33):
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(abandon)
            for _ in range(20):
                tasks.start_soon(request, adapter)
    after = {thread for thread in threading.enumerate() if thread.name.startswith("WSGIToASGI")}
    assert len(after - before) <= 3
