"""Write a response as HTTP/1.1 (RFC 9112), for a connection that the adapter has taken from its server.

The connection ends with the response. The caller has parsed the request, and has checked the status and the headers.
"""

import email.utils
import functools
from collections.abc import Iterable

from bridge.types import Headers


class ResponseWriter:
    """Frames one response: early hints, the head, the blocks of the body, the end.

    Each method returns the bytes to write, and none waits or sends. After `head`, `ends_by_close` tells whether only
    closing the connection ends the body. If so, a body that is cut short must end by a reset.
    """

    def __init__(self, method: str, http_version: str, chunks: bool = True) -> None:
        """`http_version` is that of the ASGI scope. Without `chunks`, closing ends a body of unknown length.

        `chunks` must be False behind a proxy that speaks the uwsgi protocol, because it passes chunk sizes on as body.
        """
        self.ends_by_close = False
        self._method = method
        self._knows_http11 = http_version != "1.0"
        self._chunks = chunks and self._knows_http11
        self._chunked = False

    def early_hints(self, links: Headers) -> bytes:
        """Return a 103 response (RFC 8297); nothing for HTTP/1.0, whose clients do not know 1xx (RFC 9110 15.2)."""
        return _head("103 Early Hints", links) if self._knows_http11 else b""

    def head(self, status: str, headers: Headers, date: str) -> bytes:
        """Return the status line and the headers, with `date` unless the app has set one (RFC 9110 6.6.1)."""
        names = {name.lower() for name, _ in headers}
        extra = [] if "date" in names else [("Date", date)]
        has_body = self._method != "HEAD" and status[:3] not in ("204", "304")  # RFC 9110 6.4.1
        if has_body and "content-length" not in names:
            self._chunked = self._chunks
            self.ends_by_close = not self._chunks
            if self._chunked:
                extra.append(("Transfer-Encoding", "chunked"))
        return _head(status, [*headers, *extra, ("Connection", "close")])

    def block(self, block: bytes) -> tuple[bytes, ...]:
        """Return the parts that carry a block of the body (RFC 9112 7.1); none for an empty one, which would end it."""
        if not block:
            return ()
        return (b"%x\r\n" % len(block), block, b"\r\n") if self._chunked else (block,)

    def end(self) -> bytes:
        """Return what ends the body: the last chunk, or nothing."""
        return b"0\r\n\r\n" if self._chunked else b""


def _head(status: str, headers: Iterable[tuple[str, str]]) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


@functools.lru_cache(maxsize=2)
def date_from_time(seconds: int) -> str:
    """Return a number of seconds since the epoch as a Date header has it (RFC 9110 5.6.7)."""
    return email.utils.formatdate(seconds, usegmt=True)
