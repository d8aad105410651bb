"""The handshake of an ASGI app's WebSocket, on a connection that the server puts into the environ."""

import threading
from typing import Any

import anyio
import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.asgi_to_wsgi.recording import LifespanApp, Recording, until_set
from wsgi_asgi_conformance.asgi_to_wsgi.websocket_client import ACCEPT, Connect, Script, close, handshake
from wsgi_asgi_conformance.frames import CLOSE, TEXT, client_frame
from wsgi_asgi_conformance.types import Receive, Scope, Send
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIServer


@clause("ASGI-WS-001")
def test_a_websocket_without_a_connection_is_http_or_refused(adapt: ToWSGI, serve: WSGIServer) -> None:
    """If the server gives no access to the connection, the app gets an http scope or the client is refused."""
    app = Recording()
    request = serve(adapt(app), handshake()).finish()
    if app.scopes:
        assert [scope["type"] for scope in app.scopes] == ["http"]
        assert request.status.startswith("200 ")
        assert request.body == b"done"
    else:
        assert request.status[:4] in ("400 ", "426 ", "501 ")


@clause("ASGI-WS-005", "ASGI-WS-007")
@pytest.mark.parametrize(("url_scheme", "scheme"), [("http", "ws"), ("https", "wss")])
def test_the_scope_is_that_of_a_websocket(connect: Connect, url_scheme: str, scheme: str) -> None:
    """The scope has the keys of http except method, the scheme ws or wss, and the client's subprotocols."""
    variables = {"wsgi.url_scheme": url_scheme, "QUERY_STRING": "a=%20", "SCRIPT_NAME": "/base", "PATH_INFO": "/one"}
    app = Script("receive", ACCEPT)
    connect(app, HTTP_SEC_WEBSOCKET_PROTOCOL="chat, v2.chat", **variables).open()
    scope = app.scope
    expected = {
        "type": "websocket",
        "http_version": "1.1",
        "scheme": scheme,
        "path": "/base/one",
        "root_path": "/base",
        "query_string": b"a=%20",
    }
    assert {key: scope.get(key) for key in expected} == expected
    assert scope["asgi"]["version"] == "3.0"
    assert "method" not in scope
    assert list(scope["subprotocols"]) == ["chat", "v2.chat"]
    assert list(scope["client"]) == ["192.0.2.1", 50000]
    assert list(scope["server"]) == ["192.0.2.2", 80]


@clause("ASGI-WS-007")
def test_a_websocket_without_subprotocols_has_none(connect: Connect) -> None:
    """The list of subprotocols is empty, or missing."""
    app = Script("receive", ACCEPT)
    connect(app).open()
    assert list(app.scope.get("subprotocols", ())) == []


@clause("ASGI-WS-007")
def test_a_websocket_gets_a_copy_of_the_lifespans_state(connect: Connect) -> None:
    """The scope's state has what the startup put there, and what a WebSocket adds stays its own."""
    script = Script("receive", ACCEPT)

    async def fill(scope: Scope, send: Send) -> None:
        scope.setdefault("state", {})["a"] = [1]
        await send({"type": "lifespan.startup.complete"})

    lifespan = LifespanApp(fill)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (script if scope["type"] == "websocket" else lifespan)(scope, receive, send)

    connect(app).open()
    if not lifespan.scopes or "state" not in script.scope:
        pytest.skip("the adapter has no lifespan state")
    assert script.scope["state"] == {"a": [1]}
    assert script.scope["state"] is not lifespan.scopes[0]["state"]


@clause("ASGI-WS-009")
def test_the_scopes_headers_are_the_clients(connect: Connect) -> None:
    """The headers are pairs of bytes from the environ, without pseudo headers."""
    app = Script("receive", ACCEPT)
    variables = {"HTTP_X_A": "1,2", "HTTP_COOKIE": "a=\xe4", "HTTP_:AUTHORITY": "other.example", "HTTP_:METHOD": "GET"}
    connect(app, **variables).open()
    headers = [tuple(header) for header in app.scope["headers"]]
    assert all(type(part) is bytes for header in headers for part in header)
    assert not any(name.startswith(b":") for name, _ in headers)
    lower = [(name.lower(), value) for name, value in headers]
    for expected in ((b"x-a", b"1,2"), (b"cookie", b"a=\xe4"), (b"upgrade", b"websocket")):
        assert lower.count(expected) == 1
    assert [name for name, _ in lower].count(b"host") == 1


@clause("ASGI-WS-010")
def test_the_handshake_waits_for_the_app(connect: Connect, serve: WSGIServer) -> None:
    """The app gets websocket.connect first; until it accepts, neither client nor server gets an answer."""
    connected, go_on = threading.Event(), threading.Event()

    async def wait() -> None:
        connected.set()
        await until_set(go_on, serve.deadline)

    app = Script("receive", wait, ACCEPT)
    client = connect(app)
    client.request.until(connected.is_set, "websocket.connect")
    assert app.types == ["websocket.connect"]
    assert client.unanswered
    assert client.request.starts == []
    go_on.set()
    client.open()


@clause("ASGI-WS-012")
def test_what_a_client_says_early_waits_for_accept(connect: Connect) -> None:
    """The app receives a frame that came with the handshake only after accept."""

    async def receive_nothing() -> None:
        with anyio.move_on_after(0.02):  # enough time for an adapter that does not wait
            app.received.append(await app.receive())

    app = Script("receive", receive_nothing, ACCEPT, "receive")
    client = connect(app, early=client_frame(TEXT, b"one")).open()
    client.until_ended(app)
    assert app.types == ["websocket.connect", "websocket.receive"]
    assert app.received[1]["text"] == "one"


@clause("ASGI-WS-013", "ASGI-WS-023")
@pytest.mark.parametrize("keys", [{}, {"code": 4000, "reason": "no"}], ids=["plain", "with-code"])
def test_close_before_accept_is_403(connect: Connect, keys: dict[str, Any]) -> None:
    """The answer is 403, whatever the code, and no byte of a handshake is on the connection."""
    client = connect(Script("receive", close(**keys)))
    assert client.refused()[:4] == "403 "
    client.servers_end.close()
    assert client.rest() == b""


@clause("ASGI-WS-014")
def test_accept_says_which_subprotocol_and_headers(connect: Connect) -> None:
    """The 101 has the app's subprotocol and its headers in order, with duplicates."""
    headers = [(b"x-b", b"2"), (b"set-cookie", b"a=1"), (b"x-a", b"1"), (b"set-cookie", b"b=2")]
    app = Script("receive", {**ACCEPT, "subprotocol": "v2", "headers": headers})
    client = connect(app, HTTP_SEC_WEBSOCKET_PROTOCOL="v1, v2").open()
    found = [(name, value) for name, value in client.headers if name in ("x-a", "x-b", "set-cookie")]
    assert found == [(name.decode(), value.decode()) for name, value in headers]
    assert [value for name, value in client.headers if name == "sec-websocket-protocol"] == ["v2"]


@clause("ASGI-WS-014")
@pytest.mark.parametrize("keys", [{}, {"subprotocol": None, "headers": []}], ids=["missing", "none"])
def test_accept_needs_neither_subprotocol_nor_headers(connect: Connect, keys: dict[str, Any]) -> None:
    """By default, the answer has no subprotocol, even if the client offers some."""
    client = connect(Script("receive", {**ACCEPT, **keys}), HTTP_SEC_WEBSOCKET_PROTOCOL="v1, v2").open()
    assert "sec-websocket-protocol" not in [name for name, _ in client.headers]


@clause("ASGI-WS-015")
@pytest.mark.parametrize("name", [b"sec-websocket-protocol", b"Sec-WebSocket-Protocol", b":status"], ids=repr)
def test_accept_has_no_header_that_is_not_the_apps(connect: Connect, name: bytes) -> None:
    """send() raises for such an accept, nothing is answered, and a valid accept may follow."""
    app = Script("receive", {**ACCEPT, "headers": [(name, b"101")]}, ACCEPT)
    client = connect(app, HTTP_SEC_WEBSOCKET_PROTOCOL="101").open()
    assert len(app.raised) == 1
    assert name.lower().decode() not in [name for name, _ in client.headers]


@clause("ASGI-WS-016")
@pytest.mark.parametrize("first", [ACCEPT, close()], ids=["accept", "close"])
def test_accept_comes_once_and_not_after_close(connect: Connect, first: dict[str, Any]) -> None:
    """A second accept raises, and so does one after the handshake was refused."""
    app = Script("receive", first, ACCEPT)
    client = connect(app)
    assert client.is_accepted() == (first is ACCEPT)
    client.until_ended(app)
    assert len(app.raised) == 1
    if first is ACCEPT:
        assert client.receive().opcode == CLOSE


@clause("ASGI-WS-026", "ASGI-WS-027")
def test_a_handshake_may_be_denied_by_a_response(connect: Connect) -> None:
    """If the scope offers that, the server gets the app's response, and no message may follow it."""
    app = Script(
        "receive",
        {"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-a", b"1")]},
        {"type": "websocket.http.response.body", "body": b"one ", "more_body": True},
        {"type": "websocket.http.response.body", "body": b"two"},
        ACCEPT,
    )
    client = connect(app)
    status = client.refused()
    client.until_ended(app)
    if "websocket.http.response" not in (app.scope.get("extensions") or {}):
        pytest.skip("websocket.http.response is not offered")
    assert status[:4] == "401 "
    assert ("x-a", "1") in [(name.lower(), value) for name, value in client.request.headers]
    assert client.request.body == b"one two"
    assert len(app.raised) == 1
