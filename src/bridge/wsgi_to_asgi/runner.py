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

from bridge.errors import BridgeError
from bridge.runtime import BackgroundThread, Loop

_logger = logging.getLogger("bridge")


class WorkerThreads:
    """Up to `limit` threads on one queue, started as they are needed.

    Its methods may be called from any thread. A thread that waits for a job costs nothing but its
    stack; one that works does not keep the interpreter from exiting.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()  # of those who submit; the threads do without
        self._jobs = _Jobs()

    def submit(self, job: Callable[[], None]) -> bool:
        """Have `job` run in a worker thread; return whether one is free for it now.

        It is to catch all exceptions. One from without (PyThreadState_SetAsyncExc) may still end it: then it is called
        once more, for what is left to do. Raises BridgeError where there is no thread at all and none can be started.
        """
        with self._lock:
            jobs = self._jobs
            free = jobs.spare > 0 or (len(jobs.threads) < self.limit and self._start_thread())
            jobs.put(job)
            return free

    def _start_thread(self) -> bool:
        """Start one more thread, for the caller that holds the lock; return whether the system allows it."""
        jobs = self._jobs
        thread = BackgroundThread(f"WSGIToASGI worker {len(jobs.threads) + 1}", jobs.work, (deque(),), jobs.dismiss)
        jobs.threads.add(thread.thread)
        try:
            thread.start()
        except RuntimeError as error:
            jobs.threads.discard(thread.thread)
            if jobs.threads:
                return False  # they will come to it
            raise BridgeError(
                f"no worker thread can be started for this request, and there is none yet ({error}): "
                "raise the limit on processes and threads, or the memory, that this process may use"
            ) from error
        return True

    def close(self, timeout: float) -> None:
        """Let the threads end when they have done what was submitted; wait for that, up to `timeout` seconds.

        A job that comes later starts new threads.
        """
        with self._lock:
            jobs, self._jobs = self._jobs, _Jobs()
            threads = list(jobs.threads)
        jobs.dismiss()
        deadline = time.monotonic() + timeout
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if left := sum(thread.is_alive() for thread in threads):
            _logger.warning("%d requests still ran %g s after shutdown began, and were left behind", left, timeout)

    def __del__(self) -> None:
        # The adapter was dropped, so there will be no more work. No lock: after a fork it may be held for ever.
        self._jobs.dismiss()


class _Jobs:
    """What worker threads share; they know nothing of their owner, so that it can be dropped.

    Jobs that come together wake one thread, which wakes the next if there is more than it can take: where one is
    done before the other has woken, it does that one's job too, and many small requests cost few wake-ups. A queue
    that wakes a thread for each job, as SimpleQueue does from Python 3.13 on, makes them twice as dear.

    An app's watchdog may throw an exception into a thread and be late: it lands anywhere. So nothing here is counted or
    locked: what a thread does may be cut short at any bytecode, and is done again from the start.
    """

    def __init__(self) -> None:
        self.threads: set[threading.Thread] = set()
        self._busy: set[threading.Thread] = set()  # those that have a job, or are about to take one
        self._waiting: deque[Callable[[], None]] = deque()
        self._woken = False  # a thread is about to look for jobs; it takes that back before it does
        self._over = False  # there will be no more jobs
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()  # each ends one thread's sleep

    # WHERE JOBS COME FROM

    @property
    def spare(self) -> int:
        """How many threads wait for a job, less the jobs that wait for a thread; a job on its way may count twice."""
        return -len(self._waiting) - len(self._busy) + len(self.threads)

    def put(self, job: Callable[[], None]) -> None:
        """Have `job` run."""
        self._waiting.append(job)
        self._wake()

    def dismiss(self) -> None:
        """Have all threads end when there is nothing more to do."""
        self._over = True
        for _ in range(len(self.threads)):
            self._wakes.put(None)

    # IN A WORKER THREAD

    def work(self, hand: "deque[Callable[[], None]]") -> None:
        """Do jobs until there will be no more; the whole life of a thread.

        A job is in `hand`, which is empty at first, from the moment it leaves the queue until it is done.
        """
        try:
            while True:
                try:
                    self._work(threading.current_thread(), hand)
                    return
                except BaseException:
                    pass  # from without: what was cut short is done again
        finally:  # that was cut short, too
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
        """Take a job in hand, if one waits and there is none."""
        waiting = self._waiting
        if waiting and not hand:
            self._busy.add(thread)  # first, or the job would for a moment count nowhere
            try:
                # In one step: an exception that came between two would lose the job.
                hand.extend(map(deque.popleft, (waiting,)))
                hand.append(hand[0])  # twice, as a call may be cut short before it does anything
            except IndexError:
                pass  # another thread was faster
        if not hand:
            self._busy.discard(thread)
        elif waiting:
            self._wake()

    def _leave(self, thread: threading.Thread) -> None:
        """Make room for another thread, and hand on the wake-up that this one may have had."""
        self.threads.discard(thread)
        self._busy.discard(thread)
        self._woken = False
        if self._waiting:
            self._wake()

    # IN ANY THREAD

    def _wake(self) -> None:
        """Have a thread look for jobs that sleeps, or the first that is about to."""
        if not self._woken:
            try:
                self._woken = True  # first: the thread may have looked, and taken it back, before we run on
                self._wakes.put(None)
            except BaseException:  # a signal's handler raised, or a watchdog threw something in
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
    """Have `async def` views run on `loop`; with None, on a new loop for each call, as under a WSGI server.

    Flask and Django run them by asgiref's `async_to_sync`, which looks in its thread's locals for the loop that its
    `sync_to_async` came from. An earlier request may have left one there, so with None it is taken out. Called in the
    worker thread.
    """
    if loop is None and "asgiref.sync" not in sys.modules:
        return
    asgiref_locals = _maybe_asgiref_locals()
    native = None if loop is None else loop.asyncio_loop
    # By the dict, as getattr() of what most threads have not costs the most of a small request's time in here.
    if asgiref_locals is not None and vars(asgiref_locals).get("main_event_loop") is not native:
        asgiref_locals.main_event_loop = native
        asgiref_locals.main_event_loop_pid = os.getpid()  # worker threads do not live through a fork
