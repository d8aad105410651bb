"""simple-websocket's `Server`, which flask-sock and python-engineio talk by, without its socket.

Where an app makes one, it gets an object of a subclass that passes messages as they are: no frame
is written to be read again, and no thread sleeps on a socket. That takes the library's `Server`
to be the one that is known here; any other one, and any subclass, has its socket as before.
"""

import inspect
import queue
import sys
from typing import Any

from bridge.errors import ClientDisconnected
from bridge.types import Environ
from bridge.wsgi_to_asgi.websocket_messages import Close, Content
from bridge.wsgi_to_asgi.websocket_object import WebSocket

_METHODS = {"accept", "choose_subprotocol", "close", "handshake", "receive", "send"}
_THREADING = ("thread_class", "event_class", "selector_class")
_TOO_BIG = Close(1009, "Message is too big")


class MessageServer:
    """What there is to a `simple_websocket.Server`, for an app whose environ is of the bridge."""

    def __init__(
        self,
        environ: Environ,
        subprotocols: str | list[str] | None = None,
        receive_bytes: int = 4096,
        ping_interval: float | None = None,  # there is nobody to ping but the bridge
        max_message_size: int | None = None,
        thread_class: Any = None,
        event_class: Any = None,
        selector_class: Any = None,
    ) -> None:
        self.environ = environ
        self.subprotocols = [subprotocols] if isinstance(subprotocols, str) else subprotocols or []
        self.mode = "werkzeug"
        self.max_message_size = max_message_size
        offered = environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "").split(", ")
        self.subprotocol = next((name for name in offered if name in self.subprotocols), None)
        websocket: WebSocket = environ["wsgi.websocket"]
        websocket.accept(self.subprotocol)
        self._messages = websocket.messages
        self._closed = False

    @property
    def connected(self) -> bool:
        return not self._closed and self._messages.end is None

    @property
    def close_reason(self) -> int:
        return (self._messages.end or (1005, None))[0]

    @property
    def close_message(self) -> str | None:
        return (self._messages.end or (1005, None))[1]

    def send(self, data: Any) -> None:
        self._send(data if isinstance(data, bytes) else str(data))

    def receive(self, timeout: float | None = None) -> Content | None:
        """Return the next message; None after `timeout` seconds."""
        if self._closed:
            raise self._error()
        try:
            content = self._messages.receive(timeout)
        except queue.Empty:
            return None
        if content is None:
            raise self._error()
        if self.max_message_size and len(content) > self.max_message_size:
            self._send(_TOO_BIG)
            self._closed = True
            raise self._error()
        return content

    def close(self, reason: int | None = None, message: str | None = None) -> None:
        self._send(Close(reason or 1000, message or ""))
        self._closed = True

    def _send(self, item: Content | Close) -> None:
        if not self.connected:
            raise self._error()
        try:
            self._messages.send(item)
        except ClientDisconnected:
            raise self._error() from None

    def _error(self) -> Exception:
        error: Exception = sys.modules["simple_websocket"].ConnectionClosed(self.close_reason, self.close_message)
        return error


def take_over_simple_websocket() -> None:
    """Have `Server(environ)` make a `MessageServer` where `environ` is the bridge's; do nothing if that was done."""
    original = getattr(sys.modules.get("simple_websocket"), "Server", None)
    if not isinstance(original, type) or not _is_known(original):
        return
    message_server = type("Server", (MessageServer, original), {"__module__": original.__module__})

    def make(cls: type, environ: Environ | None = None, *arguments: Any, **options: Any) -> Any:
        # Who asks for threads of another kind has them, and a socket for them.
        special = len(arguments) > 4 or any(options.get(name) is not None for name in _THREADING)
        ours = isinstance(environ, dict) and type(environ.get("wsgi.websocket")) is WebSocket
        return object.__new__(message_server if cls is original and ours and not special else cls)

    original.__new__ = make  # type: ignore[assignment, method-assign]


def _is_known(server: type) -> bool:
    """Return whether `server` takes what `MessageServer` takes, has no more methods, and is made as all objects are."""
    if any("__new__" in vars(base) for base in server.__mro__[:-1]):
        return False
    parameters = list(inspect.signature(server.__init__).parameters)  # type: ignore[misc]
    methods = {name for name in dir(server) if not name.startswith("_")}
    return parameters == list(inspect.signature(MessageServer.__init__).parameters) and methods == _METHODS
