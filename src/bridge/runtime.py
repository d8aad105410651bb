"""What both directions ask of the loop and the process they run in.

asyncio and trio differ here by two words: how a thread has something called on the loop, and what
a task waits on. Everything else is one code path.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

T = TypeVar("T")


class Event(Protocol):
    """What one task waits on, once, until it is told; set on the loop's own thread."""

    def set(self) -> object: ...

    async def wait(self) -> Any: ...


class Loop(NamedTuple):
    """A running event loop, seen from a thread beside it.

    `call_soon` may be called from any thread, and raises RuntimeError once the loop is closed.
    """

    call_soon: Callable[..., object]
    event: Callable[[], Event]
    asyncio_loop: asyncio.AbstractEventLoop | None


class _FutureEvent:
    """An asyncio.Event for one waiter, at half its cost."""

    __slots__ = ("_future",)

    def __init__(self, future: asyncio.Future[None]) -> None:
        self._future = future

    def set(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self) -> None:
        await self._future


def running_loop() -> Loop:
    """Return the loop that the calling task runs on."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        return Loop(trio.lowlevel.current_trio_token().run_sync_soon, trio.Event, None)
    loop = asyncio.get_running_loop()
    return Loop(loop.call_soon_threadsafe, lambda: _FutureEvent(loop.create_future()), loop)


def set_async_library(name: str | None) -> None:
    """Tell sniffio, where it is in use, what runs in the current context; None for a thread.

    A context that is carried over a hop still names the library of the side it comes from, and
    anyio would believe it.
    """
    sniffio = sys.modules.get("sniffio")
    if sniffio is not None and sniffio.current_async_library_cvar.get() != name:
        sniffio.current_async_library_cvar.set(name)


class PerProcess(Generic[T]):
    """One `T` a process: threads and loops do not live through a fork, so a child makes its own.

    Any thread may call `get()`. A fork is noticed by the pid, as servers that fork in C (uWSGI)
    run no Python hooks.
    """

    def __init__(self, factory: Callable[[], T]) -> None:
        self._factory = factory
        self._by_pid: dict[int, T] = {}

    def get(self) -> T:
        pid = os.getpid()
        try:
            return self._by_pid[pid]
        except KeyError:
            # Not the parent's, whose lock may be held by a thread that is not here.
            return self._by_pid.setdefault(pid, self._factory())

    def maybe_get(self) -> T | None:
        """Return this process's `T` if it has one by now."""
        return self._by_pid.get(os.getpid())


def binary_semaphore() -> threading.Lock:
    """Return a lock that is taken: a thread sleeps in `acquire()` until the loop releases it."""
    lock = threading.Lock()
    lock.acquire()
    return lock
