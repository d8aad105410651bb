"""The private event loop that runs an ASGI app, in a thread of its own."""

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
from bridge.asgi_to_wsgi.tasks import UNWIND_TIMEOUT, AsyncioTasks, Job, TrioTasks
from bridge.errors import AdapterClosed, StartupFailed, WouldBlockLoop
from bridge.runtime import BackgroundThread, Loop, LoopClosed, binary_semaphore, running_loop
from bridge.types import ASGIApp

_logger = logging.getLogger("bridge")


class LoopThread:
    """One run of an event loop, in a thread of its own, within the app's lifespan.

    `state` is the app's lifespan state, or None if the app has no lifespan.
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
        self.detaching: Any = None  # the adapter's `Detaching`, kept here so that a request finds it at once
        self.ended = False
        self.pid = os.getpid()
        # Callbacks for the moment when the loop is told to stop; only the loop adds to them and calls them:
        self.at_stop: set[Callable[[], object]] = set()
        self.stopping = False  # the loop has been told, and has told event streams and WebSockets
        self._app = app
        self._backend = backend
        self._backend_options = backend_options or {}
        self._lifespan = lifespan
        self._startup_timeout = startup_timeout
        self._shutdown_timeout = shutdown_timeout
        self._thread = BackgroundThread("ASGIToWSGI loop", self._run)
        self._ident = 0  # written by the thread itself
        self._started = binary_semaphore()
        self._serving = False
        self._start_error: BaseException | None = None
        self._grace = shutdown_timeout
        # Any thread may order the loop to end, even before the loop runs; `_carry_out_orders` empties this:
        self._orders: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._runs = False
        # Written on the loop:
        self._clock_offset = 0.0  # how far the loop's clock is ahead of time.monotonic()
        self._startup: anyio.CancelScope | None = None
        self._wait: anyio.CancelScope | None = None  # exists while the app serves
        self._ends_when_idle = False
        self._deadline = math.inf  # when the loop cancels its jobs, by time.monotonic()
        self._shutdown_deadline = math.inf  # when the app's shutdown must have ended
        self._tasks: AsyncioTasks | TrioTasks  # exists once the app serves

    # IN ANY THREAD

    def start(self) -> None:
        """Start the loop and the app's lifespan; return when both have started. Raises StartupFailed."""
        try:
            self._thread.start()
            # The loop itself ends a startup that waits for too long. Only this thread notices one that blocks the loop.
            if not self._started.acquire(timeout=self._startup_timeout + 1):
                raise StartupFailed(
                    f"the ASGI app's startup blocked its event loop for {self._startup_timeout:g} seconds"
                )
        except BaseException as error:
            self.abort(error)
            raise
        if self._start_error is not None:
            raise self._start_error

    def abort(self, error: BaseException) -> None:
        """Cut a start short: `start` raises `error`, and the loop ends as soon as it can."""
        self._start_error = error
        self._end_start()
        self.stop(0)

    def _end_start(self) -> None:
        """Wake `start`; both the loop and `abort` may call this."""
        try:
            self._started.release()
        except RuntimeError:
            pass  # it is awake already

    def check_thread(self) -> None:
        """Raise WouldBlockLoop on the loop's own thread, which would wait for itself."""
        if threading.get_ident() == self._ident and not self.ended:  # after the end, another thread may get the number
            raise WouldBlockLoop(
                "the ASGI app called its own adapter on its event loop, which would wait for itself: make that call in "
                "a worker thread (anyio.to_thread.run_sync)"
            )

    def submit(self, *jobs: Job) -> None:
        """Run `jobs` on the loop, or fail them if the loop has ended. Raises WouldBlockLoop, like `check_thread`."""
        self.check_thread()
        tasks = self._tasks
        tasks.waiting.extend(jobs)
        try:
            self.loop.call_soon(tasks.spawn_waiting)
        except LoopClosed:
            tasks.fail_all("has ended")

    def jobs(self) -> list[Job]:
        """Return what runs on the loop for requests, or is about to."""
        return self._tasks.jobs() if self._serving else []

    def stop(self, grace: float | None = None) -> None:
        """End the loop when its jobs are done, or in `grace` seconds (default: `shutdown_timeout`). Does not wait."""
        self._grace = self._shutdown_timeout if grace is None else grace
        self._order(self._leave, time.monotonic() + self._grace, math.inf, True)

    def begin_to_stop(self, patience: float) -> None:
        """End event streams and WebSockets now, and the loop within `patience` seconds. Does not wait.

        Until then the loop serves. Jobs may take `shutdown_timeout`, and after them the app's shutdown
        may take as long; each has half of `patience` if that is shorter.
        """
        now = time.monotonic()
        grace = min(self._shutdown_timeout, max(0.0, patience - UNWIND_TIMEOUT) / 2)
        self._order(self._leave, now + grace, now + patience, False)

    def drop(self) -> None:
        """End the loop when its jobs are done, however long they take: nobody will submit more."""
        self._order(self._leave_when_idle)

    def _order(self, function: Callable[..., object], *args: Any) -> None:
        """Call `function` on the loop, once it runs. Takes no lock, because a signal handler may call this."""
        self._orders.append((function, args))
        if self._runs:  # otherwise `_main` looks for orders when the loop starts
            self._call_soon(self._carry_out_orders)

    def _call_soon(self, function: Callable[[], object]) -> None:
        try:
            self.loop.call_soon(function)
        except LoopClosed:
            pass  # it has already ended

    def tell_to_stop(self) -> None:
        """Call what is in `at_stop`, although the loop continues. Does not wait."""
        self._call_soon(self._tell_all)

    def close_streams(self) -> None:
        """End the event streams, although the loop continues. Does not wait."""
        self._order(self._tasks.stop_running)

    def join(self) -> None:
        """Wait until the loop has ended after `stop`, but no longer than that may take."""
        self._thread.join(self._grace + self._shutdown_timeout + 3 * UNWIND_TIMEOUT)
        if self._thread.is_alive():
            _logger.warning("the ASGI app blocked its event loop, which has not ended; leaving it behind")
            self.loop.refuse_calls()
            self._tasks.fail_all("was blocked, and did not end in time")

    # ON THE LOOP

    def _run(self) -> None:
        """Run the loop: the thread's target."""
        self._ident = threading.get_ident()
        try:
            options = self._backend_options
            green_loop_factory = maybe_green_loop_factory(self._backend, options)
            if green_loop_factory is not None:
                options = {"loop_factory": green_loop_factory}
            anyio.run(self._main, backend=self._backend, backend_options=options)
        except BaseException as error:
            if self._serving:  # SystemExit in a task that the app started, for example
                _logger.critical("the ASGI app's event loop died", exc_info=error)
            elif self._start_error is None:
                self._start_error = error
                if not isinstance(error, Exception):  # SystemExit must not reach the server's thread
                    self._start_error = StartupFailed(f"the ASGI app's startup ended its event loop by {error!r:.200}")
                    self._start_error.__cause__ = error
        finally:
            self.ended = True
            if self._runs:
                self.loop.refuse_calls()
            if self._serving:
                self._tasks.fail_all("has ended")
            else:
                self._end_start()

    async def _main(self) -> None:
        self.loop = running_loop()
        self._clock_offset = anyio.current_time() - time.monotonic()
        self._runs = True
        self._carry_out_orders()
        error: Exception | None = None
        async with anyio.create_task_group() as lifespan_task:
            lifespan = Lifespan(self._app, "on" if self._lifespan == "on" else "auto", self.loop)
            if self._lifespan != "off":
                lifespan_task.start_soon(lifespan.run)
                try:
                    with anyio.fail_after(self._startup_timeout) as self._startup:
                        self._bound_startup()  # the loop may have been told to end already
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
                await lifespan.shutdown()  # also tells an app whose startup was cut short
            if scope.cancelled_caught:
                _logger.error("the ASGI app's shutdown took longer than %g seconds", timeout)
            lifespan_task.cancel_scope.cancel()
        if error is not None:
            raise error  # outside the task group, which would wrap it in an ExceptionGroup

    async def _serve(self) -> None:
        self._tasks = AsyncioTasks(self._backend) if self.loop.asyncio_loop is not None else TrioTasks(self._backend)
        async with self._tasks:
            self._serving = True
            self._end_start()
            while (left := self._deadline - time.monotonic()) > 0:
                with anyio.move_on_after(left) as self._wait:
                    if self._ends_when_idle:
                        await self._tasks.drain()
                        break
                    await anyio.sleep_forever()
            self._tasks.stopped = True

    def _carry_out_orders(self) -> None:
        while self._orders:
            function, args = self._orders.popleft()
            function(*args)

    def _leave(self, deadline: float, shutdown_deadline: float, when_idle: bool) -> None:
        """End event streams and WebSockets, and set deadlines for the rest; earlier deadlines stay."""
        self._deadline = min(self._deadline, deadline)
        self._shutdown_deadline = min(self._shutdown_deadline, shutdown_deadline)
        self._bound_startup()
        if not self.stopping:
            self.stopping = True
            self._tell_all()
            if self._serving:
                self._tasks.stop_running()
        if when_idle:
            self._ends_when_idle = True
        self._wake_serve()

    def _leave_when_idle(self) -> None:
        self._ends_when_idle = True
        self._wake_serve()

    def _wake_serve(self) -> None:
        """Wake `_serve`, so that it sees the new deadlines."""
        if self._wait is not None:
            self._wait.cancel()

    def _bound_startup(self) -> None:
        """End a startup that is under way no later than the jobs' deadline."""
        if self._startup is not None:
            self._startup.deadline = min(self._startup.deadline, self._deadline + self._clock_offset)

    def _tell_all(self) -> None:
        for stop in list(self.at_stop):
            stop()

    def waits(self, job: Job, for_thread: bool) -> bool:
        """Return whether the app of `job`, which runs, waits for something; see `Tasks.waits`."""
        return self._tasks.waits(job, for_thread)
