"""The private event loop that ASGI apps run on, in a thread of its own."""

import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

import anyio

from bridge.asgi_to_wsgi.lifespan import Lifespan
from bridge.asgi_to_wsgi.servers import maybe_green_loop_factory
from bridge.asgi_to_wsgi.tasks import UNWIND_TIMEOUT, AsyncioTasks, Job, TrioTasks, closed_meanwhile
from bridge.errors import AdapterClosed, StartupFailed, WouldBlockLoop
from bridge.runtime import BackgroundThread, Loop, LoopClosed, binary_semaphore, running_loop, set_async_library
from bridge.types import ASGIApp

_logger = logging.getLogger("bridge")


class LoopThread:
    """One run of an event loop in a thread of its own, inside the app's lifespan.

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
        self.pid = os.getpid()
        # Called on the loop, which alone adds to it, when it is told to stop:
        self.at_stop: set[Callable[[], object]] = set()
        self.stopping = False  # it has been told, and so have event streams and WebSockets
        self._app = app
        self._backend = backend
        self._backend_options = backend_options or {}
        self._lifespan = lifespan
        self._startup_timeout = startup_timeout
        self._shutdown_timeout = shutdown_timeout
        self._thread = BackgroundThread("ASGIToWSGI loop", self._run)
        self._ident = 0  # the thread's; written there
        self._started = binary_semaphore()
        self._serving = False
        self._stopped = False
        self._start_error: BaseException | None = None
        self._grace = shutdown_timeout
        # How the loop is to end, by any thread's word, for `_heed` to carry out once there is a loop:
        self._orders: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._heeds_orders = False
        # Written on the loop:
        self._clock_offset = 0.0  # what the loop's clock is ahead of time.monotonic()
        self._startup: anyio.CancelScope | None = None
        self._wait: anyio.CancelScope | None = None  # while the app serves
        self._ends_when_idle = False
        self._deadline = math.inf  # when jobs are cancelled, by time.monotonic()
        self._shutdown_deadline = math.inf  # when the app's shutdown has to be over
        self._jobs: deque[Job] = deque()
        self._tasks: AsyncioTasks | TrioTasks

    # IN ANY THREAD

    def start(self) -> None:
        """Start the loop, and the app on it; return when both have. Raises StartupFailed."""
        try:
            self._thread.start()
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
        self.stop(0)

    def _end_start(self) -> None:
        """End the wait of `start`, which the loop and `abort` may both be about to."""
        try:
            self._started.release()
        except RuntimeError:
            pass  # the other was faster

    def check_thread(self) -> None:
        """Raise WouldBlockLoop on the loop's own thread, which is not to wait for itself."""
        if threading.get_ident() == self._ident and not self.ended:  # a number that another thread may get then
            raise WouldBlockLoop(
                "the ASGI app called its own adapter on its event loop, which would wait for itself: make that call in "
                "a worker thread (anyio.to_thread.run_sync)"
            )

    def submit(self, job: Job) -> None:
        """Have `job` run on the loop; if that has ended, fail it. Raises as `check_thread`."""
        self.check_thread()
        self._jobs.append(job)
        try:
            self.loop.call_soon(self._spawn_jobs)
        except LoopClosed:
            self._fail_jobs()

    def stop(self, grace: float | None = None) -> None:
        """Have the loop end: once its jobs are done, or in `grace` seconds (`shutdown_timeout`). Does not wait."""
        self._grace = self._shutdown_timeout if grace is None else grace
        self._order(self._leave, time.monotonic() + self._grace, math.inf, True)

    def begin_to_stop(self, patience: float) -> None:
        """End event streams and WebSockets, and within `patience` seconds the loop. Does not wait.

        Until then the loop serves: jobs get `shutdown_timeout`, and then so does the app's shutdown, or
        half of `patience` each if that is shorter.
        """
        now = time.monotonic()
        grace = min(self._shutdown_timeout, max(0.0, patience - UNWIND_TIMEOUT) / 2)
        self._order(self._leave, now + grace, now + patience, False)

    def drop(self) -> None:
        """Have the loop end once its jobs are done, however long that takes: there will be no more of them."""
        self._order(self._leave_when_idle)

    def _order(self, function: Callable[..., object], *args: Any) -> None:
        """Have the loop call `function` once it runs. Takes no lock, as a signal's handler may be who calls."""
        self._orders.append((function, args))
        if self._heeds_orders:  # else it will look
            self._call_soon(self._heed)

    def _call_soon(self, function: Callable[[], object]) -> None:
        try:
            self.loop.call_soon(function)
        except LoopClosed:
            pass  # it has ended by itself

    def say_goodbye(self) -> None:
        """Tell what is in `at_stop`, though the loop goes on. Does not wait."""
        self._call_soon(self._tell)

    def join(self) -> None:
        """Wait for the end that `stop` asked for; no longer than it may take."""
        self._thread.join(self._grace + self._shutdown_timeout + 3 * UNWIND_TIMEOUT)
        if self._thread.is_alive():
            _logger.warning("the ASGI app kept its event loop from ending; it is left behind")
            self.loop.refuse_calls()
            self._fail_jobs()
            for job in list(self._tasks.running):
                job.fail(AdapterClosed("the ASGI app kept its event loop from ending"))

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
        self._ident = threading.get_ident()
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
                if not isinstance(error, Exception):  # of a task of the app's own; it is not for the server's thread
                    self._start_error = StartupFailed(f"the ASGI app's startup ended its event loop by {error!r:.200}")
                    self._start_error.__cause__ = error
        finally:
            self.ended = True
            if self._heeds_orders:  # it has started
                self.loop.refuse_calls()
            self._fail_jobs()
            if self._serving:
                for job in list(self._tasks.running):  # tasks that came while the loop was dying
                    job.fail(AdapterClosed("the ASGI app's event loop has ended"))
            else:
                self._end_start()

    async def _main(self) -> None:
        self.loop = running_loop()
        self._clock_offset = anyio.current_time() - time.monotonic()
        self._heeds_orders = True
        self._heed()
        error: Exception | None = None
        async with anyio.create_task_group() as lifespan_task:
            lifespan = Lifespan(self._app, "on" if self._lifespan == "on" else "auto", self.loop)
            if self._lifespan != "off":
                lifespan_task.start_soon(lifespan.run)
                try:
                    with anyio.fail_after(self._startup_timeout) as self._startup:
                        self._look_at_deadline()  # the loop may have been told to end by now
                        await lifespan.startup()
                except TimeoutError:
                    if self.stopping:
                        error = AdapterClosed("the adapter was closed while the ASGI app started")
                    else:
                        seconds = f"{self._startup_timeout:g} seconds"
                        error = StartupFailed(f"the ASGI app's startup took longer than {seconds}")
                except StartupFailed as failed:
                    error = failed
            if error is None and self._start_error is None:
                self.state = lifespan.state if lifespan.supported else None
                await self._serve()
            timeout = min(self._shutdown_timeout, max(UNWIND_TIMEOUT, self._shutdown_deadline - time.monotonic()))
            with anyio.move_on_after(timeout) as scope:
                await lifespan.shutdown()  # even where it has started too late
            if scope.cancelled_caught:
                _logger.error("the ASGI app's shutdown took longer than %g seconds", timeout)
            lifespan_task.cancel_scope.cancel()
        if error is not None:
            raise error  # here, so that the task group does not make an ExceptionGroup of it

    async def _serve(self) -> None:
        self._tasks = AsyncioTasks() if self.loop.asyncio_loop is not None else TrioTasks()
        async with self._tasks:
            self._serving = True
            self._end_start()
            while (left := self._deadline - time.monotonic()) > 0:
                with anyio.move_on_after(left) as self._wait:
                    if self._ends_when_idle:
                        await self._tasks.drain()
                        break
                    await anyio.sleep_forever()
            self._stopped = True

    def _heed(self) -> None:
        while self._orders:
            function, args = self._orders.popleft()
            function(*args)

    def _leave(self, deadline: float, shutdown_deadline: float, when_idle: bool) -> None:
        """Tell what has no end of its own that it is over, and bound the rest; an earlier bound stands."""
        self._deadline = min(self._deadline, deadline)
        self._shutdown_deadline = min(self._shutdown_deadline, shutdown_deadline)
        self._look_at_deadline()
        if not self.stopping:
            self.stopping = True
            self._tell()
            if self._serving:
                for job in list(self._tasks.running):
                    job.stop()
        if when_idle:
            self._ends_when_idle = True
        self._look_up()

    def _leave_when_idle(self) -> None:
        self._ends_when_idle = True
        self._look_up()

    def _look_up(self) -> None:
        """Have `_serve` look at what has been decided."""
        if self._wait is not None:
            self._wait.cancel()

    def _look_at_deadline(self) -> None:
        """Bound a startup that is under way."""
        if self._startup is not None:
            self._startup.deadline = min(self._startup.deadline, self._deadline + self._clock_offset)

    def _tell(self) -> None:
        for stop in list(self.at_stop):
            stop()

    def _spawn_jobs(self) -> None:
        while self._jobs:
            try:
                job = self._jobs.popleft()
            except IndexError:  # `join`, in its thread, was faster
                break
            if self._stopped:
                job.fail(closed_meanwhile())
                continue
            job.context.run(set_async_library, self._backend)
            try:
                self._tasks.spawn(job)
            except Exception as error:  # a task factory's, say
                job.fail(error)
