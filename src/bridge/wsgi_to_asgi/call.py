"""One call of a WSGI app, in its worker thread: the server's part of PEP 3333."""

import contextvars
import enum
import logging
import threading
from collections import deque
from collections.abc import Iterable
from typing import Protocol, TypeAlias

from bridge.errors import AppProtocolError, ClientDisconnected
from bridge.runtime import Loop, set_async_library
from bridge.sansio.response import ResponseFromWSGI, check_chunk, check_iterable, native_from_app_headers
from bridge.types import Environ, ExcInfo, Headers, Message, Scope, Write, WSGIApp
from bridge.wsgi_to_asgi.runner import lend_loop_to_asgiref
from bridge.wsgi_to_asgi.streams import FileWrapper, spooled_input

_logger = logging.getLogger("bridge")

# How much of a body may be on the way: more wake-ups with less, and no fewer with more.
_LIMIT = 256 * 1024


class Mark(enum.Enum):
    """What a thread says to the loop, besides messages and blocks of body."""

    END = "the response is complete"
    WATCH_WANTED = "the app reads on, or asks whether the client is still there"
    FINISHED = "the thread is done with the request"


Item: TypeAlias = Message | bytes | Mark


class Connection(Protocol):
    """What a call asks of the request that it answers; see `http.HTTPExchange`."""

    loop: Loop
    outbox: deque[Item]
    gone: bool
    finished: bool
    transmitted: int
    sent_lock: threading.Lock

    def tell(self) -> None: ...

    def watch(self) -> None: ...

    def sleep(self, lock: threading.Lock) -> None: ...


class WSGICall:
    """One call of the app, and what it makes of the response.

    All of it runs in the worker thread, except that `write()` may come from another one.
    """

    def __init__(self, connection: Connection, scope: Scope) -> None:
        self.error: BaseException | None = None
        self._connection = connection
        self._outbox = connection.outbox
        self._response = ResponseFromWSGI(scope["method"])
        self._pathsend = "http.response.pathsend" in (scope.get("extensions") or ())
        self._ended = False
        self._produced = 0  # bytes of body

    def run(self, context: contextvars.Context, app: WSGIApp, environ: Environ, buffer_body: bool) -> None:
        """Run `app`, whatever happens: the job of a worker thread."""
        connection = self._connection
        try:
            if not connection.gone:
                context.run(self._call, app, environ, buffer_body)
        except BaseException as error:
            self.error = error
        if connection.finished:
            self.log_error()
        self._outbox.append(Mark.FINISHED)
        connection.tell()

    def take_error(self) -> BaseException | None:
        """Return what the app raised, once: it refers to this call by its traceback."""
        error, self.error = self.error, None
        return error

    def log_error(self) -> None:
        """Log what the app has raised, as its request was cancelled and nobody will raise it; in any thread."""
        error = self.take_error()
        if error is not None and not isinstance(error, ClientDisconnected):
            _logger.error("the WSGI app raised after its request was cancelled", exc_info=error)

    def send_early_hints(self, headers: Headers) -> None:
        """`wsgi.early_hints`, as gunicorn has it: send the Link headers ahead of the response."""
        links = [value.encode("latin-1") for name, value in native_from_app_headers(headers) if name.lower() == "link"]
        if links and not self._response.begun:
            self._outbox.append({"type": "http.response.early_hint", "links": links})
            self._connection.tell()

    def _call(self, app: WSGIApp, environ: Environ, buffer_body: bool) -> None:
        set_async_library(None)
        lend_loop_to_asgiref(self._connection.loop)
        if buffer_body and "CONTENT_LENGTH" not in environ:
            with spooled_input(environ):
                self._call_app(app, environ)
        else:
            self._call_app(app, environ)

    def _call_app(self, app: WSGIApp, environ: Environ) -> None:
        iterable = app(environ, self._start_response)
        try:
            self._respond(iterable)
        finally:
            close = getattr(iterable, "close", None)
            if close is not None:
                self._connection.tell()  # the end of the response need not wait for close()
                close()

    def _start_response(self, status: str, headers: Headers, exc_info: ExcInfo | None = None, /) -> Write:
        try:
            self._response.start_response(status, headers, exc_info)
        finally:
            exc_info = None  # PEP 3333: "to avoid creating a circular reference"
        return self._write

    def _write(self, chunk: bytes, /) -> None:
        if self._connection.gone:
            raise ClientDisconnected
        if self._connection.finished or (self._ended and not self._response.length.reached):
            raise AppProtocolError("write() was called after the response had ended")
        self._put(chunk)
        if self._response.length.overrun:
            raise AppProtocolError("write() went beyond Content-Length (PEP 3333, Handling the Content-Length Header)")
        self._connection.tell()

    def _respond(self, iterable: Iterable[bytes]) -> None:
        """Pass on what the app returned, block by block."""
        check_iterable(iterable)
        if self._pathsend and type(iterable) is FileWrapper and self._send_path(iterable):
            return
        at_hand = isinstance(iterable, (list, tuple))  # no next() will keep a block waiting
        if not self._ended:  # it may be, by write()
            for chunk in iterable:
                self._put(chunk)
                if self._ended or self._connection.gone:
                    return
                if not at_hand:
                    self._connection.tell()
            self._end()

    def _send_path(self, wrapper: FileWrapper) -> bool:
        """Have the server send the file by itself, if it can and the file is fit for it."""
        response = self._response
        if response.begun or not response.ready or response.length.bodiless:
            return False
        path = wrapper.maybe_path(response.length.declared)
        if path is None:
            return False
        self._outbox.extend([response.begin(), {"type": "http.response.pathsend", "path": path}])
        self._ended = True
        self._produced += 1
        self._connection.tell()
        self._make_room(0)  # for close(), which may delete the file
        return True

    def _put(self, chunk: bytes) -> None:
        """Pass one block on; wait if there is more on the way than there should be."""
        check_chunk(chunk)
        if not chunk:
            # The headers wait for the first block that is not empty (PEP 3333). An app may wait so, too.
            self._connection.watch()
            return
        response = self._response
        items: list[Item] = [] if response.begun else [response.begin()]
        chunk = response.length.clamp(chunk)
        if chunk:
            items.append(chunk)
        if response.length.reached and not self._ended:
            self._ended = True
            items.append(Mark.END)
        self._outbox.extend(items)
        self._produced += len(chunk)
        if self._produced - self._connection.transmitted > _LIMIT:
            self._connection.tell()
            self._make_room(_LIMIT)

    def _make_room(self, limit: int) -> None:
        """Wait until no more than `limit` is on the way."""
        connection = self._connection
        while self._produced - connection.transmitted > limit and not connection.gone:
            connection.sleep(connection.sent_lock)

    def _end(self) -> None:
        """Pass the end of the body on, and the headers if there was no body."""
        response = self._response
        items: list[Item] = [] if response.begun else [response.begin()]
        response.length.check_reached()
        self._ended = True
        self._outbox.extend([*items, Mark.END])
