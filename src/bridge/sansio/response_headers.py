"""The headers of a response: a WSGI app's <-> an ASGI app's, checked on the way."""

import functools
import logging
import re
from collections.abc import Iterable

from bridge.errors import AppProtocolError
from bridge.sansio.redacted import shown
from bridge.types import Headers, RawHeaders

_logger = logging.getLogger("bridge")

# RFC 9110 5.6.2 and 5.5: a name is a token, and a value is latin-1 without control characters.
_NOT_IN_NAME = re.compile(r"[^!#$%&'*+\-.^_`|~0-9A-Za-z]")
_NOT_IN_VALUE = re.compile(r"[^\t\x20-\x7e\x80-\xff]")
# RFC 9110 7.6.1; PEP 3333, Other HTTP Features: these describe a connection, so only its server may send them.
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


def raw_headers_from_native(headers: Headers, keep_trailer: bool = False) -> RawHeaders:
    """Return a WSGI app's headers as ASGI's list: lower-case names and latin-1 bytes, in the same order.

    Drops hop-by-hop headers with a warning, and so Trailer, unless `keep_trailer`: the server can send trailers. Raises
    AppProtocolError for any other header that is invalid.
    """
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
            if raw_name is not None:
                raw.append((raw_name, value.encode("latin-1")))
            elif keep_trailer and name.lower() == "trailer":
                raw.append((b"trailer", value.encode("latin-1")))
            else:
                found = True
        return raw_headers_from_native(_without_hop_by_hop(headers, keep_trailer), keep_trailer) if found else raw
    except (AttributeError, TypeError, ValueError):
        raise AppProtocolError(
            f"headers must be pairs of str, got {shown(headers)} (PEP 3333, The start_response() Callable)"
        ) from None


def native_from_raw_headers(headers: Iterable[Iterable[bytes]], keep_trailer: bool = False) -> Headers:
    """Return an ASGI app's headers as WSGI's list: a new list of str tuples, in the same order.

    PEP 3333 forbids control characters in values, so a tab, which HTTP allows, becomes a space. Drops
    hop-by-hop headers with a warning, and so Trailer, unless `keep_trailer`: the server can send trailers. Raises
    AppProtocolError for any other header that is invalid.
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
        return _without_hop_by_hop(native, keep_trailer) if found else native
    except (AttributeError, TypeError, ValueError):
        raise AppProtocolError(
            f"headers must be pairs of bytes, got {shown(headers)} (ASGI HTTP spec, Response Start)"
        ) from None


@functools.lru_cache(maxsize=256)
def _is_hop_by_hop(name: str) -> bool:
    """Return whether a header belongs to the connection; raises AppProtocolError if its name is not a token."""
    wrong = _NOT_IN_NAME.search(name)
    if wrong is not None or not name:
        # Show only what comes before: an app may have put a secret value into the name.
        known = f"{name[: wrong.start()]!r:.200} followed by {wrong[0]!r}" if wrong else repr(name)
        raise AppProtocolError(f"header name {known} is not a token (RFC 9110 5.1)")
    return name.lower() in _HOP_BY_HOP


@functools.lru_cache(maxsize=256)
def _maybe_raw_name(name: str) -> bytes | None:
    """Return the name in ASGI's form; None if it is hop-by-hop. Raises as `_is_hop_by_hop` does."""
    return None if _is_hop_by_hop(name) else name.lower().encode("latin-1")


def _check_value(name: str, value: str) -> None:
    if wrong := _NOT_IN_VALUE.search(value):
        raise AppProtocolError(
            f"header {name!r} holds CR, LF, NUL, another control character or text beyond latin-1: "
            f"{wrong[0]!r} at index {wrong.start()} (RFC 9110 5.5)"
        )


def _without_hop_by_hop(headers: Headers, keep_trailer: bool) -> Headers:
    hop_by_hop = set(_HOP_BY_HOP)
    if keep_trailer:
        hop_by_hop.discard("trailer")
    for name, value in headers:
        if name.lower() == "connection":  # "and any field it nominates"
            hop_by_hop.update(token.strip().lower() for token in value.split(","))
    for name in hop_by_hop.intersection(name.lower() for name, _ in headers):
        _warn_hop_by_hop(name)
    return [(name, value) for name, value in headers if name.lower() not in hop_by_hop]


@functools.lru_cache(maxsize=64)  # warns once for each name, and bounds the number of names
def _warn_hop_by_hop(name: str) -> None:
    _logger.warning(
        "dropped the app's %r header, now and from now on: it is hop-by-hop, so only the server may "
        "send it (PEP 3333, Other HTTP Features)",
        name,
    )
