"""WebSocket requests to an ASGI app: the handshake, and the client's connection brought to the loop."""

import functools
import logging
import socket
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

from bridge.asgi_to_wsgi.carry import carry
from bridge.asgi_to_wsgi.http.exchange import serve_http
from bridge.asgi_to_wsgi.loop import LoopThread
from bridge.asgi_to_wsgi.sockets import ClientConnection, maybe_connection, steal
from bridge.asgi_to_wsgi.websocket.options import WebSocketOptions
from bridge.runtime import LoopClosed
from bridge.sansio.websocket import Refusal, maybe_refusal
from bridge.types import ASGIApp, Environ, ExcInfo, Headers, StartResponse

if TYPE_CHECKING:
    from bridge.asgi_to_wsgi.websocket.exchange import WebSocketSession

_logger = logging.getLogger("bridge")

# How often a thread that is held for a WebSocket looks whether the loop still lives, in seconds.
_LOOK_AROUND = 1.0


class WebSockets:
    """The WebSockets of one adapter in one process; all of it in the requests' WSGI threads."""

    def __init__(
        self, app: ASGIApp, mode: Literal["auto", "hold", "off"], limit: int, options: WebSocketOptions
    ) -> None:
        self._app = app
        self._mode = mode
        self._options = options
        self._free = threading.Semaphore(limit)

    def serve(self, loop_thread: LoopThread, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a handshake; where the app accepts it, see to it that the connection gets to the loop."""
        connection = None if self._mode == "off" else maybe_connection(environ)
        refusal = maybe_refusal(environ) or self._maybe_unable(environ, connection)
        if refusal is not None:
            return _refuse(refusal, start_response)
        assert connection is not None
        if not self._free.acquire(blocking=False):
            return _refuse(_FULL, start_response)
        from bridge.asgi_to_wsgi.websocket.exchange import WebSocketSession

        session = WebSocketSession(self._app, loop_thread, environ, self._options, self._free.release)

        def start_refusal(status: str, headers: Headers, exc_info: ExcInfo | None = None) -> Callable[[bytes], object]:
            return _ignore if session.accepted else start_response(status, headers, exc_info)

        try:
            # What there is to read from the connection is the WebSocket's.
            handshake = {**environ, "wsgi.input": None, "CONTENT_LENGTH": "", "wsgi.input_terminated": False}
            iterable = serve_http(session, loop_thread, handshake, start_refusal)
            if session.accepted:
                self._hand_over(session, connection, loop_thread)
        except BaseException:
            session.give_up()
            raise
        finally:
            if not session.accepted:
                session.leave_place()
        if not session.accepted:
            return iterable
        start_response("101 Switching Protocols", [])
        return []

    def _maybe_unable(self, environ: Environ, connection: ClientConnection | None) -> Refusal | None:
        """Return the refusal of what this server, or its configuration, cannot do."""
        if self._mode == "off":
            return _unable("WebSockets are switched off on this server.")
        try:
            import wsproto  # noqa: F401
        except ModuleNotFoundError:
            return _unable(_say_wsproto_is_missing())
        if connection is None:
            return _unable("WebSockets are not possible on this server, which keeps its connections to itself.")
        held = not (connection.stealable or connection.green)
        if held and self._mode == "auto" and not environ.get("wsgi.multithread"):
            return _unable("WebSockets are not possible on this server: each would hold a process of its own.")
        return _BEHIND_A_RESPONSE if connection.unsent() else None

    def _hand_over(self, session: "WebSocketSession", connection: ClientConnection, loop_thread: LoopThread) -> None:
        """Bring the loop a connection: the server's own, or one that this thread carries bytes to and from."""
        if connection.stealable:
            _give(session, steal(connection))
            if self._mode == "hold":
                _logger.debug("WebSocket: took the connection from the server, and hold its thread")
                while not session.over.wait(_LOOK_AROUND) and not loop_thread.ended:
                    pass
            else:
                _logger.debug("WebSocket: took the connection from the server")
        else:
            _logger.debug("WebSocket: carry the bytes of the server's connection in its thread")
            ours, theirs = socket.socketpair()
            with ours:
                _give(session, theirs)

                def alive() -> bool:
                    return not (session.over.is_set() or loop_thread.ended)

                carry(connection, ours, alive, session.note_that_client_left)


def _give(session: "WebSocketSession", sock: socket.socket) -> None:
    try:
        session.hand_over(sock)
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
    text = "WebSockets need the Python package wsproto on this server: pip install 'bridge[websocket]'."
    _logger.error("all WebSockets are refused: %s", text)  # once
    return text


def _ignore(data: bytes) -> None:
    """Be the `write` of a response that nobody gets."""


def _unable(text: str) -> Refusal:
    # "The server does not support the functionality required to fulfill the request": RFC 9110 15.6.2
    return Refusal("501 Not Implemented", text)


# Its 101 would be written amidst that response. RFC 6455 4.1 has a client open a connection for its handshake.
_BEHIND_A_RESPONSE = Refusal(
    "503 Service Unavailable",
    "A response is still being sent on this connection: use another one for the WebSocket.",
    [("Retry-After", "5")],
)
_FULL = Refusal("503 Service Unavailable", "Too many WebSockets are open on this server.", [("Retry-After", "5")])
