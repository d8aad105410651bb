import ctypes
import functools
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

import pytest

from bridge import BridgeError
from bridge.runtime import BackgroundThread
from bridge.wsgi_to_asgi import runner
from bridge.wsgi_to_asgi.runner import WorkerThreads, _Jobs
from tests.processes import wait_until


def test_threads_start_as_they_are_needed_and_no_more_than_the_limit() -> None:
    """One job at a time takes one thread; more at once take more, up to the limit; the rest wait."""
    workers = WorkerThreads(3)
    before = threading.active_count()
    gate, done = threading.Event(), threading.Semaphore(0)

    def job() -> None:
        gate.wait(5)
        done.release()

    workers.submit(job)
    assert threading.active_count() == before + 1
    for _ in range(9):
        workers.submit(job)
    assert threading.active_count() == before + 3
    gate.set()
    for _ in range(10):
        assert done.acquire(timeout=5)
    workers.close(5)
    assert threading.active_count() == before


def test_an_idle_thread_is_used_again() -> None:
    """A job that comes after another one has ended runs in the same thread."""
    workers = WorkerThreads(5)
    threads: set[int] = set()
    for _ in range(20):
        done = threading.Event()

        def job(done: threading.Event = done) -> None:
            threads.add(threading.get_ident())
            done.set()

        workers.submit(job)
        assert done.wait(5)
    # The thread counts itself as idle after the job, so that a job may just miss it.
    assert len(threads) <= 2
    workers.close(5)


def test_jobs_that_come_together_wake_one_thread_which_wakes_the_next() -> None:
    """A thread that has more jobs than it can run wakes one sleeping thread."""
    jobs = _Jobs()
    ran: list[int] = []
    for number in range(5):
        jobs.put(functools.partial(ran.append, number))
    assert jobs._wakes.qsize() == 1
    jobs._wakes.get()
    jobs.dismiss()
    jobs.work(deque())
    assert ran == list(range(5))
    assert jobs._wakes.qsize() == 1  # one more wake-up, for which there was no job left


def test_a_thread_that_looks_at_once_is_woken_by_the_next_job() -> None:
    """It may have looked for jobs before the thread that woke it goes on."""
    jobs = _Jobs()

    class Wakes:
        count = 0

        def put(self, _: None) -> None:
            self.count += 1
            jobs._woken = False  # as the thread does, before it looks

    jobs._wakes = wakes = Wakes()  # type: ignore[assignment]
    jobs.put(print)
    jobs.put(print)
    assert wakes.count == 2


def test_a_wake_up_that_is_interrupted_reaches_a_thread() -> None:
    """An interrupted wake-up still wakes a thread, because the next to submit rely on it."""
    jobs = _Jobs()

    class Wakes:
        count = -1

        def put(self, _: None) -> None:
            self.count += 1
            if self.count == 0:
                raise KeyboardInterrupt

    jobs._wakes = wakes = Wakes()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        jobs.put(print)
    assert wakes.count == 1


@pytest.mark.parametrize("last", [False, True])
def test_idle_threads_run_side_by_side(last: bool) -> None:
    """Jobs that wait for each other each get a thread, although only one thread was woken."""
    workers = WorkerThreads(5)
    barrier = threading.Barrier(6)

    def meet() -> None:
        barrier.wait(5)

    for _ in range(5):
        workers.submit(meet)
    barrier.wait(5)
    wait_until(lambda: workers._jobs.spare == 5)
    with workers._lock:
        for _ in range(5):
            workers._jobs.put(meet)
        if last:
            workers._jobs.dismiss()
    barrier.wait(5)
    workers.close(5)


def test_an_exception_from_without_ends_no_idle_thread() -> None:
    """An app's watchdog may hit a thread whose request is over: neither thread nor wake-up is lost."""
    workers = WorkerThreads(1)
    done = threading.Semaphore(0)
    for _ in range(3):
        workers.submit(done.release)
        assert done.acquire(timeout=5)
        wait_until(lambda: workers._jobs.spare == 1)
        ident = ctypes.c_ulong(next(iter(workers._jobs.threads)).ident or 0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(TimeoutError))
    workers.submit(done.release)
    assert done.acquire(timeout=5)
    workers.close(5)


class NoThread(BackgroundThread):
    """A thread that the system refuses to start."""

    def start(self) -> None:
        raise RuntimeError("can't start new thread")


def test_jobs_queue_where_no_more_threads_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads that already run take the jobs in turn."""
    workers = WorkerThreads(2)
    gate, done = threading.Event(), threading.Semaphore(0)
    workers.submit(lambda: (gate.wait(5), None)[1])
    monkeypatch.setattr(runner, "BackgroundThread", NoThread)
    assert not workers.submit(done.release)
    assert not workers.submit(done.release)
    gate.set()
    assert done.acquire(timeout=5)
    assert done.acquire(timeout=5)
    workers.close(5)


def test_a_job_that_no_thread_can_be_started_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says so, and the job is dropped."""
    workers = WorkerThreads(2)
    ran = threading.Semaphore(0)
    with monkeypatch.context() as patch:
        patch.setattr(runner, "BackgroundThread", NoThread)
        with pytest.raises(BridgeError, match="can't start new thread"):
            workers.submit(ran.release)
    done = threading.Event()
    workers.submit(done.set)
    assert done.wait(5)
    workers.close(5)
    assert not ran.acquire(blocking=False)


def test_no_job_is_forgotten() -> None:
    """Every job is done, however many come at once."""
    for limit in (1, 2, 5):
        workers = WorkerThreads(limit)
        done = threading.Semaphore(0)

        def wait(done: threading.Semaphore = done) -> None:
            time.sleep(0.0001)
            done.release()

        def submit(workers: WorkerThreads = workers, jobs: Iterable[Any] = (done.release, wait) * 5) -> None:
            for job in jobs:
                workers.submit(job)

        for _ in range(50):
            threads = [threading.Thread(target=submit) for _ in range(3)]
            for thread in threads:
                thread.start()
            for _ in range(30):
                assert done.acquire(timeout=5)
            for thread in threads:
                thread.join()
        workers.close(5)


def test_close_runs_what_was_submitted_and_new_jobs_get_new_threads() -> None:
    """Waiting jobs are done before the threads end, and a closed pool can be used again."""
    workers = WorkerThreads(1)
    gate = threading.Event()
    ran: list[int] = []
    workers.submit(lambda: ran.append(gate.wait(5)))
    for number in range(3):
        workers.submit(lambda number=number: ran.append(number))  # type: ignore[misc]
    gate.set()
    workers.close(5)
    assert ran == [True, 0, 1, 2]
    again = threading.Event()
    workers.submit(again.set)
    assert again.wait(5)
    workers.close(5)


def test_close_does_not_wait_beyond_its_timeout(caplog: pytest.LogCaptureFixture) -> None:
    """A job that does not end is abandoned, and counted in the log."""
    workers = WorkerThreads(1)
    gate = threading.Event()
    workers.submit(lambda: (gate.wait(5), None)[1])
    workers.close(0.01)
    assert "1 requests still ran" in caplog.text
    gate.set()


def test_threads_end_with_their_owner() -> None:
    """A pool that is dropped leaves no threads."""
    before = threading.active_count()
    done = threading.Event()
    WorkerThreads(1).submit(done.set)
    assert done.wait(5)
    wait_until(lambda: threading.active_count() == before)


def test_asgiref_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without asgiref no loop is lent, and nothing fails."""
    runner._maybe_asgiref_locals.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "asgiref.sync", None)
    assert runner._maybe_asgiref_locals() is None
    runner._maybe_asgiref_locals.cache_clear()
