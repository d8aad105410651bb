"""Run jobs as tasks of the private loop, on asyncio and on trio."""

import asyncio
import contextvars
import sys
from typing import Any, Protocol

import anyio

from bridge.errors import AdapterClosed
from bridge.runtime import Change

# How long cancelled tasks may take to end, in seconds.
UNWIND_TIMEOUT = 0.5


class Job(Protocol):
    """One run of the app, for a WSGI thread."""

    context: contextvars.Context

    async def run(self) -> None:
        """Run the app, on the loop. Raises only the backend's cancellation."""

    def stop(self) -> None:
        """End an event stream, which would never end by itself, because the loop is about to end. On the loop."""

    def fail(self, error: BaseException) -> None:
        """End the WSGI thread's wait with `error`, unless the response is complete. From any thread."""


def closed_meanwhile() -> AdapterClosed:
    return AdapterClosed("the adapter was closed during the request")


class AsyncioTasks:
    """Runs jobs as plain asyncio tasks, as uvicorn does, because anyio's task group costs 13 us more for each."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.running: dict[Job, asyncio.Task[None]] = {}

    async def __aenter__(self) -> "AsyncioTasks":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for job, task in self.running.items():
            job.fail(closed_meanwhile())
            task.cancel()
        with anyio.move_on_after(UNWIND_TIMEOUT):
            await self.drain()

    def spawn(self, job: Job) -> None:
        run = self._run(job)
        try:
            task = self._loop.create_task(run, context=job.context)
        except BaseException:
            run.close()
            raise
        if not task.done():  # an eager task may have ended already
            self.running[job] = task

    async def _run(self, job: Job) -> None:
        try:
            await job.run()
        finally:
            self.running.pop(job, None)

    def waits(self, job: Job) -> bool:
        """Return whether the app of `job` waits for something, rather than being about to run on."""
        task = self.running.get(job)
        waiter: Any = getattr(task, "_fut_waiter", task)  # a task of another class may not tell: then it waits
        return waiter is not None and not waiter.done()

    async def drain(self) -> None:
        """Wait until no job runs."""
        while self.running:
            await asyncio.wait(self.running.values())


class TrioTasks:
    """Runs jobs as tasks of a trio nursery."""

    def __init__(self) -> None:
        self._task_group = anyio.create_task_group()
        self.running: dict[Job, Any] = {}  # the task, once it runs
        self._change = Change(anyio.Event)

    async def __aenter__(self) -> "TrioTasks":
        await self._task_group.__aenter__()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        for job in self.running:
            job.fail(closed_meanwhile())
        self._task_group.cancel_scope.cancel()
        await self._task_group.__aexit__(*exc_info)

    def spawn(self, job: Job) -> None:
        self.running[job] = None
        job.context.run(self._task_group.start_soon, self._run, job)

    async def _run(self, job: Job) -> None:
        self.running[job] = sys.modules["trio"].lowlevel.current_task()
        try:
            await job.run()
        finally:
            self.running.pop(job, None)
            self._change.notify_all()

    def waits(self, job: Job) -> bool:
        """Return whether the app of `job` waits for something, rather than being about to run on."""
        task = self.running.get(job)
        return task is not None and getattr(task, "_abort_func", task) is not None  # None while it is scheduled

    async def drain(self) -> None:
        """Wait until no job runs."""
        while self.running:
            await self._change.wait()
