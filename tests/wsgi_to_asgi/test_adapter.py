import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias

import anyio
import anyio.lowlevel
import pytest

import bridge.wsgi_to_asgi.http.hop
from bridge import WouldBlockLoop, WSGIToASGI
from bridge.runtime import running_loop
from bridge.types import Environ, Message, StartResponse
from tests.fakes import ASGIServer, eventually, http_scope, request
from tests.processes import ROOT


def hello(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"hello"]


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("never called")


@pytest.mark.parametrize("app", [None, "module:app", 42])
def test_what_cannot_be_called_is_refused(app: Any) -> None:
    """An app that is not callable is a TypeError at construction."""
    with pytest.raises(TypeError, match="not"):
        WSGIToASGI(app)


def test_an_asgi_app_is_refused_by_the_name_of_the_other_class() -> None:
    """The error for an ASGI app names the class to use instead."""
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
    """They need not be coroutine functions: granian's only return awaitables."""
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
    """Whatever an app does to its environ, the server's scope stays the same."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ.clear()
        start_response("200 OK", [])
        return [b"x"]

    scope = http_scope(root_path="/app", path="/app/x", raw_path=None)
    before = {**scope, "headers": list(scope["headers"])}
    await request(WSGIToASGI(app), scope)
    assert scope == before


AsyncView: TypeAlias = Callable[[Environ, StartResponse], Awaitable[bytes]]


def with_async_view(view: AsyncView, **options: Any) -> WSGIToASGI:
    """Return an app that answers what `view` returns, and calls it as Flask and Django do: by asgiref."""
    from asgiref.sync import async_to_sync

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return [async_to_sync(view)(environ, start_response)]

    return WSGIToASGI(app, **options)


async def tell_loop_and_thread(environ: Environ, start_response: StartResponse) -> bytes:
    await asyncio.sleep(0)
    start_response("200 OK", [])
    return f"{id(asyncio.get_running_loop())} {threading.get_ident()}".encode()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # asgiref supports no other loop
async def test_async_views_run_on_loops_of_their_own() -> None:
    """As under any WSGI server each runs in a thread, and one that blocks delays no other."""
    adapter = with_async_view(tell_loop_and_thread, workers=1)
    here = [str(id(asyncio.get_running_loop())), str(threading.get_ident())]
    for _ in range(2):
        loop, thread = (await request(adapter)).body.decode().split()
        assert loop != here[0]
        assert thread != here[1]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_async_views_run_on_the_loop_that_is_lent() -> None:
    """With lend_loop they run on the server's loop, and those of another adapter do not."""
    lent = with_async_view(tell_loop_and_thread, workers=1, lend_loop=True)
    other = with_async_view(tell_loop_and_thread, workers=1)
    here = f"{id(asyncio.get_running_loop())} {threading.get_ident()}".encode()
    answers = [(await request(adapter)).body for adapter in (lent, other, lent, other)]
    assert [answer == here for answer in answers] == [True, False, True, False]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_async_views_find_no_loop_by_accident() -> None:
    """What asgiref noted in the worker thread for another call is not used for this one."""
    from asgiref.sync import SyncToAsync

    here = asyncio.get_running_loop()
    loops: list[asyncio.AbstractEventLoop] = []

    async def view(environ: Environ, start_response: StartResponse) -> bytes:
        loops.append(asyncio.get_running_loop())
        start_response("200 OK", [])
        return b""

    viewing = with_async_view(view).app

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        answer = viewing(environ, start_response)
        # As sync_to_async leaves it after a call from a loop that still runs.
        SyncToAsync.threadlocal.main_event_loop = here
        SyncToAsync.threadlocal.main_event_loop_pid = os.getpid()
        return answer

    adapter = WSGIToASGI(app, workers=1)
    await request(adapter)
    await request(adapter)
    assert here not in loops
    assert len(loops) == 2


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("lend_loop", [False, True])
@pytest.mark.parametrize("announced", [b"content-length", b"transfer-encoding", b"expect", b""])
@pytest.mark.parametrize("size", [10, 200_000, 2_000_000])
async def test_an_async_view_reads_its_body(size: int, announced: bytes, lend_loop: bool) -> None:
    """It reads its body wherever it runs and however the body comes; the rest of the environ is unchanged."""

    async def view(environ: Environ, start_response: StartResponse) -> bytes:
        body = environ["wsgi.input"].read()
        start_response("200 OK", [])
        return f"{len(body)} {environ.get('CONTENT_LENGTH')}".encode()

    value = {b"content-length": b"%d" % size, b"transfer-encoding": b"chunked", b"expect": b"100-continue"}
    headers = [(announced, value[announced])] if announced else []
    blocks = [bytes(size // 2)] * 2
    server = await request(with_async_view(view, lend_loop=lend_loop), http_scope("POST", headers=headers), *blocks)
    assert server.body == f"{size} {size if announced == b'content-length' else None}".encode()


def waits(what: str, environ: Environ, write: Callable[[bytes], object]) -> object:
    if what == "read":
        return environ["wsgi.input"].read()
    if what == "wait":
        return environ["bridge.disconnected"].wait()
    return [write(bytes(200_000)) for _ in range(3)]


@pytest.mark.parametrize("what", ["read", "wait", "write"])
async def test_what_would_sleep_on_the_loop_raises(what: str) -> None:
    """An app's code on the server's loop cannot stop the loop: it raises there, and waits elsewhere."""
    loop = running_loop()
    done = threading.Event()
    errors: list[BaseException] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [])

        def on_the_loop() -> None:
            try:
                waits(what, environ, write)
            except BaseException as error:
                errors.append(error)
            done.set()

        loop.call_soon(on_the_loop)
        assert done.wait(5)
        return []

    server = ASGIServer(WSGIToASGI(app), blocks=[])
    server.hold_sends()
    with anyio.fail_after(5):
        async with server.running():
            await eventually(done.is_set)
            server.release_sends()
    (error,) = errors
    assert isinstance(error, WouldBlockLoop)
    assert isinstance(error, RuntimeError)
    assert "lend_loop" in str(error)


async def test_what_need_not_sleep_does_not_raise() -> None:
    """On the loop an app may ask whether its client has left, and read what has come."""
    loop = running_loop()
    results: list[Any] = []
    done = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        disconnected, stream = environ["bridge.disconnected"], environ["wsgi.input"]

        def on_the_loop() -> None:
            try:
                results.extend([disconnected.is_set(), disconnected.wait(0), stream.read(), disconnected.wait(-1)])
            finally:
                done.set()

        loop.call_soon(on_the_loop)
        assert done.wait(5)
        start_response("200 OK", [])
        return []

    scope = http_scope("POST", headers=[(b"content-length", b"3")])
    await request(WSGIToASGI(app), scope, b"abc")
    assert results == [False, False, b"abc", False]


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
    """Work that never ends does not stop the process from exiting."""
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
    """A thread that waits for a loop that is closed meanwhile is woken, and close() runs."""
    monkeypatch.setattr(bridge.wsgi_to_asgi.http.hop, "_LOOP_CHECK", 0.05)
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
    """After a thousand requests, a third of them abandoned, there are at most as many threads as workers."""

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
