"""The private loop of each adapter and process, and its end."""

import functools
import os
import threading
import weakref
from typing import Any, Generic, TypeVar

from bridge.asgi_to_wsgi.loop import LoopThread
from bridge.errors import AdapterClosed, StartupFailed
from bridge.runtime import call_at_exit
from bridge.types import ASGIApp

T = TypeVar("T")

# How long the interpreter's exit waits for requests and background work in flight, in seconds.
_EXIT_GRACE = 1.0


class WeakRegistry(Generic[T]):
    """Objects, for as long as they live. Takes no lock, so that a signal's handler may ask for them."""

    def __init__(self) -> None:
        self._references: set[weakref.ref[T]] = set()

    def add(self, item: T) -> None:
        self._references.add(weakref.ref(item, self._references.discard))

    def items(self) -> list[T]:
        """Return those that live at the moment."""
        return [item for reference in list(self._references) if (item := reference()) is not None]


class PrivateLoop:
    """The loop of one adapter in one process: started when it is first needed, ended by `close`.

    Its methods may be called from any thread. Those who wait for a start that fails share its
    failure; the next one tries again.
    """

    def __init__(self, app: ASGIApp, options: dict[str, Any]) -> None:
        self._app = app
        self._options = options
        self._pid = os.getpid()
        self._lock = threading.RLock()  # held while the loop starts, so no longer than startup_timeout
        self._current: LoopThread | None = None
        self._starting: LoopThread | None = None
        self._closed = False  # nothing starts any more, though what runs may serve on
        # Written under the lock:
        self._failures = 0
        self._failure = ""  # the latest, in words: the error itself would keep its frames alive
        _register_close_all()
        _private_loops.add(self)

    def get(self) -> LoopThread:
        """Return the running loop, starting it if need be. Raises StartupFailed, AdapterClosed, WouldBlockLoop."""
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
        """Raise WouldBlockLoop on the thread of the loop that runs, or starts and has its starter hold the lock."""
        for loop_thread in (self._current, self._starting):
            if loop_thread is not None:
                loop_thread.check_thread()

    def _start(self) -> None:
        """Start the loop; the caller holds the lock."""
        self._starting = LoopThread(self._app, **self._options)
        try:
            if self._closed:  # by a close() that came just before there was something to abort
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
            if self._current is not starting:  # an exception from without may come just behind the start
                starting.abort(AdapterClosed("the start of the adapter was interrupted"))

    def reopen(self) -> None:
        """Have the loop run, after `close` too. Raises StartupFailed, AdapterClosed."""
        if self._closed:
            with self._lock:
                if self._closed:
                    self.close()  # what is left, if that did not wait
                    self._closed = False
        self.get()

    def begin_to_stop(self, patience: float) -> None:
        """Have event streams and WebSockets end at once, and the loop within `patience` seconds; do not wait.

        Takes no lock, as it may interrupt who holds it.
        """
        if self._pid != os.getpid():
            return
        self._closed = True
        for loop_thread in (self._starting, self._current):
            if loop_thread is not None:
                loop_thread.begin_to_stop(patience)

    def stop(self, grace: float | None = None) -> LoopThread | None:
        """Refuse new requests and have the loop end, `shutdown_timeout` from now at most, or `grace` seconds.

        Return what is left to join.
        """
        if self._pid != os.getpid():
            return None  # a fork's copy of its parent's loop, whose thread is not here
        self._closed = True
        if (starting := self._starting) is not None:
            starting.abort(AdapterClosed("the adapter was closed while it started"))
        with self._lock:
            current, self._current = self._current, None
        if current is not None:
            current.stop(grace)
        return current

    def close(self) -> None:
        """End the loop, and wait for that. Raises WouldBlockLoop on the loop's own thread."""
        self._check_thread()
        if (loop_thread := self.stop()) is not None:
            loop_thread.join()

    def close_websockets(self) -> None:
        """Have what is open say goodbye; takes no lock, as it may interrupt who holds it."""
        current = self._current
        if current is not None:
            current.tell_to_stop()

    def __del__(self) -> None:
        current = self._current
        if current is not None and self._pid == os.getpid():  # an adapter that was dropped without close()
            _dropped.add(current)
            current.drop()


_private_loops: WeakRegistry[PrivateLoop] = WeakRegistry()
_dropped: WeakRegistry[LoopThread] = WeakRegistry()  # each lives as long as its thread runs


def _loops_without_adapter() -> list[LoopThread]:
    return [loop_thread for loop_thread in _dropped.items() if loop_thread.pid == os.getpid()]


def begin_to_stop_all(patience: float) -> None:
    """Have all loops of the process begin to stop, as `PrivateLoop.begin_to_stop` does."""
    for private_loop in _private_loops.items():
        private_loop.begin_to_stop(patience)
    for loop_thread in _loops_without_adapter():
        loop_thread.begin_to_stop(patience)


def close_all(grace: float | None = None) -> None:
    """End all loops of the process side by side, as `PrivateLoop.stop` does, and wait for that."""
    stopped = _loops_without_adapter()
    for loop_thread in stopped:
        loop_thread.stop(grace)
    stopped += filter(None, [private_loop.stop(grace) for private_loop in _private_loops.items()])
    for loop_thread in stopped:
        loop_thread.join()


@functools.cache
def _register_close_all() -> None:
    call_at_exit(functools.partial(close_all, _EXIT_GRACE))
