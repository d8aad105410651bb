"""What the headers of a request announce about its body."""

import enum
from typing import Final

from bridge.sansio.unreadable import scope_error
from bridge.types import Scope


class Announcement(enum.Enum):
    """What the headers of a request say about its body."""

    NONE = "nothing: over HTTP/1 there is no body (RFC 9112 6.3), over HTTP/2 there may be one"
    BODY = "there is a body"
    CONTINUE = "the client waits for 100 Continue before it sends the body (RFC 9110 10.1.1)"


# Module constants, because Python 3.11 looks up an enum member ten times as slowly.
NOTHING_ANNOUNCED: Final = Announcement.NONE
BODY_ANNOUNCED: Final = Announcement.BODY
CONTINUE_EXPECTED: Final = Announcement.CONTINUE


# "Content received in a GET request has no generally defined semantics" (RFC 9110 9.3.1), and so on for the others.
BODILESS_METHODS = frozenset(("GET", "HEAD", "DELETE", "OPTIONS", "TRACE", "CONNECT"))


def announcement_from_scope(scope: Scope) -> Announcement:
    """Return what the headers of an http scope announce about its body.

    Raises ServerProtocolError if the headers are not pairs of bytes.
    """
    announcement = NOTHING_ANNOUNCED
    try:
        for name, value in scope.get("headers") or ():
            if len(name) in _ANNOUNCING_LENGTHS:
                lowered = name.lower()
                if lowered == b"expect":
                    if bytes(value).lower() == b"100-continue":
                        return CONTINUE_EXPECTED
                elif lowered == b"transfer-encoding" or (lowered == b"content-length" and bytes(value).strip(b"0, ")):
                    announcement = BODY_ANNOUNCED
    except (AttributeError, TypeError, ValueError) as error:
        raise scope_error(scope) from error
    return announcement


# The lengths of the names that matter: comparing lengths first rules out most headers.
_ANNOUNCING_LENGTHS = frozenset(map(len, (b"expect", b"content-length", b"transfer-encoding")))
