"""WSGI calls -> the messages of an ASGI response, and back, as twins.

One object is one response. It checks, counts and translates; it neither waits nor sends.
"""

import functools
import http
import logging
import re
from collections.abc import Iterable
from types import TracebackType

from bridge.errors import AppProtocolError
from bridge.sansio.redacted import shown
from bridge.sansio.request_name import request_name
from bridge.types import ExcInfo, Headers, Message, RawHeaders, Scope

_logger = logging.getLogger("bridge")

# --- Status -------------------------------------------------------------------------------------

# PEP 3333, start_response: "999 Message here", without control characters. That the message may
# be missing is the practice of wsgiref, waitress and gunicorn. A 1xx is no final answer.
_STATUS = re.compile(r"([2-9][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")


def code_from_status(status: str) -> int:
    """Return the code of a WSGI status; the reason means nothing (RFC 9110 15) and is dropped."""
    code = _maybe_code(status) if isinstance(status, str) else None
    if code is None:
        raise AppProtocolError(
            f"status must be a str like '200 OK', without control characters and no 1xx, "
            f"got {status!r:.200} (PEP 3333, The start_response() Callable)"
        )
    return code


@functools.lru_cache(maxsize=64)
def _maybe_code(status: str) -> int | None:
    match = _STATUS.fullmatch(status)
    return int(match[1]) if match else None


def status_from_code(code: object) -> str:
    """Return the WSGI status of an ASGI one: an int from 200 to 999, an http.HTTPStatus too."""
    if not isinstance(code, int) or not 200 <= code <= 999:
        raise AppProtocolError(
            f"status must be an int from 200 to 999, got {code!r:.200} (ASGI HTTP spec, Response Start)"
        )
    return _status_line(int(code))


# RFC 9110 15 has new names for these; the standard library has had them since Python 3.13.
_RENAMED = {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}


@functools.cache
def _status_line(code: int) -> str:
    try:
        return f"{code} {_RENAMED.get(code) or http.HTTPStatus(code).phrase}"
    except ValueError:
        return f"{code} Unknown"


# --- Headers ------------------------------------------------------------------------------------

# RFC 9110 5.6.2 and 5.5: what a name is made of, and what a value may hold (latin-1, no controls).
_NOT_IN_NAME = re.compile(r"[^!#$%&'*+\-.^_`|~0-9A-Za-z]")
_NOT_IN_VALUE = re.compile(r"[^\t\x20-\x7e\x80-\xff]")
# RFC 9110 7.6.1; PEP 3333, Other HTTP Features: these belong to a connection, and so to its server.
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    }
)


def raw_headers_from_native(headers: Headers) -> RawHeaders:
    """Return ASGI's header list, checked: lower-case names, latin-1 bytes, order and repeats kept."""
    if not isinstance(headers, (list, tuple)):
        raise AppProtocolError(
            f"headers must be a list of (name, value) tuples, got {shown(headers)} "
            "(PEP 3333, The start_response() Callable)"
        )
    raw: RawHeaders = []
    found = False
    try:
        for name, value in headers:
            value = value.strip(" \t")
            raw_name = _maybe_raw_name(name)
            if not (value.isascii() and value.isprintable()):
                _check_value(name, value)
            if raw_name is None:
                found = True
            else:
                raw.append((raw_name, value.encode("latin-1")))
        return raw_headers_from_native(_without_hop_by_hop(headers)) if found else raw
    except (AttributeError, TypeError, ValueError):
        raise AppProtocolError(
            f"headers must be pairs of str, got {shown(headers)} (PEP 3333, The start_response() Callable)"
        ) from None


def native_from_raw_headers(headers: Iterable[Iterable[bytes]]) -> Headers:
    """Return WSGI's header list, a new list of str tuples, order and repeats kept, checked.

    PEP 3333 has no control characters in values; a tab, which HTTP allows, means the same as a space.
    """
    native: Headers = []
    found = False
    try:
        for raw_name, raw_value in headers:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1").replace("\t", " ").strip(" ")
            if _is_hop_by_hop(name):
                found = True
            if not (value.isascii() and value.isprintable()):
                _check_value(name, value)
            native.append((name, value))
        return _without_hop_by_hop(native) if found else native
    except (AttributeError, TypeError, ValueError):
        raise AppProtocolError(
            f"headers must be pairs of bytes, got {shown(headers)} (ASGI HTTP spec, Response Start)"
        ) from None


@functools.lru_cache(maxsize=256)
def _is_hop_by_hop(name: str) -> bool:
    """Return whether a header belongs to the connection; raises AppProtocolError if its name is not a token."""
    wrong = _NOT_IN_NAME.search(name)
    if wrong is not None or not name:
        # What comes behind may be a value, which an app took for a part of the name.
        known = f"{name[: wrong.start()]!r:.200} followed by {wrong[0]!r}" if wrong else repr(name)
        raise AppProtocolError(f"header name {known} is not a token (RFC 9110 5.1)")
    return name.lower() in _HOP_BY_HOP


@functools.lru_cache(maxsize=256)
def _maybe_raw_name(name: str) -> bytes | None:
    """Return the name as ASGI has it; None for a hop-by-hop one. Raises as `_is_hop_by_hop` does."""
    return None if _is_hop_by_hop(name) else name.lower().encode("latin-1")


def _check_value(name: str, value: str) -> None:
    if wrong := _NOT_IN_VALUE.search(value):
        raise AppProtocolError(
            f"header {name!r} holds CR, LF, NUL, another control character or text beyond latin-1: "
            f"{wrong[0]!r} at index {wrong.start()} (RFC 9110 5.5)"
        )


def _without_hop_by_hop(headers: Headers) -> Headers:
    hop_by_hop = set(_HOP_BY_HOP)
    for name, value in headers:
        if name.lower() == "connection":  # "and any field it nominates"
            hop_by_hop.update(token.strip().lower() for token in value.split(","))
    for name in hop_by_hop.intersection(name.lower() for name, _ in headers):
        _warn_hop_by_hop(name)
    return [(name, value) for name, value in headers if name.lower() not in hop_by_hop]


@functools.lru_cache(maxsize=64)  # once a name, and no more names than an app could mean to send
def _warn_hop_by_hop(name: str) -> None:
    _logger.warning(
        "dropped the app's %r header, now and from now on: it is hop-by-hop, so only the server may "
        "send it (PEP 3333, Other HTTP Features)",
        name,
    )


# --- Length -------------------------------------------------------------------------------------

# With these an app has the proxy in front send a file. Flask and Django then give an empty body
# and the file's Content-Length, which servers would hold against the body.
_BODY_FROM_PROXY = frozenset({"x-sendfile", "x-accel-redirect", "x-lighttpd-send-file", "x-reproxy-url"})
_RAW_BODY_FROM_PROXY = frozenset(name.encode() for name in _BODY_FROM_PROXY)


class BodyLength:
    """Hold a body to its Content-Length (PEP 3333, Handling the Content-Length Header).

    What is too much is dropped, and logged once; too little is an error at the end. A response to
    HEAD, a 204 and a 304 have no body, whatever their headers say (RFC 9110 6.4.1).
    """

    __slots__ = ("_remaining", "_scope", "bodiless", "declared", "overrun", "reached")

    def __init__(self, method: str, code: int, lengths: list[str], scope: Scope | None = None) -> None:
        """`lengths` are the values of all Content-Length headers, and `scope` is the request's, for the log."""
        self._scope = scope
        self.bodiless = method == "HEAD" or code in (204, 304)
        self.declared = _one_length(lengths) if lengths else None
        self.overrun = False
        self._remaining = 0 if self.bodiless else self.declared
        self.reached = self._remaining == 0  # there is no room for another byte

    def clamp(self, chunk: bytes) -> bytes:
        """Return what of `chunk` still fits."""
        remaining = self._remaining
        if remaining is None:
            return chunk
        if len(chunk) > remaining:
            if not self.bodiless and not self.overrun:
                self.overrun = True
                _logger.error(
                    "%sthe app's body is longer than its Content-Length of %d: the surplus is dropped "
                    "(PEP 3333, Handling the Content-Length Header)",
                    "" if self._scope is None else f"{request_name(self._scope)}: ",
                    self.declared,
                )
            chunk = chunk[:remaining]
        self._remaining = remaining - len(chunk)
        self.reached = not self._remaining
        return chunk

    def check_reached(self) -> None:
        """Raise AppProtocolError if the body ended short of its Content-Length."""
        if self._remaining:
            raise AppProtocolError(
                f"the app declared a Content-Length of {self.declared}, and its body ended "
                f"{self._remaining} bytes short (PEP 3333, Handling the Content-Length Header)"
            )


def _one_length(lengths: list[str]) -> int:
    """Return what all of `lengths` say; raise AppProtocolError unless that is one number."""
    length = lengths[0]
    if lengths.count(length) < len(lengths) or not (length.isascii() and length.isdigit() and len(length) <= 1000):
        raise AppProtocolError(f"Content-Length must be one number, got {lengths!r:.200} (RFC 9110 8.6)")
    return int(length)


# --- A WSGI app's response, for an ASGI server ----------------------------------------------------


class ResponseFromWSGI:
    """What a WSGI app says by `start_response`, `write` and its iterable, as ASGI has it."""

    __slots__ = ("_called", "_method", "_scope", "_start", "begun", "length")

    def __init__(self, method: str, scope: Scope | None = None) -> None:
        """`scope` is the request's, for the log."""
        self.begun = False
        self._scope = scope
        self._method = method
        self._called = False
        self._start: Message | None = None

    def start_response(self, status: str, headers: Headers, exc_info: ExcInfo | None = None) -> None:
        """Store status and headers; with `exc_info`, in place of what was stored before."""
        if exc_info is not None:
            _check_exc_info(exc_info)
        if exc_info is not None and exc_info[1] is not None:
            try:
                if self.begun:
                    # "start_response must ... raise an exception": too late to say anything else.
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # "to avoid circular references"
        elif self._called:
            raise AppProtocolError(
                "start_response was called again without exc_info (PEP 3333, The start_response() Callable)"
            )
        self._called = True
        code, raw = code_from_status(status), raw_headers_from_native(headers)
        lengths = [value.decode("latin-1") for name, value in raw if name == b"content-length"]
        self.length = BodyLength(self._method, code, lengths, self._scope)  # declared, and passed on; once `ready`
        self._start = {"type": "http.response.start", "status": code, "headers": raw}
        if code == 204 and lengths:
            self._drop_length()

    def begin(self, empty: bool = False) -> Message:
        """Return the start message, which from now on cannot be taken back; `empty` says that no body follows."""
        start = self._start
        if start is None:
            raise AppProtocolError(
                "the app gave a body, or ended, without calling start_response (PEP 3333, "
                "The Application/Framework Side)"
            )
        if empty and not self.length.reached and any(name in _RAW_BODY_FROM_PROXY for name, _ in start["headers"]):
            self._drop_length()
        self.begun = True
        return start

    def _drop_length(self) -> None:
        """Take the Content-Length out of the headers: RFC 9110 8.6 forbids it for a 204."""
        assert self._start is not None
        self._start["headers"] = [header for header in self._start["headers"] if header[0] != b"content-length"]
        self.length = BodyLength(self._method, self._start["status"], [])

    @property
    def ready(self) -> bool:
        """Whether there is a start to begin with."""
        return self._start is not None


def _check_exc_info(exc_info: object) -> None:
    """Raise AppProtocolError for what is no `sys.exc_info()`."""
    if isinstance(exc_info, tuple) and len(exc_info) == 3:
        _, error, traceback = exc_info
        if isinstance(error, BaseException | None) and isinstance(traceback, TracebackType | None):
            return
    raise AppProtocolError(
        f"exc_info must be a tuple as of sys.exc_info(), got {type(exc_info).__name__} "
        "(PEP 3333, The start_response() Callable)"
    )


def check_iterable(iterable: object) -> None:
    """Raise TypeError for what would yield no bytes: a str, or bytes that it gives as ints."""
    if iterable is None or isinstance(iterable, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"a WSGI app returns an iterable of bytes, got {shown(iterable)}")


def check_chunk(chunk: object) -> None:
    """Raise TypeError for a chunk of body that is not bytes (PEP 3333, Unicode Issues)."""
    if not isinstance(chunk, bytes):
        hint = "; encode it first" if isinstance(chunk, str) else ""
        raise TypeError(f"a WSGI app's body is made of bytes, got {shown(chunk)}{hint}")


# --- An ASGI app's response, for a WSGI server ----------------------------------------------------


class ResponseFromASGI:
    """What an ASGI app says by http.response messages, as WSGI has it."""

    length: BodyLength  # declared, and passed on; after `start()`
    # Nothing may be passed on yet: the app has a proxy send the body, and has sent none itself so far.
    held = False

    def __init__(self, method: str, scope: Scope | None = None) -> None:
        """`scope` is the request's, for the log."""
        self._scope = scope
        self.status = ""
        self.headers: Headers = []
        self._method = method
        self._begun = False

    def start(self, message: Message) -> None:
        """Store status and headers of an http.response.start."""
        if "status" not in message:
            raise AppProtocolError("http.response.start has no 'status' (ASGI HTTP spec, Response Start)")
        self.status = status_from_code(message["status"])
        self.headers = native_from_raw_headers(message.get("headers") or ())
        lengths = [value for name, value in self.headers if name.lower() == "content-length"]
        self.length = BodyLength(self._method, int(message["status"]), lengths, self._scope)
        if lengths:
            if self.status.startswith("204"):
                self._drop_length()
            elif not self.length.reached:
                self.held = any(name.lower() in _BODY_FROM_PROXY for name, _ in self.headers)

    @property
    def is_event_stream(self) -> bool:
        """Whether it is one of server-sent events, which has no end of its own."""
        types = [value for name, value in self.headers if name.lower() == "content-type"]
        media_type = "".join(types[:1]).partition(";")[0].strip().lower()
        return media_type == "text/event-stream" and self.length.declared is None

    def pass_on(self, message: Message) -> bytes:
        """Return what of an http.response.body to yield; with the last one, check the length."""
        body = message.get("body") or b""
        if not isinstance(body, bytes):
            if not isinstance(body, (bytearray, memoryview)):
                raise AppProtocolError(
                    f"the 'body' of http.response.body must be bytes, got {type(body).__name__} "
                    "(ASGI HTTP spec, Response Body)"
                )
            body = bytes(body)
        if self._method == "HEAD" and not (self._begun or message.get("more_body")):
            self._tell_length(len(body))
        self._begun = True
        body = self.length.clamp(body)
        if self.held and (body or not message.get("more_body")):
            self.held = False
            if not body:
                self._drop_length()
        if not message.get("more_body"):
            self.length.check_reached()
        return body

    def _drop_length(self) -> None:
        """Take the Content-Length out of the headers: RFC 9110 8.6 forbids it for a 204."""
        self.headers = [header for header in self.headers if header[0].lower() != "content-length"]
        self.length = BodyLength(self._method, int(self.status[:3]), [])

    def _tell_length(self, size: int) -> None:
        """Say in the response to HEAD what that to GET would say by itself, if the app has not.

        Of an empty body, servers (wsgiref, gevent's) say that its length is 0, which would be wrong (RFC 9110 8.6).
        """
        if size and self.length.declared is None and self.status[:3] not in ("204", "304"):
            self.headers.append(("Content-Length", str(size)))
