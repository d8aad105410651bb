"""WebSockets of WSGI apps, through a socket or an object in environ, and the refusal of other WebSockets."""

import base64
import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.adapters import is_thorough
from wsgi_asgi_conformance.apps import wsgi_response
from wsgi_asgi_conformance.asgi_server import ASGIConnection, ASGIServer, ToASGI
from wsgi_asgi_conformance.exchange import Hang
from wsgi_asgi_conformance.samples import websocket_scope
from wsgi_asgi_conformance.types import ASGIApp, Environ, StartResponse, WSGIApp

# What an app sends and receives in an open WebSocket, and an adapter around such an app.
Talk: TypeAlias = Callable[[Any], object]
Talking: TypeAlias = Callable[[Talk], ASGIApp]

OFFERED = pytest.StashKey[dict[str, bool]]()  # by name in WAYS
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
DENIAL: dict[str, Any] = {"websocket.http.response": {}}


def on_socket(talk: Talk) -> WSGIApp:
    """Return an app that talks through simple-websocket, as flask-sock does."""
    simple_websocket = pytest.importorskip("simple_websocket")

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        ws = simple_websocket.Server.accept(environ, subprotocols=["v2"])
        try:
            talk(ws)
            ws.close()
        except simple_websocket.ConnectionClosed:
            pass
        start_response("200 OK", [])
        return [b"not for the client"]

    return app


def by_object(talk: Talk) -> WSGIApp:
    """Return an app that talks through `wsgi.websocket`, as apps for gevent-websocket do."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        ws = environ["wsgi.websocket"]
        talk(ws)
        ws.close()
        start_response("200 OK", [])
        return [b"not for the client"]

    return app


WAYS = {"socket": on_socket, "object": by_object}


def greet(ws: Any) -> None:
    ws.send("hello")


def echo(ws: Any) -> None:
    while (message := ws.receive()) is not None:
        ws.send(message)


def accept_by_hand(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Write the 101 response to the socket, as an app without a WebSocket library."""
    digest = hashlib.sha1(f"{environ['HTTP_SEC_WEBSOCKET_KEY']}{GUID}".encode()).digest()
    head = [
        "HTTP/1.1 101 Switching Protocols",
        *("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}"),
        *("X-B: 2", "Set-Cookie: a=1", "Sec-WebSocket-Protocol: v2", "x-a: 1", "Set-Cookie: b=2"),
    ]
    environ["werkzeug.socket"].sendall("\r\n".join([*head, "", ""]).encode())
    start_response("200 OK", [])
    return []


def connect(serve: ASGIServer, app: ASGIApp, hold_after: int | None = None, **keys: Any) -> ASGIConnection:
    """Start a WebSocket whose scope has `keys`; a key whose value is Ellipsis is left out."""
    scope = {key: value for key, value in websocket_scope(**keys).items() if value is not ...}
    connection = serve(app, scope, hold_after=hold_after)
    connection.feed_message({"type": "websocket.connect"})
    return connection


def answered(connection: ASGIConnection) -> ASGIConnection:
    """Wait for the answer to the handshake."""
    return connection.until(lambda: connection.sent or connection.ended, "an answer")


def types(connection: ASGIConnection) -> list[str]:
    """Return the types of what was sent."""
    return [message["type"] for message in connection.sent]


@pytest.fixture(params=WAYS)
def talking(request: pytest.FixtureRequest, adapt: ToASGI, serve: ASGIServer) -> Talking:
    """A function that makes an adapter around an app that talks; skips the test if that way is not offered."""
    make: Callable[[Talk], WSGIApp] = WAYS[request.param]
    offered = request.config.stash.setdefault(OFFERED, {})
    if request.param not in offered and not is_thorough(request.config):
        connection = connect(serve, adapt(make(greet)))
        with contextlib.suppress(Hang):
            answered(connection)
        offered[request.param] = types(connection)[:1] == ["websocket.accept"]
    if not offered.get(request.param, True):
        pytest.skip("WebSockets are not offered")
    return lambda talk: adapt(make(talk))


# --- What is refused ------------------------------------------------------------------------------


@clause("ASGI-WS-002", "ASGI-WS-011", "ASGI-WS-025")
@pytest.mark.parametrize("extensions", [{}, None, {"tls": {}}, DENIAL], ids=["none", "None", "others", "denial"])
@pytest.mark.parametrize("status", ["200 OK", "404 Not Found"])
def test_a_websocket_that_the_app_does_not_accept_is_refused(
    adapt: ToASGI, serve: ASGIServer, status: str, extensions: dict[str, Any] | None
) -> None:
    """The adapter refuses a WebSocket by raising, by one close, or by a response if the server offers that."""
    connection = connect(serve, adapt(wsgi_response([b"one"], status)), extensions=extensions).until_ended()
    sent = types(connection)
    denied = sent[:1] == ["websocket.http.response.start"] and set(sent[1:]) == {"websocket.http.response.body"}
    assert sent == ["websocket.close"] or (denied and extensions == DENIAL) or (not sent and connection.error)
    assert connection.error is None or isinstance(connection.error, Exception)


@clause("ASGI-WS-008")
@pytest.mark.parametrize("value", [..., None], ids=["missing", "None"])
def test_the_least_of_a_scope_is_refused_as_well(adapt: ToASGI, serve: ASGIServer, value: Any) -> None:
    """The adapter refuses a WebSocket in the same way if optional keys of the scope are missing or None."""
    adapter = adapt(wsgi_response([b"one"]))
    optional = ("raw_path", "query_string", "client", "server", "extensions")
    keys = {**dict.fromkeys(optional, value), **dict.fromkeys(("http_version", "scheme", "root_path", "state"), ...)}
    least = connect(serve, adapter, headers=[], subprotocols=..., asgi={"version": "3.0"}, **keys).until_ended()
    whole = connect(serve, adapter, extensions={}).until_ended()
    assert types(least) == types(whole)
    assert type(least.error) is type(whole.error)


@clause("ASGI-WS-022")
def test_a_client_may_leave_before_it_is_refused(adapt: ToASGI, serve: ASGIServer) -> None:
    """If `send` raises OSError for the refusal, the call returns or raises that error."""
    connection = answered(connect(serve, adapt(wsgi_response([b"one"])), hold_after=0))
    if not connection.sent:
        pytest.skip("the adapter refuses by raising")
    connection.disconnect(OSError("the client left"))
    connection.until_ended()
    assert connection.error is None or isinstance(connection.error, OSError)


@clause("ASGI-WS-024")
def test_a_close_that_refuses_is_well_formed(adapt: ToASGI, serve: ASGIServer) -> None:
    """The code of a close that refuses, if any, is an int, and its reason is a str."""
    connection = connect(serve, adapt(wsgi_response([b"one"])), extensions={}).until_ended()
    if not connection.sent:
        pytest.skip("the adapter refuses by raising")
    (message,) = connection.sent
    assert type(message.get("code", 1000)) is int
    assert type(message.get("reason") or "") is str


@clause("ASGI-WS-026")
def test_a_denial_response_is_made_like_any_other(adapt: ToASGI, serve: ASGIServer) -> None:
    """A denial response has the app's status, headers and body, and nothing follows it."""
    app = wsgi_response([b"one ", b"two"], "401 Unauthorized", [("X-A", "1")])
    connection = connect(serve, adapt(app), extensions=DENIAL).until_ended()
    if types(connection)[:1] != ["websocket.http.response.start"]:
        pytest.skip("the adapter sends no denial response")
    start, *blocks = connection.sent
    assert start["status"] == 401
    assert (b"x-a", b"1") in [(bytes(name), bytes(value)) for name, value in start["headers"]]
    assert b"".join(block.get("body", b"") for block in blocks) == b"one two"
    assert {block["type"] for block in blocks} == {"websocket.http.response.body"}
    assert [bool(block.get("more_body")) for block in blocks] == [True] * (len(blocks) - 1) + [False]


# --- What is accepted -----------------------------------------------------------------------------


@clause("ASGI-WS-008")
@pytest.mark.parametrize("value", [..., None], ids=["missing", "None"])
def test_the_least_of_a_scope_will_do(talking: Talking, serve: ASGIServer, value: Any) -> None:
    """The adapter accepts a WebSocket even if optional keys of the scope are missing or None."""
    optional = ("raw_path", "query_string", "client", "server", "extensions")
    keys = {**dict.fromkeys(optional, value), **dict.fromkeys(("http_version", "scheme", "root_path", "state"), ...)}
    connection = connect(serve, talking(greet), headers=[], subprotocols=..., asgi={"version": "3.0"}, **keys).finish()
    assert types(connection) == ["websocket.accept", "websocket.send", "websocket.close"]


@clause("ASGI-WS-011", "ASGI-WS-016")
def test_one_accept_answers_connect(talking: Talking, serve: ASGIServer) -> None:
    """The adapter answers websocket.connect with one websocket.accept, and does not send the app's WSGI response."""
    connection = connect(serve, talking(greet)).finish()
    assert types(connection) == ["websocket.accept", "websocket.send", "websocket.close"]
    kinds = [entry.kind for entry in connection.log]
    assert kinds.index("received") < kinds.index("send")


@clause("ASGI-WS-014")
@pytest.mark.parametrize("talking", ["socket"], indirect=True)  # the object has no way to choose
@pytest.mark.parametrize(("subprotocols", "chosen"), [([], None), (["v1", "v2"], "v2")], ids=["none", "two"])
def test_accept_names_the_apps_subprotocol(
    talking: Talking, serve: ASGIServer, subprotocols: list[str], chosen: str | None
) -> None:
    """websocket.accept names the subprotocol that the app chose from the client's, or None."""
    connection = connect(serve, talking(greet), subprotocols=subprotocols).finish()
    assert connection.sent[0].get("subprotocol") == chosen


@clause("ASGI-WS-014", "ASGI-WS-015")
@pytest.mark.parametrize("talking", ["socket"], indirect=True)
@pytest.mark.usefixtures("talking")
def test_accept_has_the_apps_headers(adapt: ToASGI, serve: ASGIServer) -> None:
    """websocket.accept has the app's headers in order, with lower-case names and without those of the handshake."""
    connection = connect(serve, adapt(accept_by_hand), subprotocols=["v1", "v2"]).finish()
    accept = connection.sent[0]
    assert (accept["type"], accept["subprotocol"]) == ("websocket.accept", "v2")
    assert [tuple(header) for header in accept["headers"]] == [
        *((b"x-b", b"2"), (b"set-cookie", b"a=1"), (b"x-a", b"1"), (b"set-cookie", b"b=2"))
    ]


@clause("ASGI-WS-017", "ASGI-WS-018")
@pytest.mark.parametrize(
    ("keys", "content"),
    [
        ({"text": "grüße"}, "grüße"),
        ({"text": "", "bytes": None}, ""),
        ({"bytes": b"\x00\xff"}, b"\x00\xff"),
        ({"bytes": b"", "text": None}, b""),
        ({"bytes": bytes(70_000)}, bytes(70_000)),
    ],
    ids=["text", "empty-text", "bytes", "empty-bytes", "long"],
)
def test_messages_are_what_they_are_both_ways(
    talking: Talking, serve: ASGIServer, keys: dict[str, Any], content: str | bytes
) -> None:
    """The app receives text as str and bytes as bytes, and each message that it sends has exactly one of the two."""
    received: list[Any] = []

    def talk(ws: Any) -> None:
        received.append(ws.receive())
        ws.send(received[0])

    connection = connect(serve, talking(talk))
    connection.feed_message({"type": "websocket.receive", **keys})
    connection.finish()
    assert received == [content]
    assert isinstance(received[0], type(content))
    sent = {key: value for key, value in connection.sent[1].items() if value is not None}
    assert sent == {"type": "websocket.send", "text" if isinstance(content, str) else "bytes": content}
    assert type(sent.get("bytes", b"")) is bytes


# --- How it ends ----------------------------------------------------------------------------------


@clause("ASGI-WS-006")
def test_a_websocket_ends_with_its_app(talking: Talking, serve: ASGIServer) -> None:
    """If the app raises, the server gets the error, or the WebSocket is closed with an error code."""

    def talk(ws: Any) -> None:
        ws.send("hello")
        raise ValueError("deliberate")

    connection = connect(serve, talking(talk)).until_ended()
    assert types(connection)[:2] == ["websocket.accept", "websocket.send"]
    closes = [message.get("code", 1000) for message in connection.sent[2:]]
    assert closes == [1011] or (not closes and isinstance(connection.error, Exception))


@clause("ASGI-WS-006", "ASGI-WS-019")
@pytest.mark.parametrize(
    "keys",
    [{"code": 1000}, {"code": 1001, "reason": "bye"}, {"code": 1005, "reason": ""}, {"code": 1006, "reason": None}],
    ids=lambda keys: str(keys["code"]),
)
def test_an_apps_input_ends_with_the_websocket(talking: Talking, serve: ASGIServer, keys: dict[str, Any]) -> None:
    """When the client leaves, the app's waiting receive ends, whatever the code is, and so does the call."""
    ended = threading.Event()

    def talk(ws: Any) -> None:
        try:
            echo(ws)
        finally:
            ended.set()

    connection = connect(serve, talking(talk))
    connection.feed_message({"type": "websocket.receive", "text": "one"})
    connection.until_logged("send", 2)
    connection.feed_message({"type": "websocket.disconnect", **keys})
    connection.finish().until(ended.is_set, "the end of the app")
    assert types(connection) == ["websocket.accept", "websocket.send"]


@clause("ASGI-WS-022")
@pytest.mark.parametrize("hold_after", [0, 1], ids=["accept", "send"])
def test_a_client_may_leave_unheard(talking: Talking, serve: ASGIServer, hold_after: int) -> None:
    """An OSError from `send` ends the app, and the call returns or raises that error."""
    ended = threading.Event()

    def talk(ws: Any) -> None:
        try:
            ws.send("hello")
            echo(ws)
        finally:
            ended.set()

    connection = connect(serve, talking(talk), hold_after=hold_after).until_logged("send", hold_after + 1)
    connection.disconnect(OSError("the client left"))
    connection.until_ended().until(ended.is_set, "the end of the app")
    assert connection.error is None or isinstance(connection.error, OSError)


@clause("ASGI-WS-024")
@pytest.mark.parametrize(
    ("asgi", "knows_reason"),
    [
        ({"version": "3.0"}, False),
        ({"version": "3.0", "spec_version": "2.2"}, False),
        ({"version": "3.0", "spec_version": "2.3"}, True),
        ({"version": "3.0", "spec_version": "2.5"}, True),
    ],
    ids=["none", "2.2", "2.3", "2.5"],
)
def test_a_close_has_the_apps_code_and_reason(
    talking: Talking, serve: ASGIServer, asgi: dict[str, str], knows_reason: bool
) -> None:
    """A close has the app's code as an int, and its reason if the server's version of the spec has reasons."""
    connection = connect(serve, talking(lambda ws: ws.close(4000, "bye")), asgi=asgi).finish()
    close = connection.sent[-1]
    assert close == {"type": "websocket.close", "code": 4000, **({"reason": "bye"} if knows_reason else {})}
    assert type(close["code"]) is int


@clause("ASGI-WS-024")
def test_a_close_without_a_code_is_an_ordinary_one(talking: Talking, serve: ASGIServer) -> None:
    """If the app closes without a code, the code is 1000 and the reason is empty or missing."""
    close = connect(serve, talking(lambda ws: ws.close())).finish().sent[-1]
    assert (close["type"], close.get("code", 1000), close.get("reason") or "") == ("websocket.close", 1000, "")
