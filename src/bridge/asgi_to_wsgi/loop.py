"""The private event loop that ASGI apps run on, in a thread of its own."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

import anyio

from bridge.asgi_to_wsgi.lifespan import Lifespan
from bridge.asgi_to_wsgi.servers import maybe_green_loop_factory
from bridge.asgi_to_wsgi.tasks import UNWIND_TIMEOUT, AsyncioTasks, Job, TrioTasks, closed_meanwhile
from bridge.errors import AdapterClosed, StartupFailed, WouldBlockLoop
from bridge.runtime import BackgroundThread, Event, Loop, LoopClosed, binary_semaphore, running_loop, set_async_library
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
        # Called on the loop, which alone adds to it, when it is told to stop:
        self.at_stop: set[Callable[[], object]] = set()
        self.stopping = False
        self._app = app
        self._backend = backend
        self._backend_options = backend_options or {}
        self._lifespan = lifespan
        self._startup_timeout = startup_timeout
        self._shutdown_timeout = shutdown_timeout
        self._thread = BackgroundThread("ASGIToWSGI loop", self._run)
        self._started = binary_semaphore()
        self._serving = False
        self._stopped = False
        self._start_error: BaseException | None = None
        self._startup: anyio.CancelScope | None = None
        self._stop: Event | None = None
        self._grace = shutdown_timeout
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
        if self._stop is not None:  # else the loop finds the error by itself
            try:
                if self._startup is not None:
                    self.loop.call_soon(self._startup.cancel)
                self.loop.call_soon(self._stop.set)
            except LoopClosed:
                pass  # it has ended by itself

    def _end_start(self) -> None:
        """End the wait of `start`, which the loop and `abort` may both be about to."""
        try:
            self._started.release()
        except RuntimeError:
            pass  # the other was faster

    def check_thread(self) -> None:
        """Raise WouldBlockLoop on the loop's own thread, which is not to wait for itself."""
        if threading.get_ident() == self._thread.ident and not self.ended:  # a number that another thread may get then
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

    def stop(self, grace: float) -> None:
        """Have the loop end: once its jobs are done, or `grace` seconds from now. Does not wait."""
        self._grace = grace
        assert self._stop is not None  # as it has started
        try:
            self.loop.call_soon(self._stop.set)
        except LoopClosed:
            pass  # it has ended by itself

    def say_goodbye(self) -> None:
        """Tell what is in `at_stop`, though the loop goes on. Does not wait."""
        try:
            self.loop.call_soon(self._tell)
        except LoopClosed:
            pass  # it has ended by itself

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
            if self._stop is not None:  # it has started
                self.loop.refuse_calls()
            self._fail_jobs()
            if self._serving:
                for job in list(self._tasks.running):  # tasks that came while the loop was dying
                    job.fail(AdapterClosed("the ASGI app's event loop has ended"))
            else:
                self._end_start()

    async def _main(self) -> None:
        self.loop = running_loop()
        self._stop = stop = self.loop.event()
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
                    await self._serve(stop)
                with anyio.move_on_after(self._shutdown_timeout) as scope:
                    await lifespan.shutdown()
                if scope.cancelled_caught:
                    _logger.error("the ASGI app's shutdown took longer than %g seconds", self._shutdown_timeout)
            lifespan_task.cancel_scope.cancel()
        if error is not None:
            raise error  # here, so that the task group does not make an ExceptionGroup of it

    async def _serve(self, stop: Event) -> None:
        self._tasks = AsyncioTasks() if self.loop.asyncio_loop is not None else TrioTasks()
        async with self._tasks:
            self._serving = True
            self._end_start()
            await stop.wait()
            self.stopping = True
            self._tell()
            await self._tasks.drain(self._grace)
            self._stopped = True

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
