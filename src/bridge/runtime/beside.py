"""What runs on an event loop while a block runs in another task: another task, or a function that reads a socket.

On trio, a task group does both. On asyncio, they are written by hand, because that costs less.
"""

import asyncio
import contextlib
import contextvars
import select
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


class Readers:
    """Calls functions whenever their sockets are readable, on asyncio.

    On Linux an epoll of its own waits for all of them, because the loop's add_reader takes five times as long and makes
    four more objects for each.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._functions: dict[int, Callable[[], bool]] = {}
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        if self._epoll is not None:
            # In an empty context, because the loop would otherwise hold that of the first request.
            contextvars.Context().run(loop.add_reader, self._epoll.fileno(), self._poll)

    def add(self, number: int, function: Callable[[], bool]) -> None:
        """Call `function`, which must not raise, whenever the descriptor is readable, until it returns False."""
        if self._epoll is None:
            self._loop.add_reader(number, self._read, number)
        else:
            self._epoll.register(number, select.EPOLLIN)
        self._functions[number] = function

    def remove(self, number: int) -> None:
        """Call the function no more. Idempotent, while the descriptor is open."""
        if self._functions.pop(number, None) is None:
            return
        if self._epoll is None:
            if not self._loop.is_closed():
                self._loop.remove_reader(number)
        else:
            self._epoll.unregister(number)

    def _poll(self) -> None:
        assert self._epoll is not None
        for number, _ in self._epoll.poll(0):
            self._read(number)

    def _read(self, number: int) -> None:
        if number in self._functions and not self._functions[number]():
            self.remove(number)


def task_group_reading(
    sock: socket.socket, function: Callable[[], bool]
) -> contextlib.AbstractAsyncContextManager[None]:
    """Call `function`, which must not raise, whenever a socket is readable: during a block, until it returns False."""

    async def read() -> None:
        while True:
            await anyio.wait_readable(sock)
            if not function():
                return

    return task_group_beside(read)
