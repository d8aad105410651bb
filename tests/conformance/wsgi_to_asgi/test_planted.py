"""What only a planted fault showed to be untested."""

import asyncio
import threading
from collections.abc import Iterable

import pytest

from bridge.types import Environ, StartResponse
from tests.conformance import clause
from tests.conformance.asgi_server import ASGIServer, ToASGI


@clause("P3333-140")
def test_an_app_that_writes_without_end_is_stopped(adapt: ToASGI, serve: ASGIServer) -> None:
    """write() tells an app whose client has left, as nothing else would."""
    ended, stop = threading.Event(), threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            write = start_response("200 OK", [])
            while not stop.is_set():
                write(b"x")
        finally:
            ended.set()
        return []

    connection = serve(adapt(app), hold_after=2).until_logged("send", 2)
    connection.disconnect()
    try:
        connection.until(ended.is_set, "the end of the app")
    finally:
        stop.set()


@clause("P3333-156")
@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError()], ids=repr)
def test_an_app_does_not_end_the_loop(adapt: ToASGI, serve: ASGIServer, error: BaseException) -> None:
    """What an app raises to end its thread or task is not raised in the server's, whose loop it would stop."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        raise error

    connection = serve(adapt(app)).until_ended()
    assert connection.error is None or isinstance(connection.error, Exception)
    assert connection.failed
