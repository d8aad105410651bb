import errno
import os
import socket
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.asgi_to_wsgi import sockets
from bridge.asgi_to_wsgi.sockets import ClientConnection, maybe_connection, steal
from bridge.runtime import PerProcess
from tests.fakes import http_environ


class TLS(socket.socket):
    """An object that looks like a TLS socket. A test decides what its methods do."""

    do_handshake = None


# --- Finding --------------------------------------------------------------------------------------


def nested(value: Any, *names: str) -> Any:
    """Return an object from which a path of attributes leads to `value`."""
    for name in reversed(names):
        value = SimpleNamespace(**{name: value})
    return value


def environ_of(server: str, sock: Any) -> dict[str, Any]:
    """Return the part of a server's environ that leads to the socket."""
    adj = SimpleNamespace(channel_request_lookahead=0)
    environs: dict[str, Callable[[], dict[str, Any]]] = {
        "gunicorn": lambda: {"gunicorn.socket": sock},
        "gunicorn, pywsgi": lambda: {"gunicorn.sock": sock},
        "werkzeug": lambda: {"werkzeug.socket": sock},
        "eventlet": lambda: {"eventlet.input": SimpleNamespace(get_socket=lambda: sock)},
        "waitress": lambda: {"waitress.client_disconnected": Channel(sock, adj).client_disconnected},
        "pywsgi": lambda: {"SERVER_SOFTWARE": "gevent/24.10", "wsgi.input": nested(sock, "raw", "_sock")},
        "wsgiref": lambda: {"SERVER_SOFTWARE": "WSGIServer/0.2", "wsgi.input": nested(sock, "raw", "_sock")},
        "wsgiref of Python 3.15": lambda: {
            "SERVER_SOFTWARE": "WSGIServer",
            "wsgi.input": nested(sock, "raw", "_sock"),
        },
        "cheroot": lambda: {
            "SERVER_SOFTWARE": "Cheroot/11",
            "wsgi.input": nested(sock, "rfile", "rfile", "raw", "_sock"),
        },
    }
    return environs[server]()


class Channel:
    """The parts of waitress's channel that matter here."""

    def __init__(self, sock: Any, adj: Any) -> None:
        self.socket = sock
        self.adj = adj
        self.total_outbufs_len = 0
        self.connected = True
        self.outbuf_lock = threading.Condition()

    def client_disconnected(self) -> bool:
        return False


SERVERS = [
    *("gunicorn", "gunicorn, pywsgi", "werkzeug", "eventlet", "waitress", "pywsgi", "wsgiref"),
    *("wsgiref of Python 3.15", "cheroot"),
]


@pytest.mark.parametrize("server", SERVERS)
def test_the_socket_is_found_where_the_server_keeps_it(server: str, pair: tuple[socket.socket, socket.socket]) -> None:
    """The socket is found through each server's environ, and can be taken."""
    connection = maybe_connection(http_environ(**environ_of(server, pair[0])))
    assert connection is not None
    assert connection.sock is pair[0]
    assert connection.green is None
    assert connection.stealable


@pytest.mark.parametrize("sock", [None, object(), SimpleNamespace(fileno=None), SimpleNamespace(fileno=lambda: -1)])
@pytest.mark.parametrize("server", SERVERS)
def test_what_is_no_socket_is_not_found(server: str, sock: Any) -> None:
    """It is no error if a server has changed, or has closed the connection."""
    assert maybe_connection(http_environ(**environ_of(server, sock))) is None


def test_without_a_way_there_is_no_connection(pair: tuple[socket.socket, socket.socket]) -> None:
    """Unknown servers, HTTP/2 streams, and a waitress that reads ahead have no connection."""
    assert maybe_connection(http_environ()) is None
    assert maybe_connection(http_environ(**{"SERVER_SOFTWARE": "gevent/24.10", "wsgi.input": None})) is None
    assert maybe_connection(http_environ(**{"gunicorn.socket": pair[0], "SERVER_PROTOCOL": "HTTP/2.0"})) is None
    channel = Channel(pair[0], SimpleNamespace(channel_request_lookahead=1))
    assert maybe_connection(http_environ(**{"waitress.client_disconnected": channel.client_disconnected})) is None
    assert maybe_connection(http_environ(**{"waitress.client_disconnected": lambda: False})) is None


def test_tls_and_greenlets_keep_their_sockets(pair: tuple[socket.socket, socket.socket]) -> None:
    """Sockets are recognised by what they are: gevent's SSLSocket is not the ssl module's."""
    tls = TLS(fileno=os.dup(pair[0].fileno()))
    with tls:
        connection = maybe_connection(http_environ(**{"werkzeug.socket": tls}))
    assert connection is not None
    assert not connection.stealable
    green = type("socket", (socket.socket,), {"__module__": "gevent._socket3"})(fileno=os.dup(pair[0].fileno()))
    with green:
        connection = maybe_connection(http_environ(**{"gunicorn.socket": green}))
    assert connection is not None
    assert (connection.green, connection.stealable) == ("gevent", False)


@pytest.mark.parametrize(
    ("options", "keys", "green"),
    [
        ({"threads": b"4"}, {}, None),
        ({b"enable-threads": True}, {}, None),
        ({"gevent": b"100", "https-socket": b"x"}, {}, "gevent"),
        ({}, {}, "unable"),
        ({"threads": b"4", "https-socket": b"x"}, {"wsgi.url_scheme": "https"}, "unable"),
    ],
)
def test_uwsgi_is_asked_for_its_descriptor(
    options: dict[Any, Any],
    keys: dict[str, Any],
    green: str | None,
    pair: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """uWSGI is asked for its descriptor if its threads run between requests and the descriptor carries plain HTTP."""
    uwsgi = SimpleNamespace(opt=options, connection_fd=pair[0].fileno)
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    connection = maybe_connection(http_environ(**{"uwsgi.version": b"2.0", **keys}))
    if green == "unable":
        assert connection is None
    else:
        assert connection is not None
        assert connection.sock.fileno() == pair[0].fileno()
        assert (connection.green, connection.stealable) == (green, green is None)
    uwsgi.connection_fd = lambda: -1
    assert maybe_connection(http_environ(**{"uwsgi.version": b"2.0", **keys})) is None


# --- Taking ---------------------------------------------------------------------------------------


def test_a_stolen_socket_is_ours_and_the_servers_is_dead(pair: tuple[socket.socket, socket.socket]) -> None:
    """The server sees the end of its own socket, as if the client had left, and closing it does nothing."""
    server, client = pair
    connection = maybe_connection(http_environ(**{"gunicorn.socket": server}))
    assert connection is not None
    with steal(connection) as ours:
        assert not ours.getblocking()
        assert server.recv(100) == b""
        with pytest.raises(BrokenPipeError):
            server.sendall(b"HTTP/1.1 500 Oops")
        server.close()
        ours.send(b"hello")
        assert client.recv(100) == b"hello"
        client.sendall(b"hello too")
        assert ours.recv(100) == b"hello too"
    assert client.recv(100) == b""


def test_a_stolen_tcp_connection_is_looked_after_by_the_system() -> None:
    """Small frames are sent at once, and a client that vanished is noticed without a read."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        server, _ = listener.accept()
        connection = maybe_connection(http_environ(**{"gunicorn.socket": server}))
        assert connection is not None
        with server, steal(connection) as ours:
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_a_stolen_descriptor_is_mute(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """uWSGI's writes are dropped without an error, and its reads see the end."""
    server, client = pair
    uwsgi = SimpleNamespace(opt={"threads": b"4"}, connection_fd=server.fileno)
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    connection = maybe_connection(http_environ(**{"uwsgi.version": b"2.0"}))
    assert connection is not None
    with steal(connection) as ours:
        assert os.write(server.fileno(), b"HTTP/1.1 101 Switching Protocols") > 0
        assert os.read(server.fileno(), 100) == b""
        ours.send(b"hello")
        assert client.recv(100) == b"hello"


@pytest.mark.parametrize("server", ["gunicorn", "waitress"])
def test_the_connection_of_another_client_is_not_stolen(server: str, pair: tuple[socket.socket, socket.socket]) -> None:
    """If the server has closed the connection, the descriptor may belong to the next one."""
    number = pair[0].fileno()
    sock: Any = SimpleNamespace(fileno=lambda: number)  # the server's object, which does not know that it was closed
    connection = maybe_connection(http_environ(**environ_of(server, sock)))
    assert connection is not None
    another, client = socket.socketpair()
    with another, client:
        os.dup2(another.fileno(), number)
        with pytest.raises(ConnectionAbortedError, match="the server has closed"):
            steal(connection)
        os.write(number, b"HTTP/1.1 200 OK")
        assert client.recv(100) == b"HTTP/1.1 200 OK"


def test_waitress_is_asked_whether_it_has_anything_to_send_and_does_not_close_meanwhile(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """waitress's main thread sends and closes while the app runs; what is not sent yet must be sent first."""
    channel = Channel(pair[0], SimpleNamespace(channel_request_lookahead=0))
    connection = maybe_connection(http_environ(**{"waitress.client_disconnected": channel.client_disconnected}))
    assert connection is not None
    assert connection.unsent() == 0
    channel.total_outbufs_len = 5
    assert connection.unsent() == 5
    channel.connected = False
    with pytest.raises(ConnectionAbortedError):
        steal(connection)
    channel.connected = True
    kill = sockets._kill
    locked: list[bool] = []

    def kill_under_lock(number: int, mute: bool) -> None:
        closer = threading.Thread(target=lambda: locked.append(not channel.outbuf_lock.acquire(blocking=False)))
        closer.start()
        closer.join(5)
        kill(number, mute)

    monkeypatch.setattr(sockets, "_kill", kill_under_lock)
    steal(connection).close()
    assert locked == [True]


@pytest.mark.parametrize("mute", [False, True])
def test_a_program_that_the_server_starts_inherits_nothing_stolen(
    pair: tuple[socket.socket, socket.socket], mute: bool
) -> None:
    """Otherwise the client's connection would stay open as long as that program runs."""
    server, _ = pair
    stolen = sockets.Descriptor(server.fileno()) if mute else server
    with steal(ClientConnection(stolen, None, True, print, os.fstat(server.fileno()).st_ino)) as ours:
        assert not os.get_inheritable(ours.fileno())
        assert not os.get_inheritable(server.fileno())


@pytest.mark.parametrize("mute", [False, True])
def test_thefts_share_one_dead_descriptor(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, mute: bool
) -> None:
    """The next connection costs no socket pair, even after a server has shut its dead socket down, and closed it."""
    monkeypatch.setattr(sockets, "_dead", PerProcess(sockets._open_dead))
    monkeypatch.setattr(sockets, "_null", PerProcess(sockets._open_null))

    def take(server: socket.socket) -> None:
        stolen = sockets.Descriptor(server.fileno()) if mute else server
        steal(ClientConnection(stolen, None, True, print, os.fstat(server.fileno()).st_ino)).close()
        assert os.read(server.fileno(), 100) == b""

    take(pair[0])
    if not mute:
        pair[0].shutdown(socket.SHUT_RDWR)
    pair[0].close()
    with socket.socket() as server, socket.create_server(("127.0.0.1", 0)) as listener:
        server.connect(listener.getsockname())
        monkeypatch.setattr(socket, "socketpair", None)
        monkeypatch.setattr(os, "open", None)
        take(server)


def test_the_dead_descriptor_does_not_outlive_its_owner() -> None:
    """The dead descriptor is closed with the process, without a warning."""
    reader, writer = os.pipe()
    with open(reader, "rb") as end:
        descriptor = sockets._Descriptor(writer)
        assert descriptor.number == writer
        del descriptor
        assert end.read() == b""


def test_a_theft_that_fails_leaves_everything_as_it_was(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a free descriptor the server keeps its socket, and the client its connection."""
    pair[0].setblocking(True)
    connection = maybe_connection(http_environ(**{"gunicorn.socket": pair[0]}))
    assert connection is not None

    def no_more() -> None:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(sockets, "_dead", PerProcess(sockets._open_dead))  # as in a new process
    monkeypatch.setattr(socket, "socketpair", no_more)
    with pytest.raises(OSError, match="too many open files"):
        steal(connection)
    assert os.get_blocking(pair[0].fileno())  # the copy, which was closed, shared this mode
    pair[0].sendall(b"HTTP/1.1 500 Oops")
    assert pair[1].recv(100) == b"HTTP/1.1 500 Oops"


def test_a_descriptor_that_is_no_socket_is_not_stolen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its copy is closed."""
    copies: list[int] = []
    dup = os.dup

    def note(number: int) -> int:
        copies.append(dup(number))
        return copies[-1]

    monkeypatch.setattr(os, "dup", note)
    with open(os.devnull, "rb") as file:
        with pytest.raises(OSError, match="non-socket"):
            steal(ClientConnection(sockets.Descriptor(file.fileno()), None, True, print))
        assert file.read() == b""
    assert len(copies) == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(copies[0])
