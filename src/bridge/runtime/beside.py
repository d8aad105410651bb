"""What runs on an event loop while a block runs in another task: another task, or a function that reads a socket.

On trio, a task group does both. On asyncio, they are written by hand, because that costs less.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import anyio


class TaskBeside:
    """An asyncio task that runs beside a block and is cancelled at its end, at a fifth of a task group's cost."""

    def __init__(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._task = asyncio.get_running_loop().create_task(function())

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, exc_type: type[BaseException] | None, *exc_info: object) -> None:
        if exc_type is GeneratorExit:
            return  # the task was dropped together with its loop, so nothing can be awaited
        self._task.cancel()
        await asyncio.wait([self._task])


@contextlib.asynccontextmanager
async def task_group_beside(function: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(function)
        yield
        tasks.cancel_scope.cancel()


class Reading:
    """Calls `function` whenever a descriptor is readable, during a block, until it returns False; on asyncio."""

    def __init__(self, sock: socket.socket, function: Callable[[], bool]) -> None:
        self._loop = asyncio.get_running_loop()
        self._number = sock.fileno()
        self._function = function

    async def __aenter__(self) -> None:
        self._loop.add_reader(self._number, self._read)

    def _read(self) -> None:
        if not self._function():
            self._loop.remove_reader(self._number)

    async def __aexit__(self, *exc_info: object) -> None:
        self._loop.remove_reader(self._number)


def task_group_reading(
    sock: socket.socket, function: Callable[[], bool]
) -> contextlib.AbstractAsyncContextManager[None]:
    async def read() -> None:
        while True:
            await anyio.wait_readable(sock)
            if not function():
                return

    return task_group_beside(read)
