"""Run jobs as tasks of the private loop, on asyncio and on trio."""

import asyncio
import contextvars
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

    async def drain(self) -> None:
        """Wait until no job runs."""
        while self.running:
            await asyncio.wait(self.running.values())


class TrioTasks:
    """Runs jobs as tasks of a trio nursery."""

    def __init__(self) -> None:
        self._task_group = anyio.create_task_group()
        self.running: set[Job] = set()
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
        self.running.add(job)
        job.context.run(self._task_group.start_soon, self._run, job)

    async def _run(self, job: Job) -> None:
        try:
            await job.run()
        finally:
            self.running.discard(job)
            self._change.notify_all()

    async def drain(self) -> None:
        """Wait until no job runs."""
        while self.running:
            await self._change.wait()
