"""WSGI calls -> the messages of an ASGI response, and back, as twins.

One object is one response. It checks, counts and translates; it neither waits nor sends.
"""

from types import TracebackType

from bridge.errors import AppProtocolError
from bridge.sansio.body_length import BodyLength
from bridge.sansio.redacted import shown
from bridge.sansio.response_headers import native_from_raw_headers, raw_headers_from_native
from bridge.sansio.status import code_from_status, status_from_code
from bridge.types import ExcInfo, Headers, Message, Scope

# An app sends these to have the proxy in front of it serve a file. Flask and Django then send an empty
# body with the file's Content-Length, which servers would reject as too short.
_BODY_FROM_PROXY = frozenset({"x-sendfile", "x-accel-redirect", "x-lighttpd-send-file", "x-reproxy-url"})
_RAW_BODY_FROM_PROXY = frozenset(name.encode() for name in _BODY_FROM_PROXY)

# --- A WSGI app's response, for an ASGI server ----------------------------------------------------


class ResponseFromWSGI:
    """Translate a WSGI app's `start_response` calls into ASGI's http.response.start."""

    __slots__ = ("_called", "_method", "_scope", "_start", "begun", "length", "trailing")

    def __init__(self, method: str, scope: Scope | None = None) -> None:
        """`scope` is the request's, for the log."""
        self.begun = False
        self.trailing = False  # trailers may follow the body, which the start promises
        self._scope = scope
        self._method = method
        self._called = False
        self._start: Message | None = None

    def start_response(self, status: str, headers: Headers, exc_info: ExcInfo | None = None) -> None:
        """Store the status and headers; `exc_info` allows a later call to replace them.

        Raises AppProtocolError for invalid arguments or a second call without `exc_info`, and the
        exception in `exc_info` if the response has begun (PEP 3333, The start_response() Callable).
        """
        if exc_info is not None:
            _check_exc_info(exc_info)
        if exc_info is not None and exc_info[1] is not None:
            try:
                if self.begun:
                    # "start_response must ... raise an exception": too late to change the response.
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # "to avoid circular references"
        elif self._called:
            raise AppProtocolError(
                "start_response was called again without exc_info (PEP 3333, The start_response() Callable)"
            )
        self._called = True
        code, raw = code_from_status(status), raw_headers_from_native(headers, self.trailing)
        lengths = [value.decode("latin-1") for name, value in raw if name == b"content-length"]
        self.length = BodyLength(
            self._method, code, lengths, self._scope
        )  # declared, and passed on so far; exists once `ready`
        self._start = {"type": "http.response.start", "status": code, "headers": raw}
        if code == 204 and lengths:
            self._drop_length()

    def begin(self, empty: bool = False) -> Message:
        """Return the start message, which can no longer be replaced; pass `empty` if no body follows.

        Raises AppProtocolError if the app has not called start_response.
        """
        start = self._start
        if start is None:
            raise AppProtocolError(
                "the app sent a body, or ended, before it called start_response (PEP 3333, "
                "The Application/Framework Side)"
            )
        if empty and not self.length.reached and any(name in _RAW_BODY_FROM_PROXY for name, _ in start["headers"]):
            self._drop_length()
        if self.trailing:
            self.trailing = not self.length.bodiless
            start["trailers"] = self.trailing
        self.begun = True
        return start

    def _drop_length(self) -> None:
        """Take the Content-Length out of the headers: RFC 9110 8.6 forbids it for a 204."""
        assert self._start is not None
        self._start["headers"] = [header for header in self._start["headers"] if header[0] != b"content-length"]
        self.length = BodyLength(self._method, self._start["status"], [])

    @property
    def ready(self) -> bool:
        """Whether the app has called start_response successfully."""
        return self._start is not None


def _check_exc_info(exc_info: object) -> None:
    """Raise AppProtocolError unless `exc_info` has the form of `sys.exc_info()`."""
    if isinstance(exc_info, tuple) and len(exc_info) == 3:
        _, error, traceback = exc_info
        if isinstance(error, BaseException | None) and isinstance(traceback, TracebackType | None):
            return
    raise AppProtocolError(
        f"exc_info must be a tuple like sys.exc_info(), got {type(exc_info).__name__} "
        "(PEP 3333, The start_response() Callable)"
    )


def check_iterable(iterable: object) -> None:
    """Raise TypeError for None and for strings: iterating over them does not yield bytes."""
    if iterable is None or isinstance(iterable, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"a WSGI app returns an iterable of bytes, got {shown(iterable)}")


def check_chunk(chunk: object) -> None:
    """Raise TypeError for a chunk of body that is not bytes (PEP 3333, Unicode Issues)."""
    if not isinstance(chunk, bytes):
        hint = "; encode it first" if isinstance(chunk, str) else ""
        raise TypeError(f"a WSGI app's body is made of bytes, got {shown(chunk)}{hint}")


# --- An ASGI app's response, for a WSGI server ----------------------------------------------------


class ResponseFromASGI:
    """Translate an ASGI app's http.response messages into a WSGI status, headers and body."""

    length: BodyLength  # declared, and passed on so far; exists after `start()`
    # True while nothing may be passed on: a proxy is to send the body, and the app has sent none so far.
    held = False

    def __init__(self, method: str, scope: Scope | None = None) -> None:
        """`scope` is the request's, for the log."""
        self._scope = scope
        self.status = ""
        self.headers: Headers = []
        self._method = method
        self._begun = False

    def start(self, message: Message, trailing: bool = False) -> None:
        """Store the status and headers of an http.response.start; `trailing` if trailers will follow the body.

        Raises AppProtocolError if it is invalid.
        """
        if "status" not in message:
            raise AppProtocolError("http.response.start has no 'status' (ASGI HTTP spec, Response Start)")
        status = status_from_code(message["status"])
        headers = native_from_raw_headers(message.get("headers") or (), trailing)
        lengths: list[str] = []
        from_proxy = False
        for name, value in headers:
            lowered = name.lower()
            if lowered == "content-length":
                lengths.append(value)
            elif lowered in _BODY_FROM_PROXY:
                from_proxy = True
        self.length = BodyLength(self._method, int(message["status"]), lengths, self._scope)
        self.status, self.headers = status, headers  # only now, because an invalid message starts nothing
        if lengths:
            if self.status.startswith("204"):
                self._drop_length()
            elif not self.length.reached:
                self.held = from_proxy

    @property
    def head_is_due(self) -> bool:
        """Whether the head is to be sent before there is any body: an event stream's, whose first event may be late."""
        if not self.status or self.length.declared is not None or self.length.bodiless:
            return False
        return self.is_event_stream

    @property
    def is_event_stream(self) -> bool:
        """Whether this is a stream of server-sent events, which does not end by itself."""
        types = [value for name, value in self.headers if name.lower() == "content-type"]
        media_type = "".join(types[:1]).partition(";")[0].strip().lower()
        return media_type == "text/event-stream" and self.length.declared is None

    def pass_on(self, message: Message) -> bytes:
        """Return the bytes of an http.response.body to yield, and check the length after the last one.

        Raises AppProtocolError if the body is not bytes or ends short of its Content-Length.
        """
        body, more = message.get("body") or b"", message.get("more_body")
        if not isinstance(body, bytes):
            if not isinstance(body, (bytearray, memoryview)):
                raise AppProtocolError(
                    f"the 'body' of http.response.body must be bytes, got {type(body).__name__} "
                    "(ASGI HTTP spec, Response Body)"
                )
            body = bytes(body)
        if self._method == "HEAD" and not (self._begun or more):
            self._tell_length(len(body))
        self._begun = True
        body = self.length.clamp(body)
        if self.held and (body or not more):
            self.held = False
            if not body:
                self._drop_length()
        if not more:
            self.length.check_reached()
        return body

    def _drop_length(self) -> None:
        """Take the Content-Length out of the headers: RFC 9110 8.6 forbids it for a 204."""
        self.headers = [header for header in self.headers if header[0].lower() != "content-length"]
        self.length = BodyLength(self._method, int(self.status[:3]), [])

    def _tell_length(self, size: int) -> None:
        """Add the Content-Length that a response to GET would have, unless the app has declared one.

        Otherwise servers (wsgiref, gevent's) would declare 0, which is wrong for HEAD (RFC 9110 8.6).
        """
        if size and self.length.declared is None and self.status[:3] not in ("204", "304"):
            self.headers.append(("Content-Length", str(size)))
