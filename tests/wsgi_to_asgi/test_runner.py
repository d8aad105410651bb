import threading

import pytest

from bridge.wsgi_to_asgi import runner
from bridge.wsgi_to_asgi.runner import WorkerThreads
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
    """A job that comes after another has ended runs in its thread."""
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


def test_close_runs_what_was_submitted_and_new_jobs_get_new_threads() -> None:
    """Jobs that wait for a thread are done before it ends, and a pool that was closed goes on."""
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
    """A job that does not end is left behind, and counted in the log."""
    workers = WorkerThreads(1)
    gate = threading.Event()
    workers.submit(lambda: (gate.wait(5), None)[1])
    workers.close(0.01)
    assert "1 requests still ran" in caplog.text
    gate.set()


def test_threads_end_with_their_owner() -> None:
    """A pool that is dropped leaves no thread behind."""
    before = threading.active_count()
    done = threading.Event()
    WorkerThreads(1).submit(done.set)
    assert done.wait(5)
    wait_until(lambda: threading.active_count() == before)


def test_asgiref_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without asgiref there is nothing to lend a loop to, and that is fine."""
    runner._maybe_asgiref_locals.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "asgiref.sync", None)
    assert runner._maybe_asgiref_locals() is None
    runner._maybe_asgiref_locals.cache_clear()
