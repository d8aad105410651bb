"""The private loop of each adapter and process, and its end."""

import functools
import os
import threading
import weakref
from typing import Any

from bridge.asgi_to_wsgi.loop import LoopThread
from bridge.errors import AdapterClosed
from bridge.runtime import call_at_exit
from bridge.types import ASGIApp

# How long the interpreter's exit waits for requests and background work in flight, in seconds.
_EXIT_GRACE = 1.0


class PrivateLoop:
    """The loop of one adapter in one process: started when it is first needed, ended by `close`.

    Its methods may be called from any thread. A start that failed is tried again by the next.
    """

    def __init__(self, app: ASGIApp, options: dict[str, Any]) -> None:
        self._app = app
        self._options = options
        self._pid = os.getpid()
        self._lock = threading.RLock()  # held while the loop starts, so no longer than startup_timeout
        self._current: LoopThread | None = None
        self._starting: LoopThread | None = None
        self._closed = False
        _register_close_all()
        _private_loops.add(self)

    def get(self, reopen: bool = False) -> LoopThread:
        """Return the running loop, starting it if need be. Raises StartupFailed, AdapterClosed, WouldBlockLoop."""
        current = self._current
        if current is not None and not current.ended:
            return current
        self._check_thread()
        with self._lock:
            if reopen:
                self._closed = False
            if self._closed:
                raise AdapterClosed("the adapter was closed; start() opens it again")
            if self._current is None or self._current.ended:
                self._starting = LoopThread(self._app, **self._options)
                try:
                    if self._closed:  # by a close() that came just before there was something to abort
                        raise AdapterClosed("the adapter was closed; start() opens it again")
                    self._starting.start()
                    self._current = self._starting
                finally:
                    self._starting = None
            return self._current

    def _check_thread(self) -> None:
        """Raise WouldBlockLoop on the thread of the loop that runs, or starts and has its starter hold the lock."""
        for loop_thread in (self._current, self._starting):
            if loop_thread is not None:
                loop_thread.check_thread()

    def stop(self, grace: float) -> LoopThread | None:
        """Refuse new requests and have the loop end; return what is left to join."""
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

    def close_websockets(self) -> None:
        """Have what is open say goodbye; takes no lock, as it may interrupt who holds it."""
        current = self._current
        if current is not None:
            current.say_goodbye()

    def __del__(self) -> None:
        if self._current is not None:  # an adapter that was dropped without close()
            self.stop(_EXIT_GRACE)

    def close(self, grace: float) -> None:
        """End the loop, and wait for that. Raises WouldBlockLoop on the loop's own thread."""
        self._check_thread()
        if (loop_thread := self.stop(grace)) is not None:
            loop_thread.join()


_private_loops: "weakref.WeakSet[PrivateLoop]" = weakref.WeakSet()


@functools.cache
def _register_close_all() -> None:
    call_at_exit(_close_all)


def _close_all() -> None:
    stopped = [private_loop.stop(_EXIT_GRACE) for private_loop in list(_private_loops)]
    for loop_thread in stopped:
        if loop_thread is not None:
            loop_thread.join()
