"""WebSocket connections to a WSGI app: each has a thread of its own, up to a limit."""

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
    """Serve one WebSocket with `app`; return when it is over."""
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
    text = "WebSockets need the Python package wsproto on this server: pip install 'bridge[websocket]'."
    _logger.error("all WebSockets are refused: %s", text)  # once
    return text


async def _refuse(scope: Scope, send: Send, status: int, text: str) -> None:
    """Answer with an HTTP response where the server can do that; else close, which it makes a 403."""
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
        pass  # the client did not wait for it


class OpenWebSockets:
    """The threads of the WebSockets that are open, up to `limit`. Its methods may be called from any thread."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._threads: set[AppThread] = set()

    def start(self, thread: "AppThread", app: WSGIApp, environ: Environ, lend_loop: bool) -> bool:
        """Run `app` in one more thread, if there is room for it; return whether it runs."""
        with self._lock:  # so that `join` never meets a thread that has yet to start
            if len(self._threads) >= self._limit:
                return False
            if not thread.start(app, environ, lend_loop, lambda: self.discard_if_over(thread)):
                return False
            self._threads.add(thread)
            return True

    def discard_if_over(self, thread: "AppThread") -> None:
        """Make room, if neither the loop nor the app has anything left to do."""
        with self._lock:
            if thread.finished and thread.done:
                self._threads.discard(thread)

    def stop(self) -> None:
        """Have all WebSockets end; does not wait."""
        for thread in self._snapshot():
            thread.stop()

    def join(self, timeout: float) -> None:
        """Wait for the end of the threads, up to `timeout` seconds."""
        deadline = time.monotonic() + timeout
        ended = [thread.join(max(0.0, deadline - time.monotonic())) for thread in self._snapshot()]
        if left := ended.count(False):
            _logger.warning("%d WebSockets still ran %g s after shutdown began, and were left behind", left, timeout)

    def _snapshot(self) -> "list[AppThread]":
        with self._lock:
            return list(self._threads)
