"""The client's connection, found in what a WSGI server gives, and taken from it.

Each server keeps it elsewhere, some by a private name: what is not found is a refusal, no error.
"""

import contextlib
import importlib
import math
import os
import select
import socket
import ssl
import sys
import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

from bridge.asgi_to_wsgi.servers import maybe_hang_up_check, maybe_patched_by
from bridge.types import Environ

_BLOCK_SIZE = 64 * 1024
# How often a thread that carries a connection looks whether the loop still lives, in seconds.
_LOOK_AROUND = 1.0
# How long a client may take over the last words, and to hang up after them, in seconds.
_LINGER = 2.0

_Wait: TypeAlias = Callable[[list[Any], list[Any], float], object]

# Servers whose `wsgi.input` has the socket beneath it, by the beginning of SERVER_SOFTWARE; the last is wsgiref's.
_BENEATH_INPUT = ("gevent/", "Cheroot/", "WSGIServer/")


class Connection(NamedTuple):
    """A server's connection to a client.

    sock
        The server's own socket object, whatever its class; one of ours for uWSGI.
    green
        "gevent" or "eventlet" if waiting for it is theirs, else None.
    stealable
        Whether the descriptor can be taken from under the server.
    end
        What is to be called before the server goes on with a connection that was carried.
    inode
        By what the system knows it: the number of a descriptor that was closed is soon another's.
    unsent
        Returns how much of earlier responses the server has still to send.
    is_open, lock
        Whether the server has not begun to close it, which it does not while `lock` is held.
    """

    sock: Any
    green: str | None
    stealable: bool
    end: Callable[[], object]
    inode: int | None = None
    unsent: Callable[[], int] = lambda: 0
    is_open: Callable[[], bool] = lambda: True
    lock: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()


def maybe_connection(environ: Environ) -> Connection | None:
    """Return the request's connection; None where the server keeps it to itself."""
    if environ.get("SERVER_PROTOCOL", "").startswith(("HTTP/2", "HTTP/3")):
        return None  # the socket is that of many requests
    if "uwsgi.version" in environ and "uwsgi" in sys.modules:  # else the environ is a recorded one
        return _maybe_from_uwsgi(environ)
    sock, end = _maybe_socket(environ), _nothing
    fileno = getattr(sock, "fileno", None)
    if not callable(fileno) or (number := fileno()) < 0:
        return None
    green = _maybe_green(sock) or maybe_patched_by()
    if green == "eventlet" and "eventlet.input" in environ:
        end = _tell_eventlet
    # gevent's SSLSocket is none of the ssl module's.
    tls = isinstance(sock, ssl.SSLSocket) or hasattr(sock, "do_handshake")
    connection = Connection(sock, green, not (tls or green or sys.platform == "win32"), end)
    if connection.stealable:
        connection = connection._replace(inode=os.fstat(number).st_ino)
    channel = getattr(environ.get("waitress.client_disconnected"), "__self__", None)
    if channel is not None and channel.socket is sock:
        # Its main thread sends and closes while requests run, perhaps the response before a pipelined request.
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
        # With a lookahead its main thread reads from the socket while the app runs.
        known = all(hasattr(channel, name) for name in ("total_outbufs_len", "connected", "outbuf_lock"))
        if known and _follow(channel, ("adj", "channel_request_lookahead")) == 0:
            return _follow(channel, ("socket",))
        return None
    if environ.get("SERVER_SOFTWARE", "").startswith(_BENEATH_INPUT):
        stream = environ.get("wsgi.input")
        while (inner := getattr(stream, "rfile", None)) is not None:  # cheroot's, which count what is read
            stream = inner
        return _follow(stream, ("raw", "_sock"))
    return None


def _maybe_from_uwsgi(environ: Environ) -> Connection | None:
    uwsgi = sys.modules["uwsgi"]
    options = {option.decode() if isinstance(option, bytes) else option for option in uwsgi.opt}
    green = "gevent" if "gevent" in options else None
    if not green and not options & {"threads", "enable-threads"}:
        return None  # the loop's thread would run during requests only
    if environ["wsgi.url_scheme"] == "https" and "https-socket" in options:
        return None  # what goes through the descriptor is encrypted
    number = uwsgi.connection_fd()
    if number < 0:
        return None
    inode = os.fstat(number).st_ino
    return Connection(Descriptor(number), green, not green, lambda: _kill(number, True), inode)


class Descriptor(NamedTuple):
    """uWSGI's descriptor in a socket's place."""

    number: int

    def fileno(self) -> int:
        return self.number


def _follow(start: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        start = getattr(start, name, None)
    return start


def _maybe_green(sock: object) -> str | None:
    rooms = {base.__module__.partition(".")[0] for base in type(sock).__mro__}
    return next((green for green in ("gevent", "eventlet") if green in rooms), None)


def _nothing() -> None:
    pass


def _tell_eventlet() -> None:
    """Have it send no response, which it would log the failure of."""
    sys.modules["eventlet.wsgi"].WSGI_LOCAL.already_handled = True


def steal(connection: Connection) -> socket.socket:
    """Return the connection as a socket of our own, and leave the server a dead one in its place.

    Raises OSError if the server has closed it.
    """
    with connection.lock:
        number = connection.sock.fileno()
        ours = socket.socket(fileno=os.dup(number))
        try:
            inode = os.fstat(ours.fileno()).st_ino
            if not connection.is_open() or connection.sock.fileno() != number or inode != connection.inode:
                raise ConnectionAbortedError("the server has closed the connection")
            ours.setblocking(False)
            _kill(number, isinstance(connection.sock, Descriptor))
        except BaseException:
            ours.close()
            raise
    _tune(ours)
    return ours


def _kill(number: int, mute: bool) -> None:
    """Put something dead in the place of a descriptor.

    A socket whose other end is closed: whatever the server does with it ends as if the client had
    left. If `mute`, /dev/null: uWSGI, which writes without asking for a socket, would log that.
    """
    if mute:
        with open(os.devnull, "r+b", buffering=0) as null:
            os.dup2(null.fileno(), number, inheritable=False)
    else:
        dead, other = socket.socketpair()
        with dead, other:
            os.dup2(dead.fileno(), number, inheritable=False)


# A client that vanishes while its messages wait unread cannot be pinged: the system looks after it then, for a minute.
# While it is read, pings come before that.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}


def _tune(sock: Any) -> None:
    """Have small frames leave at once, and a client that has vanished noticed even where nothing is read."""
    if getattr(sock, "family", None) in (socket.AF_INET, socket.AF_INET6):
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, True)
            for name, value in _KEEP_ALIVE.items():
                if hasattr(socket, name):
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        except OSError:
            pass  # the client has left


def carry(
    connection: Connection, ours: socket.socket, alive: Callable[[], bool], client_left: Callable[[], object]
) -> None:
    """Carry bytes between the server's socket and `ours`; in the WSGI thread, until either has ended.

    At most a block waits on each way, so a client that does not read is felt at the other end. Who
    ends each wait: the client; the other end of `ours`, by closing; or `alive`, by saying no, which
    is asked again and again: then what is on its way to the client gets a moment. Calls `client_left`
    if the client hangs up behind bytes that the other end does not read.
    """
    wait = _wait_for(connection.green)
    sock = connection.sock
    if isinstance(sock, Descriptor):
        sock = socket.socket(fileno=os.dup(sock.fileno()))
    try:
        sock.setblocking(False)  # settimeout(0) is not the same to eventlet's TLS
        ours.setblocking(False)
        _tune(sock)
        inward, outward = _Way(sock, ours), _Way(ours, sock)
        deadline = math.inf
        has_hung_up, next_look = maybe_hang_up_check(sock), time.monotonic() + _LOOK_AROUND
        while not outward.ended and time.monotonic() < deadline:
            moved = inward.move()
            if not (outward.move() or moved):
                wait(
                    [way.awaited for way in (inward, outward) if way.awaited_event == "read"],
                    [way.awaited for way in (inward, outward) if way.awaited_event == "write"],
                    _LOOK_AROUND,
                )
            if inward.awaited_event == "write" and has_hung_up is not None and time.monotonic() >= next_look:
                next_look = time.monotonic() + _LOOK_AROUND
                if has_hung_up():
                    client_left()
                    has_hung_up = None
            if deadline == math.inf and not alive():
                deadline = time.monotonic() + _LINGER
        _await_hang_up(sock, wait)
    except OSError:
        pass  # the client has left
    finally:
        ours.close()
        try:
            # Even if the server ends this greenlet: nothing it does with the connection now goes anywhere.
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is over already
        if sock is not connection.sock:
            sock.close()
        connection.end()


class _Way:
    """One direction of a connection that is carried."""

    def __init__(self, source: Any, target: Any) -> None:
        self.ended = False
        self.awaited: Any = source
        self.awaited_event: Literal["read", "write", ""] = ""
        self._source = source
        self._target = target
        self._block = memoryview(b"")

    def move(self) -> bool:
        """Do what can be done without waiting; return whether that was anything."""
        if self.ended:
            return False
        self.awaited = self._source
        try:
            if not self._block:
                self._block = memoryview(self._source.recv(_BLOCK_SIZE))
            if self._block:
                self.awaited = self._target
                sent = self._target.send(self._block)
                self._block = self._block[sent:]
                self.awaited_event = "" if sent else "write"  # gevent's TLS returns 0 where others raise
                return bool(sent)
        except ssl.SSLWantReadError:
            self.awaited_event = "read"
            return False
        except (ssl.SSLWantWriteError, BlockingIOError) as error:
            reading = self.awaited is self._source and isinstance(error, BlockingIOError)
            self.awaited_event = "read" if reading else "write"
            return False
        except OSError:
            pass  # one of the two has gone
        self.ended = True
        self.awaited_event = ""
        try:
            self._target.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it was the target
        return True


def _await_hang_up(sock: Any, wait: _Wait) -> None:
    """Let the client hang up first.

    Closing with something unread would reset the connection, and the last words could be lost.
    """
    sock.shutdown(socket.SHUT_WR)
    deadline = time.monotonic() + _LINGER
    while time.monotonic() < deadline:
        try:
            if not sock.recv(_BLOCK_SIZE):
                return
        except BlockingIOError:
            wait([sock], [], _LOOK_AROUND)


def _wait_for(green: str | None) -> _Wait:
    """Return what waits for sockets as the thread, or greenlet, at hand has to."""
    if green is not None:
        select_function = importlib.import_module(
            {"gevent": "gevent.select", "eventlet": "eventlet.green.select"}[green]
        )
        return lambda readers, writers, timeout: select_function.select(readers, writers, [], timeout)
    if hasattr(select, "poll"):
        return _poll  # select() knows no descriptor beyond 1023
    return lambda readers, writers, timeout: select.select(readers, writers, [], timeout)


def _poll(readers: list[Any], writers: list[Any], timeout: float) -> None:
    poll = select.poll()
    for sock in {*readers, *writers}:
        poll.register(sock, select.POLLIN * (sock in readers) | select.POLLOUT * (sock in writers))
    poll.poll(timeout * 1000)
