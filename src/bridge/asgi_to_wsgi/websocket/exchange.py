"""One WebSocket of an ASGI app: run the app, from the handshake to its end."""

import asyncio
import logging
import math
import socket
import threading
from collections.abc import Callable
from typing import Any

import anyio
import anyio.abc
from wsproto.extensions import Extension, PerMessageDeflate
from wsproto.handshake import server_extensions_handshake

from bridge.asgi_to_wsgi.loop import LoopThread
from bridge.asgi_to_wsgi.websocket.connection import WebSocketConnection
from bridge.asgi_to_wsgi.websocket.options import WebSocketOptions
from bridge.errors import AppProtocolError, ClientDisconnected, is_of_disconnect
from bridge.runtime import Change, LoopClosed
from bridge.sansio.messages import DONE, WEBSOCKET, event_from_message, next_state
from bridge.sansio.redacted import RedactedMapping
from bridge.sansio.request_name import request_name
from bridge.sansio.websocket import (
    code_and_reason_from_close,
    payload_from_send,
    response_from_accept,
    websocket_scope_from_http,
)
from bridge.types import ASGIApp, Environ, Message, Receive, Scope, Send

_logger = logging.getLogger("bridge")


class WebSocketExchange:
    """One WebSocket, from its handshake to its end. Runs on the loop, except where a banner says otherwise.

    Until `websocket.accept` it is an ASGI app for `serve_http`, so that a refusal is an ordinary
    response. Accepting ends that response. Then the WSGI thread passes the client's connection to
    `hand_over`, and a `WebSocketConnection` does the rest.

    Its waits end as those of `HTTPExchange` and `WebSocketConnection` do; by `give_up`, when the WSGI
    thread has no connection to pass on; and by `stop`, when the loop is about to end.
    """

    def __init__(
        self,
        app: ASGIApp,
        loop_thread: LoopThread,
        environ: Environ,
        options: WebSocketOptions,
        release: Callable[["WebSocketExchange"], object],
    ) -> None:
        self.accepted = False
        self.carried = False  # a WSGI thread carries the bytes
        self.holds_thread = False  # a WSGI thread waits for the end
        self.over = threading.Event()  # the connection has ended, although the app may still run
        self._app = app
        self._loop_thread = loop_thread
        self._environ = environ
        self._options = options
        self._release = release
        self._scope: dict[str, Any]
        self._subprotocols: list[str]  # a copy, because the app may change its scope
        self._receive_http: Receive
        self._send_http: Send
        self._tasks: anyio.abc.TaskGroup
        self._state = "connecting"
        self._told = False  # the app has received websocket.connect
        self._gone = False  # the handshake has failed
        self._socket: socket.socket | None = None
        self._connection: WebSocketConnection | None = None
        self._change = Change(loop_thread.loop.event)  # of `_gone`, `_socket` and `_connection`

    # IN ANY THREAD

    def leave_place(self) -> None:
        """Make room for another WebSocket. Idempotent."""
        self._release(self)

    # IN THE WSGI THREAD

    def hand_over(self, sock: socket.socket) -> None:
        """Pass on the accepted client's connection. Raises LoopClosed if the loop has ended."""
        self._loop_thread.loop.call_soon(self._take, sock)

    def note_that_client_left(self) -> None:
        """Tell the loop that the client has hung up, although not all of its bytes have been read."""
        try:
            self._loop_thread.loop.call_soon(self._note_that_client_left)
        except LoopClosed:
            pass  # the loop has ended, and the connection with it

    def give_up(self) -> None:
        """Tell the loop that there will be no connection, because the client has left or the server failed."""
        try:
            self._loop_thread.loop.call_soon(self._lose)
        except LoopClosed:
            pass  # the loop has ended, and the app with it

    # ON THE LOOP

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app on a handshake that arrived as an HTTP request; return when the app and connection have ended."""
        self._receive_http, self._send_http = receive, send
        self._scope = websocket_scope_from_http(scope)
        self._subprotocols = [*self._scope["subprotocols"]]
        # A copy of the original, because the environ in `scope` has no wsgi.input and the server may clear its own.
        self._scope["wsgi_environ"] = RedactedMapping(self._environ.copy(), "WSGI environ")
        self._loop_thread.at_stop.add(self.stop)
        error: BaseException | None = None
        try:
            async with anyio.create_task_group() as self._tasks:
                try:
                    await self._app(self._scope, self._receive, self._send)
                except BaseException as raised:  # SystemExit too, which ends the app but must not end the loop
                    if self._is_unwinding(raised):
                        raise
                    error = raised
                if self.accepted:
                    await self._finish(error)
                self._tasks.cancel_scope.cancel()
        finally:
            self._loop_thread.at_stop.discard(self.stop)
            if self._socket is not None:
                self._socket.close()
            self.leave_place()
            self.over.set()
        if self.accepted:
            return
        if error is not None:
            raise error
        if self._state != DONE and not self._gone:
            raise AppProtocolError(f"the ASGI app returned without answering the handshake ({self._state})")

    def _is_unwinding(self, error: BaseException) -> bool:
        """Return whether the task is being cancelled, because an app may raise CancelledError by itself."""
        if isinstance(error, GeneratorExit) or anyio.current_effective_deadline() == -math.inf:
            return True  # the loop was dropped, or a scope around us was cancelled
        task = asyncio.current_task() if self._loop_thread.loop.asyncio_loop is not None else None
        return task is not None and task.cancelling() > 0

    async def _finish(self, error: BaseException | None) -> None:
        """Close the WebSocket if the app has left it open, and wait until the connection has ended."""
        if error is not None and not is_of_disconnect(error):
            _logger.error("%s: the ASGI app raised", request_name(self._scope), exc_info=error)
        connection = await self._opened()
        if connection is not None:
            connection.close(1000 if error is None else 1011)
            while not connection.lost:
                await connection.change.wait()

    async def _receive(self) -> Message:
        if not self._told:
            self._told = True
            return {"type": "websocket.connect"}
        while not self.accepted and not self._gone:
            if (await self._receive_http())["type"] == "http.disconnect" and not self.accepted:
                self._lose()
        connection = await self._opened()
        if connection is None:
            return {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        payload = await connection.receive()
        if payload is not None:
            return {"type": "websocket.receive", "text" if isinstance(payload, str) else "bytes": payload}
        assert connection.end is not None
        code, reason = connection.end
        return {"type": "websocket.disconnect", "code": code, "reason": reason}

    async def _send(self, message: Message) -> None:
        event = event_from_message(message)
        connection = self._connection
        over = self._gone if connection is None else connection.over
        if event == "websocket.close" and (self._state == DONE or over):
            return  # it is already closed
        if over and self._state != DONE:
            raise ClientDisconnected
        state = next_state(WEBSOCKET, self._state, event)
        if event == "websocket.send":
            payload = payload_from_send(message)
            await (await self._opened_or_raise()).send(payload)
        elif event == "websocket.accept":
            connection, response = self._agree(message)
            self._state = state
            self.accepted = True
            self._tasks.start_soon(self._run_connection, connection, response)
            await self._send_http({"type": "http.response.start", "status": 200})
            await self._send_http({"type": "http.response.body"})
            await self._opened_or_raise()
        elif self._state == "open":
            code, reason = code_and_reason_from_close(message)
            connection = await self._opened_or_raise()
            self._state = state
            connection.close(code, reason)
        elif event == "websocket.close":
            # "... before the socket is accepted, the server must close with a 403": ASGI WebSocket spec, Close
            self._state = state
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"10")]
            await self._send_http({"type": "http.response.start", "status": 403, "headers": headers})
            await self._send_http({"type": "http.response.body", "body": b"Forbidden\n"})
            self._lose()
        else:
            await self._send_http({**message, "type": message["type"].removeprefix("websocket.")})
            self._state = state
            if state == DONE:
                self._lose()

    def _agree(self, message: Message) -> tuple[WebSocketConnection, bytes]:
        """Return a connection with the agreed extensions, and the handshake's response. Raises AppProtocolError."""
        extensions: list[Extension] = [PerMessageDeflate()] if self._options.compression else []
        chosen = None
        offers = self._environ.get("HTTP_SEC_WEBSOCKET_EXTENSIONS")
        if extensions and isinstance(offers, str):
            try:
                chosen = server_extensions_handshake(offers.split(","), extensions)
            except ValueError:
                pass  # decline a malformed offer
        response = response_from_accept(
            message,
            self._environ["HTTP_SEC_WEBSOCKET_KEY"],
            self._subprotocols,
            None if chosen is None else chosen.decode(),
        )
        connection = WebSocketConnection(self._loop_thread.loop, self._options, extensions if chosen else [])
        return connection, response

    async def _run_connection(self, connection: WebSocketConnection, response: bytes) -> None:
        """Wait for the socket, and run the connection on it."""
        while self._socket is None:
            if self._gone:
                return
            await self._change.wait()
        sock, self._socket = self._socket, None

        def opened() -> None:
            self._connection = connection
            self._change.notify_all()
            if self._loop_thread.stopping:
                self.stop()

        try:
            await connection.run(sock, response, opened)
        finally:
            self.leave_place()  # although the app may still run
            self.over.set()
        if self._connection is None:
            self._lose()

    async def _opened(self) -> WebSocketConnection | None:
        """Wait until the connection is open; return None if it will never be."""
        while self._connection is None and not self._gone:
            await self._change.wait()
        return self._connection

    async def _opened_or_raise(self) -> WebSocketConnection:
        connection = await self._opened()
        if connection is None or connection.lost:
            raise ClientDisconnected
        return connection

    def stop(self) -> None:
        """Close with 1012, "service restart", because the loop is about to end."""
        if self._connection is not None:
            self._connection.close(1012)

    def _take(self, sock: socket.socket) -> None:
        if self.over.is_set() or self._gone:
            sock.close()
        else:
            self._socket = sock
            self._change.notify_all()

    def _note_that_client_left(self) -> None:
        if self._connection is not None:
            self._connection.note_that_client_left()

    def _lose(self) -> None:
        self._gone = True
        self._change.notify_all()
