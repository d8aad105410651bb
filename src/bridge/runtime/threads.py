"""Threads, and the process that they run in."""

import atexit
import contextvars
import functools
import os
import threading
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class BackgroundThread:
    """A daemon thread that starts in an empty context.

    If threads inherit a context (free-threaded Python 3.14, `-X thread_inherit_context=1`), this one would otherwise
    hold the context of a request for ever.

    Sub-interpreters may forbid daemon threads. Then the thread is an ordinary one, and the interpreter calls `end`,
    which must make the thread end, before it waits for threads at exit.

    This class wraps a thread because gevent may replace `threading.Thread` after the class was made.
    """

    def __init__(
        self,
        name: str,
        target: Callable[..., object],
        args: tuple[object, ...] = (),
        end: Callable[[], None] | None = None,
    ) -> None:
        try:
            self.thread = threading.Thread(name=name, target=target, args=args, daemon=True)
        except RuntimeError:
            self.thread = threading.Thread(name=name, target=target, args=args, daemon=False)
            if end is not None:
                vars(self.thread)["bridge_end"] = end  # stored on the thread, because it refers to that
                _to_end.add(self.thread)
                _register_end_all()

    @property
    def ident(self) -> int | None:
        return self.thread.ident

    def start(self) -> None:
        contextvars.Context().run(self.thread.start)

    def join(self, timeout: float | None = None) -> None:
        self.thread.join(timeout)

    def is_alive(self) -> bool:
        return self.thread.is_alive()


_to_end: "weakref.WeakSet[threading.Thread]" = weakref.WeakSet()


@functools.cache
def _register_end_all() -> None:
    call_at_exit(_end_all)


def _end_all() -> None:
    for thread in list(_to_end):
        vars(thread)["bridge_end"]()


def call_at_exit(function: Callable[[], None]) -> None:
    """Call `function` when the interpreter exits, before it waits for threads, as concurrent.futures does.

    atexit would be too late, because some of those threads wait for the bridge.
    """
    # Imported first so that its hook runs after this one: until then, apps can use thread pools.
    import concurrent.futures.thread  # noqa: F401

    getattr(threading, "_register_atexit", atexit.register)(function)


class PerProcess(Generic[T]):
    """One `T` in each process. A forked child makes its own, because threads and loops do not survive a fork.

    Any thread may call `get()`. It notices a fork by the pid, because servers that fork in C (uWSGI) run
    no Python hooks.
    """

    def __init__(self, factory: Callable[[], T]) -> None:
        self._factory = factory
        self._by_pid: dict[int, T] = {}

    def get(self) -> T:
        pid = os.getpid()
        try:
            return self._by_pid[pid]
        except KeyError:
            # No lock: a thread that did not survive the fork might hold it.
            return self._by_pid.setdefault(pid, self._factory())

    def maybe_get(self) -> T | None:
        """Return this process's `T`, or None if it has none yet."""
        return self._by_pid.get(os.getpid())


class Tally:
    """A count that any thread may add to. It needs no lock, because each thread writes a number of its own."""

    def __init__(self) -> None:
        self._by_thread: dict[int, int] = {}

    def add(self) -> None:
        """Add one."""
        ident = threading.get_ident()
        self._by_thread[ident] = self._by_thread.get(ident, 0) + 1

    def total(self) -> int:
        """Return what all threads have added."""
        return sum(list(self._by_thread.values()))


def binary_semaphore() -> threading.Lock:
    """Return a lock that is already acquired, so that a thread sleeps in `acquire()` until another releases it."""
    lock = threading.Lock()
    lock.acquire()
    return lock
