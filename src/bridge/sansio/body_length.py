"""The length of a response's body, and what its Content-Length says."""

import logging

from bridge.errors import AppProtocolError
from bridge.sansio.request_name import request_name
from bridge.types import Scope

_logger = logging.getLogger("bridge")


class BodyLength:
    """Check a body against its Content-Length (PEP 3333, Handling the Content-Length Header).

    Surplus bytes are dropped and logged once; a short body is an error at its end. A response to HEAD,
    a 204 and a 304 have no body, whatever their headers say (RFC 9110 6.4.1).
    """

    __slots__ = ("_remaining", "_scope", "bodiless", "declared", "overrun", "reached")

    def __init__(self, method: str, code: int, lengths: list[str], scope: Scope | None = None) -> None:
        """Take the values of all Content-Length headers; `scope` names the request in the log."""
        self._scope = scope
        self.bodiless = method == "HEAD" or code in (204, 304)
        self.declared = _one_length(lengths) if lengths else None
        self.overrun = False
        self._remaining = 0 if self.bodiless else self.declared
        self.reached = self._remaining == 0  # no further byte fits

    def clamp(self, chunk: bytes) -> bytes:
        """Return the part of `chunk` that still fits."""
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
    """Return the length that all of `lengths` agree on. Raises AppProtocolError if there is none."""
    length = lengths[0]
    if lengths.count(length) < len(lengths) or not (length.isascii() and length.isdigit() and len(length) <= 1000):
        raise AppProtocolError(f"Content-Length must be one number, got {lengths!r:.200} (RFC 9110 8.6)")
    return int(length)
