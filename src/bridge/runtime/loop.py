"""The event loop, as the tasks on it and other threads use it.

asyncio and trio differ in three things: how a thread calls something on the loop, what a task waits on (`events`), and
what runs beside a block (`beside`). Everything else is one code path.
"""

import asyncio
import contextlib
import contextvars
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import anyio

from bridge.errors import WouldBlockLoop
from bridge.runtime.beside import Readers, TaskBeside, task_group_beside
from bridge.runtime.events import Event, FutureEvent

# The modules of loops that an eventfd of the bridge wakes, if the system has that. call_soon_threadsafe() takes a third
# longer with asyncio, which writes to a socket and reads from it twice, and a little longer with uvloop.
_WOKEN_BY_EVENTFD = ("asyncio.", "uvloop")
_HAS_EVENTFD = hasattr(os, "eventfd")


class LoopClosed(RuntimeError):
    """The loop on which a thread wanted to call something was closed."""


class Loop:
    """A running event loop, as other threads see it.

    The loop makes their calls in order, and calls that wait together share one wake-up.
    """

    def __init__(
        self,
        native: object,
        event: Callable[[], Event],
        wake: Callable[[Callable[[], None]], object],
        is_closed: Callable[[], bool],
    ) -> None:
        """`native` is an asyncio loop or a trio token; `event` makes an event, `wake` calls a function on the loop."""
        self.asyncio_loop = native if isinstance(native, asyncio.AbstractEventLoop) else None
        # Runs a function, which must not raise, in a task beside a block, and cancels the task at the end of the block.
        self.beside = task_group_beside if self.asyncio_loop is None else TaskBeside
        self._readers: Readers | None = None  # created by the first use
        self.event = event
        self._wake_up = wake
        self.is_closed = is_closed
        self._refused = False
        self._thread = threading.get_ident()
        self._calls: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        # Set by a thread that wakes the loop, cleared on the loop before it looks for calls:
        self._told = False
        self._fd = -1
        if self.asyncio_loop is not None and type(native).__module__.startswith(_WOKEN_BY_EVENTFD) and _HAS_EVENTFD:
            self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            # In an empty context, because the loop would otherwise hold that of the first request.
            contextvars.Context().run(self.asyncio_loop.add_reader, self._fd, self._run)

    def reference(self) -> "Callable[[], Loop | None]":
        """Return a function that finds this object while the asyncio loop is open.

        The asyncio loop refers to its readers, and so to this object, until it is closed. A strong reference back would
        make a cycle, and leave the file descriptor open until the garbage collector finds it.
        """
        return weakref.ref(self) if self._fd >= 0 else lambda: self

    def call_soon(self, function: Callable[..., object], *args: object) -> None:
        """Call `function` on the loop; from any thread. Raises LoopClosed once the loop is closed."""
        self._calls.append((function, args))
        if not self._told:
            try:
                self._wake()
            except RuntimeError:  # from a closed loop, or from an app's watchdog
                if not self.is_closed():
                    raise
        if closed := self.is_closed():
            self._calls.clear()  # because each refers to its request
        if closed or self._refused:
            raise LoopClosed("the event loop is closed")

    def call_next_turn(self, function: Callable[[], None]) -> None:
        """Call `function`, which must not raise, after everything that is ready now; on the loop."""
        self._wake_up(function)

    def readers(self) -> Readers:
        """Return what calls functions whenever their sockets are readable; on asyncio."""
        if self._readers is None:
            assert self.asyncio_loop is not None
            self._readers = Readers(self.asyncio_loop)
        return self._readers

    async def wait(self, event: Event, timeout: float) -> None:
        """Wait for `event`, no longer than `timeout` seconds; on asyncio at a tenth of a cancel scope's cost."""
        if self.asyncio_loop is None:
            with anyio.move_on_after(timeout):
                await event.wait()
            return
        timer = self.asyncio_loop.call_later(timeout, event.set)
        try:
            await event.wait()
        finally:
            timer.cancel()

    def refuse_calls(self) -> None:
        """Raise LoopClosed from now on in `call_soon`, as if the loop were closed."""
        self._refused = True

    def on_its_thread(self) -> bool:
        """Return whether the calling thread runs this loop, or ran it."""
        return threading.get_ident() == self._thread

    def runs_here(self) -> bool:
        """Return whether the calling thread is running this loop."""
        # The identifier alone is not enough, because another thread may get it once the loop's thread has ended.
        if threading.get_ident() != self._thread:
            return False
        return asyncio._get_running_loop() is self.asyncio_loop if self.asyncio_loop else not self.is_closed()

    def refuse_to_sleep(self, what: str) -> None:
        """Raise WouldBlockLoop on the loop's own thread. Call this before a sleep that only the loop can end."""
        if self.runs_here():
            raise WouldBlockLoop(
                f"{what} would block the server's event loop for ever, because it waits for the loop on its thread: "
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
            # From a signal handler or a watchdog. Another thread may rely on this wake-up, so do it all the same.
            self._told = False
            self._knock()
            raise

    def _knock(self) -> None:
        if self._fd >= 0:
            os.eventfd_write(self._fd, 1)
        else:
            # In an empty context, because asyncio would otherwise make the calls in that of the request that wakes it.
            contextvars.Context().run(self._wake_up, self._run)

    def _run(self) -> None:
        """Make the calls; on the loop."""
        try:
            try:
                if self._fd >= 0:
                    os.eventfd_read(self._fd)
            except BlockingIOError:
                pass  # a nested run of the loop (nest_asyncio) has read it already
            finally:
                self._told = False
            while self._calls:
                function, args = self._calls.popleft()
                function(*args)
        finally:
            if self._calls and not self._told:  # a call has raised; those after it must not wait
                self._wake()

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # bound early, because `os` may be gone at exit
        # Closed only here, and -1 from now on, because a thread or another finalizer may still write to the descriptor,
        # whose number would by then be another file's.
        fd, self._fd = self._fd, -1
        if fd >= 0:
            close(fd)


def running_loop() -> Loop:
    """Return the loop that the calling task runs on; for one asyncio loop always the same object."""
    trio: Any = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        return _loop_from_token(trio, trio.lowlevel.current_trio_token())
    native: Any = asyncio.get_running_loop()
    find: Callable[[], Loop | None] | None = getattr(native, "_bridge_loop", None)
    loop = None if find is None else find()
    if loop is None:
        loop = _loop_from_asyncio(native)
        with contextlib.suppress(AttributeError):  # a loop with __slots__ gets a new object each time
            native._bridge_loop = loop.reference()
    return loop


def _loop_from_asyncio(loop: asyncio.AbstractEventLoop) -> Loop:
    return Loop(loop, lambda: FutureEvent(loop.create_future()), loop.call_soon_threadsafe, loop.is_closed)


def _loop_from_token(trio: Any, token: Any) -> Loop:
    def is_closed() -> bool:
        try:
            token.run_sync_soon(int, idempotent=True)
        except trio.RunFinishedError:
            return True
        return False

    return Loop(token, trio.Event, token.run_sync_soon, is_closed)


def set_async_library(name: str | None) -> None:
    """Tell sniffio, if it is in use, which async library runs in the current context; None in a thread.

    A context that crosses a hop still names the library of the other side, and anyio would believe it.
    """
    sniffio = sys.modules.get("sniffio")
    if sniffio is not None and sniffio.current_async_library_cvar.get() != name:
        sniffio.current_async_library_cvar.set(name)
