"""How to log an app's error that comes too late to reach the server."""

import logging
from types import NoneType
from typing import Any

from bridge.errors import AppProtocolError, is_of_disconnect
from bridge.sansio.request_name import request_name

_logger = logging.getLogger("bridge")


def log_late_error(scope: dict[str, Any], status: str, is_answered: bool, error: BaseException) -> None:
    """Log `error`, which the app raised after its response, or after its client had left.

    `status` is that of the response, as far as the app has begun one.
    """
    if isinstance(error, AppProtocolError) and not isinstance(error.__cause__, (Exception, SystemExit, NoneType)):
        return  # the app did not fail, but was cancelled together with its response
    if is_of_disconnect(error):
        if error.__context__ is not None and not is_of_disconnect(error.__context__):
            # The app tried to answer this error. It may be a bug, as with Starlette's 500, or harmless, like a 404.
            text = "%s: the client had left before the ASGI app answered an error"
            _logger.info(text, request_name(scope), exc_info=error.__context__)
    else:
        code = status[:3]
        when = f"it had answered with {code}" if is_answered else "its client had left"
        if code and not is_answered:
            when += f" in mid-response ({code})"
        _logger.error("%s: the ASGI app raised after %s", request_name(scope), when, exc_info=error)
