"""What a WSGI app finds of its WebSocket in the environ: a socket, and gevent-websocket's object beside it."""

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
    """Add to the CGI variables what the app speaks by: the socket, for which `key` is the client's, or the object."""
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
    """`environ["wsgi.websocket"]`, as gevent-websocket has it. Its methods may be called from any thread.

    The WebSocket is accepted when it is first used; until then an app can refuse it by an ordinary
    response. Once it is closed, `send` and `receive` raise gevent-websocket's WebSocketError where
    that was imported, else ClientDisconnected; both are OSErrors.
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
        """Wait for the next message; None says that the client has closed the WebSocket."""
        if self._closed:
            raise _closed_error()
        self.accept()
        content = self.messages.receive()
        if content is None:
            self._closed = True
        return content

    def send(self, message: str | bytes, binary: bool | None = None) -> None:
        """Send a message: text if it is a str, unless `binary` says otherwise; wait while the client is slow."""
        if binary is None:
            binary = not isinstance(message, str)
        content = message.encode() if isinstance(message, str) else bytes(message)
        self._send(content if binary else content.decode())

    def close(self, code: int = 1000, message: str | bytes = "") -> None:
        """Close the WebSocket; do nothing if it is closed."""
        if not self._closed:
            reason = message if isinstance(message, str) else message.decode()
            with contextlib.suppress(OSError):  # the client was faster
                self._send(Close(code, reason))
            self._closed = True

    def accept(self, subprotocol: str | None = None) -> None:
        """Accept the WebSocket if it is not: from now on all is said here, and nothing on the socket."""
        if self.messages.accept(subprotocol):
            with contextlib.suppress(OSError):  # the app has closed it
                self._socket.shutdown(socket.SHUT_RDWR)  # a fork may hold a copy
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
    """Return the error that the app expects of a WebSocket that is closed."""
    geventwebsocket = sys.modules.get("geventwebsocket.exceptions")
    if geventwebsocket is None:
        return ClientDisconnected("the WebSocket is closed")
    error: OSError = geventwebsocket.WebSocketError("the WebSocket is closed")
    return error
