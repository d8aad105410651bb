"""The threads of both directions: the context in which they start, and how they end."""

import asyncio
import contextvars
import sys
import threading
from collections.abc import Iterable
from typing import Any

import anyio
import pytest

from bridge import ASGIToWSGI, WSGIToASGI, runtime
from bridge.types import Environ, Receive, Scope, Send, StartResponse
from tests.fakes import ASGIServer, ASGIWebSocket, WSGIServer, eventually
from tests.processes import run_script

USER: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


@pytest.fixture
def inheriting_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let threads inherit their starter's context, as Python 3.14 does with `-X thread_inherit_context=1`."""
    start = threading.Thread.start

    def start_and_inherit(thread: threading.Thread) -> None:
        run, context = thread.run, contextvars.copy_context()
        thread.run = lambda: context.run(run)  # type: ignore[method-assign]
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_and_inherit)


@pytest.mark.usefixtures("inheriting_threads")
async def test_a_worker_thread_starts_in_an_empty_context() -> None:
    """A worker thread does not inherit the context of the request that started it."""
    users: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        users.append(USER.get())
        start_response("200 OK", [])
        return [b""]

    adapter = WSGIToASGI(app)
    USER.set("first")
    await ASGIServer(adapter).run()
    assert users == ["first"]
    adapter._workers.get().submit(lambda: users.append(USER.get()))
    await eventually(lambda: len(users) == 2)
    assert users == ["first", "nobody"]


@pytest.mark.usefixtures("inheriting_threads")
async def test_a_websocket_has_its_request_s_context_and_its_thread_none() -> None:
    """The app runs in the context of its request; what the thread runs after it does not."""
    users: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        users.append(USER.get())
        start_response("404 Not Found", [])
        return [b""]

    adapter = WSGIToASGI(app)
    websockets = adapter._websockets.get()
    discard = websockets.discard_if_over

    def note(thread: Any) -> None:
        if threading.current_thread().name == "WSGIToASGI WebSocket":
            users.append(USER.get())
        discard(thread)

    websockets.discard_if_over = note  # type: ignore[method-assign]
    USER.set("first")
    await ASGIWebSocket(adapter).run()
    assert users == ["first", "nobody"]


@pytest.mark.usefixtures("inheriting_threads")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_loop_and_its_lifespan_start_in_an_empty_context(backend: str) -> None:
    """A request and its background task run in the request's context, and the lifespan in an empty one."""
    users: dict[str, str] = {}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            users["startup"] = USER.get()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            users["shutdown"] = USER.get()
            await send({"type": "lifespan.shutdown.complete"})
            return
        users["request"] = USER.get()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b""})
        await anyio.lowlevel.checkpoint()
        users["background"] = USER.get()

    def serve() -> None:
        USER.set("first")
        adapter = ASGIToWSGI(app, backend=backend)
        WSGIServer(adapter).run()
        adapter.close()

    contextvars.Context().run(serve)
    assert users == {"startup": "nobody", "request": "first", "background": "first", "shutdown": "nobody"}


def test_what_is_called_on_a_loop_without_an_eventfd_has_an_empty_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio would use the context of whoever woke the loop, but many callers share one wake-up."""
    monkeypatch.setattr(runtime.loop, "_HAS_EVENTFD", False)

    async def main() -> str:
        user: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        USER.set("first")
        runtime.running_loop().call_soon(lambda: user.set_result(USER.get()))
        return await user

    assert asyncio.run(main()) == "nobody"


FORBID = """
import threading
init = threading.Thread.__init__
def forbid(thread, *args, daemon=None, **options):
    if daemon:
        raise RuntimeError("daemon threads are disabled in this (sub)interpreter")
    init(thread, *args, daemon=daemon, **options)
threading.Thread.__init__ = forbid
"""
ASGI_APP = """
from bridge import ASGIToWSGI
from tests.fakes import WSGIServer

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("shutdown", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hello"})

adapter = ASGIToWSGI(app)
server = WSGIServer(adapter)
server.run()
print(server.body, flush=True)
"""
WSGI_APP = """
import asyncio
from bridge import WSGIToASGI
from tests.fakes import ASGIServer

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"hello"]

adapter = WSGIToASGI(app)

async def main():
    server = ASGIServer(adapter)
    await server.run()
    print(server.body, flush=True)

asyncio.run(main())
"""
WEBSOCKET_APP = """
import asyncio, threading
from bridge import WSGIToASGI
from tests.fakes import ASGIWebSocket

def app(environ, start_response):
    receiving.set()
    environ["wsgi.websocket"].receive()
    print("left", flush=True)
    loop.call_soon_threadsafe(loop.stop)
    return []

async def main():
    await ASGIWebSocket(WSGIToASGI(app)).run()

receiving = threading.Event()
loop = asyncio.new_event_loop()
task = loop.create_task(main())
threading.Thread(target=loop.run_forever).start()
assert receiving.wait(5)
"""
SUBINTERPRETER = """
import _interpreters, sys
interpreter = _interpreters.create("isolated")
failure = _interpreters.exec(interpreter, {script!r})
assert failure is None, failure
_interpreters.destroy(interpreter)
"""


@pytest.mark.parametrize(
    ("script", "output"),
    [(ASGI_APP, "b'hello'\nshutdown\n"), (WSGI_APP, "b'hello'\n"), (WEBSOCKET_APP, "left\n")],
    ids=["asgi", "wsgi", "websocket"],
)
@pytest.mark.parametrize("real", [False, True])
def test_where_daemon_threads_are_forbidden_others_end_at_the_exit(script: str, output: str, real: bool) -> None:
    """Sub-interpreters with a lock of their own (mod_wsgi's) forbid them; there, idle threads do not delay the exit."""
    if real and sys.version_info < (3, 13):
        pytest.skip("sub-interpreters of Python 3.12 crash by themselves, and older ones have daemon threads")
    if real:
        paths = f"import sys\nsys.path[:] = {sys.path!r}\n"
        assert run_script(SUBINTERPRETER.format(script=paths + script)) == output
    else:
        assert run_script(FORBID + script) == output


def test_a_thread_ends_where_gevent_came_later() -> None:
    """gunicorn reads its hooks before its gevent worker patches `threading`, which replaces `threading.Thread`."""
    pytest.importorskip("gevent")
    script = """
from bridge.runtime import BackgroundThread
from gevent import monkey
monkey.patch_all()
thread = BackgroundThread("a thread", print, ("ran",))
thread.start()
thread.join(5)
print(thread.is_alive())
"""
    assert run_script(script).splitlines() == ["ran", "False"]
