"""WebSockets of WSGI apps behind real ASGI servers; the apps are in `wsgi_websocket_apps.py`."""

import contextlib
import importlib.util
import itertools
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import engineio
import httpx
import pytest
import socketio
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.processes import Server, serving, wait_until
from wsgi_asgi_conformance.frames import KEY

APP = "tests.servers.wsgi_websocket_apps:asgi_app"
UPGRADE = (
    "Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    f"Sec-WebSocket-Key: {KEY}\r\n\r\n"
)
# Tracebacks for which `bridge` is not to blame: hypercorn logs the cancelling of its own tasks; daphne logs that it
# cannot send 1011, and then sends it; uvicorn's engine "websockets" fails on a ping while `send` waits.
NOT_OURS = ("CancelledError", "invalid close code", "keepalive_ping")


class Host(NamedTuple):
    """One way to run a server, and what it cannot do."""

    name: str
    command: tuple[str, ...]
    optional: str | None = None  # the tests skip the server without this module
    core: bool = False
    denies: bool = True  # the app's response refuses a WebSocket; otherwise it is a plain 403
    codes: bool = True  # the app receives the client's close code
    reasons: bool = True  # the app receives the client's reason
    closes_with_reason: bool = True  # the client receives the app's reason
    largest: int = 16 * 1024 * 1024  # the largest message that it accepts
    empty: bool = True  # empty messages arrive
    close_codes: tuple[int, ...] = (1000, 1001, 4001, 1011)  # the close codes that an app can send
    goodbyes: tuple[int, ...] = (1001, 1012)  # the codes that clients get when it is stopped; 1006 means no Close frame
    tells_apps: bool = True  # the apps are told when it is stopped


def _uvicorn(engine: str, **traits: Any) -> Host:
    options = ("--port", "{port}", "--log-level", "warning", "--ws", engine, "--timeout-graceful-shutdown", "5")
    return Host(f"uvicorn-{engine}", ("{python}", "-m", "uvicorn", *options, APP), **traits)


def _hypercorn(loop: str, **traits: Any) -> Host:
    options = ("-k", loop, "-b", "127.0.0.1:{port}", "--graceful-timeout", "5")
    command = ("{python}", "-m", "hypercorn", *options, APP)
    # It cancels its tasks when it is stopped, and the clients get 1011.
    return Host(f"hypercorn-{loop}", command, codes=False, reasons=False, goodbyes=(1011, 1006), **traits)


HOSTS = [
    _uvicorn("websockets"),
    _uvicorn("websockets-sansio", core=True),
    _uvicorn("wsproto"),
    _hypercorn("asyncio"),
    _hypercorn("trio"),
    Host(
        "daphne",
        ("{python}", "-m", "daphne", "-v", "0", "-p", "{port}", APP),
        "daphne",
        denies=False,
        reasons=False,
        closes_with_reason=False,
        largest=100_000,
        empty=False,
        close_codes=(1000, 4001, 1011),
        goodbyes=(1006,),
        tells_apps=False,
    ),
    Host(
        "granian",
        ("{python}", "-m", "granian", "--interface", "asgi", "--port", "{port}", "--log-level", "warning", APP),
        "granian",
        reasons=False,
        closes_with_reason=False,
        goodbyes=(1006,),
    ),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on the core of the servers, or on all."""
    if "host" in metafunc.fixturenames:
        everything = metafunc.config.getoption("--all-servers")
        hosts = [host for host in HOSTS if host.core or everything]
        metafunc.parametrize("host", hosts, ids=lambda host: host.name, scope="module")


@contextlib.contextmanager
def running(host: Host, **env: str) -> Iterator[Server]:
    """Run the server, or skip the test if it is missing; fail if it logs a traceback that is not expected."""
    if host.optional is not None and importlib.util.find_spec(host.optional) is None:
        pytest.skip(f"{host.optional} is not installed")
    with serving(host.command, env=env) as server:
        yield server
        for traceback in server.output().split("Traceback (most recent call last):")[1:]:
            assert any(words in traceback for words in ("Deliberate", *NOT_OURS)), server.output()


@pytest.fixture(scope="module")
def server(host: Host) -> Iterator[Server]:
    """Run one server of each kind for all tests that leave it unchanged."""
    with running(host) as server:
        yield server


_ids = itertools.count(1)


@pytest.fixture
def note_id() -> str:
    """Return an id for an app's notes; each test gets a new one."""
    return f"note-{next(_ids)}"


def wait_for_note(server: Server, note_id: str, note: str = "") -> str:
    """Wait until an app has noted something that begins with `note`; return that."""
    start = f"{note_id} {note}"
    wait_until(lambda: start in server.output(), 15, start)
    return next(line for line in server.output().splitlines() if line.startswith(start)).removeprefix(f"{note_id} ")


def open_websocket(server: Server, path: str, **options: Any) -> ClientConnection:
    """Return an open WebSocket; messages may have 64 MiB, and are not compressed."""
    options = {"compression": None, "max_size": 1 << 26, "close_timeout": 20, "proxy": None, **options}
    url = f"ws://127.0.0.1:{server.port}{path}"
    websocket: ClientConnection = connect(url, open_timeout=20, ping_interval=None, **options).__enter__()
    return websocket


def vanish(websocket: ClientConnection) -> None:
    """Let the client leave without a Close frame."""
    websocket.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    websocket.socket.shutdown(socket.SHUT_RDWR)  # which wakes the client's own thread
    websocket.socket.close()


def ending(websocket: ClientConnection) -> tuple[int, str]:
    """Wait for the server's Close frame; return its code and reason."""
    try:
        while True:
            websocket.recv(20)
    except ConnectionClosed as error:
        return (error.rcvd.code, error.rcvd.reason) if error.rcvd else (1006, "")


ECHOES = ["/echo", "/bare", "/bottle/echo"]

# --- Messages -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ECHOES)
@pytest.mark.parametrize(
    "message",
    ["hello", "", "grüße 🎈", b"", b"\x00\xff", "x" * 70_000, bytes(range(256)) * 4096],
    ids=["text", "no text", "UTF-8", "no bytes", "bytes", "70 KB", "1 MiB"],
)
def test_messages_come_back_as_they_were(host: Host, server: Server, path: str, message: str | bytes) -> None:
    """Text stays text and bytes stay bytes, of any length."""
    if len(message) > host.largest or (not message and not host.empty):
        pytest.skip(f"{host.name} does not do that")
    with open_websocket(server, path) as websocket:
        websocket.send(message)
        assert websocket.recv(20) == message


def test_fragments_are_joined(host: Host, server: Server) -> None:
    """A message in three frames is one message."""
    with open_websocket(server, "/echo") as websocket:
        websocket.send(["one, ", "two, ", "three"])
        assert websocket.recv(20) == "one, two, three"


def test_ten_thousand_messages_come_in_order(host: Host, server: Server) -> None:
    """While thousands of messages are on the way in both directions, none is lost and none overtakes another."""
    # Daphne resets the connection if a client takes more than a second to read as far as the Close frame.
    expected = [str(number) for number in range(1000 if host.name == "daphne" else 10_000)]
    with open_websocket(server, f"/count?to={len(expected)}") as websocket:
        assert [websocket.recv(20) for _ in expected] == expected
        assert ending(websocket) == (1000, "")

    def send(websocket: ClientConnection) -> None:
        for message in expected:
            websocket.send(message)

    with open_websocket(server, "/echo") as websocket:
        sender = threading.Thread(target=send, args=[websocket])
        sender.start()
        assert [websocket.recv(20) for _ in expected] == expected
        sender.join()


def test_a_client_that_does_not_read_slows_the_app(host: Host, server: Server, note_id: str) -> None:
    """An app that floods waits once the buffers are full, and is told when the client has vanished."""
    if host.name == "daphne":
        pytest.skip("daphne buffers without a limit")
    with server.connect() as client:
        client.sendall(f"GET /flood?id={note_id} HTTP/1.1\r\n{UPGRADE}".encode())
        assert client.recv(12) == b"HTTP/1.1 101"
        with open_websocket(server, "/echo") as other:
            other.send("others are served")
            assert other.recv(20) == "others are served"
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert int(wait_for_note(server, note_id, "flooded").split()[1]) < 64 * 1024 * 1024


# --- The handshake --------------------------------------------------------------------------------


@pytest.mark.parametrize(("offered", "chosen"), [(["v1", "v2"], "v2"), (["v1"], None), (None, None)])
def test_the_app_chooses_the_subprotocol(
    host: Host, server: Server, offered: list[Any] | None, chosen: str | None
) -> None:
    """The app chooses one of the subprotocols that the client offers, or none."""
    with open_websocket(server, "/subprotocol", subprotocols=offered) as websocket:
        assert websocket.subprotocol == chosen
        assert websocket.recv(20) == str(chosen)


@pytest.mark.parametrize(
    ("path", "status", "content"),
    [
        ("/nowhere", 404, b"Not Found"),
        ("/room", 302, b"/login"),
        ("/room?login=1", 200, b"<form>Who are you?</form>"),
    ],
)
def test_an_ordinary_response_refuses(host: Host, server: Server, path: str, status: int, content: bytes) -> None:
    """The client gets the app's response if the server can send it, otherwise a 403."""
    headers = dict(line.split(": ") for line in UPGRADE.split("\r\n")[1:-2])
    response = httpx.get(f"http://127.0.0.1:{server.port}{path}", headers=headers, timeout=20, trust_env=False)
    if host.denies:
        assert response.status_code == status
        assert content in response.content
    else:
        assert response.status_code == 403


# --- The end --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [
        ("/close?code=1000", 1000, ""),
        ("/close?code=1001&reason=away", 1001, "away"),
        ("/close?code=4001&reason=%C3%A4", 4001, "ä"),
        ("/bottle/close", 4001, "bye"),
        ("/raise", 1011, ""),
    ],
)
def test_the_app_closes_with_its_code(host: Host, server: Server, path: str, code: int, reason: str) -> None:
    """The client gets the app's code and reason, and 1011 if the app raises."""
    if code not in host.close_codes:
        pytest.skip(f"{host.name} does not do that")
    with open_websocket(server, path) as websocket:
        ended = ending(websocket)
    assert ended[0] == code
    assert ended[1] == reason or not host.closes_with_reason


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "away"), (4001, "bye")])
def test_the_app_is_told_how_the_client_closes(
    host: Host, server: Server, note_id: str, code: int, reason: str
) -> None:
    """The app receives the client's code and reason, as far as the server passes them on."""
    with open_websocket(server, f"/echo?id={note_id}") as websocket:
        websocket.close(code, reason)
    note = wait_for_note(server, note_id, "closed")
    if host.codes:
        assert note == f"closed {code} {reason if host.reasons else ''}".rstrip()


@pytest.mark.parametrize("path", ["/echo", "/bottle/echo"])
def test_the_app_ends_when_the_client_vanishes(host: Host, server: Server, note_id: str, path: str) -> None:
    """The app ends when its client vanishes without a Close frame, as when the network fails."""
    websocket = open_websocket(server, f"{path}?id={note_id}")
    websocket.send("hello")
    assert websocket.recv(20) == "hello"
    vanish(websocket)
    wait_for_note(server, note_id, "closed")


def test_clients_are_told_that_the_server_stops(host: Host, note_id: str) -> None:
    """When a server stops, it closes its WebSockets, and then the apps and the process end."""
    if host.name == "hypercorn-asyncio" and sys.version_info >= (3, 12):
        pytest.xfail("it awaits asyncio.Server.wait_closed() first, which since Python 3.12 waits for clients")
    with running(host) as server:
        websockets = [open_websocket(server, f"{path}?id={note_id}") for path in ECHOES]
        for websocket in websockets:
            websocket.send("hello")
            assert websocket.recv(20) == "hello"
        assert server.stop() < 10
        for websocket in websockets:
            code, _ = ending(websocket)
            assert code in host.goodbyes
        if host.tells_apps:
            wait_for_note(server, note_id, "closed")


@pytest.mark.slow
def test_a_server_with_a_stubborn_app_stops(host: Host) -> None:
    """An app that ignores the end of its WebSocket does not delay the server's exit for ever."""
    with running(host) as server, open_websocket(server, "/stubborn"):
        assert server.stop() < 20


# --- Many -----------------------------------------------------------------------------------------


def test_two_hundred_websockets_at_once(host: Host) -> None:
    """Two hundred WebSockets occupy no worker thread, of which there is only one."""
    with running(host, WORKERS="1") as server, contextlib.ExitStack() as stack:
        with ThreadPoolExecutor(20) as pool:
            websockets = list(pool.map(lambda _: open_websocket(server, "/echo"), range(200)))
        for websocket in websockets:
            stack.callback(vanish, websocket)
        for number, websocket in enumerate(websockets):
            websocket.send(str(number))
        assert server.client.get("/hello").text == "hello"
        assert [websocket.recv(20) for websocket in websockets] == [str(number) for number in range(200)]


def test_one_too_many_is_refused(host: Host) -> None:
    """One WebSocket too many gets 503, or 403 if the server can send nothing else, until another one has ended."""
    with running(host, MAX_WEBSOCKETS="2") as server:
        first, second = open_websocket(server, "/echo"), open_websocket(server, "/echo")
        with pytest.raises(InvalidStatus) as info:
            open_websocket(server, "/echo")
        assert info.value.response.status_code == (503 if host.denies else 403)
        first.close()

        def has_room() -> bool:
            with contextlib.suppress(InvalidStatus), open_websocket(server, "/echo"):
                return True
            return False

        wait_until(has_room)
        second.close()


# --- Socket.IO ------------------------------------------------------------------------------------


class EngineInOrder(engineio.Client):  # type: ignore[misc]
    """Handles all packets in one thread. The library starts one for each, which mixes them up without a GIL."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._packets = ThreadPoolExecutor(1)

    def _trigger_event(self, event: str, *arguments: Any, **options: Any) -> Any:
        if event == "message":
            return self._packets.submit(self.handlers[event], *arguments)
        return super()._trigger_event(event, *arguments, **options)


class ClientInOrder(socketio.Client):  # type: ignore[misc]
    def _engineio_client_class(self) -> type[EngineInOrder]:
        return EngineInOrder


class InOrder(socketio.SimpleClient):  # type: ignore[misc]
    """A client that handles the packets of a binary event in their order."""

    client_class = ClientInOrder


@pytest.mark.parametrize("transports", [["polling"], ["websocket"], ["polling", "websocket"]], ids="-".join)
def test_socket_io(host: Host, server: Server, transports: list[str]) -> None:
    """Events, binary events and acknowledgements pass by long polling, by WebSocket, and during the upgrade to it."""
    with InOrder() as client:
        client.connect(f"http://127.0.0.1:{server.port}", transports=transports)
        assert client.call("shout", "hello", timeout=20) == "5 letters"
        assert client.receive(timeout=20) == ["echo", "HELLO"]
        client.emit("blob", b"\x00\x01\xff")
        assert client.receive(timeout=20) == ["blob", b"\xff\x01\x00"]
        assert client.transport == transports[-1]
