"""How the errors of an exchange reach the server."""

from bridge.errors import AppProtocolError


def raise_outcome(failure: Exception | None, error: BaseException | None) -> None:
    """Raise what the server should see: `failure`, an error of the exchange, or else `error`, which the app raised."""
    try:
        if failure is not None:
            raise failure from error
        if error is not None and not isinstance(error, Exception):
            # SystemExit would stop the server's loop, and CancelledError would look like a cancelled task.
            raise AppProtocolError(f"the WSGI app raised {error!r:.200}") from error
        if error is not None:
            raise error
    finally:
        del failure, error  # whose tracebacks refer to this frame
