"""Detached responses whose loop dies, or whose server's thread is interrupted."""

import asyncio
import contextlib
import functools
import socket
import threading
from typing import Any

import pytest

from bridge import AdapterClosed, ASGIToWSGI, ClientDisconnected
from bridge.asgi_to_wsgi.http.detached import DetachedResponse
from bridge.asgi_to_wsgi.http.exchange import HTTPExchange
from bridge.asgi_to_wsgi.tasks import Job
from bridge.sansio.http1 import ResponseWriter
from bridge.types import Receive, Scope, Send
from tests.asgi_to_wsgi.apps import Adapt
from tests.asgi_to_wsgi.http.detachable import Gate, NotedPlace, block, connected, detached_responses, start, waiting
from tests.fakes import http_scope, in_thread
from tests.interruptions import Interruption
from tests.processes import wait_until
from tests.sockets import read_all, read_until


def test_a_loop_that_dies_answers_what_is_detached() -> None:
    """Each client gets a 500, in whatever order asyncio cancels the tasks."""
    waiting: list[asyncio.Event] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        waiting.append(asyncio.Event())
        if len(waiting) == 20:
            await asyncio.sleep(0.1)  # by then, this response is detached as well
            asyncio.get_running_loop().call_soon(exit, 3)
        await waiting[-1].wait()

    with ASGIToWSGI(app, lifespan="off", detach="always", detach_after=0) as adapter, contextlib.ExitStack() as stack:
        servers = [stack.enter_context(connected(adapter)) for _ in range(20)]
        responses: set[DetachedResponse] = set()
        for server in servers:
            in_thread(server.run)
            responses.update(detached_responses(adapter))
        assert all(server.has_left for server in servers)
        assert [server.read() for server in servers] == [(500, b"Internal Server Error\n")] * 20
        wait_until(lambda: adapter.statistics().detached == 0)
        assert len(responses) >= 19  # the last one may have ended already
        assert all(response._closed for response in responses)


# If an exception lands between taking a socket and passing it on, the socket is closed with its last reference.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.filterwarnings("ignore:.*Place.free:pytest.PytestUnraisableExceptionWarning")  # it lands there, too
@pytest.mark.parametrize("file", ["leaving", "detaching", "patience", "place"])
def test_an_interrupted_departure_leaves_nothing_behind(file: str) -> None:
    """Wherever an exception from a watchdog lands in the WSGI thread, the app hears of it, and its place is free."""
    running: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        running.append(step)
        while (await receive())["type"] != "http.disconnect":
            pass
        running.remove(step)

    step, landed = 0, True
    with ASGIToWSGI(app, lifespan="off", detach="always", detach_after=0, max_detached=1) as adapter:
        while landed:
            interruption = Interruption(step, RuntimeError("from without"), f"asgi_to_wsgi/http/{file}.py")
            with connected(adapter) as server:
                in_thread(functools.partial(interruption.run, server.run))
            landed = interruption.landed
            wait_until(lambda: not running and adapter.statistics().detached == 0, 5, f"an end at {interruption.place}")
            step += 1


def test_a_departure_that_fails_is_answered(adapt: Adapt, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server can no longer answer once its connection was taken, so the client gets the adapter's own 500."""
    adapter = adapt(waiting(Gate()), detach="always", detach_after=0)
    adapter.start()
    loop_thread = adapter._private_loop.get().get()
    submit = loop_thread.submit

    def refuse(*jobs: Job) -> None:
        if isinstance(jobs[0], DetachedResponse):
            raise ZeroDivisionError
        submit(*jobs)

    monkeypatch.setattr(loop_thread, "submit", refuse)
    with connected(adapter) as server:
        with pytest.raises(ZeroDivisionError):
            in_thread(server.run)
        assert server.read() == (500, b"Internal Server Error\n")


def test_a_response_that_fails_before_its_task_runs_is_closed_at_once(adapt: Adapt) -> None:
    """No loop will close it later, so its connection is closed and its place is free when `fail` returns."""
    ended: list[str] = []
    ours, client = socket.socketpair()
    adapter = adapt(waiting(Gate()))
    adapter.start()
    exchange = HTTPExchange(adapter.app, adapter._private_loop.get().get(), http_scope())
    response = DetachedResponse(exchange, ours, ResponseWriter("GET", "1.1"), NotedPlace(exchange, ended))
    with client:
        response.fail(AdapterClosed("the loop has ended"))
        assert ended == ["released", "500 Internal Server Error 22 False"]
        assert ours.fileno() == -1
        assert read_all(client).endswith(b"Internal Server Error\n")


def test_a_response_that_fails_while_its_task_runs_is_closed_by_the_task(adapt: Adapt) -> None:
    """`fail` only answers, because the task still uses the descriptor, whose number another connection could get."""
    ended: list[str] = []
    ours, client = socket.socketpair()
    adapter = adapt(waiting(Gate()))
    adapter.start()
    exchange = HTTPExchange(adapter.app, adapter._private_loop.get().get(), http_scope())
    response = DetachedResponse(exchange, ours, ResponseWriter("GET", "1.1"), NotedPlace(exchange, ended))
    response._running = True
    with client, ours:
        response.fail(AdapterClosed("the loop has ended"))
        assert ended == []
        assert ours.fileno() != -1
        assert read_all(client).endswith(b"Internal Server Error\n")


def test_a_response_without_a_task_that_fails_is_closed_by_its_loop() -> None:
    """On the loop, `fail` closes it at once, because the loop may end now. Other threads leave that to the loop."""
    gate, go_on = Gate(), threading.Event()
    closed: list[bool] = []
    with ASGIToWSGI(waiting(gate), lifespan="off", detach="always", detach_after=0) as adapter:
        loop = adapter._private_loop.get().get().loop
        with connected(adapter) as first, connected(adapter) as second:
            in_thread(first.run)
            (response,) = detached_responses(adapter)
            wait_until(lambda: response._tasks)
            loop.call_soon(go_on.wait, 20)
            response.fail(AdapterClosed("the loop is blocked"))
            assert not response._closed
            go_on.set()
            wait_until(lambda: response._closed)

            def fail_another() -> None:
                another.fail(AdapterClosed("the loop ends"))
                closed.append(another._closed)

            in_thread(second.run)
            (another,) = detached_responses(adapter)
            wait_until(lambda: another._tasks)
            loop.call_soon(fail_another)
            wait_until(lambda: closed)
    assert closed == [True]


def test_an_app_hears_that_only_its_detached_response_was_cancelled() -> None:
    """Its client gets no more, so `send` raises, and `receive` says that the client has left."""
    gate, done = Gate(), threading.Event()
    told: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await gate.wait()
        await start(send)
        try:
            await block(send, bytes(20_000_000), True)
        except OSError as error:
            told.append(type(error))
        told.append(await receive())
        done.set()

    with ASGIToWSGI(app, lifespan="off", detach="always", detach_after=0) as adapter, connected(adapter) as server:
        in_thread(server.run)
        assert server.has_left
        gate.open()
        running = adapter._private_loop.get().get()._tasks.running
        wait_until(lambda: any(isinstance(job, DetachedResponse) and task for job, task in list(running.items())))
        (task,) = (task for job, task in running.items() if isinstance(job, DetachedResponse))
        task.get_loop().call_soon_threadsafe(task.cancel)
        assert done.wait(5)
        assert len(read_all(server.client)) < 20_000_000
    assert told == [ClientDisconnected, {"type": "http.disconnect"}]


def test_a_response_that_gets_no_task_is_cut() -> None:
    """It needs one once its client reads too slowly; an app's task factory may raise."""
    ended = threading.Event()

    def refuse(loop: object, coroutine: Any, **options: Any) -> Any:
        raise ZeroDivisionError

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        asyncio.get_running_loop().set_task_factory(refuse)
        await start(send)
        with contextlib.suppress(ClientDisconnected):
            await block(send, bytes(20_000_000), True)
        assert (await receive())["type"] == "http.disconnect"
        asyncio.get_running_loop().set_task_factory(None)
        ended.set()

    with ASGIToWSGI(app, lifespan="off", detach="always", detach_after=0) as adapter, connected(adapter) as server:
        in_thread(server.run)
        assert ended.wait(5)
        wait_until(lambda: adapter.statistics().detached == 0)
        assert len(read_all(server.client)) < 20_000_000


def test_a_stream_whose_loop_is_blocked_is_cut() -> None:
    """When `close()` gives up on the loop, the connection ends, so that the client no longer waits."""
    gate, go_on = Gate(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, (b"content-type", b"text/event-stream"))
        await block(send, b"part", True)
        await gate.wait()
        go_on.wait(20)  # blocks the loop

    adapter = ASGIToWSGI(app, lifespan="off", detach="always", detach_after=60, shutdown_timeout=0.05)
    with connected(adapter) as server:
        try:
            in_thread(server.run)
            assert server.has_left
            read_until(server.client, b"part\r\n")
            gate.open()
            in_thread(adapter.close, 15)
            assert adapter._detaching.get()._taken  # type: ignore[union-attr]  # the loop may use the descriptor
            assert read_all(server.client) in (b"", b"0\r\n\r\n")  # the end is sent if the loop hears of it first
        finally:
            go_on.set()
        wait_until(lambda: adapter.statistics().detached == 0)
