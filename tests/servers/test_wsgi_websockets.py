"""WebSockets of an ASGI app behind real WSGI servers; the app is in `websocket_apps.py`."""

import contextlib
import hashlib
import random
import ssl
import time
from collections.abc import Iterator

import pytest
from websockets.typing import Subprotocol

from tests.processes import Server, wait_until
from tests.servers.websocket_apps import LARGE
from tests.servers.wsgi_websocket_client import Raw, http, open_websocket
from tests.servers.wsgi_websocket_hosts import GRACE, HOSTS, TLS, WAITRESS, Host, gunicorn, running, script, uwsgi
from tests.sockets import BROKEN_FRAMES
from wsgi_asgi_conformance.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    KEY,
    PING,
    PONG,
    TEXT,
    Frame,
    client_frame,
    close_payload,
)

# --- Servers --------------------------------------------------------------------------------------


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on the core of the servers, or on all."""
    if "host" in metafunc.fixturenames:
        everything = metafunc.config.getoption("--all-servers")
        hosts = [host for host in HOSTS if host.core or everything]
        metafunc.parametrize("host", hosts, ids=lambda host: host.name, scope="module")


@pytest.fixture(scope="module")
def server(host: Host) -> Iterator[Server]:
    """Run one server of each kind for all tests that leave it unchanged."""
    with running(host) as server:
        server.client.close()
        yield server


# --- Messages -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    ["hello", "", "grüße 🎈", b"", b"\x00\xff", "x" * 70_000, bytes(range(256)) * 4096],
    ids=["text", "no text", "UTF-8", "no bytes", "bytes", "70 KB", "1 MiB"],
)
def test_messages_come_back_as_they_were(host: Host, server: Server, message: str | bytes) -> None:
    """Text stays text and bytes stay bytes, of any length."""
    with open_websocket(host, server, "/echo") as websocket:
        websocket.send(message)
        assert websocket.recv(20) == message


def test_an_open_websocket_keeps_its_environ(host: Host, server: Server) -> None:
    """uWSGI empties its environ after each call, and fills it for the next request."""
    with open_websocket(host, server, "/who", additional_headers={"Cookie": "user=first"}) as websocket:
        for _ in range(2):
            assert http(host, server, "/hello") == "'hello'"
        websocket.send("who am I?")
        assert websocket.recv(20) == "user=first"


def test_fragments_are_joined_though_a_ping_comes_between(host: Host, server: Server) -> None:
    """Three fragments become one message, and a ping between them is answered before it."""
    with Raw(host, server) as raw:
        raw.send(TEXT, b"one, ", fin=False)
        raw.send(PING, b"are you there?")
        raw.send(CONTINUATION, b"two, ", fin=False)
        raw.send(CONTINUATION, b"three")
        assert raw.receive() == Frame(PONG, b"are you there?")
        assert raw.receive() == Frame(TEXT, b"one, two, three")


def test_ten_thousand_messages_come_in_order(host: Host, server: Server) -> None:
    """While thousands of messages are on the way, none is lost and none overtakes another."""
    with Raw(host, server) as raw:
        messages = [b"%d" % number for number in range(10_000)]
        raw.socket.sendall(b"".join(client_frame(TEXT, message) for message in messages))
        assert [raw.receive().payload for _ in messages] == messages


# --- The handshake --------------------------------------------------------------------------------


def test_the_handshake_says_what_the_app_says(host: Host, server: Server) -> None:
    """The response has the subprotocol and headers of websocket.accept, even repeated ones; the scheme is ws or wss."""
    with open_websocket(host, server, "/agree", subprotocols=[Subprotocol("a"), Subprotocol("b")]) as websocket:
        assert websocket.subprotocol == "b"
        assert websocket.response is not None
        assert websocket.response.headers["x-scheme"] == ("wss" if host.tls else "ws")
        assert websocket.response.headers.get_all("set-cookie") == ["a=1", "b=2"]


@pytest.mark.parametrize(("path", "status", "body"), [("/refuse", 403, b"Forbidden\n"), ("/deny", 401, b"who is it?")])
def test_a_refusal_is_a_response(host: Host, server: Server, path: str, status: int, body: bytes) -> None:
    """A close before accept becomes a 403, and a denial response reaches the client whole."""
    with Raw(host, server, path, status=status) as raw:
        assert ("x-why: no cookie" in raw.head.lower()) == (status == 401)
        while len(raw.unread) < len(body):
            raw.unread += raw.socket.recv(100)
        assert raw.unread == body


@pytest.mark.parametrize("path", ["/crash-before", "/say-nothing"])
def test_an_app_that_does_not_answer_is_a_500(host: Host, path: str) -> None:
    """An app that raises or returns before it has answered the handshake leads to a 500."""
    with running(host) as server:
        if host.answers_errors:
            Raw(host, server, path, status=500).socket.close()
        else:
            with pytest.raises(AssertionError, match="hung up"):
                Raw(host, server, path)
        error = "Deliberate" if path == "/crash-before" else "without answering"
        wait_until(lambda: error in server.output(), what="the server's log")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec_WebSocket_Version": "8"}, 426),
        ({"Sec_WebSocket_Version": ""}, 426),
        ({"Sec_WebSocket_Key": ""}, 400),
        ({"Sec_WebSocket_Key": "c2hvcnQ="}, 400),
    ],
)
def test_a_bad_handshake_is_refused(host: Host, server: Server, headers: dict[str, str], status: int) -> None:
    """A client with a version other than 13 is told so, and an invalid key is a bad request."""
    with Raw(host, server, status=status, **headers) as raw:
        assert ("sec-websocket-version: 13" in raw.head.lower()) == (status == 426)


def test_compression_is_agreed_where_it_is_on(host: Host) -> None:
    """permessage-deflate is off by default; if it is on, messages are compressed in both directions."""
    with (
        running(host, COMPRESSION="1") as server,
        open_websocket(host, server, "/echo", compression="deflate") as websocket,
    ):
        assert websocket.response is not None
        assert "permessage-deflate" in websocket.response.headers["sec-websocket-extensions"]
        for message in ("a" * 1_000_000, random.randbytes(100_000), "b"):
            websocket.send(message)
            assert websocket.recv(20) == message


# --- The end --------------------------------------------------------------------------------------


def test_a_client_that_closes_is_answered_and_told_of(host: Host, server: Server) -> None:
    """The client's code and reason reach the app, its Close frame comes back, and then nothing more."""
    with Raw(host, server) as raw:
        raw.send(CLOSE, close_payload(4321, "that is all"))
        assert raw.receive() == Frame(CLOSE, close_payload(4321, "that is all"))
        assert raw.rest() == b""
    wait_until(lambda: http(host, server, "/echo") == "[4321, 'that is all']", what="the app to hear of it")


def test_a_close_without_code_is_1005(host: Host, server: Server) -> None:
    """A Close frame without a code gets one without a code, and the app gets 1005."""
    with Raw(host, server) as raw:
        raw.send(CLOSE)
        assert raw.receive() == Frame(CLOSE, b"")
        assert raw.rest() == b""
    wait_until(lambda: http(host, server, "/echo") == "[1005, '']", what="the app to hear of it")


def test_a_client_that_vanishes_is_1006(host: Host, server: Server) -> None:
    """If the connection ends without a Close frame, the app gets 1006."""
    with Raw(host, server) as raw:
        raw.send(TEXT, b"hello")
        raw.receive()
    wait_until(lambda: http(host, server, "/echo") == "[1006, '']", what="the app to hear of it")


@pytest.mark.parametrize(
    ("path", "code", "reason"), [("/close", 4001, "enough"), ("/leave", 1000, ""), ("/crash-after", 1011, "")]
)
def test_the_app_closes(host: Host, server: Server, path: str, code: int, reason: str) -> None:
    """The app closes by websocket.close, by returning or by raising; nothing follows the client's answer."""
    with Raw(host, server, path) as raw:
        assert raw.receive() == Frame(CLOSE, close_payload(code, reason))
        raw.send(CLOSE, close_payload(code, reason))
        assert raw.rest() == b""


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        *BROKEN_FRAMES,
        pytest.param(client_frame(CLOSE, close_payload(1005)), 1002, id="close 1005"),
    ],
)
def test_a_client_that_breaks_the_protocol_is_told_how(host: Host, server: Server, frame: bytes, code: int) -> None:
    """The client gets a Close frame with the fitting code, and the connection ends."""
    with Raw(host, server) as raw:
        raw.socket.sendall(frame)
        opcode, payload, _ = raw.receive()
        assert (opcode, payload[:2]) == (CLOSE, close_payload(code))
        assert raw.rest() == b""


def test_a_message_beyond_the_limit_is_1009(host: Host, server: Server) -> None:
    """A message of just over 16 MiB, in frames of 1 MiB, is refused, whatever else is on the way."""
    with Raw(host, server) as raw:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            for index in range(20):
                raw.send(CONTINUATION if index else BINARY, bytes(1 << 20), fin=False)
        opcode, payload, _ = raw.receive()
        assert (opcode, payload[:2]) == (CLOSE, close_payload(1009))


def test_sigterm_says_goodbye(host: Host) -> None:
    """After SIGTERM, clients get 1012, and the server exits in time and without a traceback."""
    with contextlib.ExitStack() as clients, running(host) as server:
        raws = [clients.enter_context(Raw(host, server)) for _ in range(3)]
        for raw in raws:
            raw.send(TEXT, b"here")
            assert raw.receive() == Frame(TEXT, b"here")
        server.process.terminate()
        for raw in raws:
            if host.goodbye:
                assert raw.receive() == Frame(CLOSE, close_payload(1012))
                raw.send(CLOSE, close_payload(1012))
                assert raw.rest() == b""
            else:
                assert raw.rest() in (b"", b"\x88\x02" + close_payload(1012))
        server.process.wait(GRACE - 2)


# --- Many -----------------------------------------------------------------------------------------


def test_many_sockets_are_open_while_http_is_served(host: Host, server: Server) -> None:
    """Two hundred WebSockets exchange messages on a server with four threads, which also serves HTTP."""
    with contextlib.ExitStack() as clients:
        raws = [clients.enter_context(Raw(host, server)) for _ in range(host.crowd)]
        for index, raw in enumerate(raws):
            raw.send(TEXT, b"%d" % index)
        assert http(host, server, "/hello") == "'hello'"
        assert [raw.receive().payload for raw in raws] == [b"%d" % index for index in range(host.crowd)]
        for raw in raws:
            raw.send(CLOSE)
        assert [(raw.receive(), raw.rest()) for raw in raws] == [(Frame(CLOSE, b""), b"")] * host.crowd


def test_too_many_sockets_are_503(host: Host) -> None:
    """Above max_websockets, clients get a 503 with Retry-After until there is room again."""
    with running(host, MAX_WEBSOCKETS="2") as server, Raw(host, server) as first, Raw(host, server):
        with Raw(host, server, status=503) as refused:
            assert "retry-after: " in refused.head.lower()
        first.send(CLOSE)
        assert first.receive().opcode == CLOSE
        assert first.rest() == b""

        def admitted() -> bool:
            try:
                Raw(host, server).socket.close()
            except AssertionError:
                return False
            return True

        wait_until(admitted, what="a place")


def test_an_app_that_floods_is_slowed_by_its_client(host: Host) -> None:
    """send waits while the client does not read, returns when it reads, and raises when it has left."""
    with running(host) as server:
        with Raw(host, server, "/flood") as raw:
            noted = -1  # only a second look can show that nothing changes
            while noted < (noted := int(http(host, server, "/flood"))):
                time.sleep(0.3)
            assert noted < 30_000_000
            for _ in range(noted // 65_536 + 10):
                assert raw.receive().opcode == BINARY
            wait_until(lambda: int(http(host, server, "/flood")) > noted, what="more")
        wait_until(lambda: http(host, server, "/flood-ended") == "'ClientDisconnected'", what="the end")


def test_a_client_that_floods_is_slowed_by_its_app(host: Host) -> None:
    """The server does not read what the app does not receive, and nothing is lost."""
    with running(host) as server, Raw(host, server, "/digest") as raw:
        block = random.randbytes(65_536)
        total, count = hashlib.sha256(), 0
        raw.socket.settimeout(1.0)
        unsent = b""
        try:
            while count < 1_000:
                unsent = unsent or client_frame(BINARY, block)
                unsent = unsent[raw.socket.send(unsent) :]
                if not unsent:
                    count += 1
                    total.update(block)
        except TimeoutError:
            pass
        assert 0 < count < 500  # of 30 MB, of which the kernel's buffers take a part
        raw.socket.settimeout(20)
        http(host, server, "/digest", "POST")
        raw.socket.sendall(unsent + client_frame(BINARY))
        if unsent:
            total.update(block)
        assert raw.receive() == Frame(TEXT, total.hexdigest().encode())


def test_a_handshake_that_is_pipelined_leaves_the_response_before_it_whole() -> None:
    """waitress runs the handshake before it has sent that response, so there must be no 101 in the middle of it."""
    host = script("waitress", WAITRESS)
    with running(host) as server, contextlib.closing(server.connect()) as connection:
        requests = ["GET /large HTTP/1.1", "Host: a", "", "GET /echo HTTP/1.1", "Host: a", "Connection: Upgrade"]
        requests += ["Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}", "", ""]
        connection.sendall("\r\n".join(requests).encode())
        time.sleep(0.5)  # so that the second is served while the first is not read
        received = b""
        while len(received) < len(LARGE):
            received += connection.recv(1 << 20)
        received = received.partition(b"\r\n\r\n")[2]
        while len(received) < len(LARGE) + 12:
            received += connection.recv(1 << 20)
        assert received[: len(LARGE)] == LARGE
        assert received[len(LARGE) :].startswith(b"HTTP/1.1 503")


# --- Where it cannot be ---------------------------------------------------------------------------

UNABLE = [
    uwsgi("no-threads", "--http-socket", "127.0.0.1:{port}"),
    script(
        "waitress-lookahead",
        "import waitress\nwaitress.serve(app, host='127.0.0.1', port={port}, channel_request_lookahead=5)",
    ),
    gunicorn("sync-tls", *TLS, tls=True),
    gunicorn("off", env={"WEBSOCKET": "off"}, core=True),
    script("without-wsproto", WAITRESS, before="import sys\nsys.modules['wsproto'] = None"),
]


@pytest.mark.parametrize("unable", UNABLE, ids=lambda host: host.name)
def test_where_it_cannot_be_the_refusal_is_501(unable: Host) -> None:
    """The response says why in one plain sentence, and HTTP requests are still served."""
    with running(unable) as server:
        with Raw(unable, server, status=501, Connection="Upgrade") as raw:
            assert "content-type: text/plain" in raw.head.lower()
        assert http(unable, server, "/hello") == "'hello'"
