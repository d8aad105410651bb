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
    """A thread that keeps nothing of whoever starts it, and does not keep the interpreter from exiting.

    It starts in an empty context. Where threads inherit one (free-threaded Python 3.14, `-X thread_inherit_context=1`),
    that of a request would live in it for ever.

    Sub-interpreters may forbid daemon threads. There it is none, and `end`, which tells it to end, is called when the
    interpreter exits and before that waits for it.

    It has a thread and is none, as gevent may replace `threading.Thread` after this class was made.
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
                vars(self.thread)["bridge_end"] = end  # which refers to the thread, and so is not kept elsewhere
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
    """Have `function` called at the interpreter's exit, by the hook that concurrent.futures uses.

    It runs before the interpreter waits for threads, some of which wait for us; atexit comes after that.
    """
    import concurrent.futures.thread  # noqa: F401  # its hook is to run after ours, or no app could use threads

    getattr(threading, "_register_atexit", atexit.register)(function)


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
