"""The app's runs as tasks of the private loop, on asyncio and on trio."""

import asyncio
import contextvars
from typing import Any, Protocol

import anyio

from bridge.errors import AdapterClosed

# How long tasks may take to unwind once they are cancelled, in seconds.
UNWIND_TIMEOUT = 0.5


class Job(Protocol):
    """One run of the app, on behalf of a WSGI thread."""

    context: contextvars.Context

    async def run(self) -> None:
        """Run the app, on the loop; raises nothing but the backend's cancellation."""

    def stop(self) -> None:
        """The loop is about to end: end an event stream, which has no end of its own. On the loop."""

    def fail(self, error: BaseException) -> None:
        """End the WSGI thread's wait with `error`, unless the app has answered. From any thread."""


def closed_meanwhile() -> AdapterClosed:
    return AdapterClosed("the adapter was closed during the request")


class AsyncioTasks:
    """Jobs as plain asyncio tasks, as uvicorn runs apps: anyio's task group costs 13 us more each."""

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
        if not task.done():  # an eager one may be
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
    """Jobs as tasks of a trio nursery."""

    def __init__(self) -> None:
        self._task_group = anyio.create_task_group()
        self.running: set[Job] = set()
        self._idle = anyio.Event()

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
            self._idle.set()

    async def drain(self) -> None:
        """Wait until no job runs."""
        while self.running:
            self._idle = anyio.Event()
            await self._idle.wait()
