"""Run jobs as tasks of the private loop, on asyncio and on trio."""

import asyncio
import contextlib
import contextvars
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import anyio

from bridge.errors import AdapterClosed
from bridge.runtime import Change, set_async_library

# How long cancelled tasks may take to end, in seconds.
UNWIND_TIMEOUT = 0.5


class Job(Protocol):
    """One run of the app, for a WSGI thread."""

    context: contextvars.Context

    @property
    def begin(self) -> "Callable[[AsyncioTasks], None] | None":
        """Begins the job on asyncio's loop without a task; it may `start` one later. None if it needs one at once."""

    async def run(self) -> None:
        """Run the app, on the loop. Raises only the backend's cancellation."""

    def stop(self) -> None:
        """End an event stream, which would never end by itself, because the loop is about to end. On the loop."""

    def fail(self, error: BaseException) -> None:
        """End the WSGI thread's wait with `error`, unless the response is complete. From any thread."""


class _Tasks:
    """The jobs that wait for the loop, and those that run on it."""

    def __init__(self, backend: str) -> None:
        self.waiting: deque[Job] = deque()  # any thread appends to it
        self.running: dict[Job, Any] = {}  # each with its task
        self.stopped = False  # no job starts any more
        self._backend = backend
        self._change = Change(anyio.Event)  # a job has ended

    # IN ANY THREAD

    def jobs(self) -> list[Job]:
        """Return the jobs that run or wait."""
        return [*self.waiting.copy(), *list(self.running)]

    def fail_all(self, what: str) -> None:
        """Fail all jobs, because the loop will not finish them; `what` completes "the event loop …"."""
        jobs = list(self.running)
        with contextlib.suppress(IndexError):
            while True:
                jobs.append(self.waiting.popleft())
        for job in jobs:
            job.fail(AdapterClosed(f"the ASGI app's event loop {what}"))

    # ON THE LOOP

    def spawn_waiting(self) -> None:
        """Run each job that waits as a task."""
        while self.waiting:
            try:
                job = self.waiting.popleft()
            except IndexError:  # another thread, in `fail_all`, took the last one
                break
            if self.stopped:
                job.fail(_closed_meanwhile())
                continue
            try:
                self._spawn(job)
            except Exception as error:  # from a task factory that the app set, for example
                job.fail(error)

    def _spawn(self, job: Job) -> None:
        raise NotImplementedError

    def waits(self, job: Job, for_thread: bool) -> bool:
        """Return whether the app of `job` waits for something, rather than being about to run on.

        What waits for a thread of a pool counts only if `for_thread`, because that thread may compute.
        """
        task = self.running.get(job)
        return self._is_suspended(task) and (for_thread or not _waits_for_thread(task))

    def _is_suspended(self, task: Any) -> bool:
        raise NotImplementedError

    def stop_running(self) -> None:
        """Tell the jobs that run that the loop is about to end."""
        for job in list(self.running):
            job.stop()


# The coroutines that wait for a thread of a pool: anyio's on both loops, asyncio's, and asgiref's.
_FOR_THREADS = ("AsyncIOBackend.run_sync_in_worker_thread", "to_thread_run_sync", "to_thread", "SyncToAsync.__call__")


def _waits_for_thread(task: Any) -> bool:
    """Return whether a suspended task waits for a function in a thread, as for FastAPI's `def` endpoints."""
    coroutine = task.coro if hasattr(task, "coro") else task.get_coro()
    while (code := getattr(coroutine, "cr_code", None)) is not None:
        if code.co_qualname in _FOR_THREADS:
            return True
        coroutine = coroutine.cr_await
    return False


def _closed_meanwhile() -> AdapterClosed:
    return AdapterClosed("the adapter was closed during the request")


class AsyncioTasks(_Tasks):
    """Runs jobs as plain asyncio tasks, as uvicorn does, because anyio's task group costs 13 us more for each."""

    def __init__(self, backend: str) -> None:
        super().__init__(backend)
        self._loop = asyncio.get_running_loop()

    async def __aenter__(self) -> "AsyncioTasks":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for job, task in list(self.running.items()):
            job.fail(_closed_meanwhile())
            if task is not None:
                task.cancel()
        with anyio.move_on_after(UNWIND_TIMEOUT):
            await self.drain()

    def _spawn(self, job: Job) -> None:
        if job.begin is None:
            self.start(job)
        else:
            self.running[job] = None
            job.begin(self)

    def start(self, job: Job) -> None:
        """Run a job as a task. Raises AdapterClosed once the loop ends, and what a task factory raises."""
        if self.stopped:
            raise _closed_meanwhile()
        job.context.run(set_async_library, self._backend)
        run = self._run(job)
        try:
            task = self._loop.create_task(run, context=job.context)
        except BaseException:
            run.close()
            raise
        if not task.done():  # an eager task may have ended already
            self.running[job] = task

    def ended(self, job: Job) -> None:
        """Forget a job that has ended without a task."""
        self.running.pop(job, None)
        self._change.notify_all()

    async def _run(self, job: Job) -> None:
        try:
            await job.run()
        finally:
            self.running.pop(job, None)

    def _is_suspended(self, task: Any) -> bool:
        waiter: Any = getattr(task, "_fut_waiter", task)  # a task without it counts as waiting
        return waiter is not None and not waiter.done()

    async def drain(self) -> None:
        """Wait until no job runs."""
        while self.running:
            tasks = {task: job for job, task in self.running.items() if task is not None}
            if not tasks:
                await self._change.wait()
                continue
            for task in (await asyncio.wait(tasks))[0]:
                if self.running.pop(tasks[task], None) is not None:  # the app cancelled it before its first step
                    tasks[task].fail(_closed_meanwhile())


class TrioTasks(_Tasks):
    """Runs jobs as tasks of a trio nursery."""

    def __init__(self, backend: str) -> None:
        super().__init__(backend)
        self._task_group = anyio.create_task_group()

    async def __aenter__(self) -> "TrioTasks":
        await self._task_group.__aenter__()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        for job in self.running:
            job.fail(_closed_meanwhile())
        self._task_group.cancel_scope.cancel()
        await self._task_group.__aexit__(*exc_info)

    def _spawn(self, job: Job) -> None:
        job.context.run(set_async_library, self._backend)
        self.running[job] = None  # until it runs
        job.context.run(self._task_group.start_soon, self._run, job)

    async def _run(self, job: Job) -> None:
        self.running[job] = sys.modules["trio"].lowlevel.current_task()
        try:
            await job.run()
        finally:
            self.running.pop(job, None)
            self._change.notify_all()

    def _is_suspended(self, task: Any) -> bool:
        return task is not None and getattr(task, "_abort_func", task) is not None  # None while it is scheduled

    async def drain(self) -> None:
        """Wait until no job runs."""
        while self.running:
            await self._change.wait()
