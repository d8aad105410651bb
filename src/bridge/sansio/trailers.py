"""Trailers, the fields that follow the body of a response: an ASGI app's <-> a WSGI app's.

ASGI has the extension http.response.trailers (docs/extensions, HTTP Trailers). PEP 3333 has no trailers, so servers
put a callable into the environ. The app passes it a list of (name, value) tuples before the body ends.
"""

from collections.abc import Callable, Iterable
from typing import Final

from bridge.errors import AppProtocolError
from bridge.sansio.response_headers import native_from_raw_headers, raw_headers_from_native
from bridge.types import Environ, Headers, RawHeaders

EXTENSION: Final = "http.response.trailers"
# The keys of pyvoy, which connect-python uses, and of gunicorn over HTTP/2.
SEND_TRAILERS: Final = "wsgi.ext.http.send_trailers"
GUNICORNS_SEND_TRAILERS: Final = "gunicorn.http2.send_trailers"

# RFC 9110 6.5.1: a recipient needs these before the content, to frame, route, authorise or read the message.
_NOT_BEHIND_THE_BODY = frozenset(
    {
        "authorization",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "host",
        "set-cookie",
    }
)


def maybe_send_trailers(environ: Environ) -> Callable[[Headers], object] | None:
    """Return the server's callable for trailers, if it has one."""
    for key in (SEND_TRAILERS, GUNICORNS_SEND_TRAILERS):
        send_trailers: Callable[[Headers], object] | None = environ.get(key)
        if callable(send_trailers):
            return send_trailers
    return None


def accepts_trailers(environ: Environ) -> bool:
    """Return whether the client has sent `TE: trailers`; without it, trailers are not sent (docs/extensions)."""
    codings = str(environ.get("HTTP_TE") or "").lower().split(",")
    return any(coding.partition(";")[0].strip() == "trailers" for coding in codings)


def raw_trailers_from_native(trailers: Headers) -> RawHeaders:
    """Return a WSGI app's trailers as ASGI's list. Raises AppProtocolError, as for headers and for a forbidden name."""
    raw = raw_headers_from_native(trailers)
    for name, _ in raw:
        _check_name(name.decode("latin-1"))
    return raw


def native_trailers_from_raw(trailers: Iterable[Iterable[bytes]]) -> Headers:
    """Return an ASGI app's trailers as WSGI's list. Raises AppProtocolError, as its twin does."""
    native = native_from_raw_headers(trailers)
    for name, _ in native:
        _check_name(name)
    return native


def _check_name(name: str) -> None:
    if name.lower() in _NOT_BEHIND_THE_BODY:
        raise AppProtocolError(f"{name!r} must not be a trailer: send it as a header (RFC 9110 6.5.1)")
