"""What a WSGI app finds of its WebSocket in the environ: a socket, and gevent-websocket's object on top of it."""

import contextlib
import io
import re
import socket
import sys
import threading

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Event, Message, TextMessage
from wsproto.utilities import LocalProtocolError

from bridge.errors import ClientDisconnected
from bridge.types import Environ

_BLOCK_SIZE = 64 * 1024


def complete_environ(environ: Environ, sock: socket.socket, opening: bytes, disconnected: threading.Event) -> None:
    """Add to the CGI variables what the app speaks by: `opening`, as it came, is the client's side of the handshake."""
    key = re.search(rb"\r\nsec-websocket-key: *(\S+)\r\n", opening, re.IGNORECASE)
    assert key is not None
    environ["HTTP_SEC_WEBSOCKET_KEY"] = key[1].decode()
    environ["werkzeug.socket"] = sock
    environ["wsgi.websocket"] = WebSocket(sock, opening, environ, disconnected)
    environ["wsgi.websocket_version"] = environ["HTTP_SEC_WEBSOCKET_VERSION"]
    environ["wsgi.version"] = (1, 0)
    environ["wsgi.input"] = io.BytesIO()
    environ["wsgi.input_terminated"] = True
    environ["wsgi.errors"] = sys.stderr
    environ["wsgi.multithread"] = True
    environ["wsgi.multiprocess"] = True
    environ["wsgi.run_once"] = False
    environ["bridge.disconnected"] = disconnected


class WebSocket:
    """`environ["wsgi.websocket"]`, as gevent-websocket has it. Its methods may be called from any thread.

    The WebSocket is accepted when it is first used; until then an app can refuse it by an ordinary
    response. Once it is closed, `send` and `receive` raise gevent-websocket's WebSocketError where
    that was imported, else ClientDisconnected; both are OSErrors.
    """

    def __init__(self, sock: socket.socket, opening: bytes, environ: Environ, disconnected: threading.Event) -> None:
        self.path: str = environ["PATH_INFO"]
        self.origin: str | None = environ.get("HTTP_ORIGIN")
        self.protocol: str | None = environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL")
        self.version: str = environ["HTTP_SEC_WEBSOCKET_VERSION"]
        self._socket = sock
        self._opening: bytes | None = opening
        self._disconnected = disconnected
        self._server = WSConnection(ConnectionType.SERVER)
        self._closed = False
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        self._parts: list[str | bytes | bytearray] = []

    @property
    def closed(self) -> bool:
        """Whether either side has closed the WebSocket."""
        return self._closed or self._disconnected.is_set()

    def receive(self) -> str | bytes | None:
        """Wait for the next message; None says that the client has closed the WebSocket."""
        if self._closed:
            raise _closed_error()
        with contextlib.suppress(OSError):  # the socket will say so
            self._write()
        with self._reading:
            while not self._closed:
                for event in self._server.events():
                    if isinstance(event, Message):
                        self._parts.append(event.data)
                        if event.message_finished:
                            parts, self._parts = self._parts, []
                            return joined(parts)
                    elif isinstance(event, CloseConnection):
                        self._close(event.response())
                        return None
                try:
                    block = self._socket.recv(_BLOCK_SIZE)
                except OSError:
                    block = b""
                if block:
                    self._server.receive_data(block)
                else:
                    self._closed = True
        return None

    def send(self, message: str | bytes, binary: bool | None = None) -> None:
        """Send a message: text if it is a str, unless `binary` says otherwise; wait while the client is slow."""
        if self.closed:
            raise _closed_error()
        content = message.encode() if isinstance(message, str) else bytes(message)
        if binary is None:
            binary = not isinstance(message, str)
        self._write(BytesMessage(data=content) if binary else TextMessage(data=content.decode()))

    def close(self, code: int = 1000, message: str | bytes = "") -> None:
        """Close the WebSocket; do nothing if it is closed."""
        if not self._closed:
            reason = message if isinstance(message, str) else message.decode()
            self._close(CloseConnection(code=code, reason=reason or None))

    def _close(self, event: CloseConnection) -> None:
        with contextlib.suppress(OSError):  # the client was faster
            self._write(event)
        self._closed = True

    def _write(self, event: Event | None = None) -> None:
        """Write a frame, behind the handshake if that has yet to be."""
        with self._writing:
            try:
                if self._opening is not None:
                    self._server.receive_data(self._opening)
                    list(self._server.events())
                    self._opening = None
                    self._socket.sendall(self._server.send(AcceptConnection()))
                if event is not None:
                    self._socket.sendall(self._server.send(event))
            except (OSError, LocalProtocolError):
                self._closed = True
                raise _closed_error() from None


def joined(parts: list[str | bytes | bytearray]) -> str | bytes:
    """Return the message whose frames, or parts of frames, were read."""
    if isinstance(parts[0], str):
        return "".join(part for part in parts if isinstance(part, str))
    return b"".join(part for part in parts if not isinstance(part, str))


def _closed_error() -> OSError:
    """Return the error that the app expects of a WebSocket that is closed."""
    geventwebsocket = sys.modules.get("geventwebsocket.exceptions")
    if geventwebsocket is None:
        return ClientDisconnected("the WebSocket is closed")
    error: OSError = geventwebsocket.WebSocketError("the WebSocket is closed")
    return error
