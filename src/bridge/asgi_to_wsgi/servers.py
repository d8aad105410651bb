"""What WSGI servers offer beyond PEP 3333, and how gevent and eventlet change the event loop.

Only this module and `sockets` know servers by name.
"""

import asyncio
import io
import select
import selectors
import sys
import types
from collections.abc import Callable, MutableMapping
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from bridge.errors import BridgeError
from bridge.types import Environ

_SOCKET_KEYS = ("gunicorn.socket", "werkzeug.socket")
_POLLRDHUP: int = getattr(select, "POLLRDHUP", 0)


def maybe_client_check(environ: Environ) -> Callable[[], bool] | None:
    """Return a function that tells whether the client has left, or None if the server offers no way to know.

    Call the function in the request's WSGI thread. It does not wait. For gunicorn, Werkzeug and uWSGI
    it asks Linux about their socket, and reads nothing from it.
    """
    if (check := environ.get("waitress.client_disconnected")) is not None:
        return cast("Callable[[], bool]", check)
    connection: Any = next((environ[key] for key in _SOCKET_KEYS if environ.get(key) is not None), None)
    if connection is None and "uwsgi.version" in environ and "uwsgi" in sys.modules:  # else a recorded environ
        connection = sys.modules["uwsgi"].connection_fd()
    return None if connection is None else maybe_hang_up_check(connection)


def maybe_hang_up_check(connection: Any) -> Callable[[], bool] | None:
    """Return a function that tells whether a socket's peer has hung up, even if bytes before that are unread.

    Return None if the system cannot tell. The function does not wait, in any thread or greenlet.
    """
    make_poll = _original_poll()
    if not _POLLRDHUP or make_poll is None:
        return None
    poll = make_poll()
    try:
        poll.register(connection, _POLLRDHUP)  # poll() always reports POLLHUP and POLLERR
    except (OSError, TypeError, ValueError):
        return None
    return lambda: bool(poll.poll(0))


# The types of the servers' start_response. An object of another type may be any callable, so its attributes are never
# read (PEP 3333, Specification Details).
_FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType)
# The modules in which servers whose connections can be taken define start_response.
_START_RESPONSE_MODULES = frozenset(
    {"gunicorn.http.wsgi", "waitress.task", "cheroot.wsgi", "werkzeug.serving", "wsgiref.handlers"}
)


def is_start_response_of_server(start_response: Any) -> bool:
    """Return whether a known server made this start_response; middleware that changes headers passes one of its own."""
    if type(start_response) not in _FUNCTIONS:
        return False
    if hasattr(start_response, "__wrapped__"):  # functools.wraps copies the module's name
        return False
    module = getattr(start_response, "__module__", None)
    return module in _START_RESPONSE_MODULES or getattr(start_response, "__name__", None) == "uwsgi_spit"


def has_next_request(environ: Environ, start_response: Any) -> bool:
    """Return whether the server has read a request that the client pipelined, and will answer it after this one.

    The other servers close the connection when they cannot send a response, and drop such a request.
    """
    owner = _maybe_owner(start_response)
    if (buffered := follow(owner, ("req", "unreader", "buf", "getvalue"))) is not None:  # gunicorn
        return bool(buffered()) and not getattr(owner, "must_close", True)
    if environ.get("SERVER_SOFTWARE", "").startswith("Cheroot/"):
        has_data = getattr(stream_beneath_input(environ), "has_data", None)
        return has_data is not None and bool(has_data())
    channel: Any = getattr(environ.get("waitress.client_disconnected"), "__self__", None)
    if (lock := getattr(channel, "requests_lock", None)) is None:
        return False
    with lock:  # waitress's main thread holds it until it has added all the requests that it has read together
        return len(channel.requests) > 1 or channel.request is not None


def end_connection(start_response: Any) -> None:
    """Make cheroot close its end of a connection that was taken, and discard what it still writes.

    Otherwise it would keep what it cannot send, and Python 3.13 logs an error when it frees such a file.
    """
    request: Any = getattr(_maybe_owner(start_response), "req", None)
    connection: Any = getattr(request, "conn", None)
    if connection is not None and hasattr(connection, "wfile"):
        connection.wfile = io.BytesIO()
        request.close_connection = True


# Keys of the environ that are of use only during the server's call, and what replaces their values once a response has
# left its thread. Each value refers to a dozen of the server's objects, which the garbage collector would look through
# as long as the app waits.
_OF_THE_CALL = {
    "wsgi.input": io.BytesIO(),  # empty, because the body has been read
    "wsgi.early_hints": None,
    "gunicorn.socket": None,
    "werkzeug.socket": None,
    "waitress.client_disconnected": None,
}


def forget_call(request: MutableMapping[str, Any], environ: Environ) -> None:
    """Replace the objects that are of use only during the server's call in `request`, a copy of `environ`."""
    for key, instead in _OF_THE_CALL.items():
        if key in environ:
            request[key] = instead


def maybe_number_of_threads(environ: Environ, start_response: Any) -> int | None:
    """Return how many requests the server runs at once in this process; None if that is unknown, or has no limit."""
    if not environ.get("wsgi.multithread"):
        return 1
    server = _maybe_owner(start_response)
    candidates = (
        (server, ("cfg", "threads")),  # gunicorn
        (server, ("req", "server", "requests", "max")),  # cheroot
        (getattr(environ.get("waitress.client_disconnected"), "__self__", None), ("adj", "threads")),
    )
    for start, path in candidates:
        number = follow(start, path)
        if isinstance(number, int) and number > 0:
            return number
    options = uwsgi_options(environ)
    return int(options["threads"]) if options.get("threads", "").isdigit() else None


def may_answer_by_itself(environ: Environ, start_response: Any) -> bool:
    """Return whether bytes that are written to the connection reach the client unchanged.

    FastCGI and SCGI frame a response in their own way. A proxy that speaks uwsgi passes it on.
    """
    return not {"fastcgi-socket", "scgi-socket"} & set(uwsgi_options(environ)) and (
        _gunicorns_protocol(start_response) in ("", "http", "uwsgi")
    )


def may_send_chunks(environ: Environ, start_response: Any) -> bool:
    """Return whether chunk sizes reach the client; a proxy that speaks uwsgi would take them for a part of the body."""
    options = set(uwsgi_options(environ))
    if options:
        return "http-socket" in options and not options & {"socket", "uwsgi-socket", "http"}
    return _gunicorns_protocol(start_response) != "uwsgi"


def _maybe_owner(start_response: Any) -> Any:
    """Return the object of the server that `start_response` is a method of; None if it is another kind of callable."""
    return start_response.__self__ if type(start_response) is types.MethodType else None


def follow(start: Any, path: tuple[str, ...]) -> Any:
    """Return what a path of attributes leads to; None if one of them is missing."""
    for name in path:
        start = getattr(start, name, None)
    return start


def stream_beneath_input(environ: Environ) -> Any:
    """Return the stream that `wsgi.input` reads from: cheroot wraps it, to count bytes."""
    stream = environ.get("wsgi.input")
    while (inner := getattr(stream, "rfile", None)) is not None:
        stream = inner
    return stream


def _gunicorns_protocol(start_response: Any) -> str:
    cfg = getattr(_maybe_owner(start_response), "cfg", None)
    return str(getattr(cfg, "protocol", ""))


def uwsgi_options(environ: Environ) -> dict[str, str]:
    """Return uWSGI's options by name; none on another server."""
    if "uwsgi.version" not in environ or "uwsgi" not in sys.modules:  # a recorded environ
        return {}
    global _options
    opt = sys.modules["uwsgi"].opt
    if _options[0] is not opt:  # they never change, so read them once
        _options = opt, {_text(name): _text(value) for name, value in opt.items()}
    return _options[1]


_options: tuple[object, dict[str, str]] = (None, {})


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def decode_path(environ: Environ) -> None:
    """Decode PATH_INFO if Passenger has left it percent-encoded, and no middleware has decoded it since.

    See https://github.com/phusion/passenger/issues/1828.
    """
    path_info = environ.get("PATH_INFO") or ""
    if "passenger.hijack" in environ and "%" in path_info:
        target, _, _ = (environ.get("REQUEST_URI") or "").partition("?")
        if target == (environ.get("SCRIPT_NAME") or "") + path_info:
            environ["PATH_INFO"] = unquote_to_bytes(path_info.encode("latin-1")).decode("latin-1")


def maybe_green_loop_factory(backend: str, backend_options: dict[str, Any]) -> Any:
    """Return a factory for an event loop that runs beside greenlets, or None if threads are real.

    If gevent or eventlet has patched `threading`, the loop's thread is a greenlet. A loop that waits
    outside their hub (trio, uvloop) would then stop the whole process: raises BridgeError for those.
    """
    patched_by = maybe_patched_by()
    if patched_by is None:
        return None
    if backend != "asyncio" or backend_options:
        raise BridgeError(
            f"{patched_by} has patched this process, so only a plain asyncio loop can run in it: "
            'leave ASGIToWSGI(backend=, backend_options=) at "asyncio" and None, or use a worker '
            "with real threads (gunicorn -k gthread)"
        )
    return lambda: asyncio.SelectorEventLoop(_green_selector())


def maybe_patched_by() -> str | None:
    """Return the library whose greenlets replace the threads, or None. Raises BridgeError for half a patch."""
    gevent_monkey = sys.modules.get("gevent.monkey")
    if gevent_monkey is not None and gevent_monkey.is_module_patched("threading"):
        if not (gevent_monkey.is_module_patched("select") and gevent_monkey.is_module_patched("socket")):
            raise BridgeError(
                "gevent has patched threading but not select and socket, so any wait of the "
                "event loop would stop the process: call gevent.monkey.patch_all()"
            )
        return "gevent"
    eventlet_patcher = sys.modules.get("eventlet.patcher")
    if eventlet_patcher is not None and eventlet_patcher.is_monkey_patched("thread"):
        return "eventlet"
    return None


def _original_poll() -> Any:
    """Return the original `select.poll`: the patched ones do not report hang-ups, and we never wait in it."""
    gevent_monkey, eventlet_patcher = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if gevent_monkey is not None and gevent_monkey.is_module_patched("select"):
        return gevent_monkey.get_original("select", "poll")
    if eventlet_patcher is not None and eventlet_patcher.is_monkey_patched("select"):
        return eventlet_patcher.original("select").poll
    return getattr(select, "poll", None)


def _green_selector() -> selectors.BaseSelector:
    """Return the patched selector, and hide the running loop from other greenlets while the selector waits.

    asyncio records the running loop for each OS thread, which all greenlets share. Without this, each
    greenlet would seem to run inside the loop, and asyncio.run() and asgiref's async_to_sync would refuse.
    """

    class GreenSelector(selectors.DefaultSelector):  # looked up here, because the patch may come after the import
        def select(self, timeout: float | None = None) -> Any:
            loop = asyncio._get_running_loop()
            asyncio._set_running_loop(None)
            try:
                return super().select(timeout)
            finally:
                asyncio._set_running_loop(loop)

    return GreenSelector()
