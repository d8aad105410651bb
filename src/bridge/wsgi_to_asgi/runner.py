"""The worker threads that WSGI apps run in, and the way there."""

import functools
import importlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from bridge.runtime import Loop

_logger = logging.getLogger("bridge")


class WorkerThreads:
    """Up to `limit` daemon threads on one queue, started as they are needed.

    `submit` and `close` may be called from any thread. A thread that waits for work costs nothing
    but its stack; the interpreter's exit does not wait for one that works.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._spare = 0  # threads that wait for a job, less jobs that wait for a thread

    def submit(self, job: Callable[[], None]) -> None:
        """Have `job`, which must not raise, run in a worker thread, as soon as one is free."""
        with self._lock:
            if self._spare <= 0 and len(self._threads) < self.limit:
                name = f"WSGIToASGI worker {len(self._threads) + 1}"
                thread = threading.Thread(target=self._work, args=(self._jobs,), name=name, daemon=True)
                thread.start()
                self._threads.append(thread)
            else:
                self._spare -= 1
            self._jobs.put(job)

    def close(self, timeout: float) -> None:
        """Let the threads end once they have done what was submitted; wait for that, but not longer.

        A job that comes later starts new threads.
        """
        with self._lock:
            threads, self._threads, self._spare = self._threads, [], 0
            jobs, self._jobs = self._jobs, queue.SimpleQueue()
        for _ in threads:
            jobs.put(None)
        deadline = time.monotonic() + timeout
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if left := sum(thread.is_alive() for thread in threads):
            _logger.warning("%d requests still ran %g s after shutdown began, and were left behind", left, timeout)

    def _work(self, jobs: "queue.SimpleQueue[Callable[[], None] | None]") -> None:
        while (job := jobs.get()) is not None:
            job()
            del job  # or it would keep the request alive until the next one
            with self._lock:
                if jobs is self._jobs:
                    self._spare += 1


@functools.cache
def _maybe_asgiref_locals() -> Any:
    try:
        return importlib.import_module("asgiref.sync").SyncToAsync.threadlocal
    except (ImportError, AttributeError):
        return None


def lend_loop_to_asgiref(loop: Loop) -> None:
    """Have `async def` views run on the server's loop, not on a new loop for each request.

    Flask and Django run them by asgiref's `async_to_sync`, which looks in its thread's locals for
    the loop that its `sync_to_async` came from: here the calling thread came from it as well.
    Called in the worker thread.
    """
    asgiref_locals = _maybe_asgiref_locals()
    if asgiref_locals is not None:
        asgiref_locals.main_event_loop = loop.asyncio_loop
        asgiref_locals.main_event_loop_pid = os.getpid()
