"""What a WSGI app finds in the environ of a WebSocket: a socket, and an object like gevent-websocket's."""

import contextlib
import io
import socket
import sys
import threading

from bridge.errors import ClientDisconnected
from bridge.types import Environ
from bridge.wsgi_to_asgi.websocket.messages import Close, Content, Messages


def complete_environ(
    environ: Environ, sock: socket.socket, key: str, messages: Messages, disconnected: threading.Event
) -> None:
    """Add the socket, whose handshake uses the client's `key`, the object, and what PEP 3333 requires."""
    environ["HTTP_SEC_WEBSOCKET_KEY"] = key
    environ["werkzeug.socket"] = sock
    environ["wsgi.websocket"] = WebSocket(sock, messages, environ, disconnected)
    environ["wsgi.websocket_version"] = environ["HTTP_SEC_WEBSOCKET_VERSION"]
    environ["wsgi.version"] = (1, 0)
    environ["wsgi.input"] = io.BytesIO()
    environ["wsgi.input_terminated"] = True
    environ["wsgi.errors"] = sys.stderr
    environ["wsgi.multithread"] = True
    environ["wsgi.run_once"] = False
    environ["bridge.disconnected"] = disconnected


class WebSocket:
    """`environ["wsgi.websocket"]`, as in gevent-websocket. Any thread may call its methods.

    The first use accepts the WebSocket; until then the app can refuse it by an ordinary response. Once it
    is closed, `send` and `receive` raise gevent-websocket's WebSocketError if that is imported, otherwise
    ClientDisconnected; both are OSErrors. On the server's loop, a call that would wait raises
    WouldBlockLoop.
    """

    def __init__(
        self, sock: socket.socket, messages: Messages, environ: Environ, disconnected: threading.Event
    ) -> None:
        self.path: str = environ["PATH_INFO"]
        self.origin: str | None = environ.get("HTTP_ORIGIN")
        self.protocol: str | None = environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL")
        self.version: str = environ["HTTP_SEC_WEBSOCKET_VERSION"]
        self._socket = sock
        self.messages = messages
        self._disconnected = disconnected
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether either side has closed the WebSocket."""
        return self._closed or self._disconnected.is_set()

    def receive(self) -> Content | None:
        """Wait for the next message; return None once the WebSocket is closed."""
        if self._closed:
            raise _closed_error()
        self.accept()
        content = self.messages.receive()
        if content is None:
            self._closed = True
        return content

    def send(self, message: str | bytes, binary: bool | None = None) -> None:
        """Send a message, and wait while the client is slow. A str is sent as text unless `binary` is true."""
        if binary is None:
            binary = not isinstance(message, str)
        content = message.encode() if isinstance(message, str) else bytes(message)
        self._send(content if binary else content.decode())

    def close(self, code: int = 1000, message: str | bytes = "") -> None:
        """Close the WebSocket. Idempotent."""
        if not self._closed:
            reason = message if isinstance(message, str) else message.decode()
            with contextlib.suppress(OSError):  # the client has closed it
                self._send(Close(code, reason))
            self._closed = True

    def accept(self, subprotocol: str | None = None) -> None:
        """Accept the WebSocket, unless that is done; from now on the app uses this object, not the socket."""
        if self.messages.accept(subprotocol):
            with contextlib.suppress(OSError):  # the app has closed it
                self._socket.shutdown(socket.SHUT_RDWR)  # close() alone would not end it if a forked child holds a copy
            self._socket.close()

    def _send(self, item: Content | Close) -> None:
        if self.closed:
            raise _closed_error()
        self.accept()
        try:
            self.messages.send(item)
        except ClientDisconnected:
            raise _closed_error() from None


def _closed_error() -> OSError:
    """Return the error that the app expects from a closed WebSocket."""
    geventwebsocket = sys.modules.get("geventwebsocket.exceptions")
    if geventwebsocket is None:
        return ClientDisconnected("the WebSocket is closed")
    error: OSError = geventwebsocket.WebSocketError("the WebSocket is closed")
    return error
