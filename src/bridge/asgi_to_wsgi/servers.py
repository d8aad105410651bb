"""What WSGI servers, and the libraries that patch the world beneath them, offer beyond PEP 3333.

The one place that knows any of them by name.
"""

import asyncio
import select
import selectors
import sys
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from bridge.errors import BridgeError
from bridge.types import Environ

_SOCKET_KEYS = ("gunicorn.socket", "werkzeug.socket")
_POLLRDHUP: int = getattr(select, "POLLRDHUP", 0)


def maybe_client_check(environ: Environ) -> Callable[[], bool] | None:
    """Return what tells whether the client has left, where the server offers a way to know.

    It is called in the request's WSGI thread, and does not wait. The sockets of gunicorn, Werkzeug
    and uWSGI are asked on Linux, where the system knows; they are only looked at.
    """
    if (check := environ.get("waitress.client_disconnected")) is not None:
        return cast("Callable[[], bool]", check)
    connection: Any = next((environ[key] for key in _SOCKET_KEYS if environ.get(key) is not None), None)
    if connection is None and "uwsgi.version" in environ and "uwsgi" in sys.modules:  # else it is a recorded one
        connection = sys.modules["uwsgi"].connection_fd()
    return None if connection is None else maybe_hang_up_check(connection)


def maybe_hang_up_check(connection: Any) -> Callable[[], bool] | None:
    """Return what tells whether a socket's peer has hung up, even behind unread bytes; None where no system call does.

    It does not wait, in whatever thread or greenlet it is called.
    """
    make_poll = _original_poll()
    if not _POLLRDHUP or make_poll is None:
        return None
    poll = make_poll()
    try:
        poll.register(connection, _POLLRDHUP)  # POLLHUP and POLLERR come unasked
    except (OSError, TypeError, ValueError):
        return None
    return lambda: bool(poll.poll(0))


def decode_path(environ: Environ) -> None:
    """Decode PATH_INFO where Passenger has left it as it stands in the request target.

    https://github.com/phusion/passenger/issues/1828. Middleware that has done so by now is left alone.
    """
    path_info = environ.get("PATH_INFO") or ""
    if "passenger.hijack" in environ and "%" in path_info:
        target, _, _ = (environ.get("REQUEST_URI") or "").partition("?")
        if target == (environ.get("SCRIPT_NAME") or "") + path_info:
            environ["PATH_INFO"] = unquote_to_bytes(path_info.encode("latin-1")).decode("latin-1")


def maybe_green_loop_factory(backend: str, backend_options: dict[str, Any]) -> Any:
    """Return what makes an event loop that runs beside greenlets; None in a world of threads.

    Where gevent or eventlet patched `threading`, the loop's thread is a greenlet, and a loop that
    waits outside their hub (trio, uvloop) would stop the whole process. Raises BridgeError then.
    """
    patched_by = maybe_patched_by()
    if patched_by is None:
        return None
    if backend != "asyncio" or backend_options:
        raise BridgeError(
            f"{patched_by} has patched this process, and only a plain asyncio loop can run under it: "
            'leave ASGIToWSGI(backend=, backend_options=) at "asyncio" and None, or use a worker '
            "with real threads (gunicorn -k gthread)"
        )
    return lambda: asyncio.SelectorEventLoop(_green_selector())


def maybe_patched_by() -> str | None:
    """Return whose greenlets the process's threads are, if they are. Raises BridgeError for half a patch."""
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


def _original_poll() -> Any:
    """Return `select.poll` as it was: the patched ones do not know who left, and ours never waits."""
    gevent_monkey, eventlet_patcher = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if gevent_monkey is not None and gevent_monkey.is_module_patched("select"):
        return gevent_monkey.get_original("select", "poll")
    if eventlet_patcher is not None and eventlet_patcher.is_monkey_patched("select"):
        return eventlet_patcher.original("select").poll
    return getattr(select, "poll", None)


def _green_selector() -> selectors.BaseSelector:
    """Return the patched selector, which hides the running loop from the other greenlets while its own one waits.

    asyncio keeps the running loop by OS thread, which all greenlets share: they would seem to be
    inside of it, and asyncio.run() and asgiref's async_to_sync would refuse to work.
    """

    class GreenSelector(selectors.DefaultSelector):  # as it is now: this module may be older than the patch
        def select(self, timeout: float | None = None) -> Any:
            loop = asyncio._get_running_loop()
            asyncio._set_running_loop(None)
            try:
                return super().select(timeout)
            finally:
                asyncio._set_running_loop(loop)

    return GreenSelector()
