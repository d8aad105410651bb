"""The thread in which the app of one WebSocket runs."""

import contextlib
import contextvars
import functools
import logging
import socket
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from wsproto.utilities import LocalProtocolError

from bridge.errors import AppProtocolError
from bridge.runtime import BackgroundThread, Loop, LoopClosed
from bridge.sansio.request_name import request_name
from bridge.types import Environ, Scope, StartResponse, Write, WSGIApp
from bridge.wsgi_to_asgi.http.call import WSGICall
from bridge.wsgi_to_asgi.http.hop import FINISHED, Exchange, Item, Mark
from bridge.wsgi_to_asgi.http.streams import LoopEvent
from bridge.wsgi_to_asgi.websocket.messages import Messages

_logger = logging.getLogger("bridge")

# How many bytes of a response may be collected before they are sent.
_SMALL_BODY = 32 * 1024


class AppThread(Exchange):
    """The thread of a WebSocket's app, and what it shares with the loop; the `Exchange` of its `WSGICall`."""

    def __init__(
        self, scope: Scope, loop: Loop, sock: socket.socket, messages: Messages, stop: Callable[[], object]
    ) -> None:
        """`stop` is a method that ends the WebSocket; it is called on the loop."""
        self.loop = loop
        # Written in the thread:
        self.outbox = deque[Item]()
        self.answered_5xx = False
        self.done = False
        self._error: BaseException | None = None  # what the app raised
        self._outlived = False  # the app ended after the WebSocket
        # Written on the loop:
        self.answered = False  # the app has accepted or refused on its socket
        self.gone = False  # the app's HTTP response is not wanted
        self.disconnected = LoopEvent(loop, "bridge.disconnected")
        self._scope = scope
        self._stop = weakref.WeakMethod(stop)  # because its object refers to this one, and ends with its request
        self._socket: socket.socket | None = sock
        self._messages = messages

    # ON THE LOOP

    def start(self, app: WSGIApp, environ: Environ, lend_loop: bool, ended: Callable[[], None]) -> bool:
        """Run `app` in the thread, then call `ended`; return whether the thread could start."""
        arguments = (contextvars.copy_context(), app, environ, lend_loop, ended)
        self._thread = BackgroundThread("WSGIToASGI WebSocket", self._run, arguments, self.stop)
        try:
            self._thread.start()
        except RuntimeError:
            return False
        return True

    async def until_done(self) -> None:
        """Wait until the app has ended."""
        while not self.done:
            await self._until_told()

    async def take_items(self) -> list[Item]:
        """Wait for the app's HTTP response; return all of it if it is small, else a first part.

        A small body must be sent as one message, because uvicorn's engine "websockets" loses later ones, and granian
        accepts only one.
        """
        items: list[Item] = []
        while not (items and isinstance(items[-1], Mark)) and _size(items) <= _SMALL_BODY:
            if not self.outbox:
                await self._until_told()
            items.extend(self.outbox.popleft() for _ in range(len(self.outbox)))
        return items

    async def _until_told(self) -> None:
        self._event = self.loop.event()
        await self._event.wait()

    def take_error(self) -> BaseException | None:
        """Return what the app raised, unless it only reported the end of its WebSocket."""
        error, self._error = self._error, None
        return None if self._is_an_end(error) else error

    @property
    def failed(self) -> bool:
        """Whether the app still runs, has raised, or has answered with 5xx, as frameworks do for an exception."""
        return not self.done or self.answered_5xx or not self._is_an_end(self._error)

    def _is_an_end(self, error: BaseException | None) -> bool:
        """Return whether `error` is None, or only means that the WebSocket has ended.

        Once the app has answered on its socket, nobody receives its WSGI response, so errors in that do not count.
        """
        if error is None or not self.answered:
            return error is None
        if type(error) in (StopIteration, ConnectionError, AppProtocolError):
            return True  # libraries raise the first two for gunicorn and Werkzeug
        simple_websocket = sys.modules.get("simple_websocket")
        closed = (OSError, simple_websocket.ConnectionClosed) if simple_websocket else (OSError,)
        # simple-websocket's `send` raises LocalProtocolError when its own thread has just read the end. An OSError that
        # names a file does not come from a socket.
        return self._outlived and isinstance(error, (*closed, LocalProtocolError)) and not _names_a_file(error)

    # IN THE THREAD

    def _run(
        self,
        context: contextvars.Context,
        app: WSGIApp,
        environ: Environ,
        lend_loop: bool,
        ended: Callable[[], None],
    ) -> None:
        """Run `app`; the target of the thread. Raises nothing."""
        try:
            try:
                if not self.gone:
                    call = functools.partial(WSGICall(self, self._scope, "GET").run, lend_loop=lend_loop)
                    context.run(call, functools.partial(self._call_app, app), lambda: environ)
            except BaseException as raised:
                self._error = raised
            self._finish(ended)
        except BaseException as late:  # an app's watchdog raised it here after the app (PyThreadState_SetAsyncExc)
            if self._error is None:
                self._error = late
            self._finish(ended)

    def _finish(self, ended: Callable[[], None]) -> None:
        """Tell the loop that the app is done. Idempotent."""
        self.outbox.append(FINISHED)
        self.tell()
        self._outlived = self.disconnected.is_set()
        self._hang_up()
        self._socket = None  # closes it, unless a library's own thread still uses it
        self.done = True
        if self.finished and (error := self.take_error()) is not None:
            name = request_name(self._scope)
            _logger.error("%s: the WSGI app raised after its WebSocket had closed", name, exc_info=error)
        self.tell()
        ended()

    def _call_app(self, app: WSGIApp, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, *arguments: Any) -> Write:
            try:
                self.answered_5xx = str(status).startswith("5")
                if str(status).startswith("101"):  # only for the server's log: the handshake was on the socket
                    return lambda chunk: None
                return start_response(status, *arguments)
            finally:
                del arguments  # PEP 3333: "to avoid creating a circular reference"

        return app(environ, start)

    def _hang_up(self) -> None:
        """End the app's side of the socket and of `Messages`; the loop still reads what was written."""
        self._messages.hang_up()
        if self._socket is not None:
            with contextlib.suppress(OSError):  # the app has closed it
                self._socket.shutdown(socket.SHUT_WR)

    def tell(self) -> None:
        """Make the loop look at the outbox. An app that has responded no longer uses its socket."""
        if self.outbox:
            self._hang_up()
        self.knock()

    def watch(self) -> None:
        """Do nothing, because the client of a WebSocket is always watched."""

    # IN ANY OTHER THREAD

    def stop(self) -> None:
        """Make the WebSocket end, on behalf of the server."""
        if (stop := self._stop()) is not None:
            with contextlib.suppress(LoopClosed):
                self.loop.call_soon(stop)

    def join(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for the thread to end; return whether it did."""
        self._thread.join(timeout)
        return not self._thread.is_alive()


def _names_a_file(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.filename is not None


def _size(items: Iterable[Item]) -> int:
    """Return the number of bytes of body in `items`."""
    return sum(len(item) for item in items if isinstance(item, bytes))
