"""simple-websocket's `Server`, which flask-sock and python-engineio use, without its socket.

When an app makes a `Server`, it gets a subclass that passes whole messages: there are no frames, and
no thread sleeps on a socket. This needs the library's `Server` to look as expected; a different one,
and any subclass of the app's, uses the socket.
"""

import functools
import inspect
import queue
import selectors
import sys
import threading
from typing import Any

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection

from bridge.errors import ClientDisconnected
from bridge.types import Environ
from bridge.wsgi_to_asgi.websocket.environ import WebSocket
from bridge.wsgi_to_asgi.websocket.messages import Close, Content

_METHODS = {"accept", "choose_subprotocol", "close", "handshake", "receive", "send"}
_THREADING = ("thread_class", "event_class", "selector_class")
_TOO_BIG = Close(1009, "Message is too big")


class MessageServer:
    """The methods and attributes of a `simple_websocket.Server`, for an app whose environ comes from the bridge.

    The attributes for the library's socket exist for code that reads them: `sock` is closed, `thread` has ended, and
    `ws` has seen nothing but the handshake.
    """

    is_server = True
    pong_received = True
    incoming_message = None
    incoming_message_len = 0
    selector_class = selectors.DefaultSelector

    def __init__(
        self,
        environ: Environ,
        subprotocols: str | list[str] | None = None,
        receive_bytes: int = 4096,
        ping_interval: float | None = None,  # unused, because the server pings the client
        max_message_size: int | None = None,
        thread_class: Any = None,
        event_class: Any = None,
        selector_class: Any = None,
    ) -> None:
        self.environ = environ
        self.subprotocols = [subprotocols] if isinstance(subprotocols, str) else subprotocols or []
        self.mode = "werkzeug"
        self.sock = environ["werkzeug.socket"]
        self.receive_bytes = receive_bytes
        self.ping_interval = ping_interval
        self.input_buffer: list[Content] = []
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

    @property
    def thread(self) -> threading.Thread:
        return _ended_thread()

    @functools.cached_property
    def event(self) -> threading.Event:
        """An event that is set at a message or the end; `receive` clears it when it finds nothing."""
        return self._messages.arrival()

    @functools.cached_property
    def ws(self) -> WSConnection:
        connection = WSConnection(ConnectionType.SERVER)
        names = [name for name in self.environ if name.startswith("HTTP_")]
        headers = [(name[5:].replace("_", "-").encode(), self.environ[name].encode("latin-1")) for name in names]
        connection.initiate_upgrade_connection(headers, "/")
        connection.send(AcceptConnection(subprotocol=self.subprotocol))
        return connection

    def send(self, data: Any) -> None:
        self._send(data if isinstance(data, bytes) else str(data))

    def receive(self, timeout: float | None = None) -> Content | None:
        """Return the next message, or None after `timeout` seconds."""
        if self._closed:
            raise self._error()
        try:
            content = self._messages.receive(None if timeout is None else max(timeout, 0))
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


@functools.cache
def _ended_thread() -> threading.Thread:
    """Return a thread that has ended."""
    thread = threading.Thread(target=int, name="WSGIToASGI: no thread of simple-websocket", daemon=True)
    thread.start()
    thread.join()
    return thread


def take_over_simple_websocket() -> None:
    """Make `Server(environ)` return a `MessageServer` if `environ` comes from the bridge. Idempotent."""
    original = getattr(sys.modules.get("simple_websocket"), "Server", None)
    if not isinstance(original, type) or not _is_known(original):
        return
    message_server: Any = type("Server", (MessageServer, original), {"__module__": original.__module__})
    initialize = original.__init__  # type: ignore[misc]

    # Not `__new__`, because subclasses would inherit it, and `inspect` would show its signature for them.
    @functools.wraps(initialize)
    def initialize_either(self: Any, *arguments: Any, **options: Any) -> None:
        if type(self) is original and _is_for_messages(*arguments, **options):
            self.__class__ = message_server
            message_server.__init__(self, *arguments, **options)
        else:
            initialize(self, *arguments, **options)

    initialize_either.is_of_the_bridge = True  # type: ignore[attr-defined]
    original.__init__ = initialize_either  # type: ignore[misc]


def _is_for_messages(environ: Any = None, *arguments: Any, **options: Any) -> bool:
    """Return whether a `Server` with these arguments needs no socket."""
    # An app that asks for threads of another kind gets them, with a socket.
    special = len(arguments) > 4 or any(options.get(name) is not None for name in _THREADING)
    return not special and isinstance(environ, dict) and type(environ.get("wsgi.websocket")) is WebSocket


def _is_known(server: Any) -> bool:
    """Return whether `server` has the parameters and methods that `MessageServer` has, and nobody has patched it."""
    if getattr(server.__init__, "is_of_the_bridge", False) or server.__new__ is not object.__new__:
        return False
    parameters = list(inspect.signature(server.__init__).parameters)
    methods = {name for name in dir(server) if not name.startswith("_")}
    return parameters == list(inspect.signature(MessageServer.__init__).parameters) and methods == _METHODS
