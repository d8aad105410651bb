"""The start of a WebSocket to a WSGI app, and all WebSockets that are open.

Its twin is `asgi_to_wsgi/websocket/handshake.py`.
"""

import functools
import logging
import threading
import time
from typing import TYPE_CHECKING

from bridge.errors import ClientProtocolError, ServerProtocolError
from bridge.sansio.messages import type_from_message
from bridge.sansio.redacted import shown
from bridge.sansio.request import environ_from_scope
from bridge.types import Environ, Receive, Scope, Send, WSGIApp

if TYPE_CHECKING:
    from bridge.wsgi_to_asgi.websocket.thread import AppThread

_logger = logging.getLogger("bridge")


async def serve_websocket(
    app: WSGIApp,
    websockets: "OpenWebSockets",
    template: Environ,
    scope: Scope,
    receive: Receive,
    send: Send,
    lend_loop: bool = False,
) -> None:
    """Serve one WebSocket with `app`, or refuse it; return when it is over."""
    message = await receive()
    message_type = type_from_message(message)
    if message_type == "websocket.disconnect":
        return
    if message_type != "websocket.connect":
        raise ServerProtocolError(f"expected websocket.connect, got {shown(message)} (ASGI WebSocket spec)")
    try:
        from bridge.wsgi_to_asgi.websocket.exchange import WebSocketExchange
    except ModuleNotFoundError as error:
        if error.name != "wsproto":
            raise
        await _refuse(scope, send, 501, _say_wsproto_is_missing())
        return
    try:
        environ = environ_from_scope(scope)
        environ["wsgi.multiprocess"] = template["wsgi.multiprocess"]
    except ClientProtocolError as error:
        await _refuse(scope, send, 400, f"Bad request: {error}")
        return
    exchange = WebSocketExchange(scope, receive, send, environ)
    thread = exchange.thread
    if not websockets.start(thread, app, environ, lend_loop):
        exchange.let_go()
        await _refuse(scope, send, 503, "Too many WebSockets are open on this server")
        return
    try:
        await exchange.serve()
    finally:
        websockets.discard_if_over(thread)


@functools.cache
def _say_wsproto_is_missing() -> str:
    text = "WebSockets need the Python package wsproto on this server: pip install 'wsgi-asgi-bridge[websocket]'."
    _logger.error("all WebSockets are refused: %s", text)  # once, because of the cache
    return text


async def _refuse(scope: Scope, send: Send, status: int, text: str) -> None:
    """Send an HTTP response if the server supports that; otherwise close, which the server turns into 403."""
    body = f"{text}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    if status == 503:
        headers.append((b"retry-after", b"5"))
    try:
        if "websocket.http.response" in (scope.get("extensions") or ()):
            await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": body})
        else:
            await send({"type": "websocket.close", "code": 1000})
    except OSError:
        pass  # the client has left


class OpenWebSockets:
    """The threads of all open WebSockets, up to `limit`. Any thread may call its methods."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._threads: set[AppThread] = set()

    def start(self, thread: "AppThread", app: WSGIApp, environ: Environ, lend_loop: bool) -> bool:
        """Run `app` in one more thread unless the limit is reached; return whether it runs."""
        with self._lock:  # so that `join` meets only threads that have started
            if len(self._threads) >= self.limit:
                return False
            if not thread.start(app, environ, lend_loop, lambda: self.discard_if_over(thread)):
                return False
            self._threads.add(thread)
            return True

    def __len__(self) -> int:
        return len(self._threads)

    def discard_if_over(self, thread: "AppThread") -> None:
        """Remove `thread` once both the loop and the app are done with it."""
        with self._lock:
            if thread.finished and thread.done:
                self._threads.discard(thread)

    def stop(self) -> None:
        """Make all WebSockets end, without waiting."""
        for thread in self._snapshot():
            thread.stop()

    def join(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for the threads to end."""
        deadline = time.monotonic() + timeout
        ended = [thread.join(max(0.0, deadline - time.monotonic())) for thread in self._snapshot()]
        if left := ended.count(False):
            _logger.warning("%d WebSockets still ran %g s after shutdown began, and were abandoned", left, timeout)

    def _snapshot(self) -> "list[AppThread]":
        with self._lock:
            return list(self._threads)
