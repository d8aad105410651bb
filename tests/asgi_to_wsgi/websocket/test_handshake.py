"""The handshake of an ASGI app's WebSocket: accepted, denied, or impossible."""

import logging
import threading
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from bridge import AppProtocolError, ClientDisconnected
from bridge.types import Receive, Scope, Send
from tests.asgi_to_wsgi.apps import Adapt
from tests.asgi_to_wsgi.websocket.clients import Client, Script, accept, close, connected, disconnect, echo, send, until
from tests.fakes import WSGIServer, in_thread
from tests.interruptions import Interruption
from tests.processes import wait_until
from wsgi_asgi_conformance.frames import ACCEPT


def test_the_scope_is_a_websockets(adapt: Adapt) -> None:
    """The scope has what ASGI asks for, the original environ, and the lifespan's state."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["key"] = "value"
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await script(scope, receive, send)

    script = Script("receive", accept(subprotocol="b", headers=[(b"x-a", b"1")]))
    with Client(adapt(app, lifespan="on"), HTTP_SEC_WEBSOCKET_PROTOCOL="a, b") as client:
        client.open()
        assert f"Sec-WebSocket-Accept: {ACCEPT}".encode() in client.head
        assert b"Sec-WebSocket-Protocol: b\r\nx-a: 1" in client.head
        assert b"permessage-deflate" not in client.head
        client.receive()
    assert script.scope["type"] == "websocket"
    assert script.scope["subprotocols"] == ["a", "b"]
    assert script.scope["state"] == {"key": "value"}
    assert script.scope["extensions"] == {"websocket.http.response": {}}
    assert script.scope["wsgi_environ"] == client.environ


def test_the_clients_subprotocols_count_even_if_the_app_changes_them(adapt: Adapt) -> None:
    """The app may do with its scope what it likes."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["subprotocols"].clear()
        await Script("receive", accept(subprotocol="b"))(scope, receive, send)

    with Client(adapt(app), HTTP_SEC_WEBSOCKET_PROTOCOL="a, b") as client:
        client.open()
        assert b"Sec-WebSocket-Protocol: b" in client.head
        client.receive()


def test_close_before_accept_is_403(adapt: Adapt) -> None:
    """The server answers 403, and then the app gets the disconnect (ASGI WebSocket spec, Close)."""
    app = Script("receive", close(), "receive", send("?"))
    server = Client(adapt(app)).refused()
    assert (server.status, server.body) == ("403 Forbidden", b"Forbidden\n")
    app.wait()
    assert app.received[-1] == disconnect(1006)
    assert [type(error) for error in app.raised] == [AppProtocolError]


def test_a_denial_response_is_streamed(adapt: Adapt) -> None:
    """Status, headers and each block reach the server as the app sends them."""
    go_on = threading.Event()
    app = Script(
        {"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-a", b"1")]},
        {"type": "websocket.http.response.body", "body": b"one", "more_body": True},
        until(go_on),
        {"type": "websocket.http.response.body", "body": b"two"},
        "receive",
        "receive",
    )
    with Client(adapt(app)) as client:
        blocks = client.server.call()
        assert next(blocks) == b"one"
        assert (client.server.status, client.server.headers) == ("401 Unauthorized", [("x-a", "1")])
        go_on.set()
        assert list(blocks) == [b"two"]
        app.wait()
        assert app.received[-1] == disconnect(1006)
        assert app.raised == []


@pytest.mark.parametrize(
    ("step", "error", "text"),
    [
        (ValueError("deliberate"), ValueError, "deliberate"),
        (None, AppProtocolError, "without answering the handshake"),
        (send("hello"), AppProtocolError, "without answering the handshake"),
    ],
)
def test_an_app_without_an_answer_is_an_error_of_the_request(
    adapt: Adapt, step: Any, error: type[Exception], text: str
) -> None:
    """The app's error reaches the server, which answers 500."""
    with Client(adapt(Script(*([step] if step else [])))) as client, pytest.raises(error, match=text):
        in_thread(client.server.run)


@pytest.mark.parametrize("headers", [[(b"x", b"a\r\nb")], [(b"sec-websocket-protocol", b"a")]])
def test_an_accept_that_breaks_the_spec_can_be_made_up_for(adapt: Adapt, headers: Any) -> None:
    """It raises before anything is sent, so the app may refuse instead."""
    app = Script("receive", accept(headers=headers), close())
    assert Client(adapt(app)).refused().status == "403 Forbidden"
    assert [type(error) for error in app.raised] == [AppProtocolError]


def test_a_client_that_leaves_before_the_answer_is_1006(adapt: Adapt) -> None:
    """The app gets the disconnect, its accept raises, and the server's thread is free."""
    app = Script("receive", "receive", accept())
    with Client(adapt(app)) as client:
        client.socket.close()
        with pytest.raises(ClientDisconnected):
            in_thread(client.server.run)
    app.wait()
    assert app.received[-1] == disconnect(1006)
    assert [type(error) for error in app.raised] == [ClientDisconnected]


def test_an_accept_waits_for_nothing_that_will_not_come(adapt: Adapt) -> None:
    """If the server's socket is closed by then, the request fails, and the app gets the disconnect."""
    go_on = threading.Event()
    app = Script("receive", until(go_on), accept(), "receive")
    with Client(adapt(app)) as client:
        client.thread.start()
        wait_until(lambda: app.received)
        client.servers.close()
        go_on.set()
        app.wait()
        client.thread.join(5)
        assert isinstance(client.error, OSError)
    assert app.received[-1] == disconnect(1006)


def test_a_closed_adapter_refuses(adapt: Adapt) -> None:
    """A closed adapter refuses WebSockets as it refuses HTTP."""
    adapter = adapt(echo)
    adapter.start()
    adapter.close()
    with Client(adapter) as client, pytest.raises(Exception, match="the adapter was closed"):
        client.server.run()


@pytest.mark.parametrize(
    ("options", "keys", "status", "text"),
    [
        ({"websocket": "off"}, {}, 501, b"switched off"),
        ({}, {"werkzeug.socket": None}, 501, b"does not expose its connections"),
        ({}, {"SERVER_PROTOCOL": "HTTP/2.0"}, 501, b"does not expose its connections"),
        ({}, {"carried": True, "wsgi.multithread": False}, 501, b"would occupy a whole process"),
        ({}, {"HTTP_SEC_WEBSOCKET_VERSION": "8"}, 426, b"Only version 13"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(
    adapt: Adapt, options: dict[str, Any], keys: dict[str, Any], status: int, text: bytes
) -> None:
    """The response says why in one sentence, and the app is not called."""
    server = Client(adapt(Script(AssertionError()), **options), **keys).refused()
    assert server.status.startswith(f"{status} ")
    assert text in server.body
    assert ("Content-Length", str(len(server.body))) in server.headers


def test_a_handshake_behind_a_response_that_is_not_sent_yet_is_refused(adapt: Adapt) -> None:
    """Its 101 would come in the middle of that response (waitress holds responses until the client reads)."""

    class Channel:
        adj = SimpleNamespace(channel_request_lookahead=0)
        connected = True
        outbuf_lock = threading.Condition()
        total_outbufs_len = 5

        def client_disconnected(self) -> bool:
            return False

    channel = Channel()
    with Client(adapt(echo)) as client:
        channel.socket = client.servers  # type: ignore[attr-defined]
        client.environ["waitress.client_disconnected"] = channel.client_disconnected
        del client.environ["werkzeug.socket"]
        in_thread(client.server.run)
        assert client.server.status == "503 Service Unavailable"
        assert b"use another one" in client.server.body
        channel.total_outbufs_len = 0
        client.server = WSGIServer(client.server.app, client.environ)
        client.open().close()


def test_hold_goes_where_it_would_hold_the_only_thread(adapt: Adapt) -> None:
    """The option "hold" is followed even if it occupies the server's only thread."""
    with Client(adapt(echo, websocket="hold"), carried=True, **{"wsgi.multithread": False}) as client:
        client.open().close()


def is_admitted(adapter: Any) -> bool:
    """Return whether there is room for one more, which leaves at once."""
    with Client(adapter) as another:
        another.thread.start()
        another.thread.join(5)
        return another.server.status.startswith("101")


def test_too_many_are_503(adapt: Adapt) -> None:
    """Beyond max_websockets the next one gets 503, until one has ended."""
    adapter = adapt(echo, max_websockets=1)
    with Client(adapter) as client:
        client.open()
        server = Client(adapter).refused()
        assert server.status == "503 Service Unavailable"
        assert ("Retry-After", "5") in server.headers
        client.close()

    wait_until(lambda: is_admitted(adapter))
    refusing = adapt(Script("receive", close()), max_websockets=1)
    for _ in range(3):  # a refusal takes no place
        assert Client(refusing).refused().status == "403 Forbidden"


# Between taking a socket and passing it on, an exception leaves closing it to the garbage collector.
@pytest.mark.filterwarnings("ignore:.*unclosed.*socket|.*socket.socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("app", [Script("receive", close()), echo], ids=["refuses", "accepts"])
def test_an_interrupted_handshake_makes_room_again(adapt: Adapt, app: Any) -> None:
    """Wherever an exception from a watchdog lands in the WSGI thread, the next handshake finds a place."""
    adapter: Any = adapt(app, max_websockets=1)
    adapter.start()
    step, landed = 0, True
    while landed:
        interruption = Interruption(step, TimeoutError("from without"), "asgi_to_wsgi/websocket/handshake.py")
        with Client(adapter) as client:
            interruption.run(client.server.run)
        landed = interruption.landed
        wait_until(lambda: not adapter._websockets.get()._open, 5, f"room after {interruption.place}")
        step += 1


def test_a_limit_of_none_refuses_all(adapt: Adapt) -> None:
    """max_websockets=0 refuses every WebSocket, in both directions."""
    assert Client(adapt(echo, max_websockets=0)).refused().status == "503 Service Unavailable"


def test_an_app_that_goes_on_takes_no_place(adapt: Adapt) -> None:
    """Once its client has left, another client may come."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await echo(scope, receive, send)
        await anyio.sleep_forever()

    with connected(adapt, app, max_websockets=1, shutdown_timeout=0.1) as client:
        client.close()
        for _ in range(3):
            wait_until(lambda: is_admitted(client.server.app))


def test_which_way_was_taken_is_logged(adapt: Adapt, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged at debug level for each WebSocket."""
    caplog.set_level(logging.DEBUG, "bridge")
    with connected(adapt, echo) as client:
        client.close()
    with connected(adapt, echo, {"carried": True}) as client:
        client.close()
    assert "took the connection from the server" in caplog.text
    assert "carrying bytes" in caplog.text
