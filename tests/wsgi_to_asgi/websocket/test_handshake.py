"""A WSGI app's WebSockets until they are open: the environ, the answer, and refusals."""

import base64
import hashlib
import sys
import threading
from collections.abc import Iterable, Iterator

import pytest

from bridge import AppProtocolError, ServerProtocolError, WSGIToASGI
from bridge.types import Environ, StartResponse, WSGIApp
from bridge.wsgi_to_asgi.websocket import handshake as websocket
from tests.fakes import ASGIServer, ASGIWebSocket, eventually, websocket_scope
from tests.wsgi_to_asgi.websocket.apps import TEXT, by_object, echo, never, not_found, ok, serve, settled

# --- The handshake --------------------------------------------------------------------------------


async def test_a_client_that_left_gets_no_answer() -> None:
    """After disconnect nothing is sent."""
    server = ASGIServer(WSGIToASGI(never), websocket_scope(), blocks=[])
    server.feed_message({"type": "websocket.disconnect"})
    await server.run()
    assert server.sent == []


async def test_another_first_message_is_the_servers_error() -> None:
    """A first message other than connect or disconnect raises."""
    server = ASGIServer(WSGIToASGI(never), websocket_scope(), blocks=[])
    server.feed_message({"type": "websocket.bogus"})
    with pytest.raises(ServerProtocolError, match="bogus"):
        await server.run()


@pytest.fixture
def without_wsproto(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "wsproto", None)
    for name in [name for name in sys.modules if name.startswith("bridge.wsgi_to_asgi.websocket.")]:
        monkeypatch.delitem(sys.modules, name)
    websocket._say_wsproto_is_missing.cache_clear()
    yield
    websocket._say_wsproto_is_missing.cache_clear()


@pytest.mark.usefixtures("without_wsproto")
@pytest.mark.parametrize("send_error", [None, OSError("gone")])
async def test_without_wsproto_a_websocket_is_refused(
    send_error: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    """One sentence names the missing extra, to the client and once in the log."""
    adapter = WSGIToASGI(never)
    for _ in range(2):
        server = ASGIWebSocket(adapter)
        server.send_error = send_error
        await server.run()
    assert server.sent[0]["status"] == 501
    if send_error is None:
        assert b"wsgi-asgi-bridge[websocket]" in server.sent[1]["body"]
    assert caplog.text.count("wsgi-asgi-bridge[websocket]") == 1
    server = ASGIWebSocket(adapter, websocket_scope(extensions=None))
    await server.run()
    assert server.sent == [{"type": "websocket.close", "code": 1000}]


async def test_a_request_that_contradicts_itself_is_refused() -> None:
    """A request that cannot be translated is answered 400."""
    headers = [(b"content-length", b"1"), (b"content-length", b"2")]
    server = ASGIWebSocket(WSGIToASGI(never), websocket_scope(headers=headers))
    await server.run()
    assert server.sent[0]["status"] == 400


@pytest.mark.parametrize("multiprocess", [True, False])
async def test_the_environ_says_of_processes_what_the_adapter_was_told(multiprocess: bool) -> None:
    """The option multiprocess= holds for WebSockets too."""
    told: list[bool] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        told.append(environ["wsgi.multiprocess"])
        return ok(start_response)

    await ASGIWebSocket(WSGIToASGI(app, multiprocess=multiprocess)).run()
    assert told == [multiprocess]


async def test_the_environ_is_that_of_http_1_1() -> None:
    """HTTP/2 has no Upgrade headers, but the app finds those that it looks for."""
    environs: list[Environ] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environs.append({key: value for key, value in environ.items() if isinstance(value, str)})
        environ["wsgi.websocket"].send(environ["wsgi.input"].read())
        return ok(start_response)

    scope = {"http_version": "2", "headers": [], "scheme": "wss", "subprotocols": ["chat", "ill formed", "v2"]}
    await serve(app, **scope)
    (environ,) = environs
    expected = {
        "REQUEST_METHOD": "GET",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_UPGRADE": "websocket",
        "HTTP_CONNECTION": "Upgrade",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "HTTP_SEC_WEBSOCKET_PROTOCOL": "chat, v2",
        "HTTP_HOST": "192.0.2.2:80",
        "wsgi.url_scheme": "https",
        "wsgi.websocket_version": "13",
    }
    assert {key: environ[key] for key in expected} == expected
    assert "HTTP_SEC_WEBSOCKET_EXTENSIONS" not in environ
    assert len(base64.b64decode(environ["HTTP_SEC_WEBSOCKET_KEY"])) == 16


async def test_the_least_of_a_scope_will_do() -> None:
    """The scope may lack whatever the spec lets a server leave out."""
    server = ASGIWebSocket(WSGIToASGI(by_object(echo)), {"type": "websocket", "path": "/", "headers": []})
    async with server.running():
        server.feed_content("a")
        await server.until_sent(2)
        server.leave()
    assert server.contents == ["a"]


async def test_accept_carries_the_apps_subprotocol_and_headers() -> None:
    """`websocket.accept` has the headers of the app's 101, except those of the handshake."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        sock, key = environ["werkzeug.socket"], environ["HTTP_SEC_WEBSOCKET_KEY"]
        digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        sock.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
            + base64.b64encode(digest)
            + b"\r\nSec-WebSocket-Protocol: v2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n"
        )
        start_response("101 Switching Protocols", [])(b"not for the client")
        return []

    server = await serve(app, subprotocols=["chat", "v2"])
    assert server.sent[0] == {
        "type": "websocket.accept",
        "subprotocol": "v2",
        "headers": [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")],
    }
    assert server.sent[1:] == [{"type": "websocket.close", "code": 1000}]


@pytest.mark.parametrize(
    "response",
    [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", b"nonsense\r\n\r\n"],
)
async def test_a_handshake_that_is_none_is_the_apps_error(response: bytes) -> None:
    """A 101 without the right Sec-WebSocket-Accept is an error, and the server answers 500."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["werkzeug.socket"].sendall(response)
        return []

    server = ASGIWebSocket(WSGIToASGI(app))
    with pytest.raises(AppProtocolError, match="handshake"):
        await server.run()
    assert server.sent == []


# --- A refusal ------------------------------------------------------------------------------------


def see_other(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("303 See Other", [("Location", "/login"), ("Content-Length", "0")])
    return []


def login(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    write = start_response("401 Unauthorized", TEXT)
    write(b"log in, ")
    yield b"please" * 100_000


def on_the_socket(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    environ["werkzeug.socket"].sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")
    return []


@pytest.mark.parametrize(
    ("app", "status", "headers", "body"),
    [
        (not_found, 404, [(b"content-type", b"text/plain"), (b"x-why", b"no route")], b"no such room"),
        (see_other, 303, [(b"location", b"/login"), (b"content-length", b"0")], b""),
        (login, 401, [(b"content-type", b"text/plain")], b"log in, " + b"please" * 100_000),
        (on_the_socket, 404, [], b""),
    ],
)
async def test_an_ordinary_response_is_a_refusal(
    app: WSGIApp, status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    """Without a handshake the client gets the app's response, or 403 from an older server."""
    server = ASGIWebSocket(WSGIToASGI(app))
    await server.run()
    assert server.sent[0] == {"type": "websocket.http.response.start", "status": status, "headers": headers}
    assert {message["type"] for message in server.sent[1:]} == {"websocket.http.response.body"}
    assert b"".join(message["body"] for message in server.sent[1:]) == body
    assert not server.sent[-1].get("more_body")
    server = ASGIWebSocket(WSGIToASGI(app), websocket_scope(extensions={}))
    await server.run()
    assert server.sent == [{"type": "websocket.close", "code": 1000}]


async def test_a_refusal_streams() -> None:
    """Its body is sent block by block, waits for a slow client, and ends when the client leaves."""
    produced: list[int] = []
    closed = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("403 Forbidden", TEXT)
        try:
            while True:
                produced.append(1)
                yield b"x" * 1000
        finally:
            closed.set()

    server = ASGIWebSocket(WSGIToASGI(app))
    async with server.running():
        await server.until_sent(3)
        server.hold_sends()
        await eventually(lambda: settled(lambda: len(produced)))
        sent = sum(len(message.get("body", b"")) for message in server.sent)
        assert len(produced) * 1000 - sent < 300_000  # 256 KiB, and a block
        server.disconnect(OSError("gone"))
        await eventually(closed.is_set)


async def test_an_error_before_the_handshake_is_the_servers_to_answer() -> None:
    """It reaches the server, which answers 500; an app that ends without a response is an error too."""

    def raises(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        raise ConnectionError("oops")

    server = ASGIWebSocket(WSGIToASGI(raises))
    with pytest.raises(ConnectionError, match="oops"):
        await server.run()
    assert server.sent == []
    server = ASGIWebSocket(WSGIToASGI(lambda environ, start_response: []))
    with pytest.raises(AppProtocolError, match="start_response"):
        await server.run()
    assert server.sent == []
