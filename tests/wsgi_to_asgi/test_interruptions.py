"""What an app's watchdog throws into a thread (PyThreadState_SetAsyncExc) may land at any bytecode."""

import contextlib
import functools
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import anyio
import pytest

from bridge import WSGIToASGI
from bridge.runtime import PerProcess, running_loop
from bridge.types import Environ, StartResponse
from bridge.wsgi_to_asgi.runner import WorkerThreads, _Jobs
from bridge.wsgi_to_asgi.websocket import exchange as websocket_exchange
from bridge.wsgi_to_asgi.websocket.messages import Messages
from bridge.wsgi_to_asgi.websocket.thread import AppThread
from tests.fakes import ASGIServer, ASGIWebSocket, eventually, in_thread
from tests.interruptions import Interruption, warm_up
from tests.processes import wait_until

RUNTIME = ("runtime/loop.py", "runtime/threads.py")
ERRORS = [TimeoutError, RuntimeError, SystemExit]


class InterruptedWorkers:
    """Runs each job in a thread of its own, in which an exception lands."""

    limit = 1

    def __init__(self, interruption: Interruption) -> None:
        self._interruption = interruption

    def submit(self, job: Callable[[], None]) -> bool:
        def run() -> None:
            self._interruption.run(job)
            if self._interruption.ended:
                job()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        return True

    def as_worker_threads(self) -> WorkerThreads:
        return cast("WorkerThreads", self)

    def join(self) -> bool:
        self._thread.join(5)
        return not self._thread.is_alive()


def hello(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    yield b"hello"


@pytest.mark.parametrize("error_class", ERRORS)
async def test_an_exception_from_without_ends_no_request_in_silence(error_class: type[BaseException]) -> None:
    """Wherever it lands in the request's thread, the loop is told that the thread is done."""
    step = 0
    while True:
        interruption = Interruption(step, error_class("from without"), "wsgi_to_asgi/http/exchange.py", *RUNTIME)
        workers = InterruptedWorkers(interruption)
        adapter = WSGIToASGI(hello)
        adapter._workers = PerProcess(workers.as_worker_threads)
        server = ASGIServer(adapter)
        outcome: Exception | None = None
        with anyio.fail_after(5):
            try:
                await server.run()
            except Exception as error:
                outcome = error
        assert server.body == b"hello" if outcome is None else "from without" in f"{outcome!r} {outcome.__cause__!r}"
        assert workers.join()
        if not interruption.landed:
            return
        step += 1


class Closing:
    """A response that counts the calls of its close()."""

    def __init__(self) -> None:
        self.closes = 0

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"hello"])

    def close(self) -> None:
        self.closes += 1


@pytest.mark.parametrize("error_class", ERRORS)
async def test_an_exception_from_outside_does_not_skip_close(error_class: type[BaseException]) -> None:
    """Wherever it lands after the app has returned, close() is called once.

    Three bytecodes cannot be guarded: the one that stores what the app returned, where it looks as if the app had
    raised, and the two that load close() to call it, where the interpreter itself raises no such exception.
    """
    skipped: set[tuple[str, int]] = set()
    step = 0
    landed = True
    while landed:
        interruption = Interruption(
            step, error_class("from outside"), "wsgi_to_asgi/http/call.py", "wsgi_to_asgi/http/hop.py"
        )
        responses: list[Closing] = []

        def app(environ: Environ, start_response: StartResponse, responses: list[Closing] = responses) -> Closing:
            start_response("200 OK", [])
            responses.append(Closing())
            return responses[0]

        workers = InterruptedWorkers(interruption)
        adapter = WSGIToASGI(app)
        adapter._workers = PerProcess(workers.as_worker_threads)
        with anyio.fail_after(5), contextlib.suppress(Exception):
            await ASGIServer(adapter).run()
        assert workers.join()
        if responses:
            assert responses[0].closes < 2
            if not responses[0].closes:
                skipped.add(interruption.place)
        landed = interruption.landed
        step += 1
    assert len(skipped) <= 3


@pytest.mark.parametrize("error_class", ERRORS)
async def test_an_exception_from_without_ends_no_websocket_in_silence(
    error_class: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it lands in a WebSocket's thread, the loop is told that the thread is done, and its place is free."""
    monkeypatch.setattr(websocket_exchange, "_EXIT_TIMEOUT", 60.0)
    run = AppThread._run
    adapter = WSGIToASGI(hello, max_websockets=1)
    step = 0
    landed = True
    while landed:
        interruption = Interruption(step, error_class("from without"), "wsgi_to_asgi/websocket/thread.py", *RUNTIME)

        def interrupted(thread: AppThread, *arguments: Any, interruption: Interruption = interruption) -> None:
            interruption.run(lambda: run(thread, *arguments))

        monkeypatch.setattr(AppThread, "_run", interrupted)
        server = ASGIWebSocket(adapter)
        outcome: Exception | None = None
        with anyio.fail_after(30):  # less than an app's time to end
            try:
                await server.run()
            except Exception as error:
                outcome = error
        refused = any(message["type"] == "websocket.http.response.body" for message in server.sent)
        assert refused or "from without" in f"{outcome!r} {outcome.__cause__!r}"  # type: ignore[union-attr]
        await eventually(lambda: not adapter._websockets.get()._threads)
        landed = interruption.landed
        step += 1


async def test_an_exception_from_outside_does_not_lose_the_end_of_a_websocket() -> None:
    """Wherever it lands in `receive`, the next call finds the end."""
    step = 0
    landed = True
    while landed:
        warm_up(lambda: Messages(running_loop()).receive(0), "wsgi_to_asgi/websocket/messages.py")
        interruption = Interruption(step, TimeoutError("from outside"), "wsgi_to_asgi/websocket/messages.py")
        messages = Messages(running_loop())
        messages.finish(1000, "")
        in_thread(functools.partial(interruption.run, messages.receive))
        in_thread(functools.partial(messages.receive, 0))  # raises queue.Empty if the end is lost
        landed = interruption.landed
        step += 1
    assert step > 10


@pytest.mark.parametrize("error_class", ERRORS)
def test_an_exception_from_without_ends_no_worker_thread(error_class: type[BaseException]) -> None:
    """Wherever it lands in a worker thread, the thread does each of its jobs, is idle then, and ends when it should."""
    step = 0
    landed = True
    while landed:
        interruption = Interruption(step, error_class("from without"), "wsgi_to_asgi/runner.py")
        jobs = _Jobs()
        work = functools.partial(jobs.work, deque())
        thread = threading.Thread(target=interruption.run, args=(work,), daemon=True)
        jobs.threads.add(thread)
        ran: queue.SimpleQueue[int] = queue.SimpleQueue()
        seen: list[int] = []
        for number in range(2):
            jobs.put(functools.partial(ran.put, number))
        thread.start()
        for number in range(2, 5):
            while not set(range(number)).issubset(seen):
                seen.append(ran.get(timeout=5))
            wait_until(lambda jobs=jobs: jobs.spare == 1)  # type: ignore[misc]
            jobs.put(functools.partial(ran.put, number))
        assert thread in jobs.threads
        jobs.dismiss()
        thread.join(5)
        assert not thread.is_alive()
        landed = interruption.landed
        step += 1


def test_a_thread_that_ends_makes_room_for_another() -> None:
    """A second exception during the first may end a thread; it is no longer counted, and passes on its wake-up."""

    class InterruptedJobs(_Jobs):
        interrupted = False

        def _work(self, *arguments: Any) -> None:
            if not self.interrupted:
                self.interrupted = True
                raise TimeoutError("the first")
            super()._work(*arguments)

    ended = step = 0
    landed = True
    while landed:
        interruption = Interruption(step, TimeoutError("the second"), "wsgi_to_asgi/runner.py")
        jobs = InterruptedJobs()
        done = threading.Event()
        jobs.put(done.set)
        jobs._wakes.get()  # sent by the thread that ends

        def live(jobs: _Jobs = jobs, interruption: Interruption = interruption) -> None:
            jobs.threads.add(threading.current_thread())
            jobs.dismiss()
            interruption.run(functools.partial(jobs.work, deque()))

        in_thread(live)
        if not done.is_set():
            assert interruption.ended
            assert not jobs.threads
            ended += 1
            jobs._wakes.get(timeout=5)
            jobs._wakes.get(timeout=5)
            jobs.work(deque())
            assert done.is_set()
        landed = interruption.landed
        step += 1
    assert ended
