"""The headers of a request in an ASGI scope <-> in a WSGI environ, as adjacent inverse pairs."""

import functools
import re

from bridge.errors import ClientProtocolError
from bridge.sansio.native_text import bytes_from_native
from bridge.sansio.unreadable import scope_error
from bridge.types import Environ, RawHeaders, Scope

# int() refuses more than 4,300 digits.
_DIGITS = re.compile("[0-9]{1,1000}")


# Few names recur, so both caches pay; they are small because a client can send any name.
@functools.lru_cache(maxsize=256)
def maybe_cgi_name_from_header(name: bytes) -> str | None:
    """Return the environ key of a request header, or None for a header to drop.

    A name with `_` could pass for one with `-` (nginx and gunicorn drop such names too). `Proxy` would
    become HTTP_PROXY, which HTTP clients obey ("httpoxy"). A pseudo-header is not a header.
    """
    key = name.upper().decode("latin-1")  # upper() before decode(), so that only ASCII letters change case
    if not key or "_" in key or key == "PROXY" or key.startswith(":"):
        return None
    key = key.replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


# HTTP_PROXY comes from the process: wsgiref and CGI handlers copy os.environ.
_NOT_OF_A_HEADER = ("HTTP_", "HTTP_PROXY", "HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH")


@functools.lru_cache(maxsize=256)
def maybe_header_from_cgi_name(key: str) -> bytes | None:
    """Return the request header that an environ key holds, or None if it holds none."""
    if key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        return key.lower().replace("_", "-").encode()
    if not key.startswith("HTTP_") or key in _NOT_OF_A_HEADER or ":" in key:
        return None
    return key[5:].encode("latin-1", "replace").lower().replace(b"_", b"-")


def add_headers(environ: Environ, headers: RawHeaders) -> None:
    """Add the request headers to an environ that has none yet.

    Repeated headers become one value with the same meaning (RFC 3875 4.1.18). They are joined once,
    at the end, so that time stays linear. Raises ClientProtocolError if Content-Length or Host
    headers differ, or if Content-Length is not a number.
    """
    repeated: dict[str, list[str]] = {}
    for name, value in headers:
        key = maybe_cgi_name_from_header(name)
        if key is None:
            continue
        if key in environ:
            repeated.setdefault(key, [environ[key]]).append(value.decode("latin-1"))
        else:
            environ[key] = value.decode("latin-1")
    for key, values in repeated.items():
        if key == "CONTENT_LENGTH":
            _check_same("Content-Length", values)  # RFC 9112 6.3: differing lengths allow request smuggling
        elif key == "HTTP_HOST":
            _check_same("Host", values)  # RFC 9112 3.2; HTTP/2 may send Host beside an equal :authority
        elif key != "CONTENT_TYPE":  # a joined value would mean something else, so the first counts
            # RFC 9113 8.2.3: HTTP/2 may split the Cookie header, and "; " is its separator.
            environ[key] = ("; " if key == "HTTP_COOKIE" else ",").join(values)
    if "CONTENT_LENGTH" in environ:
        content_length_from_header(environ["CONTENT_LENGTH"])
        if "HTTP_TRANSFER_ENCODING" in environ:
            # RFC 9112 6.3: Transfer-Encoding overrides the length, which may not match the decoded body.
            del environ["CONTENT_LENGTH"]


def _check_same(name: str, values: list[str]) -> None:
    if len(set(values)) > 1:
        raise ClientProtocolError(f"differing {name} headers: {', '.join(values)[:64]}")


def headers_from_environ(environ: Environ) -> RawHeaders:
    """Return the request headers of an environ, in its order.

    Raises ClientProtocolError if HTTP_HOST holds two hosts that differ.
    """
    headers: RawHeaders = []
    for key, value in environ.items():
        name = maybe_header_from_cgi_name(key)
        if name is None:
            continue
        if not isinstance(value, str):
            if key != "CONTENT_LENGTH" or not isinstance(value, int):
                continue
            value = str(value)  # Django's test client and some middleware set an int
        # An empty CONTENT_TYPE or CONTENT_LENGTH means that it is absent (PEP 3333, environ Variables).
        if value or key.startswith("HTTP_"):
            if key == "HTTP_HOST" and "," in value:  # most servers join repeated headers, even Host
                hosts = [host.strip() for host in value.split(",")]
                _check_same("Host", hosts)
                value = hosts[0]
            headers.append((name, value.encode() if value.isascii() else bytes_from_native(value)))
    return headers


def content_length_from_header(value: str) -> int:
    """Return the length in bytes. Raises ClientProtocolError unless `value` is digits only (RFC 9110 8.6)."""
    if _DIGITS.fullmatch(value) is None:
        raise ClientProtocolError(f"Content-Length is not a number: {value[:64]!r}")
    return int(value)


def with_header_pairs(scope: Scope) -> Scope:
    """Return `scope`, or a copy with a list of pairs if its headers are an iterable that can be read only once."""
    headers = scope.get("headers") or []
    if isinstance(headers, (list, tuple)) and (not headers or isinstance(headers[0], (tuple, list))):
        return scope
    try:
        return {**scope, "headers": [tuple(header) for header in headers]}
    except TypeError as error:
        raise scope_error(scope) from error
