import threading
from collections.abc import Iterable
from typing import Any

import anyio
import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import Blocks, wsgi_response
from wsgi_asgi_conformance.asgi_server import ASGIServer, ToASGI
from wsgi_asgi_conformance.samples import http_scope
from wsgi_asgi_conformance.types import Environ, Message, Receive, Scope, Send, StartResponse


class EndlessBlocks(Blocks):
    """10,000 blocks: a limit, so that the test ends even if the adapter does not stop when it should."""

    def __init__(self, deadline: float) -> None:
        self.left = threading.Event()
        super().__init__(b"x" * 1024 for number in range(10_000) if number == 0 or self.left.wait(deadline))


@clause("ASGI-HTTP-001", "ASGI-HTTP-078")
@pytest.mark.parametrize(
    "asgi",
    [None, {"version": "3.0"}, *({"version": "3.0", "spec_version": version} for version in ("2.0", "2.1", "2.3"))],
    ids=repr,
)
def test_an_older_server_says_so_by_receive_alone(
    adapt: ToASGI, serve: ASGIServer, asgi: dict[str, str] | None
) -> None:
    """If `send` does nothing after the client has left, http.disconnect stops the app and closes its iterable."""
    blocks = EndlessBlocks(serve.deadline)
    scope = {key: value for key, value in http_scope(asgi=asgi).items() if key != "asgi" or value is not None}
    connection = serve(adapt(wsgi_response(blocks)), scope).until_logged("send", 2)
    connection.disconnect()
    blocks.left.set()
    connection.finish()
    assert blocks.closed == 1
    assert blocks.started < 10_000


@clause("ASGI-HTTP-001", "ASGI-HTTP-075")
@pytest.mark.parametrize("error_class", [OSError, ConnectionResetError, BrokenPipeError])
def test_a_newer_server_says_so_by_an_error_of_send(
    adapt: ToASGI, serve: ASGIServer, error_class: type[OSError]
) -> None:
    """An OSError from `send` stops the app and closes its iterable, and the call raises no other error."""
    blocks = EndlessBlocks(serve.deadline)
    adapter = adapt(wsgi_response(blocks))
    error = error_class("the client left")

    async def only_send_fails(scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_once() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                await anyio.sleep_forever()
            return message

        await adapter(scope, receive_once, send)

    scope = http_scope(asgi={"version": "3.0", "spec_version": "2.4"})
    connection = serve(only_send_fails, scope).until_logged("send", 2)
    connection.disconnect(error)
    blocks.left.set()
    connection.until_ended()
    assert connection.error in (None, error)
    assert blocks.closed == 1
    assert blocks.started < 10_000


@clause("ASGI-HTTP-075")
@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
def test_send_may_fail_at_once(adapt: ToASGI, serve: ASGIServer, spec_version: str) -> None:
    """If the client leaves before the response starts, the iterable is closed; only `send`'s error may be raised."""
    working, left = threading.Event(), threading.Event()
    error = OSError("the client left")

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        working.set()
        left.wait(serve.deadline)
        start_response("200 OK", [])
        return blocks

    blocks = Blocks([b"one", b"two"])
    asgi: dict[str, Any] = {"version": "3.0", "spec_version": spec_version}
    connection = serve(adapt(app), http_scope(asgi=asgi)).until(working.is_set, "the app")
    connection.disconnect(error if spec_version == "2.4" else None)
    left.set()
    connection.until_ended()
    assert connection.error in (None, error)
    assert blocks.closed == 1
