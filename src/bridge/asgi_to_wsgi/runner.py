"""Start and end the private loop of each adapter and process."""

import functools
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from bridge.asgi_to_wsgi.http.detached import DetachedResponse
from bridge.asgi_to_wsgi.loop import LoopThread
from bridge.asgi_to_wsgi.tasks import Job
from bridge.errors import AdapterClosed, StartupFailed
from bridge.runtime import call_at_exit
from bridge.types import ASGIApp

T = TypeVar("T")

# How long the interpreter's exit waits for requests and background work if there are no detached responses, in seconds.
_EXIT_GRACE = 1.0


class WeakRegistry(Generic[T]):
    """Weak references to objects. Takes no lock, so that a signal handler may list them."""

    def __init__(self) -> None:
        self._references: set[weakref.ref[T]] = set()

    def add(self, item: T) -> None:
        self._references.add(weakref.ref(item, self._references.discard))

    def items(self) -> list[T]:
        """Return the objects that are alive."""
        return [item for reference in list(self._references) if (item := reference()) is not None]


class PrivateLoop:
    """The loop of one adapter in one process. It starts when it is first needed and ends at `close`.

    Any thread may call its methods. Threads that wait for the same start share its failure; the next
    call tries again.
    """

    def __init__(self, app: ASGIApp, options: dict[str, Any]) -> None:
        self._app = app
        self._options = options
        self._pid = os.getpid()
        self._lock = threading.RLock()  # held while the loop starts, so no longer than startup_timeout
        self._current: LoopThread | None = None
        self._starting: LoopThread | None = None
        self._closed = False  # no loop starts now, although one that runs may still serve
        # Written under the lock:
        self._failures = 0
        self._failure = ""  # the latest, as text, because the error would keep its frames alive
        _register_close_all()
        _private_loops.add(self)

    def get(self) -> LoopThread:
        """Return the running loop; start it if necessary. Raises StartupFailed, AdapterClosed, WouldBlockLoop."""
        current = self._current
        if current is not None and not current.ended:
            return current
        self._check_thread()
        failures = self._failures
        with self._lock:
            if self._closed:
                raise AdapterClosed("the adapter was closed; start() opens it again")
            if self._failures != failures:  # while this thread waited for the lock
                raise StartupFailed(self._failure)
            if self._current is None or self._current.ended:
                self._start()
            assert self._current is not None
            return self._current

    def _check_thread(self) -> None:
        """Raise WouldBlockLoop on the thread of the loop that runs or starts, because its starter holds the lock."""
        for loop_thread in (self._current, self._starting):
            if loop_thread is not None:
                loop_thread.check_thread()

    def _start(self) -> None:
        """Start the loop; the caller holds the lock."""
        self._starting = LoopThread(self._app, **self._options)
        try:
            if self._closed:  # by a close() that found no start to abort yet
                raise AdapterClosed("the adapter was closed; start() opens it again")
            self._starting.start()
            self._current = self._starting
        except AdapterClosed:
            raise
        except Exception as error:
            self._failure = str(error) if isinstance(error, StartupFailed) else f"{type(error).__name__}: {error}"
            self._failures += 1
            raise
        finally:
            starting, self._starting = self._starting, None
            if self._current is not starting:  # an asynchronous exception may land just after the start
                starting.abort(AdapterClosed("the start of the adapter was interrupted"))

    def reopen(self) -> None:
        """Start the loop if it does not run, even after `close`. Raises StartupFailed, AdapterClosed."""
        if self._closed:
            with self._lock:
                if self._closed:
                    self.close()  # ends a loop whose close() did not wait
                    self._closed = False
        self.get()

    def begin_to_stop(self, patience: float) -> None:
        """End event streams and WebSockets at once, and the loop within `patience` seconds; do not wait.

        Takes no lock, because a signal handler may interrupt the thread that holds it.
        """
        if self._pid != os.getpid():
            return
        self._closed = True
        for loop_thread in (self._starting, self._current):
            if loop_thread is not None:
                loop_thread.begin_to_stop(patience)

    def stop(self, stop: Callable[[LoopThread], None] = LoopThread.stop) -> LoopThread | None:
        """Refuse new requests, and end the loop by `stop`; return it to be joined, or None."""
        if self._pid != os.getpid():
            return None  # a forked copy of the parent's loop, whose thread does not exist here
        self._closed = True
        if (starting := self._starting) is not None:
            starting.abort(AdapterClosed("the adapter was closed while it started"))
        with self._lock:
            current, self._current = self._current, None
        if current is not None:
            stop(current)
        return current

    def close(self) -> None:
        """End the loop, and wait until it has ended. Raises WouldBlockLoop on the loop's own thread."""
        self._check_thread()
        if (loop_thread := self.stop()) is not None:
            loop_thread.join()

    def jobs(self) -> list[Job]:
        """Return what runs on the loop for requests, or is about to. Takes no lock, and starts nothing."""
        current = self._current
        return [] if current is None else current.jobs()

    def close_websockets(self) -> None:
        """Close the open WebSockets; do not wait. Takes no lock, like `begin_to_stop`."""
        current = self._current
        if current is not None:
            current.tell_to_stop()

    def close_streams(self) -> None:
        """End the event streams; do not wait. Takes no lock, like `begin_to_stop`."""
        current = self._current
        if current is not None:
            current.close_streams()

    def __del__(self) -> None:
        current = self._current
        if current is not None and self._pid == os.getpid():  # the adapter was dropped without close()
            _dropped.add(current)
            current.drop()


_private_loops: WeakRegistry[PrivateLoop] = WeakRegistry()
_dropped: WeakRegistry[LoopThread] = WeakRegistry()  # each stays alive while its thread runs


def _loops_without_adapter() -> list[LoopThread]:
    return [loop_thread for loop_thread in _dropped.items() if loop_thread.pid == os.getpid()]


def begin_to_stop_all(patience: float) -> None:
    """Begin to stop all loops of the process; see `PrivateLoop.begin_to_stop`."""
    for private_loop in _private_loops.items():
        private_loop.begin_to_stop(patience)
    for loop_thread in _loops_without_adapter():
        loop_thread.begin_to_stop(patience)


def close_all(stop: Callable[[LoopThread], None] = LoopThread.stop) -> None:
    """End all loops of the process at the same time by `stop`, and wait until they have ended."""
    stopped = _loops_without_adapter()
    for loop_thread in stopped:
        stop(loop_thread)
    stopped += filter(None, [private_loop.stop(stop) for private_loop in _private_loops.items()])
    for loop_thread in stopped:
        loop_thread.join()


def _stop_at_exit(loop_thread: LoopThread) -> None:
    """End a loop at the interpreter's exit.

    By then the requests in the server's threads have had the time that the server allows. It does not know of detached
    responses, so if there are any, the loop gets `shutdown_timeout`.
    """
    detached = any(isinstance(job, DetachedResponse) and job.is_to_finish for job in loop_thread.jobs())
    loop_thread.stop(None if detached else _EXIT_GRACE)


@functools.cache
def _register_close_all() -> None:
    call_at_exit(functools.partial(close_all, _stop_at_exit))
