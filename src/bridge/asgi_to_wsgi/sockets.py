"""Find the client's connection in what a WSGI server passes to the app, and take it from the server.

Each server stores it elsewhere, some under a private name. It is no error if the connection is not found:
a WebSocket is then refused, and a response keeps its thread.
"""

import contextlib
import errno
import math
import os
import socket
import ssl
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from bridge.asgi_to_wsgi.servers import follow, maybe_patched_by, stream_beneath_input, uwsgi_options
from bridge.runtime import PerProcess
from bridge.types import Environ

# How SERVER_SOFTWARE begins on servers whose `wsgi.input` wraps the socket. The last one is wsgiref's, which
# names no version from Python 3.15 on.
_BENEATH_INPUT = ("gevent/", "Cheroot/", "WSGIServer")


class ClientConnection(NamedTuple):
    """A server's connection to a client.

    sock
        The server's own socket object, of any class; for uWSGI a `Descriptor`.
    green
        "gevent" or "eventlet" if their hub must wait for it, else None.
    stealable
        Whether we can take the descriptor from the server.
    end
        Call this after the bytes have been carried, before the server continues.
    inode
        Identifies a lasting connection, because the system soon reuses the number of a closed descriptor.
    unsent
        Returns how many bytes of earlier responses the server has yet to send.
    is_open, lock
        `is_open` returns False once the server has begun to close the connection. It does not begin
        while `lock` is held.
    """

    sock: Any
    green: str | None
    stealable: bool
    end: Callable[[], object]
    inode: int | None = None
    unsent: Callable[[], int] = lambda: 0
    is_open: Callable[[], bool] = lambda: True
    lock: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()


def maybe_connection(environ: Environ, lasting: bool = True) -> ClientConnection | None:
    """Return the request's connection, or None if the server does not expose it.

    If it is not `lasting`, take it at once, before the server can close it.
    """
    if environ.get("SERVER_PROTOCOL", "").startswith(("HTTP/2", "HTTP/3")):
        return None  # many requests share the socket
    if "uwsgi.version" in environ and "uwsgi" in sys.modules:  # otherwise the environ is a recorded one
        return _maybe_from_uwsgi(environ, lasting)
    sock, end = _maybe_socket(environ), _nothing
    fileno = getattr(sock, "fileno", None)
    if not callable(fileno) or (number := fileno()) < 0:
        return None
    green = _maybe_green(sock) or maybe_patched_by()
    if green == "eventlet" and "eventlet.input" in environ:
        end = _tell_eventlet
    # gevent's SSLSocket is not a subclass of ssl.SSLSocket.
    tls = isinstance(sock, ssl.SSLSocket) or hasattr(sock, "do_handshake")
    connection = ClientConnection(sock, green, not (tls or green or sys.platform == "win32"), end)
    if lasting and connection.stealable:
        connection = connection._replace(inode=os.fstat(number).st_ino)
    channel = getattr(environ.get("waitress.client_disconnected"), "__self__", None)
    if channel is not None and channel.socket is sock:
        # While a request runs, waitress's main thread may send the response to an earlier one, or close the connection.
        connection = connection._replace(
            unsent=lambda: channel.total_outbufs_len, is_open=lambda: channel.connected, lock=channel.outbuf_lock
        )
    return connection


def _maybe_socket(environ: Environ) -> Any:
    for key in ("gunicorn.socket", "gunicorn.sock", "werkzeug.socket"):
        if environ.get(key) is not None:
            return environ[key]
    if "eventlet.input" in environ:
        get_socket = getattr(environ["eventlet.input"], "get_socket", None)
        return get_socket and get_socket()
    if "waitress.client_disconnected" in environ:
        channel = getattr(environ["waitress.client_disconnected"], "__self__", None)
        # With channel_request_lookahead, waitress's main thread reads from the socket while the app runs.
        known = all(hasattr(channel, name) for name in ("total_outbufs_len", "connected", "outbuf_lock"))
        if known and follow(channel, ("adj", "channel_request_lookahead")) == 0:
            return follow(channel, ("socket",))
        return None
    if environ.get("SERVER_SOFTWARE", "").startswith(_BENEATH_INPUT):
        return follow(stream_beneath_input(environ), ("raw", "_sock"))
    return None


def _maybe_from_uwsgi(environ: Environ, lasting: bool) -> ClientConnection | None:
    uwsgi = sys.modules["uwsgi"]
    options = uwsgi_options(environ).keys()
    green = "gevent" if "gevent" in options else None
    if not green and not options & {"threads", "enable-threads"}:
        return None  # without threads, the loop's thread runs only during requests
    if environ["wsgi.url_scheme"] == "https" and "https-socket" in options:
        return None  # the descriptor carries TLS records
    number = uwsgi.connection_fd()
    if number < 0:
        return None
    inode = os.fstat(number).st_ino if lasting else None
    return ClientConnection(Descriptor(number), green, not green, lambda: _kill(number, True), inode)


class Descriptor(NamedTuple):
    """uWSGI's descriptor, in place of a socket."""

    number: int

    def fileno(self) -> int:
        return self.number


def _maybe_green(sock: object) -> str | None:
    rooms = {base.__module__.partition(".")[0] for base in type(sock).__mro__}
    return next((green for green in ("gevent", "eventlet") if green in rooms), None)


def _nothing() -> None:
    pass


def _tell_eventlet() -> None:
    """Tell eventlet not to send a response, because it would log the failure."""
    sys.modules["eventlet.wsgi"].WSGI_LOCAL.already_handled = True


def steal(connection: ClientConnection, descriptors: float = math.inf) -> socket.socket:
    """Return the connection as our own socket, and leave a dead one in its place for the server.

    Raises OSError if the server has closed the connection, and with EMFILE if the socket's number would not be below
    `descriptors`: the system gives the lowest one that is free.
    """
    with connection.lock:
        number = connection.sock.fileno()
        ours = copy_of(number)
        try:
            if ours.fileno() >= descriptors:
                raise OSError(errno.EMFILE, f"{ours.fileno()} descriptors are open")
            is_same = connection.inode is None or os.fstat(ours.fileno()).st_ino == connection.inode
            if not connection.is_open() or connection.sock.fileno() != number or not is_same:
                raise ConnectionAbortedError("the server has closed the connection")
            _kill(number, isinstance(connection.sock, Descriptor))
            ours.setblocking(False)  # only now, because the server's socket shares this mode
        except BaseException:
            ours.close()
            raise
    tune(ours)
    return ours


def copy_of(number: int) -> socket.socket:
    """Return a socket of our own on the connection of a descriptor. Raises OSError if that is no socket."""
    copy = os.dup(number)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise


def _kill(number: int, mute: bool) -> None:
    """Replace what a descriptor refers to with a socket whose other end is closed.

    To the server it looks as if the client has left. If `mute`, use /dev/null instead, because uWSGI
    logs each write to such a socket.
    """
    os.dup2((_null if mute else _dead).get().number, number, inheritable=False)


class _Descriptor:
    """A descriptor to copy, closed when the interpreter exits."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # bound early, because `os` may be gone by then
        close(self.number)


def _open_dead() -> _Descriptor:
    dead, other = socket.socketpair()
    other.close()
    return _Descriptor(dead.detach())


def _open_null() -> _Descriptor:
    return _Descriptor(os.open(os.devnull, os.O_RDWR))


# One of each serves all connections of a process, because nobody can change how they behave.
_dead = PerProcess(_open_dead)
_null = PerProcess(_open_null)


# While a client's messages wait unread, its pongs wait behind them, so the system checks that it is still there: after
# 30 seconds of silence, for 30 more. At other times, pings notice sooner that a client has vanished.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}


def tune(sock: Any) -> None:
    """Send small frames without delay, and notice a vanished client even while nothing is read."""
    if getattr(sock, "family", None) in (socket.AF_INET, socket.AF_INET6):
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, True)
            for name, value in _KEEP_ALIVE.items():
                if hasattr(socket, name):
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        except OSError:
            pass  # the client has left
