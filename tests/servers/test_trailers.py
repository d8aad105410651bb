"""gRPC, whose status comes in trailers: connect-python's WSGI and ASGI apps behind the adapters, over HTTP/2."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.processes import serving
from tests.servers import asgi_servers, wsgi_servers
from tests.servers.wsgi_servers import of_scripts

pytest.importorskip("connectrpc", reason="needs connectrpc, of the dependency group `grpc`")

_H2C = ("--http-protocols", "h2,h1", "--http2-cleartext", "prior-knowledge")
_GUNICORN = ("{python}", "-m", "gunicorn", "--bind", "127.0.0.1:{port}", "--log-level", "warning", *_H2C)
# For each server the package that it needs, its command, and the kind of app that it runs.
SERVERS = {
    "hypercorn": ("hypercorn", (*asgi_servers.KINDS["hypercorn-asyncio"].command,), "asgi_app"),
    "gunicorn-asgi": ("gunicorn.http2", (*_GUNICORN, "-k", "asgi"), "asgi_app"),
    "uvicorn-zttp": ("zttp", (*asgi_servers.KINDS["uvicorn-zttp-asyncio"].command, "--http2"), "asgi_app"),
    "pyvoy": ("pyvoy", (of_scripts("pyvoy"), "--port", "{port}"), "asgi_app"),
    "gunicorn-gthread": ("gunicorn.http2", (*_GUNICORN, "-k", "gthread", "--threads", "4"), "wsgi_app"),
    "pyvoy-wsgi": ("pyvoy", (of_scripts("pyvoy"), "--interface", "wsgi", "--port", "{port}"), "wsgi_app"),
}


@pytest.fixture(scope="module", params=SERVERS)
def client(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Serve the app of the server's kind, and return a gRPC client for it."""
    from connectrpc.client import ConnectClientSync
    from connectrpc.protocol import ProtocolType
    from pyqwest import HTTPVersion, SyncClient, SyncHTTPTransport

    from tests.servers.grpc_apps import TextCodec

    needed, command, app = SERVERS[request.param]
    if wsgi_servers.is_missing(needed):
        pytest.skip(f"{request.param}: {needed} is not installed")
    with serving([*command, f"tests.servers.grpc_apps:{app}"]) as server, contextlib.ExitStack() as stack:
        transport = stack.enter_context(SyncHTTPTransport(http_version=HTTPVersion.HTTP2, timeout=20))
        yield ConnectClientSync(
            f"http://127.0.0.1:{server.port}",
            protocol=ProtocolType.GRPC,
            codec=TextCodec(),
            http_client=SyncClient(transport),
            send_compression=None,
        )


def test_a_call_ends_with_its_status(client: Any) -> None:
    """The response and the app's own trailer arrive; without a status the client would raise."""
    from connectrpc.client import ResponseMetadata

    from tests.servers.grpc_apps import UPPER

    with ResponseMetadata() as metadata:
        assert client.execute_unary(request="word", method=UPPER) == "WORD"
    assert metadata.trailers["x-length"] == "4"


def test_an_error_is_told_in_the_trailers(client: Any) -> None:
    """A call that fails before its response, and a stream that fails behind some of it, tell which error it was."""
    from connectrpc.code import Code
    from connectrpc.errors import ConnectError

    from tests.servers.grpc_apps import LETTERS, UPPER

    with pytest.raises(ConnectError, match="there is no word") as raised:
        client.execute_unary(request="", method=UPPER)
    assert raised.value.code == Code.INVALID_ARGUMENT
    stream = client.execute_server_stream(request="ab1c", method=LETTERS)
    assert [next(stream), next(stream)] == ["a", "b"]
    with pytest.raises(ConnectError, match="1 is no letter") as raised:
        next(stream)
    assert raised.value.code == Code.OUT_OF_RANGE


def test_a_stream_ends_with_its_status(client: Any) -> None:
    """Messages come one by one, and the trailers behind them."""
    from tests.servers.grpc_apps import LETTERS

    assert list(client.execute_server_stream(request="letters", method=LETTERS)) == list("letters")
