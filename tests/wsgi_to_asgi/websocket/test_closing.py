"""How a WSGI app's WebSockets end: by the app, by its client, and by errors."""

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import anyio
import pytest
import simple_websocket
from wsproto.utilities import LocalProtocolError

from bridge import AppProtocolError, ClientDisconnected, ServerProtocolError, WSGIToASGI
from bridge.types import Environ, StartResponse, WSGIApp
from bridge.wsgi_to_asgi.websocket.messages import Close
from tests.fakes import ASGIWebSocket, eventually, websocket_scope
from tests.processes import wait_until
from tests.wsgi_to_asgi.websocket.apps import (
    SIMPLE,
    TEXT,
    WAYS,
    SocketServer,
    app_threads,
    by_object,
    echo,
    ok,
    on_socket,
    serve,
    wait_for,
    write_raw,
)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "bye"), (1011, "ä"), (3000, "x" * 123), (4999, "")])
async def test_the_app_closes_with_its_code_and_reason(way: Callable[[Any], WSGIApp], code: int, reason: str) -> None:
    """The server gets the code and reason of the app's close frame once, and nothing after them."""

    def talk(ws: Any) -> None:
        ws.send("last words")
        ws.close(code, reason)

    server = ASGIWebSocket(WSGIToASGI(way(talk)))
    await server.run()
    expected = {"type": "websocket.close", "code": code, **({"reason": reason} if reason else {})}
    assert server.sent[1:] == [{"type": "websocket.send", "text": "last words"}, expected]


@pytest.mark.parametrize("way", WAYS)
async def test_a_close_does_not_wait_for_the_app_to_end(way: Callable[[Any], WSGIApp]) -> None:
    """The server gets the close at once, while the app goes on."""
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
    """If several threads close at once, only the first close is sent."""

    def talk(ws: Any) -> None:
        ws.accept()
        for item in (Close(4000, ""), "more", Close(4001, "")):
            ws.messages.send(item)

    server = ASGIWebSocket(WSGIToASGI(by_object(talk)))
    await server.run()
    assert server.sent[1:] == [{"type": "websocket.close", "code": 4000}]


@pytest.mark.parametrize("code", [1005, 1006, 1015])
async def test_a_code_that_no_frame_carries_is_normal(code: int) -> None:
    """A code that no frame may carry is sent as 1000, because the app means no code in particular."""
    server = ASGIWebSocket(WSGIToASGI(by_object(lambda ws: ws.close(code))))
    await server.run()
    assert server.sent[1:] == [{"type": "websocket.close", "code": 1000}]


@pytest.mark.parametrize("way", WAYS)
async def test_a_reason_that_is_too_long_is_cut(way: Callable[[Any], WSGIApp]) -> None:
    """A close frame has room for a reason of 123 bytes, and no character is cut in half."""
    server = ASGIWebSocket(WSGIToASGI(way(lambda ws: ws.close(4000, "ä" * 100))))
    await server.run()
    assert server.sent[1:] == [{"type": "websocket.close", "code": 4000, "reason": "ä" * 61}]


@pytest.mark.parametrize("code", [5000, 999])
async def test_a_code_that_there_is_not_is_the_apps_error(code: int) -> None:
    """A code that does not exist is the app's error, and the client gets 1011."""
    server = ASGIWebSocket(WSGIToASGI(by_object(lambda ws: ws.close(code))))
    with pytest.raises(AppProtocolError, match=str(code)):
        await server.run()
    assert server.sent[1:] == [{"type": "websocket.close", "code": 1011}]


async def test_an_older_server_is_told_no_reason() -> None:
    """A close has a reason only since version 2.3 of the spec."""
    server = ASGIWebSocket(WSGIToASGI(by_object(lambda ws: ws.close(4000, "bye"))), websocket_scope(asgi={}))
    await server.run()
    assert server.sent[1:] == [{"type": "websocket.close", "code": 4000}]


async def test_a_close_frame_without_a_code_is_normal() -> None:
    """1005 means that there was no code, and cannot be sent."""
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
    """simple-websocket's ConnectionClosed has the client's code, or 1005 if there is none."""
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
    """The app's answer is right even if it comes while earlier messages are still on their way."""

    def talk(ws: simple_websocket.Server) -> None:
        try:
            while True:
                write_raw(ws, b"\x89\x00")
                ws.send("x" * 100)
        except LocalProtocolError:
            wait_until(lambda: not ws.connected)  # its thread has read the close, and is about to answer it

    adapter = WSGIToASGI(on_socket(talk))
    for messages in range(1, 100):
        server = ASGIWebSocket(adapter)
        async with server.running():
            await server.until_sent(messages)
            server.leave(1000)
        assert server.sent[-1]["type"] == "websocket.send" or messages == 1


async def test_the_object_tells_the_end_by_none_and_then_by_errors() -> None:
    """`receive` returns None when the client leaves, and raises from then on."""
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
    """Apps that catch gevent-websocket's WebSocketError run unchanged."""

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
    """As in gevent-websocket, `binary` decides between text and bytes, whatever the type."""

    def talk(ws: Any) -> None:
        ws.send(b"text", binary=False)
        ws.send("bytes", True)
        ws.send(bytearray(b"array"))

    server = ASGIWebSocket(WSGIToASGI(by_object(talk)))
    await server.run()
    assert server.contents == ["text", b"bytes", b"array"]


async def test_the_object_may_be_used_by_two_threads() -> None:
    """One thread waits in `receive` while the other sends and then closes."""
    received: list[object] = []

    def talk(ws: Any) -> None:
        def receive() -> None:
            received.append(ws.receive())
            with contextlib.suppress(ClientDisconnected):  # if it comes too late to sleep
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
    """Whatever a library returns to the server instead of a response, the WebSocket ends with 1000."""
    server = ASGIWebSocket(WSGIToASGI(app))
    await server.run()
    assert server.sent[1:] == [{"type": "websocket.close", "code": 1000}]


@pytest.mark.parametrize(
    "error", [ValueError("oops"), FileNotFoundError("oops"), SystemExit("oops"), asyncio.CancelledError("oops")]
)
async def test_an_app_that_raises_has_failed(error: BaseException) -> None:
    """The client gets 1011, and the server gets the error."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        simple_websocket.Server.accept(environ)
        raise error

    server = ASGIWebSocket(WSGIToASGI(app))
    with pytest.raises(Exception, match="oops") as info:
        await server.run()
    assert error in (info.value, info.value.__cause__)
    assert server.sent[1:] == [{"type": "websocket.close", "code": 1011}]


async def test_an_app_that_answers_500_has_failed() -> None:
    """A framework turns an exception into a 500, so the client gets 1011."""

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
    """What a library raises because the client has left ends the app, and is not an error."""
    assert (await serve(app, "a")).contents == ["a"]


@pytest.mark.parametrize("app", [uncaught_on_socket, uncaught_by_simple_websocket, uncaught_by_object])
async def test_nor_has_one_whose_task_was_cancelled(app: WSGIApp, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is logged if the app ends because its task was cancelled."""
    server = ASGIWebSocket(WSGIToASGI(app))
    async with server.running_cancellable() as cancel:
        server.feed_content("a")
        await server.until_sent(2)
        cancel()
    await eventually(lambda: not app_threads())
    assert caplog.text == ""


async def test_a_response_that_nobody_wants_keeps_nobody() -> None:
    """A response after the WebSocket is not iterated to its end, and is closed."""
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
    """A broken frame ends the WebSocket with 1011, and the error names the app."""
    server = ASGIWebSocket(WSGIToASGI(on_socket(lambda ws: write_raw(ws, b"\xff\xff\xff\xff"))))
    with pytest.raises(AppProtocolError, match="broke the WebSocket protocol"):
        await server.run()
    assert server.sent[1:] == [{"type": "websocket.close", "code": 1011}]


@pytest.mark.parametrize("message", [{"type": "websocket.bogus"}, {"type": "websocket.receive", "text": None}])
async def test_another_message_is_the_servers_error(message: dict[str, Any]) -> None:
    """The app learns that the WebSocket is over, and the server gets the error."""
    server = ASGIWebSocket(WSGIToASGI(on_socket(echo)))
    with pytest.RaisesGroup(ServerProtocolError):
        async with server.running():
            await server.until_sent(1)
            server.feed_message(message)
    assert server.sent[1:] == [{"type": "websocket.close", "code": 1011}]
