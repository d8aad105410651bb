"""A WSGI app's WebSockets: each test serves one to an app that speaks on its socket, or by `wsgi.websocket`."""

import asyncio
import base64
import contextlib
import contextvars
import gc
import hashlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import anyio
import pytest
import simple_websocket
import uvloop
from wsproto.utilities import LocalProtocolError

import bridge.wsgi_to_asgi.lifespan
from bridge import AppProtocolError, ClientDisconnected, ServerProtocolError, WSGIToASGI
from bridge.types import Environ, StartResponse, WSGIApp
from bridge.wsgi_to_asgi.websocket import exchange as websocket_exchange
from bridge.wsgi_to_asgi.websocket import handshake as websocket
from bridge.wsgi_to_asgi.websocket.messages import Close
from tests.fakes import ASGIServer, ASGIWebSocket, eventually, http_scope, in_thread, websocket_scope
from tests.processes import wait_until

MIB = 1024 * 1024
TEXT = [("Content-Type", "text/plain")]


def ok(start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    return [b"not for the client"]


class SocketServer(simple_websocket.Server):
    """A subclass, which has its socket."""


def by_simple_websocket(
    talk: Callable[[simple_websocket.Server], None], *, server: type = simple_websocket.Server, **options: Any
) -> WSGIApp:
    """Return an app that talks by simple-websocket, as flask-sock has it."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        ws = server(environ, **options)
        try:
            talk(ws)
        except simple_websocket.ConnectionClosed:
            pass
        try:
            ws.close()
        except simple_websocket.ConnectionClosed:
            pass
        return ok(start_response)

    return app


def on_socket(talk: Callable[[simple_websocket.Server], None]) -> WSGIApp:
    """The same, on the socket."""
    return by_simple_websocket(talk, server=SocketServer)


def by_object(talk: Callable[[Any], None]) -> WSGIApp:
    """Return an app that talks by `wsgi.websocket`, as gevent-websocket has it."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        ws = environ["wsgi.websocket"]
        try:
            talk(ws)
        except OSError:
            pass
        ws.close()
        return ok(start_response)

    return app


def write_raw(ws: simple_websocket.Server, frames: bytes) -> None:
    assert ws.sock is not None
    ws.sock.sendall(frames)


def echo(ws: Any) -> None:
    while (message := ws.receive()) is not None:
        ws.send(message)


def never(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    raise AssertionError("the app was called")


SIMPLE = [pytest.param(on_socket, id="socket"), pytest.param(by_simple_websocket, id="simple")]
WAYS = [*SIMPLE, pytest.param(by_object, id="object")]


def app_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "WSGIToASGI WebSocket"]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No test leaves a thread, or a socket that is not closed."""
    threads = set(threading.enumerate())
    yield
    gc.collect()
    deadline = time.monotonic() + 5
    while left := [thread for thread in app_threads() if thread not in threads]:
        assert time.monotonic() < deadline, left
        time.sleep(0.001)


async def serve(app: WSGIApp, *contents: str | bytes, **keys: Any) -> ASGIWebSocket:
    """Serve a client that says `contents`, waits for as many answers, and leaves; or waits for the app's close."""
    server = ASGIWebSocket(WSGIToASGI(app), websocket_scope(**keys))
    async with server.running():
        server.feed_content(*contents)
        await server.until_sent(1 + len(contents))
        if contents:
            server.leave(1000)
    return server


# --- The handshake --------------------------------------------------------------------------------


async def test_a_client_that_left_gets_no_answer() -> None:
    """After disconnect there is nothing to say."""
    server = ASGIServer(WSGIToASGI(never), websocket_scope(), blocks=[])
    server.feed_message({"type": "websocket.disconnect"})
    await server.run()
    assert server.sent == []


async def test_another_first_message_is_the_servers_error() -> None:
    """What is neither connect nor disconnect raises."""
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
    """One sentence, to the client and once in the log, names the extra that is missing."""
    adapter = WSGIToASGI(never)
    for _ in range(2):
        server = ASGIWebSocket(adapter)
        server.send_error = send_error
        await server.run()
    assert server.sent[0]["status"] == 501
    if send_error is None:
        assert b"bridge[websocket]" in server.sent[1]["body"]
    assert caplog.text.count("bridge[websocket]") == 1
    server = ASGIWebSocket(adapter, websocket_scope(extensions=None))
    await server.run()
    assert server.sent == [{"type": "websocket.close", "code": 1000}]


async def test_a_request_that_contradicts_itself_is_refused() -> None:
    """What cannot be translated is answered with 400."""
    headers = [(b"content-length", b"1"), (b"content-length", b"2")]
    server = ASGIWebSocket(WSGIToASGI(never), websocket_scope(headers=headers))
    await server.run()
    assert server.sent[0]["status"] == 400


@pytest.mark.parametrize("multiprocess", [True, False])
async def test_the_environ_says_of_processes_what_the_adapter_was_told(multiprocess: bool) -> None:
    """multiprocess= is for WebSockets, too."""
    told: list[bool] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        told.append(environ["wsgi.multiprocess"])
        return ok(start_response)

    await ASGIWebSocket(WSGIToASGI(app, multiprocess=multiprocess)).run()
    assert told == [multiprocess]


async def test_the_environ_is_that_of_http_1_1() -> None:
    """Over HTTP/2 there are no Upgrade headers, and still the app finds what it looks for."""
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
    """What the spec lets a server leave out may be missing."""
    server = ASGIWebSocket(WSGIToASGI(by_object(echo)), {"type": "websocket", "path": "/", "headers": []})
    async with server.running():
        server.feed_content("a")
        await server.until_sent(2)
        server.leave()
    assert server.contents == ["a"]


async def test_accept_carries_the_apps_subprotocol_and_headers() -> None:
    """What the app says in its 101, less what belongs to the handshake, is in `websocket.accept`."""

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
    """Without the token that proves it, a 101 means nothing; the server answers with 500."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["werkzeug.socket"].sendall(response)
        return []

    server = ASGIWebSocket(WSGIToASGI(app))
    with pytest.raises(AppProtocolError, match="handshake"):
        await server.run()
    assert server.sent == []


# --- Messages -------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
async def test_messages_pass_both_ways_as_they_are(way: Callable[[Any], WSGIApp]) -> None:
    """Text stays text, bytes stay bytes, whatever their length."""
    lengths = [0, 1, 125, 126, 65535, 65536, MIB]
    contents = ["äß☃"[: n % 4] * (n // 3) for n in lengths] + [b"\xff" * n for n in lengths]
    server = await serve(way(echo), *contents)
    assert server.sent[0]["type"] == "websocket.accept"
    assert server.contents == contents
    assert server.sent[-1]["type"] == "websocket.send"


@pytest.mark.parametrize("way", WAYS)
async def test_many_messages_keep_their_order(way: Callable[[Any], WSGIApp]) -> None:
    """Nothing overtakes."""
    contents = [str(number) for number in range(2000)]
    assert (await serve(way(echo), *contents)).contents == contents


@pytest.mark.parametrize("way", WAYS)
async def test_what_comes_before_accept_waits(way: Callable[[Any], WSGIApp]) -> None:
    """A server that delivers messages early finds them delivered."""
    proceed = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        assert proceed.wait(5)
        return way(echo)(environ, start_response)

    server = ASGIWebSocket(WSGIToASGI(app))
    async with server.running():
        server.feed_content("early")
        await anyio.wait_all_tasks_blocked()
        proceed.set()
        await server.until_sent(2)
        server.leave()
    assert server.contents == ["early"]


async def test_pings_are_answered_and_fragments_put_together() -> None:
    """A library's own pings get their pong, and a message in fragments leaves as one."""

    def talk(ws: simple_websocket.Server) -> None:
        ws.pong_received = False
        write_raw(ws, b"\x01\x01a" + b"\x00\x01b" + b"\x89\x02hi" + b"\x80\x01c")
        in_thread(lambda: wait_for(lambda: ws.pong_received))
        ws.send("pong")

    server = ASGIWebSocket(WSGIToASGI(on_socket(talk)))
    await server.run()
    assert server.contents == ["abc", "pong"]


# --- The end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "bye"), (1011, "ä"), (3000, "x" * 123), (4999, "")])
async def test_the_app_closes_with_its_code_and_reason(way: Callable[[Any], WSGIApp], code: int, reason: str) -> None:
    """What the app's close frame says is what the server is told, once, and nothing after it."""

    def talk(ws: Any) -> None:
        ws.send("last words")
        ws.close(code, reason)

    server = ASGIWebSocket(WSGIToASGI(way(talk)))
    await server.run()
    expected = {"type": "websocket.close", "code": code, **({"reason": reason} if reason else {})}
    assert server.sent[1:] == [{"type": "websocket.send", "text": "last words"}, expected]


@pytest.mark.parametrize("way", WAYS)
async def test_a_close_does_not_wait_for_the_app_to_end(way: Callable[[Any], WSGIApp]) -> None:
    """The server is told at once."""
    proceed = threading.Event()

    def talk(ws: Any) -> None:
        ws.close(4000)
        assert proceed.wait(5)

    server = ASGIWebSocket(WSGIToASGI(way(talk)))
    async with server.running():
        await server.until_sent(2)
        proceed.set()
    assert server.sent[1:] == [{"type": "websocket.close", "code": 4000}]


async def test_the_first_close_counts() -> None:
    """What else threads have said in the same moment does not."""

    def talk(ws: Any) -> None:
        ws.accept()
        for item in (Close(4000, ""), "more", Close(4001, "")):
            ws.messages.send(item)

    server = ASGIWebSocket(WSGIToASGI(by_object(talk)))
    await server.run()
    assert server.sent[1:] == [{"type": "websocket.close", "code": 4000}]


@pytest.mark.parametrize("code", [1005, 1006, 1015])
async def test_a_code_that_no_frame_carries_is_normal(code: int) -> None:
    """The app means no code in particular."""
    server = ASGIWebSocket(WSGIToASGI(by_object(lambda ws: ws.close(code))))
    await server.run()
    assert server.sent[1:] == [{"type": "websocket.close", "code": 1000}]


@pytest.mark.parametrize("way", WAYS)
async def test_a_reason_that_is_too_long_is_cut(way: Callable[[Any], WSGIApp]) -> None:
    """A close frame has room for 123 bytes of it, and no part of a character."""
    server = ASGIWebSocket(WSGIToASGI(way(lambda ws: ws.close(4000, "ä" * 100))))
    await server.run()
    assert server.sent[1:] == [{"type": "websocket.close", "code": 4000, "reason": "ä" * 61}]


@pytest.mark.parametrize("code", [5000, 999])
async def test_a_code_that_there_is_not_is_the_apps_error(code: int) -> None:
    """The client hears 1011."""
    server = ASGIWebSocket(WSGIToASGI(by_object(lambda ws: ws.close(code))))
    with pytest.raises(AppProtocolError, match=str(code)):
        await server.run()
    assert server.sent[1:] == [{"type": "websocket.close", "code": 1011}]


async def test_an_older_server_is_told_no_reason() -> None:
    """A close has a reason since version 2.3 of the spec."""
    server = ASGIWebSocket(WSGIToASGI(by_object(lambda ws: ws.close(4000, "bye"))), websocket_scope(asgi={}))
    await server.run()
    assert server.sent[1:] == [{"type": "websocket.close", "code": 4000}]


async def test_a_close_frame_without_a_code_is_normal() -> None:
    """1005 says that there is no code, and cannot be sent."""
    server = ASGIWebSocket(WSGIToASGI(on_socket(lambda ws: write_raw(ws, b"\x88\x00"))))
    await server.run()
    assert server.sent[1:] == [{"type": "websocket.close", "code": 1000}]


@pytest.mark.parametrize(
    ("code", "told"),
    [(1000, 1000), (1001, 1001), (1005, 1005), (1006, 1005), (1012, 1012), (4001, 4001), (2999, 1005), (None, 1005)],
)
@pytest.mark.parametrize("way", SIMPLE)
async def test_the_client_closes_and_the_app_is_told(
    way: Callable[[Any], WSGIApp], code: int | None, told: int
) -> None:
    """simple-websocket's ConnectionClosed has the client's code; 1005, its default, where there is no close frame."""
    told_codes: list[tuple[int, str | None]] = []

    def talk(ws: simple_websocket.Server) -> None:
        try:
            ws.receive()
        except simple_websocket.ConnectionClosed as error:
            told_codes.append((error.reason, error.message))
            raise

    server = ASGIWebSocket(WSGIToASGI(way(talk)))
    async with server.running():
        await server.until_sent(1)
        server.feed_message({"type": "websocket.disconnect", "code": code, "reason": "bye"})
    ((told_code, message),) = told_codes
    assert (told_code, message) == (told, "bye" if told == code and code != 1005 else message)
    assert [message["type"] for message in server.sent] == ["websocket.accept"]


async def test_an_app_may_answer_a_close_at_any_time() -> None:
    """Its answer may be here while messages of before are on their way; it is no fault, whenever it comes."""

    def talk(ws: simple_websocket.Server) -> None:
        try:
            while True:
                write_raw(ws, b"\x89\x00")
                ws.send("x" * 100)
        except LocalProtocolError:
            wait_until(lambda: not ws.connected)  # its thread has read the close, and is about to say so

    adapter = WSGIToASGI(on_socket(talk))
    for messages in range(1, 100):
        server = ASGIWebSocket(adapter)
        async with server.running():
            await server.until_sent(messages)
            server.leave(1000)
        assert server.sent[-1]["type"] == "websocket.send" or messages == 1


async def test_the_object_tells_the_end_by_none_and_then_by_errors() -> None:
    """`receive` returns None when the client leaves; from then on the object is closed, and says so."""
    noted: list[object] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        ws = environ["wsgi.websocket"]
        noted.extend([ws.path, ws.origin, ws.protocol, ws.version, ws.closed])
        noted.extend([ws.receive(), ws.receive(), ws.closed])
        for call in (ws.receive, lambda: ws.send("more")):
            with pytest.raises(ClientDisconnected):
                call()
        ws.close()
        return ok(start_response)

    server = ASGIWebSocket(WSGIToASGI(app), websocket_scope("/room", subprotocols=["chat"]))
    async with server.running():
        server.feed_content("hello")
        await server.until_sent(1)
        server.leave(1001)
    assert noted == ["/room", None, "chat", "13", False, "hello", None, True]


async def test_gevent_websockets_error_is_raised_where_that_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its users catch WebSocketError, and an app runs unchanged."""

    class Exceptions:
        class WebSocketError(OSError):
            pass

    monkeypatch.setitem(sys.modules, "geventwebsocket.exceptions", Exceptions)
    noted: list[object] = []

    def talk(ws: Any) -> None:
        ws.close()
        with pytest.raises(Exceptions.WebSocketError):
            ws.send("more")
        noted.append("raised")

    await ASGIWebSocket(WSGIToASGI(by_object(talk))).run()
    assert noted == ["raised"]


async def test_the_object_sends_what_binary_says() -> None:
    """As with gevent-websocket, `binary` overrules the type."""

    def talk(ws: Any) -> None:
        ws.send(b"text", binary=False)
        ws.send("bytes", True)
        ws.send(bytearray(b"array"))

    server = ASGIWebSocket(WSGIToASGI(by_object(talk)))
    await server.run()
    assert server.contents == ["text", b"bytes", b"array"]


async def test_the_object_may_be_used_by_two_threads() -> None:
    """One sleeps in `receive` while the other sends, and closes under it."""
    received: list[object] = []

    def talk(ws: Any) -> None:
        def receive() -> None:
            received.append(ws.receive())
            with contextlib.suppress(ClientDisconnected):  # where it comes too late to sleep
                received.append(ws.receive())

        thread = threading.Thread(target=receive)
        thread.start()
        wait_for(lambda: received)
        ws.send("from the other")
        ws.close(4000)
        thread.join(5)

    server = ASGIWebSocket(WSGIToASGI(by_object(talk)))
    async with server.running():
        server.feed_content("one")
    assert received in (["one", None], ["one"])
    assert server.sent[1:] == [
        {"type": "websocket.send", "text": "from the other"},
        {"type": "websocket.close", "code": 4000},
    ]


def returns_nothing(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    simple_websocket.Server.accept(environ)
    return []


def ends_as_for_gunicorn(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    simple_websocket.Server.accept(environ)
    raise StopIteration


def ends_as_for_werkzeug(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    simple_websocket.Server.accept(environ)
    raise ConnectionError


def says_so_to_the_server(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    simple_websocket.Server.accept(environ)
    start_response("101 Switching Protocols", [])
    return []


@pytest.mark.parametrize("app", [returns_nothing, ends_as_for_gunicorn, ends_as_for_werkzeug, says_so_to_the_server])
async def test_an_app_that_returns_has_closed(app: WSGIApp) -> None:
    """Whatever libraries say to the server instead of a response, the WebSocket ends with 1000."""
    server = ASGIWebSocket(WSGIToASGI(app))
    await server.run()
    assert server.sent[1:] == [{"type": "websocket.close", "code": 1000}]


@pytest.mark.parametrize(
    "error", [ValueError("oops"), FileNotFoundError("oops"), SystemExit("oops"), asyncio.CancelledError("oops")]
)
async def test_an_app_that_raises_has_failed(error: BaseException) -> None:
    """The client is told 1011, and the server the error."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        simple_websocket.Server.accept(environ)
        raise error

    server = ASGIWebSocket(WSGIToASGI(app))
    with pytest.raises(Exception, match="oops") as info:
        await server.run()
    assert error in (info.value, info.value.__cause__)
    assert server.sent[1:] == [{"type": "websocket.close", "code": 1011}]


async def test_an_app_that_answers_500_has_failed() -> None:
    """A framework makes a 500 of an exception, and that is what the client hears of it."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        simple_websocket.Server.accept(environ)
        start_response("500 Internal Server Error", TEXT)
        return [b"not for the client"]

    server = ASGIWebSocket(WSGIToASGI(app))
    await server.run()
    assert server.sent[1:] == [{"type": "websocket.close", "code": 1011}]


def uncaught_on_socket(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    echo(SocketServer.accept(environ))
    return []


def uncaught_by_simple_websocket(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    echo(simple_websocket.Server.accept(environ))
    return []


def uncaught_by_object(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    while True:
        environ["wsgi.websocket"].send(environ["wsgi.websocket"].receive() or "")


@pytest.mark.parametrize("app", [uncaught_on_socket, uncaught_by_simple_websocket, uncaught_by_object])
async def test_an_app_that_does_not_look_out_for_the_end_has_not_failed(app: WSGIApp) -> None:
    """What its library raises when the client has left is the end of it, and nobody's error."""
    assert (await serve(app, "a")).contents == ["a"]


@pytest.mark.parametrize("app", [uncaught_on_socket, uncaught_by_simple_websocket, uncaught_by_object])
async def test_nor_has_one_whose_task_was_cancelled(app: WSGIApp, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is logged of it."""
    server = ASGIWebSocket(WSGIToASGI(app))
    async with server.running_cancellable() as cancel:
        server.feed_content("a")
        await server.until_sent(2)
        cancel()
    await eventually(lambda: not app_threads())
    assert caplog.text == ""


async def test_a_response_that_nobody_wants_keeps_nobody() -> None:
    """However long it is; its iterable is closed."""
    closed = threading.Event()

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 10_000
        finally:
            closed.set()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.websocket"].send("hello")
        start_response("200 OK", TEXT)
        return endless()

    server = ASGIWebSocket(WSGIToASGI(app))
    with anyio.fail_after(2):
        await server.run()
    assert closed.is_set()
    assert server.sent[-1] == {"type": "websocket.close", "code": 1000}


async def test_an_app_that_breaks_the_protocol_has_failed() -> None:
    """A frame that is none ends the WebSocket with 1011, and names the app."""
    server = ASGIWebSocket(WSGIToASGI(on_socket(lambda ws: write_raw(ws, b"\xff\xff\xff\xff"))))
    with pytest.raises(AppProtocolError, match="broke the WebSocket protocol"):
        await server.run()
    assert server.sent[1:] == [{"type": "websocket.close", "code": 1011}]


@pytest.mark.parametrize("message", [{"type": "websocket.bogus"}, {"type": "websocket.receive", "text": None}])
async def test_another_message_is_the_servers_error(message: dict[str, Any]) -> None:
    """The app is told the end, and the server its error."""
    server = ASGIWebSocket(WSGIToASGI(on_socket(echo)))
    with pytest.RaisesGroup(ServerProtocolError):
        async with server.running():
            await server.until_sent(1)
            server.feed_message(message)
    assert server.sent[1:] == [{"type": "websocket.close", "code": 1011}]


# --- A refusal ------------------------------------------------------------------------------------


def not_found(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("404 Not Found", [*TEXT, ("X-Why", "no route")])
    return [b"no ", b"", b"such room"]


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
    """Where there was no handshake, the client gets the app's response; from an older server, a 403."""
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
    """Its body leaves block by block, waits for a slow client, and ends when that leaves."""
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
    """It reaches the server, which makes a 500 of it; an app that ends without a response has made one."""

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


# --- Waits that end -------------------------------------------------------------------------------


def blocks_in_receive(ws: Any) -> None:
    ws.receive()


def blocks_in_send(ws: Any) -> None:
    while True:
        ws.send(b"x" * 10_000)


TALKS = [blocks_in_receive, blocks_in_send]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("talk", TALKS)
async def test_an_app_is_free_when_the_client_leaves(
    way: Callable[[Any], WSGIApp], talk: Callable[[Any], None]
) -> None:
    """Whatever it blocks in, and though the client reads no more."""
    server = ASGIWebSocket(WSGIToASGI(way(talk)))
    async with server.running():
        await server.until_sent(1)
        server.hold_sends()
        await anyio.wait_all_tasks_blocked()
        server.leave()
        with anyio.fail_after(2):
            await server.finished.wait()
    assert server.sent[-1]["type"] in ("websocket.accept", "websocket.send")


async def test_an_app_that_looks_is_told_that_the_client_has_left() -> None:
    """`bridge.disconnected` is set, though the app neither receives nor sends."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        ws = environ["wsgi.websocket"]
        ws.send("hello")
        assert environ["bridge.disconnected"].wait(5)
        assert ws.closed
        return ok(start_response)

    server = ASGIWebSocket(WSGIToASGI(app))
    async with server.running():
        await server.until_sent(2)
        server.leave()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("talk", TALKS)
async def test_an_app_is_free_when_send_says_that_the_client_has_left(
    way: Callable[[Any], WSGIApp], talk: Callable[[Any], None]
) -> None:
    """An OSError from `send` is the same as a disconnect (ASGI WebSocket spec 2.4)."""
    server = ASGIWebSocket(WSGIToASGI(way(talk)))
    server.send_error = OSError("gone")
    await server.run()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("talk", TALKS)
async def test_an_app_is_free_when_its_task_is_cancelled(
    way: Callable[[Any], WSGIApp], talk: Callable[[Any], None]
) -> None:
    """A server that cancels waits for nobody, and neither does a thread."""
    server = ASGIWebSocket(WSGIToASGI(way(talk)))
    with anyio.CancelScope() as scope:
        async with server.running():
            await server.until_sent(1)
            server.hold_sends()
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    await eventually(lambda: not app_threads())


@pytest.mark.parametrize("way", SIMPLE)
async def test_a_cancelled_app_is_told_that_the_service_restarts(way: Callable[[Any], WSGIApp]) -> None:
    """There is room for a close frame, mostly."""
    codes: list[int] = []

    def talk(ws: simple_websocket.Server) -> None:
        try:
            ws.receive()
        except simple_websocket.ConnectionClosed as error:
            codes.append(error.reason)

    server = ASGIWebSocket(WSGIToASGI(way(talk)))
    async with server.running_cancellable() as cancel:
        await server.until_sent(1)
        cancel()
    await eventually(lambda: codes)
    assert codes == [1012]


async def test_an_app_that_goes_on_is_left_to_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It does not hold the server for ever, but its place is taken until it ends; what it raises is logged."""
    monkeypatch.setattr(websocket_exchange, "_EXIT_TIMEOUT", 0.05)
    proceed = threading.Event()

    def talk(ws: simple_websocket.Server) -> None:
        assert proceed.wait(5)
        raise ValueError("oops")

    adapter = WSGIToASGI(on_socket(talk), max_websockets=1)
    server = ASGIWebSocket(adapter)
    with caplog.at_level("INFO", "bridge"):
        async with server.running():
            await server.until_sent(1)
            server.leave()
        assert "its thread is left running" in caplog.text
        refused = ASGIWebSocket(adapter)
        await refused.run()
        assert refused.sent[0]["status"] == 503
        assert (b"retry-after", b"5") in refused.sent[0]["headers"]
        assert (b"content-length", b"%d" % len(refused.sent[1]["body"])) in refused.sent[0]["headers"]
        proceed.set()
        await eventually(lambda: not app_threads())
    assert "oops" in caplog.text


@pytest.mark.parametrize("code", [1000, 1006])
async def test_an_app_that_only_sends_is_cut_off(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """It may go on for a while, and then its socket is closed, however fast it sends."""
    monkeypatch.setattr(websocket_exchange, "_EXIT_TIMEOUT", 0.2)

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        ws = SocketServer(environ)
        while True:
            write_raw(ws, b"\x82\x00" * 100)

    server = ASGIWebSocket(WSGIToASGI(app))
    async with server.running():
        await server.until_sent(10)
        server.leave(code)
        with anyio.fail_after(2):
            await server.finished.wait()
    await eventually(lambda: not app_threads())


async def test_too_many_websockets_are_refused() -> None:
    """Beyond `max_websockets` the next one does not wait; when one has ended, there is room again."""
    adapter = WSGIToASGI(on_socket(echo), max_websockets=1)
    first, second = ASGIWebSocket(adapter), ASGIWebSocket(adapter)
    async with first.running():
        await first.until_sent(1)
        await second.run()
        assert second.sent[0]["status"] == 503
        first.leave()
    third = ASGIWebSocket(adapter)
    async with third.running():
        await third.until_sent(1)
        assert third.sent[0]["type"] == "websocket.accept"
        third.leave()


async def test_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no thread to give, that is too many, too."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    adapter = WSGIToASGI(on_socket(echo), max_websockets=1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        server = ASGIWebSocket(adapter)
        await server.run()
    assert server.sent[0]["status"] == 503
    assert (await serve(on_socket(echo), "a")).contents == ["a"]


async def test_shutdown_beside_a_websocket_that_starts_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that is about to start when the server shuts down is waited for like one that runs."""
    start = threading.Thread.start
    adapter = WSGIToASGI(by_object(echo))
    server = ASGIWebSocket(adapter)
    errors: list[BaseException] = []

    def join() -> None:
        try:
            adapter._websockets.get().join(5)
        except BaseException as error:
            errors.append(error)

    joiner = threading.Thread(target=join)

    def start_beside_a_join(thread: threading.Thread) -> None:
        monkeypatch.undo()
        joiner.start()
        joiner.join(0.1)  # it either fails at once, or sleeps until the thread has started
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_beside_a_join)
    async with server.running():
        server.feed_content("a")
        await server.until_sent(2)
        assert errors == []
        assert joiner.is_alive()
        server.leave()
    await eventually(lambda: not joiner.is_alive())
    assert errors == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("talk", TALKS)
async def test_shutdown_closes_websockets(way: Callable[[Any], WSGIApp], talk: Callable[[Any], None]) -> None:
    """At lifespan shutdown both sides are told 1012, and no thread is left when it is complete."""
    adapter = WSGIToASGI(way(talk))
    lifespan = ASGIServer(adapter, {"type": "lifespan"}, blocks=[])
    server = ASGIWebSocket(adapter)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lifespan.run)
        tasks.start_soon(server.run)
        lifespan.feed_message({"type": "lifespan.startup"})
        await server.until_sent(1)
        lifespan.feed_message({"type": "lifespan.shutdown"})
        await lifespan.until_sent(2)
        assert not app_threads()
    assert server.sent[-1] == {"type": "websocket.close", "code": 1012}


async def test_shutdown_does_not_wait_for_ever_for_a_websocket(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An app that goes on after the end is left behind, with a word in the log."""
    monkeypatch.setattr(bridge.wsgi_to_asgi.lifespan, "_SHUTDOWN_TIMEOUT", 0.05)
    proceed = threading.Event()

    def talk(ws: simple_websocket.Server) -> None:
        assert proceed.wait(5)

    adapter = WSGIToASGI(on_socket(talk))
    server, lifespan = ASGIWebSocket(adapter), ASGIServer(adapter, {"type": "lifespan"}, blocks=[])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.run)
        await server.until_sent(1)
        lifespan.feed_message({"type": "lifespan.startup"})
        lifespan.feed_message({"type": "lifespan.shutdown"})
        with anyio.fail_after(4):
            await lifespan.run()
        assert "1 WebSockets still ran" in caplog.text
        proceed.set()


async def test_shutdown_refuses_who_still_waits() -> None:
    """An app that has yet to answer is not waited for; the client gets a 403."""
    proceed = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        assert environ["bridge.disconnected"].wait(5)
        return ok(start_response)

    adapter = WSGIToASGI(app)
    lifespan = ASGIServer(adapter, {"type": "lifespan"}, blocks=[])
    server = ASGIWebSocket(adapter)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lifespan.run)
        tasks.start_soon(server.run)
        lifespan.feed_message({"type": "lifespan.startup"})
        await eventually(app_threads)
        lifespan.feed_message({"type": "lifespan.shutdown"})
    proceed.set()
    assert server.sent == [{"type": "websocket.close", "code": 1000}]


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("talk", TALKS)
def test_a_loop_that_is_closed_frees_the_threads(
    factory: Callable[[], asyncio.AbstractEventLoop], way: Callable[[Any], WSGIApp], talk: Callable[[Any], None]
) -> None:
    """Though its tasks are not even cancelled, which asyncio complains of."""
    loop = factory()

    async def begin() -> ASGIWebSocket:
        server = ASGIWebSocket(WSGIToASGI(way(talk)))
        server.task = asyncio.ensure_future(server.run())  # type: ignore[attr-defined]  # else it is dropped too soon
        server.task._log_destroy_pending = False  # type: ignore[attr-defined]
        await server.until_sent(1)
        server.hold_sends()
        return server

    server = loop.run_until_complete(begin())
    loop.close()
    wait_for(lambda: not app_threads())
    assert not server.finished.is_set()


# --- Backpressure ---------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
async def test_a_slow_client_slows_the_app(way: Callable[[Any], WSGIApp]) -> None:
    """What is on the way is what the sockets hold, and a little."""
    sent: list[int] = []

    def talk(ws: Any) -> None:
        for _ in range(5000):
            ws.send(b"x" * 1000)
            sent.append(1000)

    server = ASGIWebSocket(WSGIToASGI(way(talk)))
    async with server.running():
        await server.until_sent(1)
        server.hold_sends()
        await eventually(lambda: settled(lambda: len(sent)))
        assert sum(sent) - 1000 * len(server.contents) < MIB
        server.release_sends()
    assert len(server.contents) == 5000


@pytest.mark.parametrize("way", WAYS[1:])  # on a socket, simple-websocket reads on and on
async def test_a_slow_app_slows_the_client(way: Callable[[Any], WSGIApp]) -> None:
    """The server is asked for no more than what may be on the way, and one message."""
    proceed = threading.Event()

    def talk(ws: Any) -> None:
        ws.send("hello")
        assert proceed.wait(5)
        echo(ws)

    server = ASGIWebSocket(WSGIToASGI(way(talk)))
    async with server.running():
        await server.until_sent(2)
        server.feed_content(*[b"x" * 10_000] * 200)
        await eventually(lambda: settled(lambda: server.receive_calls))
        assert server.receive_calls * 10_000 < MIB
        proceed.set()
        await server.until_sent(202)
        server.leave()


# --- What the app finds ---------------------------------------------------------------------------

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")


async def test_the_context_is_carried_over() -> None:
    """The app sees the context variables of the server's task, and the scope."""
    seen: list[object] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.extend([variable.get(), environ["asgi.scope"], threading.current_thread().daemon])
        return not_found(environ, start_response)

    server = ASGIWebSocket(WSGIToASGI(app))
    variable.set("set")
    await server.run()
    assert seen == ["set", server.scope, True]


async def test_close_of_the_iterable_is_called_in_the_apps_thread() -> None:
    """Once, whatever became of the response."""
    threads: list[threading.Thread] = []

    class Response(list[bytes]):
        def close(self) -> None:
            threads.append(threading.current_thread())

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.websocket"].send("hello")
        return Response(ok(start_response))

    server = ASGIWebSocket(WSGIToASGI(app))
    await server.run()
    assert [thread.name for thread in threads] == ["WSGIToASGI WebSocket"]


async def test_http_goes_on_beside_websockets() -> None:
    """A WebSocket takes none of the workers."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return (by_object(echo) if "wsgi.websocket" in environ else not_found)(environ, start_response)

    adapter = WSGIToASGI(app, workers=1)
    sockets = [ASGIWebSocket(adapter) for _ in range(5)]
    async with anyio.create_task_group() as tasks:
        for server in sockets:
            tasks.start_soon(server.run)
            server.feed_content("a")
            await server.until_sent(2)
        http = ASGIServer(adapter, http_scope())
        with anyio.fail_after(2):
            await http.run()
        assert http.status == 404
        for server in sockets:
            server.leave()


async def test_a_limit_of_none_refuses_all() -> None:
    """max_websockets=0 is a limit like any other, in both directions."""
    server = ASGIWebSocket(WSGIToASGI(never, max_websockets=0))
    await server.run()
    assert server.sent[0]["status"] == 503


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


_last: dict[str, tuple[int, int]] = {}


def settled(count: Callable[[], int]) -> bool:
    """Return whether `count` has stayed the same for many looks."""
    last, looks = _last.get("count", (-1, 0))
    now = count()
    _last["count"] = (now, looks + 1 if now == last else 0)
    return now == last and looks > 50
