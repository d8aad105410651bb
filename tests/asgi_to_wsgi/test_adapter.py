import asyncio
import contextlib
import functools
import gc
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from bridge import AdapterClosed, ASGIToWSGI, BridgeError, WouldBlockLoop
from bridge.asgi_to_wsgi import adapter as adapter_module
from bridge.asgi_to_wsgi import loop as loop_module
from bridge.asgi_to_wsgi import runner as runner_module
from bridge.runtime import Loop, running_loop
from bridge.types import Environ, Receive, Scope, Send, StartResponse
from tests.asgi_to_wsgi.apps import Adapt, Requester, hello
from tests.asgi_to_wsgi.conftest import BACKENDS
from tests.fakes import WSGIServer, http_environ, in_thread, respond
from tests.processes import run_script, wait_until

EAGER = getattr(asyncio, "eager_task_factory", None)


def wsgi_app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    raise AssertionError("never called")


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ASGIToWSGI loop"]


@pytest.mark.parametrize("app", [None, "module:app", 42])
def test_what_cannot_be_called_is_refused(app: Any) -> None:
    """An app that is not callable is a TypeError at construction."""
    with pytest.raises(TypeError, match="not"):
        ASGIToWSGI(app)


def test_a_wsgi_app_is_refused_by_the_name_of_the_other_class() -> None:
    """The error for a WSGI app names the class to use instead."""
    with pytest.raises(TypeError, match="use WSGIToASGI"):
        ASGIToWSGI(wsgi_app)  # type: ignore[arg-type]


def test_any_callable_that_returns_an_awaitable_will_do(adapt: Adapt) -> None:
    """Partials, objects and plain functions that return a coroutine are apps (ASGI spec, Applications)."""

    class App:
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await hello(scope, receive, send)

    def function(scope: Scope, receive: Receive, send: Send) -> Any:
        return hello(scope, receive, send)

    async def with_more(extra: int, scope: Scope, receive: Receive, send: Send) -> None:
        await hello(scope, receive, send)

    for app in (App(), function, functools.partial(with_more, 1)):
        assert respond(adapt(app)).body == b"hello"


def test_nothing_starts_before_the_first_request() -> None:
    """Constructing an adapter starts no thread, so it may be done before a fork."""
    before = len(threads())
    adapter = ASGIToWSGI(hello, lifespan="off")
    assert len(threads()) == before
    respond(adapter)
    respond(adapter)
    assert len(threads()) == before + 1
    adapter.close()
    assert len(threads()) == before


def test_start_and_close_may_be_called_twice(adapt: Adapt) -> None:
    """start() on a running adapter and close() on a closed one do nothing; start() opens it again."""
    adapter = adapt(hello)
    adapter.close()
    with pytest.raises(AdapterClosed):
        respond(adapter)
    adapter.start()
    adapter.start()
    assert respond(adapter).body == b"hello"
    adapter.close()
    adapter.close()
    with pytest.raises(AdapterClosed):
        respond(adapter)


def test_the_adapter_is_a_context_manager() -> None:
    """`with` starts the loop, and closes it."""
    before = len(threads())
    with ASGIToWSGI(hello, lifespan="off") as adapter:
        assert len(threads()) == before + 1
        assert respond(adapter).body == b"hello"
    assert len(threads()) == before


def test_an_adapter_that_is_dropped_ends_its_loop() -> None:
    """Adapters that are dropped leave no threads behind."""
    before = set(threads())
    for _ in range(20):
        respond(ASGIToWSGI(hello, lifespan="off"))
    gc.collect()
    wait_until(lambda: before.issuperset(threads()))


@pytest.mark.parametrize("options", BACKENDS.values(), ids=BACKENDS)
@pytest.mark.parametrize("media_type", [b"text/plain", b"text/event-stream"])
def test_a_dropped_adapter_lets_its_response_end(
    monkeypatch: pytest.MonkeyPatch, media_type: bytes, options: dict[str, Any]
) -> None:
    """A response that is under way when its adapter is dropped goes on; then the app shuts down."""
    monkeypatch.setattr(runner_module, "_EXIT_GRACE", 0.0)
    events: list[str] = []
    proceed, shut_down = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            events.append("shutdown")
            shut_down.set()
            await send({"type": "lifespan.shutdown.complete"})
            return
        loops.append(running_loop())
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", media_type)]})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        while not proceed.is_set():
            await anyio.sleep(0.001)
        await send({"type": "http.response.body", "body": b", done"})
        await anyio.sleep(0.01)
        events.append("background work")

    loops: list[Loop] = []
    server = WSGIServer(lambda *request: ASGIToWSGI(app, **options)(*request))
    blocks = server.call()
    assert next(blocks) == b"begun"
    gc.collect()
    turned = threading.Event()
    for _ in range(5):  # turns of the loop, during which it could end the response
        turned.clear()
        loops[0].call_soon(turned.set)
        assert turned.wait(5)
    proceed.set()
    assert b"".join(blocks) == b", done"
    assert shut_down.wait(5)
    assert events == ["background work", "shutdown"]


def test_adapters_are_registered_for_as_long_as_they_live() -> None:
    """A program that makes an adapter for each request does not fill the registry."""
    gc.collect()
    adapters, loops = len(adapter_module._adapters.items()), len(runner_module._private_loops.items())
    for _ in range(20):
        respond(ASGIToWSGI(hello, lifespan="off"))
    gc.collect()
    assert len(adapter_module._adapters._references) <= adapters
    assert len(runner_module._private_loops._references) <= loops
    wait_until(lambda: not runner_module._dropped.items())


def test_a_close_from_its_own_loop_is_refused() -> None:
    """An app that closes its own adapter on the loop gets an error, because it would wait for itself."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/close":
            adapter.close()
        await hello(scope, receive, send)

    with ASGIToWSGI(app, lifespan="off") as adapter:
        with pytest.raises(BridgeError, match="its own"):
            respond(adapter, http_environ("GET", "/close"))
        assert respond(adapter).body == b"hello"


@pytest.mark.parametrize("call", ["start", "close", "__call__"])
def test_a_call_from_its_own_loop_that_starts_is_refused(call: str) -> None:
    """An app whose startup calls its own adapter gets an error, because it would never start."""
    errors: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            try:
                getattr(adapter, call)(*([http_environ(), None] if call == "__call__" else []))
            except BaseException as error:
                errors.append(error)
            for phase in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{phase}.complete"})
        else:
            await hello(scope, receive, send)

    adapter = ASGIToWSGI(app, startup_timeout=5)
    with contextlib.closing(adapter):
        assert respond(adapter).body == b"hello"
    (error,) = errors
    assert isinstance(error, WouldBlockLoop)
    assert isinstance(error, RuntimeError)


def test_a_response_that_is_iterated_on_its_own_loop_is_refused(adapt: Adapt) -> None:
    """An app that iterates its own response on the loop would wait for itself."""
    responses: list[Iterator[bytes]] = []
    errors: list[BaseException] = []
    called, done = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        while not called.is_set():
            await anyio.sleep(0.001)
        try:
            next(responses[0])
        except BaseException as error:
            errors.append(error)
        done.set()

    server = WSGIServer(adapt(app))

    def serve() -> None:
        responses.append(server.call())
        assert next(responses[0]) == b"one"
        called.set()
        assert done.wait(5)
        server.close()

    in_thread(serve)
    assert [type(error) for error in errors] == [WouldBlockLoop]


def test_a_call_from_its_own_loop_is_refused(adapt: Adapt) -> None:
    """An app that calls its own adapter on the loop gets an error, because it would wait for itself."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        WSGIServer(adapter).run()

    adapter = adapt(app)
    with pytest.raises(BridgeError, match="its own"):
        respond(adapter)


def test_a_websocket_request_is_answered_501(adapt: Adapt) -> None:
    """If the server does not share its socket, one plain sentence refuses it, and the app does not run."""

    async def never(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("the app was called")

    handshake = {"HTTP_SEC_WEBSOCKET_VERSION": "13", "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ=="}
    environ = http_environ(HTTP_UPGRADE="WebSocket", HTTP_CONNECTION="keep-alive, Upgrade", **handshake)
    server = respond(adapt(never), environ)
    assert server.status == "501 Not Implemented"
    assert b"WebSocket" in server.body


def test_an_upgrade_to_something_else_is_an_ordinary_request(adapt: Adapt) -> None:
    """A server may ignore an Upgrade (RFC 9110 7.8)."""
    environ = http_environ(HTTP_UPGRADE="h2c", HTTP_CONNECTION="Upgrade")
    assert respond(adapt(hello), environ).body == b"hello"


def test_the_loop_that_died_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    """SystemExit in one of the app's tasks ends the loop: the request gets an error, the next one a new loop."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/die":

            async def die() -> None:
                raise SystemExit(3)

            asyncio.ensure_future(die()).add_done_callback(asyncio.Task.exception)
            await asyncio.sleep(5)
        await hello(scope, receive, send)

    with ASGIToWSGI(app, lifespan="off") as adapter:
        with pytest.raises(Exception, match=r"ended|closed"):
            respond(adapter, http_environ("GET", "/die"))
        wait_until(lambda: "died" in caplog.text)
        assert respond(adapter).body == b"hello"


def test_a_thread_with_the_number_of_a_loop_that_died_may_close() -> None:
    """The system reuses thread numbers, so a thread with that number need not be on the loop."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asyncio.get_running_loop().call_soon(exit, 3)
        await asyncio.sleep(5)

    adapter = ASGIToWSGI(app, lifespan="off")
    with pytest.raises(Exception, match=r"ended|closed"):
        respond(adapter)
    loop_thread = adapter._private_loop.get()._current
    assert loop_thread is not None
    loop_thread._thread.join(5)
    for _ in range(10):  # one of them will have that number
        in_thread(adapter.close)


def test_a_request_whose_task_cannot_be_made_fails_alone() -> None:
    """The error of the app's task factory fails its own request, and the next ones are served."""
    entered, proceed = threading.Event(), threading.Event()
    errors = [ZeroDivisionError("in the factory")]

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        if errors:
            coroutine.close()
            raise errors.pop()
        return asyncio.Task(coroutine, loop=loop, **options)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if not entered.is_set():
            asyncio.get_running_loop().set_task_factory(factory)
            entered.set()
            assert proceed.wait(5)  # with the loop, so that the next requests queue up
        await hello(scope, receive, send)

    with ASGIToWSGI(app, lifespan="off") as adapter:
        jobs = adapter._private_loop.get().get()._tasks.waiting
        requests = [Requester(adapter)]
        assert entered.wait(5)
        for count in (1, 2):
            requests.append(Requester(adapter))
            wait_until(lambda count=count: len(jobs) == count)  # type: ignore[misc]
        proceed.set()
        outcomes = [request.join() for request in requests]
    assert isinstance(outcomes[1], ZeroDivisionError)
    assert [outcomes[0], outcomes[2]] == [b"hello", b"hello"]


@pytest.mark.skipif(EAGER is None, reason="asyncio has eager tasks from Python 3.12 on")
def test_an_eager_task_is_not_kept() -> None:
    """A task that is done before its creation returns is not listed as running."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asyncio.get_running_loop().set_task_factory(EAGER)
        await hello(scope, receive, send)

    with ASGIToWSGI(app, lifespan="off") as adapter:
        for _ in range(3):
            assert respond(adapter).body == b"hello"
        running = adapter._private_loop.get().get()._tasks.running
        wait_until(lambda: not running)


def test_close_fails_requests_that_do_not_end(adapt: Adapt) -> None:
    """An endless response is cut when its grace is over, and its thread is free."""
    started = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        started.set()
        await receive()
        await receive()

    adapter = adapt(app, shutdown_timeout=0.05)
    request = Requester(adapter)
    assert started.wait(5)
    in_thread(adapter.close)
    assert type(request.join()) is AdapterClosed


def test_close_fails_requests_whose_loop_is_blocked(adapt: Adapt, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that cannot end is abandoned, but requests on it or in the queue get an error."""
    monkeypatch.setattr(loop_module, "UNWIND_TIMEOUT", 0.02)
    blocked, unblock = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        blocked.set()
        unblock.wait(20)

    adapter = adapt(app, shutdown_timeout=0.02)
    adapter.start()
    loop_thread = adapter._private_loop.get().get()
    try:
        running = Requester(adapter)
        assert blocked.wait(5)
        queued = Requester(adapter)
        wait_until(lambda: loop_thread._tasks.waiting)
        in_thread(adapter.close)
        assert [type(request.join()) for request in (running, queued)] == [AdapterClosed] * 2
    finally:
        unblock.set()
    wait_until(lambda: loop_thread.ended)


def test_close_waits_for_a_request_that_came_meanwhile(adapt: Adapt) -> None:
    """A request that was accepted before close(), and still reads its body, has the same grace as others."""
    reading, proceed, first, second, go = (threading.Event() for _ in range(5))

    async def until(event: threading.Event) -> None:
        with anyio.fail_after(5):
            while not event.is_set():
                await anyio.sleep(0.001)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "GET":
            first.set()
            await until(second)
        else:
            second.set()
            await until(go)
            for _ in range(20):  # turns of the loop, during which it could end
                await anyio.lowlevel.checkpoint()
        await hello(scope, receive, send)

    class Slow:
        def read(self, size: int) -> bytes:
            reading.set()
            assert proceed.wait(5)
            return b"body"

    adapter = adapt(app)
    adapter.start()
    loop_thread = adapter._private_loop.get().get()
    early = Requester(adapter)
    late = Requester(adapter, http_environ("POST", "/", b"body", **{"wsgi.input": Slow()}))
    assert first.wait(5)
    assert reading.wait(5)
    closing = threading.Thread(target=adapter.close, daemon=True)
    closing.start()
    wait_until(lambda: loop_thread.stopping)
    proceed.set()
    assert early.join() == b"hello"
    go.set()
    assert late.join() == b"hello"
    closing.join(5)
    assert not closing.is_alive()


def test_close_at_the_very_end_of_a_start_ends_the_loop(adapt: Adapt) -> None:
    """The loop already serves while start() has yet to return, so there is no startup to cancel."""
    adapter = adapt(hello)
    adapter.start()
    loop_thread = adapter._private_loop.get().get()
    loop_thread.abort(AdapterClosed("the adapter was closed while it started"))
    wait_until(lambda: loop_thread.ended)


def test_a_signal_may_close_what_it_interrupts() -> None:
    """close() in a signal handler ends both its own wait and that of start() in the same thread."""
    output = run_script(
        """
import anyio, signal, threading
from bridge import AdapterClosed, ASGIToWSGI

async def app(scope, receive, send):
    await receive()
    signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
    await anyio.sleep(60)

adapter = ASGIToWSGI(app, shutdown_timeout=1)
signal.signal(signal.SIGUSR1, lambda *arguments: adapter.close())
try:
    adapter.start()
except AdapterClosed:
    print("closed")
"""
    )
    assert output == "closed\n"
