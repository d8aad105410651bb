"""The access log of responses that have left their WSGI threads, because the server logs them before they end."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bridge.types import Headers

_access_logger = logging.getLogger("bridge.access")
_logger = logging.getLogger("bridge")

# What nginx writes for such a request; no client ever sees it.
LEFT = "499 Client Closed Request"
# This key in an environ tells a server's own log and hooks that the response has left.
MARK = "bridge.detached"


@dataclass(frozen=True)
class Answered:
    """A detached response that has ended, and its request.

    status
        Its status line's code and phrase. `LEFT` if the client left, or the loop ended, before there was one.
    size
        How many bytes of body the system has taken for the client.
    seconds
        From the server's call to the end of the response.
    whole
        Whether the system has taken all of it.
    """

    environ: Mapping[str, Any]
    status: str
    headers: Headers
    size: int
    seconds: float
    whole: bool


# Functions that are called with each `Answered`. `bridge.gunicorn` adds one for gunicorn's access log.
listeners: list[Callable[[Answered], object]] = []


def is_wanted() -> bool:
    """Return whether anybody wants to hear of a detached response's end."""
    return bool(listeners) or _access_logger.isEnabledFor(logging.INFO)


def note(answered: Answered) -> None:
    """Write the line of a detached response, and tell the listeners. Raises nothing."""
    try:
        if _access_logger.isEnabledFor(logging.INFO):
            _write_line(answered)
        for listener in listeners:
            listener(answered)
    except Exception:
        _logger.exception("a detached response could not be written to the access log")


def _write_line(answered: Answered) -> None:
    """Log gunicorn's default line, followed by the seconds."""
    environ = answered.environ
    target = environ.get("RAW_URI") or environ.get("REQUEST_URI") or _target(environ)
    fields = {
        "client": environ.get("REMOTE_ADDR") or "-",
        "method": environ["REQUEST_METHOD"],
        "target": target,
        "protocol": environ.get("SERVER_PROTOCOL", ""),
        "status": int(answered.status[:3]),
        "size": answered.size,
        "seconds": answered.seconds,
        "whole": answered.whole,
        "referer": environ.get("HTTP_REFERER", "-"),
        "user_agent": environ.get("HTTP_USER_AGENT", "-"),
    }
    _access_logger.info(
        '%s - - [%s] "%s %s %s" %s %d "%s" "%s" %.6f',
        _escaped(fields["client"]),
        time.strftime("%d/%b/%Y:%H:%M:%S %z"),
        *(_escaped(fields[name]) for name in ("method", "target", "protocol")),
        fields["status"],
        fields["size"],
        *(_escaped(fields[name]) for name in ("referer", "user_agent")),
        fields["seconds"],
        extra=fields,
    )


def _target(environ: Mapping[str, Any]) -> str:
    path = f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}" or "/"
    query = environ.get("QUERY_STRING")
    return f"{path}?{query}" if query else path


def _escaped(text: object) -> str:
    """Escape `"`, `\\` and control characters, so that a client cannot forge fields or lines of the log."""
    return "".join(
        f"\\x{ord(letter):02x}" if ord(letter) < 32 or 127 <= ord(letter) < 256 or letter in '"\\' else letter
        for letter in str(text)
    )
