"""The status of a response: an ASGI app's code <-> a WSGI app's status line."""

import functools
import http
import re

from bridge.errors import AppProtocolError

# PEP 3333, start_response: "999 Message here", without control characters. wsgiref, waitress and
# gunicorn also accept a status without a message. A 1xx is not a final response.
_STATUS = re.compile(r"([2-9][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")


def code_from_status(status: str) -> int:
    """Return the code of a WSGI status line; drop the reason, which carries no meaning (RFC 9110 15).

    Raises AppProtocolError for a malformed status and for a 1xx.
    """
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
    """Return the WSGI status line of an ASGI status: an int from 200 to 999, or an http.HTTPStatus.

    Raises AppProtocolError for anything else.
    """
    if not isinstance(code, int) or not 200 <= code <= 999:
        raise AppProtocolError(
            f"status must be an int from 200 to 999, got {code!r:.200} (ASGI HTTP spec, Response Start)"
        )
    return _status_line(int(code))


# RFC 9110 15 renamed these; the standard library follows since Python 3.13.
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
