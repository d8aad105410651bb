import re
import warnings
from collections.abc import Iterable
from pathlib import Path

import pytest

from bridge import ASGIToWSGI, WSGIToASGI
from bridge.types import Environ, StartResponse
from bridge.validate import ASGIWarning, validator
from tests.fakes import http_environ, http_scope, request, respond
from tests.processes import serving

TESTS = Path(__file__).parent.parent


def wsgi_app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Echo the body in blocks."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield from iter(lambda: environ["wsgi.input"].read(2), b"")


async def test_wsgi_to_asgi_is_legal() -> None:
    """The adapter, as an app, follows the spec."""
    server = await request(validator(WSGIToASGI(wsgi_app)), http_scope("POST"), b"one", b"two", b"three")
    assert server.body == b"onetwothree"


def test_asgi_to_wsgi_is_legal() -> None:
    """The adapter, as a server, follows the spec for apps that read, stream and run on after the response."""
    from tests.validated_app import app

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*ASGI-HTTP-051", ASGIWarning)  # Django's headers
        with ASGIToWSGI(app, lifespan="on") as wsgi:
            for method, path, body, expected in TRAFFIC:
                server = respond(wsgi, http_environ(method, path, body))
                assert (server.status, server.body) == ("200 OK", expected), path
            assert respond(wsgi, http_environ("GET", "/nowhere")).status == "404 Not Found"


TRAFFIC: list[tuple[str, str, bytes | None, bytes]] = [
    ("GET", "/echo", None, b"state"),
    ("HEAD", "/echo", None, b""),
    ("POST", "/echo", b"x" * 100_000, b"x" * 100_000),
    ("GET", "/stream", None, b"01234"),
    ("GET", "/file", None, (TESTS / "validated_app.py").read_bytes()),
    ("GET", "/django/stream", None, b"01234"),
    ("POST", "/django/echo", b"body", b"body"),
    ("POST", "/wsgi/", b"y" * 5000, b"y" * 5000),
]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("uvicorn --lifespan on --port {port}", id="uvicorn"),
        pytest.param("uvicorn --lifespan on --http h11 --ws wsproto --loop asyncio --port {port}", id="uvicorn-h11"),
        pytest.param("hypercorn --bind 127.0.0.1:{port}", id="hypercorn"),
    ],
)
def test_servers_and_frameworks_are_legal(command: str) -> None:
    """On real servers, the validator reports nothing about Starlette, FastAPI, Django and the adapter."""
    pytest.importorskip(command.split()[0])
    client = pytest.importorskip("websockets.sync.client")
    from websockets.exceptions import ConnectionClosed, InvalidStatus

    with serving(["{python}", "-m", *command.split(), "tests.validated_app:app"]) as server:
        for method, path, body, expected in TRAFFIC:
            response = server.client.request(method, path, content=None if body is None else iter([body[:1], body[1:]]))
            assert (response.status_code, response.content) == (200, expected), path
        assert server.client.get("/nowhere").status_code == 404
        with server.client.stream("GET", "/endless") as response:
            assert next(response.iter_raw())  # and then leave
        with server.connect() as sock:  # leave in the middle of the request
            sock.sendall(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf")
        url = f"ws://127.0.0.1:{server.port}"
        with client.connect(f"{url}/socket", subprotocols=["chat"]) as socket:
            assert (socket.subprotocol, socket.response.headers["x-name"]) == ("chat", "value")
            socket.send("text")
            assert (socket.recv(5), socket.recv(5)) == ("text", b"text")
            socket.send("bye")
            with pytest.raises(ConnectionClosed, match="4000"):
                socket.recv(5)
        with client.connect(f"{url}/socket", subprotocols=["chat"]):
            pass  # leave at once
        for path, status in [("/refused", 403), ("/denied", 401), ("/nowhere", 403)]:
            with pytest.raises(InvalidStatus, match=str(status)):
                client.connect(f"{url}{path}")
        server.stop()
        reports = re.findall(".*(?:ProtocolError|ASGIWarning).*", server.output())
        assert not [report for report in reports if "ASGI-HTTP-051" not in report]  # which is Django's headers
