"""What WSGI servers, and the libraries that patch the world beneath them, offer beyond PEP 3333.

The one place that knows any of them by name.
"""

import asyncio
import contextlib
import select
import selectors
import socket
import sys
from typing import Any

from bridge.errors import BridgeError
from bridge.types import Environ

_SOCKET_KEYS = ("gunicorn.socket", "werkzeug.socket")
_POLLRDHUP: int = getattr(select, "POLLRDHUP", 0)


class ClientSocket:
    """The client's connection, which the server owns, and which is only ever looked at."""

    def __init__(self, sock: socket.socket) -> None:
        self._poll = select.poll()
        self._poll.register(sock, _POLLRDHUP)

    def has_left(self) -> bool:
        """Return whether the client has closed its side, or both; in the request's WSGI thread."""
        try:
            return bool(self._poll.poll(0))  # POLLHUP, POLLERR and POLLNVAL come unasked
        except OSError:
            return True


def maybe_client_socket(environ: Environ) -> ClientSocket | None:
    """Return the client's socket, where the server shows it and the system tells who left (Linux)."""
    for key in _SOCKET_KEYS:
        if _POLLRDHUP and (sock := environ.get(key)) is not None:
            with contextlib.suppress(OSError, TypeError, ValueError):
                return ClientSocket(sock)
    return None


def maybe_green_loop_factory(backend: str, backend_options: dict[str, Any]) -> Any:
    """Return what makes an event loop that runs beside greenlets; None in a world of threads.

    Where gevent or eventlet patched `threading`, the loop's thread is a greenlet, and a loop that
    waits outside their hub (trio, uvloop) would stop the whole process. Raises BridgeError then.
    """
    patched_by = _maybe_patched_by()
    if patched_by is None:
        return None
    if backend != "asyncio" or backend_options:
        raise BridgeError(
            f"{patched_by} has patched this process, and only a plain asyncio loop can run under it: "
            'leave ASGIToWSGI(backend=, backend_options=) at "asyncio" and None, or use a worker '
            "with real threads (gunicorn -k gthread)"
        )
    return lambda: asyncio.SelectorEventLoop(_GreenSelector())


def _maybe_patched_by() -> str | None:
    gevent_monkey = sys.modules.get("gevent.monkey")
    if gevent_monkey is not None and gevent_monkey.is_module_patched("threading"):
        if not (gevent_monkey.is_module_patched("select") and gevent_monkey.is_module_patched("socket")):
            raise BridgeError(
                "gevent has patched threading but not select and socket, so that any wait of the "
                "event loop would stop the process: call gevent.monkey.patch_all()"
            )
        return "gevent"
    eventlet_patcher = sys.modules.get("eventlet.patcher")
    if eventlet_patcher is not None and eventlet_patcher.is_monkey_patched("thread"):
        return "eventlet"
    return None


class _GreenSelector(selectors.DefaultSelector):
    """Hide the running loop from the other greenlets while its own one waits.

    asyncio keeps the running loop by OS thread, which all greenlets share: they would seem to be
    inside of it, and asyncio.run() and asgiref's async_to_sync would refuse to work.
    """

    def select(self, timeout: float | None = None) -> Any:
        loop = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            return super().select(timeout)
        finally:
            asyncio._set_running_loop(loop)
