"""The worker threads that run WSGI apps. Its twin is `asgi_to_wsgi/runner.py`."""

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

from bridge.errors import BridgeError
from bridge.runtime import BackgroundThread, Loop

_logger = logging.getLogger("bridge")


class WorkerThreads:
    """Up to `limit` threads that share one queue and start on demand.

    Any thread may call its methods. The interpreter does not wait for these threads when it exits.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()  # for submit() and close(); the worker threads do not use it
        self._jobs = _Jobs()

    def submit(self, job: Callable[[], None]) -> bool:
        """Run `job` in a worker thread; return whether one is free for it now.

        `job` must catch all exceptions. If one from outside (PyThreadState_SetAsyncExc) ends it all the same, it is
        called again to do what is left. Raises BridgeError if there is no thread and none can be started.
        """
        with self._lock:
            jobs = self._jobs
            free = jobs.spare > 0 or (len(jobs.threads) < self.limit and self._start_thread())
            jobs.put(job)
            return free

    @property
    def busy(self) -> int:
        """How many threads have a job."""
        return self._jobs.busy

    @property
    def waiting(self) -> int:
        """How many jobs wait for a thread."""
        return self._jobs.waiting

    def _start_thread(self) -> bool:
        """Start one more thread; return whether the system allows it. The caller holds the lock."""
        jobs = self._jobs
        thread = BackgroundThread(f"WSGIToASGI worker {len(jobs.threads) + 1}", jobs.work, (deque(),), jobs.dismiss)
        jobs.threads.add(thread.thread)
        try:
            thread.start()
        except RuntimeError as error:
            jobs.threads.discard(thread.thread)
            if jobs.threads:
                return False  # those will do the job
            raise BridgeError(
                f"cannot start the first worker thread for this request ({error}): "
                "raise the limit on processes and threads, or the memory, that this process may use"
            ) from error
        return True

    def close(self, timeout: float) -> None:
        """End the threads once all submitted jobs are done; wait up to `timeout` seconds for that.

        A later job starts new threads.
        """
        with self._lock:
            jobs, self._jobs = self._jobs, _Jobs()
            threads = list(jobs.threads)
        jobs.dismiss()
        deadline = time.monotonic() + timeout
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if left := sum(thread.is_alive() for thread in threads):
            _logger.warning("%d requests still ran %g s after shutdown began, and were abandoned", left, timeout)

    def __del__(self) -> None:
        # The adapter was dropped, so no more jobs will come. No lock, because after a fork it may never be released.
        self._jobs.dismiss()


class _Jobs:
    """What the worker threads share. They do not refer to WorkerThreads, so that it can be dropped.

    Jobs that arrive together wake one thread, which wakes the next if jobs are left. A thread that is done before the
    next one has woken does its job as well, so many small requests cost few wake-ups. A queue that wakes a thread for
    each job, as SimpleQueue does since Python 3.13, makes them twice as expensive.

    An app's watchdog may raise an exception in a thread at any bytecode. So nothing here is counted or locked, and a
    thread repeats whatever was cut short.
    """

    def __init__(self) -> None:
        self.threads: set[threading.Thread] = set()
        self._busy: set[threading.Thread] = set()  # threads that have a job, or are about to take one
        self._waiting: deque[Callable[[], None]] = deque()
        self._woken = False  # a thread is about to look for jobs; it clears this before it looks
        self._over = False  # there will be no more jobs
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()  # each ends one thread's sleep

    # WHERE JOBS COME FROM

    @property
    def spare(self) -> int:
        """The number of idle threads minus that of waiting jobs; a job that a thread is taking may count twice."""
        return -len(self._waiting) - len(self._busy) + len(self.threads)

    @property
    def busy(self) -> int:
        """The number of threads that have a job, or are about to take one."""
        return len(self._busy)

    @property
    def waiting(self) -> int:
        """The number of jobs that no thread has taken."""
        return len(self._waiting)

    def put(self, job: Callable[[], None]) -> None:
        """Add a job."""
        self._waiting.append(job)
        self._wake()

    def dismiss(self) -> None:
        """End all threads once no jobs are left."""
        self._over = True
        for _ in range(len(self.threads)):
            self._wakes.put(None)

    # IN A WORKER THREAD

    def work(self, hand: "deque[Callable[[], None]]") -> None:
        """Do jobs until `dismiss`; a thread's target.

        `hand` is empty at first. It holds a job from the moment that the job leaves the queue until it is done.
        """
        try:
            while True:
                try:
                    self._work(threading.current_thread(), hand)
                    return
                except BaseException:
                    pass  # from outside: repeat what was cut short
        finally:  # in case another exception landed in the handler
            self._leave(threading.current_thread())

    def _work(self, thread: threading.Thread, hand: "deque[Callable[[], None]]") -> None:
        while True:
            self._woken = False
            self._take(thread, hand)
            while hand:
                hand.pop()()
                hand.clear()
                self._take(thread, hand)
            if not self._over:
                self._wakes.get()
            elif not self._waiting:
                return

    def _take(self, thread: threading.Thread, hand: "deque[Callable[[], None]]") -> None:
        """Take a waiting job, unless there is one in hand."""
        waiting = self._waiting
        if waiting and not hand:
            self._busy.add(thread)  # first, so that the job always counts
            try:
                # In one step, because an exception between two would lose the job.
                hand.extend(map(deque.popleft, (waiting,)))
                hand.append(hand[0])  # twice, because a call may be cut short before it begins
            except IndexError:
                pass  # another thread has taken it
        if not hand:
            self._busy.discard(thread)
        elif waiting:
            self._wake()

    def _leave(self, thread: threading.Thread) -> None:
        """Make room for another thread, and pass on a wake-up that this one may have consumed."""
        self.threads.discard(thread)
        self._busy.discard(thread)
        self._woken = False
        if self._waiting:
            self._wake()

    # IN ANY THREAD

    def _wake(self) -> None:
        """Wake one thread that sleeps, or the next one that is about to."""
        if not self._woken:
            try:
                self._woken = True  # first, because the woken thread may clear it at once
                self._wakes.put(None)
            except BaseException:  # from a signal handler or a watchdog
                self._woken = False
                self._wakes.put(None)
                raise


@functools.cache
def _maybe_asgiref_locals() -> Any:
    try:
        return importlib.import_module("asgiref.sync").SyncToAsync.threadlocal
    except (ImportError, AttributeError):
        return None


def lend_loop_to_asgiref(loop: Loop | None) -> None:
    """Run `async def` views on `loop`; with None, on a new loop for each call, as under a WSGI server.

    Flask and Django run them through asgiref's `async_to_sync`, which looks in its thread's locals for the loop of the
    `sync_to_async` that it was called from. None removes what an earlier request has left there. Called in the worker
    thread.
    """
    if loop is None and "asgiref.sync" not in sys.modules:
        return
    asgiref_locals = _maybe_asgiref_locals()
    native = None if loop is None else loop.asyncio_loop
    # Through the dict, because getattr() of a missing attribute is slow, and most threads have none.
    if asgiref_locals is not None and vars(asgiref_locals).get("main_event_loop") is not native:
        asgiref_locals.main_event_loop = native
        asgiref_locals.main_event_loop_pid = os.getpid()  # worker threads do not live through a fork
