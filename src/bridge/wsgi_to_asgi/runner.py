"""The worker threads that WSGI apps run in, and the way there."""

import functools
import importlib
import logging
import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from bridge.runtime import Loop

_logger = logging.getLogger("bridge")


class WorkerThreads:
    """Up to `limit` daemon threads on one queue, started as they are needed.

    Its methods may be called from any thread. A thread that waits for a job costs nothing but its
    stack; one that works does not keep the interpreter from exiting.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._jobs = _Jobs(self._lock)
        self._threads: list[threading.Thread] = []

    def submit(self, job: Callable[[], None]) -> bool:
        """Have `job`, which must not raise, run in a worker thread; return whether one is free for it now."""
        with self._lock:
            jobs = self._jobs
            free = jobs.spare > 0
            if not free and len(self._threads) < self.limit:
                name = f"WSGIToASGI worker {len(self._threads) + 1}"
                thread = threading.Thread(target=jobs.work, name=name, daemon=True)
                thread.start()
                self._threads.append(thread)
                jobs.spare += 1
                free = True
            jobs.put(job)
            return free

    def close(self, timeout: float) -> None:
        """Let the threads end when they have done what was submitted; wait for that, up to `timeout` seconds.

        A job that comes later starts new threads.
        """
        with self._lock:
            threads, self._threads = self._threads, []
            jobs, self._jobs = self._jobs, _Jobs(self._lock)
        jobs.dismiss(threads)
        deadline = time.monotonic() + timeout
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if left := sum(thread.is_alive() for thread in threads):
            _logger.warning("%d requests still ran %g s after shutdown began, and were left behind", left, timeout)

    def __del__(self) -> None:
        # The adapter was dropped, so there will be no more work. No lock: after a fork it may be held for ever.
        self._jobs.dismiss(self._threads)


class _Jobs:
    """What worker threads share; they know nothing of their owner, so that it can be dropped.

    Jobs that come together wake one thread, which wakes the next if there is more than it can take: where one is
    done before the other has woken, it does that one's job too, and many small requests cost few wake-ups. A queue
    that wakes a thread for each job, as SimpleQueue does from Python 3.13 on, makes them twice as dear.
    """

    def __init__(self, lock: threading.Lock) -> None:
        # All under the lock, but for what ends a thread:
        self.spare = 0  # threads that wait for a job, less jobs that wait for a thread
        self._woken = False  # a thread is about to look for jobs
        self._waiting: deque[Callable[[], None]] = deque()
        self._wakes: queue.SimpleQueue[bool] = queue.SimpleQueue()  # each ends one thread's sleep; False, its life, too
        self._lock = lock

    def put(self, job: Callable[[], None]) -> None:
        """Have `job` run; the caller holds the lock."""
        self.spare -= 1
        self._waiting.append(job)
        self._wake()

    def _wake(self) -> None:
        """Have a thread look for jobs that sleeps, or the first that is about to; the caller holds the lock."""
        if not self._woken:
            self._wakes.put(True)
            self._woken = True

    def _maybe_take(self) -> Callable[[], None] | None:
        """Return a job, if one waits; the caller holds the lock."""
        if not self._waiting:
            return None
        job = self._waiting.popleft()
        if self._waiting:
            self._wake()
        return job

    def dismiss(self, threads: list[threading.Thread]) -> None:
        """Have each of `threads` end when there is nothing more to do."""
        for _ in threads:
            self._wakes.put(False)

    def work(self) -> None:
        """Do jobs until there will be no more; the whole life of a thread."""
        goes_on = True
        while True:
            with self._lock:
                self._woken = False
                job = self._maybe_take()
            while job is not None:
                job()
                job = None  # or it would keep the request alive until the next one
                with self._lock:
                    self.spare += 1
                    job = self._maybe_take()
            if not goes_on:
                return
            try:
                goes_on = self._wakes.get()
            except BaseException:
                pass  # an app's watchdog (PyThreadState_SetAsyncExc) was late: the wake-up that we took is to be heeded


@functools.cache
def _maybe_asgiref_locals() -> Any:
    try:
        return importlib.import_module("asgiref.sync").SyncToAsync.threadlocal
    except (ImportError, AttributeError):
        return None


def lend_loop_to_asgiref(loop: Loop | None) -> None:
    """Have `async def` views run on `loop`; with None, on a new loop for each call, as under a WSGI server.

    Flask and Django run them by asgiref's `async_to_sync`, which looks in its thread's locals for the loop that its
    `sync_to_async` came from. An earlier request may have left one there, so with None it is taken out. Called in the
    worker thread.
    """
    if loop is None and "asgiref.sync" not in sys.modules:
        return
    asgiref_locals = _maybe_asgiref_locals()
    native = None if loop is None else loop.asyncio_loop
    if asgiref_locals is not None and getattr(asgiref_locals, "main_event_loop", None) is not native:
        asgiref_locals.main_event_loop = native
        asgiref_locals.main_event_loop_pid = os.getpid()  # worker threads do not live through a fork
