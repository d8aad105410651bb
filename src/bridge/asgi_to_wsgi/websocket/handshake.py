"""Answer a WebSocket handshake with an ASGI app, and pass the client's connection to the loop."""

import functools
import logging
import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

from bridge.asgi_to_wsgi.carry import carry
from bridge.asgi_to_wsgi.http.serve import serve_http
from bridge.asgi_to_wsgi.loop import LoopThread
from bridge.asgi_to_wsgi.sockets import ClientConnection, maybe_connection, steal
from bridge.asgi_to_wsgi.websocket.options import WebSocketOptions
from bridge.runtime import LoopClosed
from bridge.sansio.websocket import Refusal, maybe_refusal
from bridge.types import ASGIApp, Environ, ExcInfo, Headers, StartResponse

if TYPE_CHECKING:
    from bridge.asgi_to_wsgi.websocket.exchange import WebSocketExchange

_logger = logging.getLogger("bridge")

# How often a thread that waits for its WebSocket to end checks whether the loop still runs, in seconds.
_LOOK_AROUND = 1.0


class WebSockets:
    """The WebSockets of one adapter in one process. All of it runs in the requests' WSGI threads."""

    def __init__(
        self, app: ASGIApp, mode: Literal["auto", "hold", "off"], limit: int, options: WebSocketOptions
    ) -> None:
        self._app = app
        self._mode = mode
        self._options = options
        self.limit = limit
        # In order of arrival. Without a lock, because an exception that a watchdog throws in could leave it locked.
        self._open: dict[WebSocketExchange, None] = {}

    def serve(self, loop_thread: LoopThread, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a handshake; if the app accepts it, pass the connection to the loop."""
        connection = None if self._mode == "off" else maybe_connection(environ)
        refusal = maybe_refusal(environ) or self._maybe_unable(environ, connection)
        if refusal is not None:
            return _refuse(refusal, start_response)
        assert connection is not None
        from bridge.asgi_to_wsgi.websocket.exchange import WebSocketExchange

        exchange = WebSocketExchange(self._app, loop_thread, environ, self._options, self._discard)

        def start_refusal(status: str, headers: Headers, exc_info: ExcInfo | None = None) -> Callable[[bytes], object]:
            return _ignore if exchange.accepted else start_response(status, headers, exc_info)

        try:  # from here on, whatever is raised makes room again
            if not self._admit(exchange):
                return _refuse(_FULL, start_response)
            # Hide the input, because everything that can be read from the connection belongs to the WebSocket.
            handshake = {**environ, "wsgi.input": None, "CONTENT_LENGTH": "", "wsgi.input_terminated": False}
            iterable = serve_http(exchange, loop_thread, handshake, start_refusal)
            if exchange.accepted:
                self._hand_over(exchange, connection, loop_thread)
        except BaseException:
            exchange.give_up()
            raise
        finally:
            if not exchange.accepted:
                exchange.leave_place()
        if not exchange.accepted:
            return iterable
        start_response("101 Switching Protocols", [])
        return []

    def _admit(self, exchange: "WebSocketExchange") -> bool:
        """Add `exchange` to the open WebSockets, if there is room; return whether there was."""
        self._open[exchange] = None
        return len(self._open) <= self.limit or exchange in list(self._open)[: self.limit]

    def open(self) -> "list[WebSocketExchange]":
        """Return the WebSockets that the app has accepted, and that have not ended. From any thread."""
        return [exchange for exchange in list(self._open) if exchange.accepted]

    def _discard(self, exchange: "WebSocketExchange") -> None:
        self._open.pop(exchange, None)

    def _maybe_unable(self, environ: Environ, connection: ClientConnection | None) -> Refusal | None:
        """Return a refusal if this server, or its configuration, cannot serve WebSockets."""
        if self._mode == "off":
            return _unable("WebSockets are switched off on this server.")
        try:
            import wsproto  # noqa: F401
        except ModuleNotFoundError:
            return _unable(_say_wsproto_is_missing())
        if connection is None:
            return _unable("WebSockets are not possible on this server, which does not expose its connections.")
        held = not (connection.stealable or connection.green)
        if held and self._mode == "auto" and not environ.get("wsgi.multithread"):
            return _unable("WebSockets are not possible on this server: each would occupy a whole process.")
        return _BEHIND_A_RESPONSE if connection.unsent() else None

    def _hand_over(self, exchange: "WebSocketExchange", connection: ClientConnection, loop_thread: LoopThread) -> None:
        """Pass the loop the server's own connection, or one that this thread carries bytes to and from."""
        if connection.stealable:
            _hand_to_loop(exchange, steal(connection))
            if self._mode == "hold":
                exchange.holds_thread = True
                _logger.debug("WebSocket: took the connection from the server; its thread waits for the end")
                while not exchange.over.wait(_LOOK_AROUND) and not loop_thread.ended:
                    pass
            else:
                _logger.debug("WebSocket: took the connection from the server")
        else:
            exchange.carried = exchange.holds_thread = True
            _logger.debug("WebSocket: carrying bytes in the request's thread")
            ours, theirs = socket.socketpair()
            with ours:
                _hand_to_loop(exchange, theirs)

                def alive() -> bool:
                    return not (exchange.over.is_set() or loop_thread.ended)

                carry(connection, ours, alive, exchange.note_that_client_left)


def _hand_to_loop(exchange: "WebSocketExchange", sock: socket.socket) -> None:
    try:
        exchange.hand_over(sock)
    except LoopClosed:
        sock.close()  # the loop has ended


def _refuse(refusal: Refusal, start_response: StartResponse) -> Iterable[bytes]:
    _logger.debug("WebSocket refused with %s: %s", refusal.status, refusal.text)
    body = f"{refusal.text}\n".encode()
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))), *refusal.headers]
    start_response(refusal.status, headers)
    return [body]


@functools.cache
def _say_wsproto_is_missing() -> str:
    text = "WebSockets need the Python package wsproto on this server: pip install 'wsgi-asgi-bridge[websocket]'."
    _logger.error("all WebSockets are refused: %s", text)  # once, because of the cache
    return text


def _ignore(data: bytes) -> None:
    """Stand in for `write`, because the HTTP response to an accepted handshake goes nowhere."""


def _unable(text: str) -> Refusal:
    # "The server does not support the functionality required to fulfill the request": RFC 9110 15.6.2
    return Refusal("501 Not Implemented", text)


# Our 101 would land in the middle of that response. A client opens a new connection for its handshake (RFC 6455 4.1).
_BEHIND_A_RESPONSE = Refusal(
    "503 Service Unavailable",
    "A response is still being sent on this connection: use another one for the WebSocket.",
    [("Retry-After", "5")],
)
_FULL = Refusal("503 Service Unavailable", "Too many WebSockets are open on this server.", [("Retry-After", "5")])
