"""The private loop's thread, at the moments when it begins and ends."""

import asyncio
import contextvars
import threading
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from bridge import AdapterClosed, ASGIToWSGI
from bridge.asgi_to_wsgi import loop as loop_module
from bridge.asgi_to_wsgi import tasks as tasks_module
from bridge.asgi_to_wsgi.loop import LoopThread
from bridge.runtime import Loop
from bridge.types import Receive, Scope, Send
from tests.asgi_to_wsgi.apps import Adapt
from tests.fakes import in_thread
from tests.processes import wait_until


class RecordingJob:
    """A job that runs until it is cancelled, and records how it ended."""

    begin = None

    def __init__(self) -> None:
        self.context = contextvars.copy_context()
        self.ran = threading.Event()
        self.failed = threading.Event()
        self.error: BaseException | None = None

    async def run(self) -> None:
        self.ran.set()
        await anyio.sleep_forever()

    def stop(self) -> None: ...

    def fail(self, error: BaseException) -> None:
        self.error = error
        self.failed.set()


async def no_app(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("never called")


def running(adapter: ASGIToWSGI) -> LoopThread:
    adapter.start()
    return adapter._private_loop.get().get()


def test_a_job_for_a_loop_that_has_ended_fails(adapt: Adapt) -> None:
    """It fails even if the loop does not say that it is closed."""
    adapter = adapt(no_app)
    loop_thread = running(adapter)
    real_loop, loop_thread.loop = loop_thread.loop, Loop(object(), anyio.Event, print, lambda: False)
    stop = loop_thread.loop.call_soon
    loop_thread.loop.call_soon = real_loop.call_soon  # type: ignore[method-assign]
    in_thread(adapter.close)
    loop_thread.loop.call_soon = stop  # type: ignore[method-assign]
    job = RecordingJob()
    loop_thread.submit(job)
    assert job.failed.is_set()


def test_a_job_for_a_loop_that_was_left_behind_fails_at_once(adapt: Adapt, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it would wait for as long as the app blocks the loop."""
    monkeypatch.setattr(loop_module, "UNWIND_TIMEOUT", 0.02)
    blocked, unblock = threading.Event(), threading.Event()
    adapter = adapt(no_app, shutdown_timeout=0.02)
    loop_thread = running(adapter)
    loop_thread.loop.call_soon(lambda: blocked.set() or unblock.wait(20))  # type: ignore[func-returns-value]
    assert blocked.wait(5)
    try:
        in_thread(adapter.close)
        job = RecordingJob()
        loop_thread.submit(job)
        assert job.failed.is_set()
    finally:
        unblock.set()
    wait_until(lambda: loop_thread.ended)


def test_a_job_that_comes_while_the_loop_dies_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The running jobs have already been told, so this job must be told on its own."""
    monkeypatch.setattr(tasks_module, "UNWIND_TIMEOUT", 0.02)
    late = RecordingJob()

    class First(RecordingJob):
        async def run(self) -> None:
            try:
                await super().run()
            finally:
                running_jobs = cast("dict[Any, asyncio.Task[Any]]", loop_thread._tasks.running)
                running_jobs[late] = asyncio.ensure_future(anyio.sleep_forever())

    adapter = ASGIToWSGI(no_app, lifespan="off", shutdown_timeout=0.02)
    loop_thread = running(adapter)
    first = First()
    loop_thread.submit(first)
    assert first.ran.wait(5)
    in_thread(adapter.close)
    wait_until(lambda: loop_thread.ended)
    assert first.failed.is_set()
    assert late.failed.wait(5)


def test_a_job_that_comes_during_the_shutdown_fails(adapt: Adapt) -> None:
    """The app already knows that no more requests will come."""
    stopping, proceed = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        stopping.set()
        while not proceed.is_set():
            await anyio.sleep(0.001)
        await send({"type": "lifespan.shutdown.complete"})

    adapter = adapt(app, lifespan="on", shutdown_timeout=5.0)
    loop_thread = running(adapter)
    closing = threading.Thread(target=adapter.close, daemon=True)
    closing.start()
    assert stopping.wait(5)
    job = RecordingJob()
    loop_thread.submit(job)
    assert job.failed.wait(5)
    assert isinstance(job.error, AdapterClosed)
    assert not job.ran.is_set()
    proceed.set()
    closing.join(5)
    assert not closing.is_alive()


def test_a_thread_with_the_number_of_an_ended_loop_may_wait(adapt: Adapt) -> None:
    """The system reuses thread numbers."""
    adapter = adapt(no_app)
    loop_thread = running(adapter)
    in_thread(adapter.close)
    wait_until(lambda: loop_thread.ended)
    loop_thread._thread = cast("Any", SimpleNamespace(ident=threading.get_ident()))
    loop_thread.check_thread()


def test_close_ends_the_startup_itself(adapt: Adapt) -> None:
    """Otherwise the loop would live as long as the startup, although nobody waits for it."""
    entered = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        entered.set()
        await anyio.sleep_forever()

    adapter = adapt(app, lifespan="auto", startup_timeout=60)
    errors: list[BaseException] = []

    def start() -> None:
        try:
            adapter.start()
        except AdapterClosed as error:
            errors.append(error)

    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    assert entered.wait(5)
    loop_thread = adapter._private_loop.get()._starting
    assert loop_thread is not None
    in_thread(adapter.close)
    thread.join(5)
    assert len(errors) == 1
    wait_until(lambda: loop_thread.ended)
