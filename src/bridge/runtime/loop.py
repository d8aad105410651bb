"""The event loop, as the tasks on it and the threads beside it use it.

asyncio and trio differ here by three words: how a thread has something called on the loop, what a
task waits on, and what runs beside it. Everything else is one code path.
"""

import asyncio
import contextlib
import contextvars
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Protocol

import anyio

from bridge.errors import WouldBlockLoop


class Event(Protocol):
    """What one task waits on, once, until it is told; set on the loop's own thread."""

    def set(self) -> object: ...

    async def wait(self) -> Any: ...


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


class _TaskBeside:
    """A task of asyncio that runs beside a block, and is cancelled behind it, at a fifth of a task group's cost."""

    def __init__(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._task = asyncio.get_running_loop().create_task(function())

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, exc_type: type[BaseException] | None, *exc_info: object) -> None:
        if exc_type is GeneratorExit:
            return  # dropped, together with its loop, where nothing can be awaited any more
        self._task.cancel()
        await asyncio.wait([self._task])


@contextlib.asynccontextmanager
async def _task_group_beside(function: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(function)
        yield
        tasks.cancel_scope.cancel()


class Change:
    """Wakes every task that waits for a change; all of it on the loop.

    `event` makes an event on that loop: `Loop.event`, or `anyio.Event`.
    """

    __slots__ = ("_event", "_waiting")

    def __init__(self, event: Callable[[], Event]) -> None:
        self._event = event
        self._waiting: list[Event] = []

    async def wait(self) -> None:
        """Wait for the next change. The caller checks its condition in a loop, because any change ends the wait."""
        event = self._event()
        self._waiting.append(event)
        try:
            await event.wait()
        except BaseException:  # cancelled, so nobody waits for this event now
            if event in self._waiting:
                self._waiting.remove(event)
            raise

    def notify_all(self) -> None:
        """Wake all tasks that wait now."""
        waiting, self._waiting = self._waiting, []
        for event in waiting:
            event.set()


# The modules of loops that are woken by an eventfd of ours, where the system has that. What call_soon_threadsafe does
# takes longer: a third with asyncio, which writes to a socket and reads it twice, and a little with uvloop.
_WOKEN_BY_EVENTFD = ("asyncio.", "uvloop")
_HAS_EVENTFD = hasattr(os, "eventfd")


class LoopClosed(RuntimeError):
    """The loop that a thread wants to call something on was closed."""


class Loop:
    """A running event loop, seen from the threads beside it.

    What they have it call is called in order, and all that waits together takes one wake-up.
    """

    def __init__(
        self,
        native: object,
        event: Callable[[], Event],
        wake: Callable[[Callable[[], None]], object],
        is_closed: Callable[[], bool],
    ) -> None:
        """`native` is asyncio's loop, or trio's token; `event` makes one, on the loop."""
        self.asyncio_loop = native if isinstance(native, asyncio.AbstractEventLoop) else None
        # Runs a function, which is to raise nothing, in a task beside a block, and cancels that behind it.
        self.beside = _task_group_beside if self.asyncio_loop is None else _TaskBeside
        self.event = event
        self._wake_up = wake
        self.is_closed = is_closed
        self._refused = False
        self._thread = threading.get_ident()
        self._calls: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        # Set by a thread that wakes the loop, cleared on the loop before it looks:
        self._told = False
        self._fd = -1
        if self.asyncio_loop is not None and type(native).__module__.startswith(_WOKEN_BY_EVENTFD) and _HAS_EVENTFD:
            self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            # In a context of its own, or the loop would keep that of the request that happens to be the first.
            contextvars.Context().run(self.asyncio_loop.add_reader, self._fd, self._run)

    def reference(self) -> "Callable[[], Loop | None]":
        """Return what finds this loop as long as asyncio's is open.

        asyncio's keeps its readers until it is closed, and so this loop, which goes then, with its descriptor. A second
        reference would make a cycle of the two, which the garbage collector might never look at.
        """
        return weakref.ref(self) if self._fd >= 0 else lambda: self

    def call_soon(self, function: Callable[..., object], *args: object) -> None:
        """Have `function` called on the loop; from any thread. Raises LoopClosed once the loop is closed."""
        self._calls.append((function, args))
        if not self._told:
            try:
                self._wake()
            except RuntimeError:  # so says a loop that is closed, or what an app's watchdog throws in
                if not self.is_closed():
                    raise
        if closed := self.is_closed():
            self._calls.clear()  # each refers to its request
        if closed or self._refused:
            raise LoopClosed("the event loop is closed")

    def call_next_turn(self, function: Callable[[], None]) -> None:
        """Have `function`, which is to raise nothing, called after whatever is ready now; on the loop."""
        self._wake_up(function)

    def refuse_calls(self) -> None:
        """Be closed from now on, to those who call; what waits is not called."""
        self._refused = True

    def runs_here(self) -> bool:
        """Return whether the calling thread is the loop's own, at work on it; from any thread."""
        if threading.get_ident() != self._thread:  # another thread may get that number, once the loop's has ended
            return False
        return asyncio._get_running_loop() is self.asyncio_loop if self.asyncio_loop else not self.is_closed()

    def refuse_to_sleep(self, what: str) -> None:
        """Raise WouldBlockLoop on the loop's own thread; for whoever is about to sleep until the loop wakes them."""
        if self.runs_here():
            raise WouldBlockLoop(
                f"{what} would stop the server's event loop for ever, as it waits for that loop on its own thread: "
                "call it in a worker thread, as asgiref's sync_to_async does, or leave WSGIToASGI(lend_loop=) at False"
            )

    def _wake(self) -> None:
        try:
            self._told = True
            if self._fd >= 0:  # as in `_knock`, without its call
                os.eventfd_write(self._fd, 1)
            else:
                self._knock()
        except BaseException:
            # A signal's handler raised, or a watchdog threw something in. Another thread may rely on this wake-up.
            self._told = False
            self._knock()
            raise

    def _knock(self) -> None:
        if self._fd >= 0:
            os.eventfd_write(self._fd, 1)
        else:
            # asyncio would make the calls in the context of the request that happens to wake it.
            contextvars.Context().run(self._wake_up, self._run)

    def _run(self) -> None:
        """Make the calls; on the loop."""
        try:
            try:
                if self._fd >= 0:
                    os.eventfd_read(self._fd)
            except BlockingIOError:
                pass  # a loop that runs within the loop (nest_asyncio) was here before
            finally:
                self._told = False
            while self._calls:
                function, args = self._calls.popleft()
                function(*args)
        finally:
            if self._calls and not self._told:  # one has raised, which is no reason for those behind it to wait
                self._wake()

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # at exit there may be no `os` any more
        # Not before: a thread that is about to write would hit whatever had got the number. So would a
        # finalizer that runs after this one, where both are parts of one cycle.
        fd, self._fd = self._fd, -1
        if fd >= 0:
            close(fd)


def running_loop() -> Loop:
    """Return the loop that the calling task runs on; for an asyncio loop the same one each time."""
    trio: Any = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        return _loop_from_token(trio, trio.lowlevel.current_trio_token())
    native: Any = asyncio.get_running_loop()
    find: Callable[[], Loop | None] | None = getattr(native, "_bridge_loop", None)
    loop = None if find is None else find()
    if loop is None:
        loop = _loop_from_asyncio(native)
        with contextlib.suppress(AttributeError):  # it has no room for that: one more another time
            native._bridge_loop = loop.reference()  # where any thread finds it, and whose end is its own
    return loop


def _loop_from_asyncio(loop: asyncio.AbstractEventLoop) -> Loop:
    return Loop(loop, lambda: _FutureEvent(loop.create_future()), loop.call_soon_threadsafe, loop.is_closed)


def _loop_from_token(trio: Any, token: Any) -> Loop:
    def is_closed() -> bool:
        try:
            token.run_sync_soon(int, idempotent=True)
        except trio.RunFinishedError:
            return True
        return False

    return Loop(token, trio.Event, token.run_sync_soon, is_closed)


def set_async_library(name: str | None) -> None:
    """Tell sniffio, where it is in use, what runs in the current context; None for a thread.

    A context that is carried over a hop still names the library of the side it comes from, and
    anyio would believe it.
    """
    sniffio = sys.modules.get("sniffio")
    if sniffio is not None and sniffio.current_async_library_cvar.get() != name:
        sniffio.current_async_library_cvar.set(name)
