"""simple-websocket's `Server` without its socket: an app sees no difference from the library's own."""

import inspect
import socket
import sys
import threading
import types
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import simple_websocket

from bridge import WSGIToASGI
from bridge.types import Environ, Message, StartResponse
from bridge.wsgi_to_asgi.websocket.simple_websocket import MessageServer, take_over_simple_websocket
from tests.fakes import ASGIWebSocket, eventually, websocket_scope


class SocketServer(simple_websocket.Server):
    """A subclass of the app, which uses the socket."""


class Run:
    """One WebSocket whose app creates a `Server` and records what it finds."""

    def __init__(self, talk: Callable[[Any, Callable[..., None]], None], server: Any, **options: Any) -> None:
        self.noted: list[object] = []

        def note(call: Callable[[], object]) -> None:
            try:
                self.noted.append(call())
            except simple_websocket.ConnectionClosed as error:
                self.noted.append(("closed", int(error.reason), error.message or ""))

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            self.websocket = server(environ, **options)
            talk(self.websocket, note)
            start_response("200 OK", [])
            return []

        self.server = ASGIWebSocket(WSGIToASGI(app), websocket_scope(subprotocols=["v1", "v2", "v3"]))


def tells_what_it_is(ws: Any, note: Callable[..., None]) -> None:
    note(lambda: (ws.subprotocol, ws.subprotocols, ws.mode, ws.connected, isinstance(ws, simple_websocket.Server)))
    note(lambda: (int(ws.close_reason), ws.close_message))


def asks_with_a_timeout(ws: Any, note: Callable[..., None]) -> None:
    note(ws.receive)
    note(ws.receive)
    note(lambda: ws.receive(timeout=0))
    note(lambda: ws.receive(0.01))
    note(lambda: ws.receive(timeout=-0.5))


def waits_for_its_event(ws: Any, note: Callable[..., None]) -> None:
    note(lambda: ws.event.wait(5))
    note(ws.receive)
    note(lambda: ws.event.is_set())


def looks_at_what_is_for_the_socket(ws: Any, note: Callable[..., None]) -> None:
    note(lambda: (ws.ping_interval, ws.receive_bytes, ws.max_message_size, ws.is_server, ws.ws.connection is not None))
    note(
        lambda: [
            isinstance(ws.thread, threading.Thread),
            isinstance(ws.sock, socket.socket),
            isinstance(ws.event, threading.Event),
        ]
    )
    note(lambda: [ws.ws.state, ws.ws.client, type(ws.ws), ws.input_buffer, ws.selector_class, ws.pong_received])
    ws.close()
    ws.thread.join(5)
    note(lambda: ws.thread.is_alive())


def sends_what_is_no_message(ws: Any, note: Callable[..., None]) -> None:
    for content in (5, None, b"bytes", bytearray(b"array"), "text", ""):
        ws.send(content)


def closes_twice(ws: Any, note: Callable[..., None]) -> None:
    note(lambda: ws.close(4000, "bye"))
    note(lambda: ws.connected)
    for call in (ws.close, lambda: ws.send("more")):
        with pytest.raises(simple_websocket.ConnectionClosed):
            call()


def is_left(ws: Any, note: Callable[..., None]) -> None:
    note(ws.receive)
    note(ws.receive)
    note(ws.receive)  # the client has left
    for call in (ws.receive, lambda: ws.send("more"), ws.close, lambda: ws.connected):
        note(call)
    note(lambda: (int(ws.close_reason), ws.close_message))


@pytest.mark.parametrize(
    ("talk", "options", "fed"),
    [
        (tells_what_it_is, {}, []),
        (tells_what_it_is, {"subprotocols": "v2"}, []),
        (tells_what_it_is, {"subprotocols": ["v3", "v2"], "ping_interval": 20, "receive_bytes": 100}, []),
        (tells_what_it_is, {"subprotocols": ["v4"]}, []),
        (asks_with_a_timeout, {}, ["text", b"bytes"]),
        (waits_for_its_event, {}, ["text"]),
        (looks_at_what_is_for_the_socket, {"ping_interval": 20, "receive_bytes": 100}, []),
        (sends_what_is_no_message, {}, []),
        (closes_twice, {}, []),
        (is_left, {}, ["text", b"bytes", 4001]),
    ],
)
async def test_it_is_what_the_librarys_own_is(
    talk: Callable[..., None], options: dict[str, Any], fed: list[str | bytes | int]
) -> None:
    """The app and the server see the same as with the library's own class."""
    noted: list[list[object]] = []
    sent: list[list[Message]] = []
    for server in (SocketServer, simple_websocket.Server):
        run = Run(talk, server, **options)
        async with run.server.running():
            await run.server.until_sent(1)
            for content in fed:
                if isinstance(content, int):
                    run.server.feed_message({"type": "websocket.disconnect", "code": content, "reason": "why"})
                else:
                    run.server.feed_content(content)
        assert isinstance(run.websocket, MessageServer) == (server is simple_websocket.Server)
        noted.append(run.noted)
        sent.append(run.server.sent)
    assert noted[0] == noted[1]
    assert sent[0] == sent[1]


async def test_it_has_every_attribute_that_the_librarys_own_has() -> None:
    """It also has the attributes that are useless without the socket, because code may read them."""
    names: list[set[str]] = []
    for server in (SocketServer, simple_websocket.Server):
        run = Run(lambda ws, note: names.append({name for name in dir(ws) if not name.startswith("__")}), server)
        await run.server.run()
    assert names[0] <= names[1]


async def test_a_message_that_is_too_big_ends_it() -> None:
    """The WebSocket ends with 1009, after earlier messages. (The library's own may leave the app waiting.)"""

    def talk(ws: Any, note: Callable[..., None]) -> None:
        for call in (ws.receive, ws.receive, ws.receive, ws.receive, lambda: ws.send("more"), lambda: ws.connected):
            note(call)

    run = Run(talk, simple_websocket.Server, max_message_size=5)
    run.server.feed_content("small", b"small", "big one")
    await run.server.run()
    assert run.noted[:2] == ["small", b"small"]
    assert [closed[0] for closed in run.noted[2:-1]] == ["closed"] * 3  # type: ignore[index]
    assert run.noted[-1] is False
    assert run.server.sent[1:] == [{"type": "websocket.close", "code": 1009, "reason": "Message is too big"}]


async def test_a_send_that_the_end_overtakes_says_so() -> None:
    """send raises the library's ConnectionClosed, not our ClientDisconnected."""

    def talk(ws: Any, note: Callable[..., None]) -> None:
        ws.environ["wsgi.websocket"].messages.hang_up()  # the end is not known yet
        note(lambda: ws.send("more"))

    run = Run(talk, simple_websocket.Server)
    await run.server.run()
    assert run.noted == [("closed", 1005, "")]


@pytest.mark.parametrize("make", [simple_websocket.Server, simple_websocket.Server.accept], ids=["call", "accept"])
async def test_it_takes_no_thread_of_its_own(make: Callable[..., Any]) -> None:
    """It uses no thread and no file descriptor, because its socket is closed."""
    run = Run(lambda ws, note: ws.receive(), make)
    before = set(threading.enumerate())
    async with run.server.running():
        await run.server.until_sent(1)
        await eventually(lambda: hasattr(run, "websocket"))
        names = [thread.name for thread in threading.enumerate() if thread not in before]
        assert names == ["WSGIToASGI WebSocket"]
        sock = run.websocket.environ["werkzeug.socket"]
        await eventually(lambda: sock.fileno() == -1)
        run.server.feed_content("go")


async def test_who_asks_for_other_threads_has_a_socket() -> None:
    """An app that passes thread classes of its own gets them, with the socket."""
    run = Run(lambda ws, note: ws.receive(), simple_websocket.Server, event_class=threading.Event)
    async with run.server.running():
        run.server.feed_content("go")
    assert not isinstance(run.websocket, MessageServer)


def test_elsewhere_the_library_is_as_it_was() -> None:
    """On another server, the library's `Server` uses the socket as always."""
    take_over_simple_websocket()
    ours, theirs = socket.socketpair()
    environ = {
        "werkzeug.socket": theirs,
        "HTTP_HOST": "localhost",
        "HTTP_UPGRADE": "websocket",
        "HTTP_CONNECTION": "Upgrade",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "HTTP_SEC_WEBSOCKET_KEY": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    with ours, theirs:
        ws = simple_websocket.Server(environ)
        assert type(ws) is simple_websocket.Server
        assert ours.recv(4096).startswith(b"HTTP/1.1 101")
        ws.send("hello")
        assert ours.recv(100) == b"\x81\x05hello"
        ours.shutdown(socket.SHUT_WR)
        ws.thread.join(5)  # type: ignore[attr-defined]


class CooperativeServer(simple_websocket.Server, dict[str, int]):
    """A subclass whose instances are created by another base class, with their arguments."""

    def __init__(self, environ: Environ, *, room: str) -> None:
        super().__init__(environ)
        self.room = room


async def test_a_subclass_is_made_as_it_was() -> None:
    """Its other bases create it, `inspect` finds its own signature, and it uses the socket."""
    take_over_simple_websocket()
    run = Run(lambda ws, note: note(lambda: (ws.room, ws.get("key"))), CooperativeServer, room="lobby")
    await run.server.run()
    assert run.noted == [("lobby", None)]
    assert type(run.websocket) is CooperativeServer
    assert list(inspect.signature(CooperativeServer).parameters) == ["environ", "room"]


def test_the_class_keeps_its_signature_and_its_constructor() -> None:
    """Dependency injection and documentation tools find the library's own signature."""
    take_over_simple_websocket()
    expected = list(inspect.signature(MessageServer).parameters)
    assert list(inspect.signature(simple_websocket.Server).parameters) == expected
    assert simple_websocket.Server.__new__ is object.__new__
    with pytest.raises(TypeError, match="environ"):
        simple_websocket.Server()  # type: ignore[call-arg]


def like_server(**changes: object) -> type:
    """Return a class like the unpatched `Server`, except for `changes`."""
    attributes = dict(vars(simple_websocket.Server))
    attributes["__init__"] = inspect.unwrap(attributes["__init__"])
    return type("Server", simple_websocket.Server.__bases__, attributes | changes)


def other_parameters(self: object, environ: Environ, deflate: bool = True) -> None: ...


@pytest.mark.parametrize(
    "server",
    [
        pytest.param(None, id="no Server yet"),
        pytest.param(print, id="no class"),
        pytest.param(like_server(ping=print), id="one more method"),
        pytest.param(like_server(__init__=other_parameters), id="other parameters"),
        pytest.param(like_server(__new__=print), id="other makings"),
    ],
)
def test_a_library_that_is_not_known_is_left_alone(monkeypatch: pytest.MonkeyPatch, server: Any) -> None:
    """An unknown `Server` still uses the socket."""
    module = types.ModuleType("simple_websocket")
    if server is not None:
        module.Server = server  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "simple_websocket", module)
    before = dict(getattr(server, "__dict__", {}))
    take_over_simple_websocket()
    assert dict(getattr(server, "__dict__", {})) == before


def test_a_library_that_is_known_is_taken_over_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second WebSocket changes nothing."""
    module = types.ModuleType("simple_websocket")
    server = like_server()
    module.Server = server  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "simple_websocket", module)
    before = vars(server)["__init__"]
    take_over_simple_websocket()
    done = dict(vars(server))
    assert done["__init__"] is not before
    take_over_simple_websocket()
    assert dict(vars(server)) == done
