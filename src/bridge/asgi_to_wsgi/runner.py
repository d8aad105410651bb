"""The private event loop that ASGI apps run on, and the way there."""

import asyncio
import atexit
import contextvars
import functools
import logging
import os
import threading
import weakref
from collections import deque
from typing import Any, Literal, Protocol

import anyio
import anyio.abc

from bridge.asgi_to_wsgi.lifespan import Lifespan
from bridge.asgi_to_wsgi.servers import maybe_green_loop_factory
from bridge.errors import AdapterClosed, BridgeError, StartupFailed
from bridge.runtime import Event, Loop, binary_semaphore, running_loop, set_async_library
from bridge.types import ASGIApp

_logger = logging.getLogger("bridge")

# How long tasks may take to unwind once they are cancelled, in seconds.
_UNWIND_TIMEOUT = 0.5
# How long the interpreter's exit waits for requests and background work in flight, in seconds.
_EXIT_GRACE = 1.0


class Job(Protocol):
    """One run of the app, on behalf of a WSGI thread."""

    context: contextvars.Context

    async def run(self) -> None:
        """Run the app, on the loop; raises nothing but the backend's cancellation."""

    def fail(self, error: BaseException) -> None:
        """End the WSGI thread's wait with `error`, unless the app has answered. From any thread."""


class LoopThread:
    """One run of an event loop in a daemon thread, inside the app's lifespan.

    The app's lifespan state is in `state`; it is None where there is no lifespan.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        backend: str,
        backend_options: dict[str, Any] | None,
        lifespan: Literal["auto", "on", "off"],
        startup_timeout: float,
        shutdown_timeout: float,
    ) -> None:
        self.loop: Loop
        self.state: dict[str, Any] | None = None
        self.ended = False
        self._app = app
        self._backend = backend
        self._backend_options = backend_options or {}
        self._lifespan = lifespan
        self._startup_timeout = startup_timeout
        self._shutdown_timeout = shutdown_timeout
        self._thread = threading.Thread(target=self._run, name="ASGIToWSGI loop", daemon=True)
        self._started = binary_semaphore()
        self._serving = False
        self._stopped = False
        self._start_error: BaseException | None = None
        self._startup: anyio.CancelScope | None = None
        self._stop: Event
        self._grace = shutdown_timeout
        self._jobs: deque[Job] = deque()
        self._tasks: _AsyncioTasks | _TrioTasks
        # Set by a thread that wakes the loop, cleared on the loop before it looks:
        self._told = False

    # IN ANY THREAD

    def start(self) -> None:
        """Start the loop, and the app on it; return when both have. Raises StartupFailed."""
        self._thread.start()
        try:
            # A startup that waits is ended on the loop; one that blocks the loop, only from here.
            if not self._started.acquire(timeout=self._startup_timeout + 1):
                raise StartupFailed(
                    f"the ASGI app's startup blocked its event loop for {self._startup_timeout:g} seconds"
                )
        except BaseException as error:
            self.abort(error)  # nobody waits any more
            raise
        if self._start_error is not None:
            raise self._start_error

    def abort(self, error: BaseException) -> None:
        """End a start that is under way: `start` raises `error`, and the loop ends once it gets there."""
        self._start_error = error
        self._end_start()
        if self._startup is not None:
            try:
                self.loop.call_soon(self._startup.cancel)
                self.loop.call_soon(self._stop.set)
            except RuntimeError:
                pass  # it has ended by itself

    def _end_start(self) -> None:
        """End the wait of `start`, which the loop and `abort` may both be about to."""
        try:
            self._started.release()
        except RuntimeError:
            pass  # the other was faster

    def submit(self, job: Job) -> None:
        """Have `job` run on the loop; if that has ended, fail it. Raises BridgeError on the loop's own thread."""
        if threading.get_ident() == self._thread.ident:
            raise BridgeError("the ASGI app called its own adapter on its event loop, which would wait for itself")
        self._jobs.append(job)
        if not self._told:
            self._told = True
            try:
                self.loop.call_soon(self._spawn_jobs)
            except RuntimeError:
                self.ended = True
        if self.ended:
            self._fail_jobs()

    def stop(self, grace: float) -> None:
        """Have the loop end: once its jobs are done, or `grace` seconds from now. Does not wait."""
        self._grace = grace
        try:
            self.loop.call_soon(self._stop.set)
        except RuntimeError:
            pass  # it has ended by itself

    def join(self) -> None:
        """Wait for the end that `stop` asked for; no longer than it may take."""
        self._thread.join(self._grace + self._shutdown_timeout + 3 * _UNWIND_TIMEOUT)
        if self._thread.is_alive():
            _logger.warning("the ASGI app kept its event loop from ending; it is left behind")

    def _fail_jobs(self) -> None:
        while self._jobs:
            try:
                job = self._jobs.popleft()
            except IndexError:  # another thread was faster
                break
            job.fail(AdapterClosed("the ASGI app's event loop has ended"))

    # ON THE LOOP

    def _run(self) -> None:
        """Run the loop; the thread's whole life."""
        try:
            options = self._backend_options
            green_loop_factory = maybe_green_loop_factory(self._backend, options)
            if green_loop_factory is not None:
                options = {"loop_factory": green_loop_factory}
            anyio.run(self._main, backend=self._backend, backend_options=options)
        except BaseException as error:
            if self._serving:  # SystemExit, say, in a task of the app's own
                _logger.critical("the ASGI app's event loop died", exc_info=error)
            elif self._start_error is None:
                self._start_error = error
        finally:
            self.ended = True
            self._fail_jobs()
            if self._serving:
                for job in list(self._tasks.running):  # tasks that came while the loop was dying
                    job.fail(AdapterClosed("the ASGI app's event loop has ended"))
            else:
                self._end_start()

    async def _main(self) -> None:
        self.loop = running_loop()
        self._stop = self.loop.event()
        error: Exception | None = None
        async with anyio.create_task_group() as lifespan_task:
            lifespan = Lifespan(self._app, "on" if self._lifespan == "on" else "auto", self.loop)
            if self._lifespan != "off":
                lifespan_task.start_soon(lifespan.run)
                try:
                    with anyio.fail_after(self._startup_timeout) as self._startup:
                        if self._start_error is not None:  # aborted before there was a scope to cancel
                            self._startup.cancel()
                        await lifespan.startup()
                except TimeoutError:
                    error = StartupFailed(f"the ASGI app's startup took longer than {self._startup_timeout:g} seconds")
                except StartupFailed as failed:
                    error = failed
            if error is None:
                if self._start_error is None:
                    self.state = lifespan.state if lifespan.supported else None
                    await self._serve()
                with anyio.move_on_after(self._shutdown_timeout) as scope:
                    await lifespan.shutdown()
                if scope.cancelled_caught:
                    _logger.error("the ASGI app's shutdown took longer than %g seconds", self._shutdown_timeout)
            lifespan_task.cancel_scope.cancel()
        if error is not None:
            raise error  # here, so that the task group does not make an ExceptionGroup of it

    async def _serve(self) -> None:
        self._tasks = _AsyncioTasks() if self.loop.asyncio_loop is not None else _TrioTasks()
        async with self._tasks:
            self._serving = True
            self._end_start()
            await self._stop.wait()
            await self._tasks.drain(self._grace)
            self._stopped = True

    def _spawn_jobs(self) -> None:
        self._told = False
        while self._jobs:
            job = self._jobs.popleft()
            if self._stopped:
                job.fail(_closed_meanwhile())
                continue
            job.context.run(set_async_library, self._backend)
            self._tasks.spawn(job)


def _closed_meanwhile() -> AdapterClosed:
    return AdapterClosed("the adapter was closed during the request")


class _AsyncioTasks:
    """Jobs as plain asyncio tasks, as uvicorn runs apps: anyio's task group costs 13 us more each."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.running: dict[Job, asyncio.Task[None]] = {}

    async def __aenter__(self) -> "_AsyncioTasks":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for job, task in self.running.items():
            job.fail(_closed_meanwhile())
            task.cancel()
        await self.drain(_UNWIND_TIMEOUT)

    def spawn(self, job: Job) -> None:
        self.running[job] = self._loop.create_task(self._run(job), context=job.context)

    async def _run(self, job: Job) -> None:
        try:
            await job.run()
        finally:
            del self.running[job]

    async def drain(self, grace: float) -> None:
        """Wait until no job runs, up to `grace` seconds."""
        if self.running:
            await asyncio.wait(self.running.values(), timeout=grace)


class _TrioTasks:
    """Jobs as tasks of a trio nursery."""

    def __init__(self) -> None:
        self._task_group = anyio.create_task_group()
        self.running: set[Job] = set()
        self._idle = anyio.Event()

    async def __aenter__(self) -> "_TrioTasks":
        await self._task_group.__aenter__()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        for job in self.running:
            job.fail(_closed_meanwhile())
        self._task_group.cancel_scope.cancel()
        await self._task_group.__aexit__(*exc_info)

    def spawn(self, job: Job) -> None:
        self.running.add(job)
        job.context.run(self._task_group.start_soon, self._run, job)

    async def _run(self, job: Job) -> None:
        try:
            await job.run()
        finally:
            self.running.discard(job)
            self._idle.set()

    async def drain(self, grace: float) -> None:
        """Wait until no job runs, up to `grace` seconds."""
        with anyio.move_on_after(grace):
            while self.running:
                self._idle = anyio.Event()
                await self._idle.wait()


class PrivateLoop:
    """The loop of one adapter in one process: started when it is first needed, ended by `close`.

    Its methods may be called from any thread. A start that failed is tried again by the next.
    """

    def __init__(self, app: ASGIApp, options: dict[str, Any]) -> None:
        self._app = app
        self._options = options
        self._pid = os.getpid()
        self._lock = threading.Lock()  # held while the loop starts, so no longer than startup_timeout
        self._current: LoopThread | None = None
        self._starting: LoopThread | None = None
        self._closed = False
        _register_close_all()
        _private_loops.add(self)

    def get(self, reopen: bool = False) -> LoopThread:
        """Return the running loop, starting it if need be. Raises StartupFailed, AdapterClosed."""
        current = self._current
        if current is not None and not current.ended:
            return current
        with self._lock:
            if reopen:
                self._closed = False
            if self._closed:
                raise AdapterClosed("the adapter was closed; start() opens it again")
            if self._current is None or self._current.ended:
                self._starting = LoopThread(self._app, **self._options)
                try:
                    if self._closed:  # by a close() that came just before there was something to abort
                        raise AdapterClosed("the adapter was closed; start() opens it again")
                    self._starting.start()
                    self._current = self._starting
                finally:
                    self._starting = None
            return self._current

    def stop(self, grace: float) -> LoopThread | None:
        """Refuse new requests and have the loop end; return what is left to join."""
        if self._pid != os.getpid():
            return None  # a fork's copy of its parent's loop, whose thread is not here
        self._closed = True
        if (starting := self._starting) is not None:
            starting.abort(AdapterClosed("the adapter was closed while it started"))
        with self._lock:
            current, self._current = self._current, None
        if current is not None:
            current.stop(grace)
        return current

    def __del__(self) -> None:
        if self._current is not None:  # an adapter that was dropped without close()
            self.stop(_EXIT_GRACE)

    def close(self, grace: float) -> None:
        """End the loop, and wait for that."""
        if (loop_thread := self.stop(grace)) is not None:
            loop_thread.join()


_private_loops: "weakref.WeakSet[PrivateLoop]" = weakref.WeakSet()


@functools.cache
def _register_close_all() -> None:
    """Have what is open closed at the interpreter's exit.

    By the hook that concurrent.futures uses, as it runs before the interpreter waits for threads,
    some of which wait for us; atexit comes after that.
    """
    import concurrent.futures.thread  # noqa: F401  # its hook is to run after ours, or no app could use threads

    getattr(threading, "_register_atexit", atexit.register)(_close_all)


def _close_all() -> None:
    stopped = [private_loop.stop(_EXIT_GRACE) for private_loop in list(_private_loops)]
    for loop_thread in stopped:
        if loop_thread is not None:
            loop_thread.join()
