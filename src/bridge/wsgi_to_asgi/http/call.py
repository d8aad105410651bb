"""One call of a WSGI app, in its worker thread: the server's part of PEP 3333.

Its twin is `asgi_to_wsgi/http/call.py`.
"""

from collections.abc import Callable, Container, Iterable

from bridge.errors import AppProtocolError, ClientDisconnected, ClientProtocolError
from bridge.runtime import set_async_library
from bridge.sansio.response import ResponseFromWSGI, check_chunk, check_iterable
from bridge.sansio.response_headers import raw_headers_from_native
from bridge.sansio.trailers import EXTENSION as TRAILERS
from bridge.sansio.trailers import SEND_TRAILERS, accepts_trailers, raw_trailers_from_native
from bridge.types import Environ, ExcInfo, Headers, RawHeaders, Scope, Write, WSGIApp
from bridge.wsgi_to_asgi.http.hop import END, Exchange, Item
from bridge.wsgi_to_asgi.http.streams import FileWrapper, LateInput, spooled_input
from bridge.wsgi_to_asgi.runner import lend_loop_to_asgiref

# How many bytes of a response body may wait to be sent. Less costs more wake-ups; more saves none.
_LIMIT = 256 * 1024


class WSGICall:
    """One call of the app: runs it, and puts its response into the outbox of its exchange.

    All of it runs in the worker thread; only `write()` may be called from another one.
    """

    __slots__ = (
        *("_early_hints", "_ended", "_exchange", "_may_trail", "_outbox", "_pathsend", "_produced", "_response"),
        "_trailers",
    )

    def __init__(self, exchange: Exchange, scope: Scope, method: str, extensions: Container[str] = ()) -> None:
        self._exchange = exchange
        self._outbox = exchange.outbox
        self._response = ResponseFromWSGI(method, scope)
        self._pathsend = "http.response.pathsend" in extensions
        self._early_hints = "http.response.early_hint" in extensions
        self._may_trail = TRAILERS in extensions
        self._ended = False
        self._produced = 0  # bytes of body

    def run(
        self, app: WSGIApp, make_environ: Callable[[], Environ], buffer_body: bool = False, lend_loop: bool = False
    ) -> None:
        """Run `app`; the caller enters the app's context. Raises what the app raises."""
        try:
            environ = make_environ()
        except ClientProtocolError as error:
            self._refuse(error)
            return
        if self._early_hints:
            environ["wsgi.early_hints"] = self._send_early_hints
        if self._may_trail:
            self._trailers: RawHeaders = []
            self._response.trailing = accepts_trailers(environ)
            environ[SEND_TRAILERS] = self._send_trailers
        set_async_library(None)
        lend_loop_to_asgiref(self._exchange.loop if lend_loop else None)
        wants_length = buffer_body and "CONTENT_LENGTH" not in environ
        if (wants_length or lend_loop) and type(environ["wsgi.input"]) is not LateInput:
            with spooled_input(environ, wants_length):
                self._call_app(app, environ)
        else:
            self._call_app(app, environ)

    def _send_early_hints(self, headers: Headers) -> None:
        """Send the Link headers before the response; this is `wsgi.early_hints`, as in gunicorn."""
        links = [value for name, value in raw_headers_from_native(headers) if name == b"link"]
        if links and not self._response.begun:
            self._outbox.append({"type": "http.response.early_hint", "links": links})
            self._exchange.tell()

    def _send_trailers(self, trailers: Headers) -> None:
        """Store what is to follow the body; a later call replaces it. This is `wsgi.ext.http.send_trailers`."""
        self._trailers = raw_trailers_from_native(trailers)

    def _refuse(self, error: ClientProtocolError) -> None:
        body = f"Bad request: {error}\n".encode()
        self._start_response(
            "400 Bad Request", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
        )
        self._put(body)

    def _call_app(self, app: WSGIApp, environ: Environ) -> None:
        iterable: Iterable[bytes] | None = None
        closing = False
        try:
            try:
                iterable = app(environ, self._start_response)
                self._respond(iterable)
            finally:
                close = getattr(iterable, "close", None)
                if close is not None:
                    self._exchange.tell()  # so that the end of the response does not wait for close()
                    closing = True
                    close()
        except BaseException:
            # An exception from outside (PyThreadState_SetAsyncExc) may have landed just before the call of close().
            if not closing and (close := getattr(iterable, "close", None)) is not None:
                close()
            raise

    def _start_response(self, status: str, headers: Headers, exc_info: ExcInfo | None = None, /) -> Write:
        try:
            self._response.start_response(status, headers, exc_info)
        finally:
            exc_info = None  # PEP 3333: "to avoid creating a circular reference"
        return self._write

    def _write(self, chunk: bytes, /) -> None:
        complete = self._ended and self._response.length.reached
        if self._exchange.gone and not complete:  # a client that has received all may leave
            raise ClientDisconnected
        if self._exchange.finished or (self._ended and not complete):
            raise AppProtocolError("write() was called after the response had ended")
        self._put(chunk)
        if self._response.length.overrun:
            raise AppProtocolError("write() went beyond Content-Length (PEP 3333, Handling the Content-Length Header)")
        self._exchange.tell()

    def _respond(self, iterable: Iterable[bytes]) -> None:
        """Pass on the blocks that the app returned."""
        at_hand = isinstance(iterable, (list, tuple))  # so that no next() delays a block
        if not at_hand:
            check_iterable(iterable)
            if self._pathsend and type(iterable) is FileWrapper and self._send_path(iterable):
                return
        elif self._response.trailing and not (self._trailers or self._response.begun):
            self._response.trailing = False  # the app has returned, so none will come
        iterator = iter(iterable)
        if not self._ended:  # write() may have sent the whole response
            for chunk in iterator:
                self._put(chunk)
                if self._ended or self._exchange.gone:
                    break
                if not at_hand:
                    self._exchange.tell()
            else:
                self._end()
                return
        if not (at_hand or self._exchange.gone or self._response.length.bodiless):
            # Other servers ask once more after the last block, so a generator may do its remaining work then.
            self._exchange.tell()  # so that the client does not wait for that
            next(iterator, None)
        if self._response.trailing:
            self._outbox.extend(self._ending())

    def _send_path(self, wrapper: FileWrapper) -> bool:
        """Let the server send the file by its path, if that would send the same; return whether it does."""
        response = self._response
        if response.begun or not response.ready or response.length.bodiless or response.trailing:
            return False
        path = wrapper.maybe_path(response.length.declared)
        if path is None:
            return False
        self._outbox.extend([response.begin(), {"type": "http.response.pathsend", "path": path}])
        self._ended = True
        self._produced += 1
        self._exchange.tell()
        self._make_room(0)  # before close(), which may delete the file
        return True

    def _put(self, chunk: bytes) -> None:
        """Pass on one block; wait while too much waits to be sent."""
        check_chunk(chunk)
        if not chunk:
            # The headers wait for the first block that is not empty (PEP 3333). An app may yield empty ones to wait.
            self._exchange.watch()
            return
        response = self._response
        items: list[Item] = [] if response.begun else [response.begin()]
        chunk = response.length.clamp(chunk)
        if chunk:
            items.append(chunk)
        if response.length.reached and not self._ended:
            self._ended = True
            if not response.trailing:
                items.append(END)
        self._outbox.extend(items)
        self._produced += len(chunk)
        if self._produced - self._exchange.transmitted > _LIMIT:
            self._exchange.tell()
            self._make_room(_LIMIT)

    def _make_room(self, limit: int) -> None:
        """Wait until no more than `limit` bytes wait to be sent."""
        exchange = self._exchange
        exchange.sleep_while(lambda: self._produced - exchange.transmitted > limit and not exchange.gone)

    def _end(self) -> None:
        """Pass on the end of the response, and its headers if there was no body."""
        response = self._response
        if response.trailing and not (self._trailers or response.begun):
            response.trailing = False
        items: list[Item] = [] if response.begun else [response.begin(empty=True)]
        response.length.check_reached()
        self._ended = True
        self._outbox.extend([*items, *self._ending()] if response.trailing else [*items, END])

    def _ending(self) -> list[Item]:
        """Return what ends a response that promised trailers, of which there may be none."""
        return [
            {"type": "http.response.body", "body": b"", "more_body": False},
            {"type": TRAILERS, "headers": self._trailers, "more_trailers": False},
        ]
