"""WebSockets of ASGI servers."""

import base64
import hashlib
from typing import Any

import anyio
import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.asgi_servers.test_scope import path
from wsgi_asgi_conformance.asgi_servers.test_send import tries
from wsgi_asgi_conformance.exchange import Hang
from wsgi_asgi_conformance.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    KEY,
    PING,
    PONG,
    TEXT,
    close_payload,
)
from wsgi_asgi_conformance.notes import Notes
from wsgi_asgi_conformance.serving import Exchange, RunningServer
from wsgi_asgi_conformance.types import Receive, Scope, Send

ACCEPT = {"type": "websocket.accept"}
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
OFFERED = pytest.StashKey[bool]()


async def echo(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    """Accept, note all messages, and echo them."""
    notes("scope", dict(scope))
    message = await receive()
    while message["type"] != "websocket.disconnect":
        notes("message", dict(message))
        if message["type"] == "websocket.connect":
            await send(ACCEPT)
        else:
            content = {key: message[key] for key in ("text", "bytes") if message.get(key) is not None}
            await send({"type": "websocket.send", **content})
        message = await receive()
    notes("disconnect", dict(message))


@pytest.fixture(autouse=True)
def offered(server: RunningServer, pytestconfig: pytest.Config) -> None:
    """Skip the test if the server has no WebSockets."""
    if OFFERED not in pytestconfig.stash:
        exchange = server.exchange(echo).handshake()
        try:
            pytestconfig.stash[OFFERED] = exchange.client.head()[1] == 101
        except Hang:
            raise
        except AssertionError:
            pytestconfig.stash[OFFERED] = False
    if not pytestconfig.stash[OFFERED]:
        pytest.skip("WebSockets are not offered")


def opened(server: RunningServer, app: Any = echo, *more: tuple[str, str], target: str = "/") -> Exchange:
    """Open a WebSocket."""
    exchange: Exchange = server.exchange(app).handshake(target, *more)
    status = exchange.client.head()[1]
    assert status == 101, f"the handshake was answered with {status}"
    return exchange


def answered(server: RunningServer, app: Any, *more: tuple[str, str], **how: Any) -> Any:
    """Return the response to a handshake, and the exchange."""
    exchange = server.exchange(app).handshake("/", *more, **how)
    return exchange.response(), exchange


# --- The handshake ---------------------------------------------------------------------------------


@clause("ASGI-WS-005", "ASGI-WS-007")
def test_a_scope_tells_of_the_handshake(server: RunningServer) -> None:
    """The scope has the keys of an HTTP scope except the method, and the subprotocols that the client offers."""
    exchange = opened(server, echo, ("Sec-WebSocket-Protocol", "v1, v2"), ("X-One", "1"), target="/a%20b?c=%20")
    scope = exchange.value("scope")
    assert scope["type"] == "websocket"
    assert "method" not in scope
    assert scope.get("scheme", "ws") == "ws"
    assert (scope["path"], scope["query_string"]) == ("/a b", b"c=%20")
    assert scope.get("http_version", "1.1") == "1.1"
    assert list(scope["subprotocols"]) == ["v1", "v2"]
    assert (b"x-one", b"1") in [tuple(pair) for pair in scope["headers"]]


@clause("ASGI-WS-009")
def test_the_headers_of_a_handshake_keep_their_order(server: RunningServer) -> None:
    """The headers of a handshake are in order, and none is a pseudo-header."""
    exchange = opened(server, echo, ("X-B", "1"), ("X-A", "2"))
    names = [name for name, _ in exchange.value("scope")["headers"]]
    assert [name for name in names if name in (b"x-b", b"x-a")] == [b"x-b", b"x-a"]
    assert [name for name in names if name.startswith(b":")] == []


@clause("ASGI-WS-010")
def test_a_connect_comes_first(server: RunningServer) -> None:
    """websocket.connect is the first message, and the server does not answer the handshake before the app does."""
    exchange = server.exchange(waits).handshake()
    assert exchange.value("message") == {"type": "websocket.connect"}
    assert exchange.client.quiet()
    exchange.notes.open("go on")
    assert exchange.client.head()[1] == 101


async def waits(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    notes("message", dict(await receive()))
    await notes.wait_async("go on")
    await send(ACCEPT)
    notes("message", dict(await receive()))


@clause("ASGI-WS-012")
def test_nothing_is_received_before_the_accept(server: RunningServer) -> None:
    """The app receives no frame before it accepts: an early one waits, is lost, or ends the connection."""
    exchange = server.exchange(receives_early).handshake()
    exchange.value("connected")
    exchange.client.frame(TEXT, b"early")
    assert exchange.value("early") in ("nothing", "websocket.disconnect")


async def receives_early(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await receive()
    notes("connected")
    message = {"type": "nothing"}
    with anyio.move_on_after(0.3):
        message = dict(await receive())
    notes("early", message["type"])
    await send(ACCEPT)


@clause("RFC6455-001")
def test_a_handshake_is_answered_with_its_key(server: RunningServer) -> None:
    """The server answers 101 with the digest of the client's key."""
    response = server.exchange(echo).handshake().client.head()
    headers = {name.lower(): value for name, value in response[3]}
    digest = base64.b64encode(hashlib.sha1(f"{KEY}{GUID}".encode()).digest()).decode()
    assert (response[1], headers["sec-websocket-accept"]) == (101, digest)
    assert headers["upgrade"].lower() == "websocket"
    assert "sec-websocket-protocol" not in headers


async def chooses(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await receive()
    headers = [(b"x-b", b"1"), (b"set-cookie", b"a"), (b"x-a", b"2"), (b"set-cookie", b"b")]
    await send({**ACCEPT, "subprotocol": "v2", "headers": headers})
    await receive()


@clause("ASGI-WS-014")
def test_an_accept_has_a_subprotocol_and_headers(server: RunningServer) -> None:
    """The 101 response has the app's subprotocol, and its headers in order."""
    head = server.exchange(chooses).handshake("/", ("Sec-WebSocket-Protocol", "v1, v2")).client.head()
    own = [(name.lower(), value) for name, value in head[3] if name.lower() in ("x-a", "x-b", "set-cookie")]
    assert own == [("x-b", "1"), ("set-cookie", "a"), ("x-a", "2"), ("set-cookie", "b")]
    assert [value for name, value in head[3] if name.lower() == "sec-websocket-protocol"] == ["v2"]


async def accepts_wrongly(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await receive()
    await tries(send, notes, {**ACCEPT, "headers": [(b"sec-websocket-protocol", b"v2")]})


@clause("ASGI-WS-015")
def test_an_accept_names_the_subprotocol_by_its_key(server: RunningServer) -> None:
    """send() raises if the app sets a sec-websocket-protocol header."""
    exchange = server.exchange(accepts_wrongly).handshake("/", ("Sec-WebSocket-Protocol", "v1, v2"))
    assert exchange.value("tried") != "taken"


async def accepts_twice(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await receive()
    await send(ACCEPT)
    await tries(send, notes, ACCEPT)


@clause("ASGI-WS-016")
def test_a_websocket_is_accepted_once(server: RunningServer) -> None:
    """send() raises for a second accept."""
    assert opened(server, accepts_twice).value("tried") != "taken"


async def closes_first(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await receive()
    await send({"type": "websocket.close", "code": 4000})


@clause("ASGI-WS-013", "ASGI-WS-023")
def test_a_close_in_place_of_an_accept_is_a_403(server: RunningServer) -> None:
    """If the app closes instead of accepting, the server denies the handshake with a 403."""
    assert answered(server, closes_first)[0].status == 403


async def leaves_first(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await receive()
    if scope["query_string"] == b"raise":
        raise ValueError("this app raises on purpose")


@clause("ASGI-WS-006")
@pytest.mark.parametrize("target", ["/", "/?raise"])
def test_an_app_that_ends_before_its_accept_refuses(server: RunningServer, target: str) -> None:
    """If the app ends before it accepts, the client gets an error, or the server hangs up."""
    exchange = server.exchange(leaves_first).handshake(target)
    try:
        response = exchange.response()
    except AssertionError as error:
        assert exchange.client.ended, error  # noqa: PT017  # it hung up, which is an answer
        return
    assert response.status >= 400


async def denies(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await receive()
    notes("offered", "websocket.http.response" in (scope.get("extensions") or {}))
    if "websocket.http.response" in (scope.get("extensions") or {}):
        await send({"type": "websocket.http.response.start", "status": 418, "headers": [(b"x-a", b"1")]})
        await send({"type": "websocket.http.response.body", "body": b"on", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"e"})
    else:
        await send({"type": "websocket.close"})


@clause("ASGI-WS-027", "ASGI-WS-026")
def test_a_denial_may_be_a_response(server: RunningServer) -> None:
    """If websocket.http.response is offered, the client gets the response with which the app denies."""
    response, exchange = answered(server, denies)
    if not exchange.value("offered"):
        pytest.skip("websocket.http.response is not offered")
    assert (response.status, response.body, response.values("x-a")) == (418, b"one", ["1"])


@clause("RFC6455-004")
@pytest.mark.parametrize(
    ("leave_out", "more"),
    [
        (("Sec-WebSocket-Key",), ()),
        ((), (("Sec-WebSocket-Key", "short"),)),
        ((), (("Sec-WebSocket-Version", "12"),)),
    ],
    ids=["no-key", "short-key", "version"],
)
def test_a_wrong_handshake_is_refused(
    server: RunningServer, leave_out: tuple[str, ...], more: tuple[tuple[str, str], ...]
) -> None:
    """The server answers 101 only to a valid handshake of version 13."""
    exchange = server.exchange(echo).handshake("/", *more, leave_out=leave_out)
    try:
        response = exchange.response()
    except AssertionError:
        assert exchange.client.ended
        return
    assert response.status >= 400
    if more == (("Sec-WebSocket-Version", "12"),):
        assert "13" in ", ".join(response.values("sec-websocket-version"))


@clause("RFC6455-004")
def test_the_words_of_a_handshake_have_any_case(server: RunningServer) -> None:
    """Upgrade and Connection are lists of tokens, in any case."""
    assert opened(server, echo, ("Upgrade", "WebSocket"), ("Connection", "keep-alive, UPGRADE"))


@clause("ASGI-WS-001")
def test_a_request_on_the_side_is_a_request(server: RunningServer) -> None:
    """A request without an upgrade has an http scope."""
    assert server.get(path, "/one")[0].body == b"/one"


# --- Messages --------------------------------------------------------------------------------------


@clause("ASGI-WS-017", "ASGI-WS-018")
@pytest.mark.parametrize(("opcode", "key"), [(TEXT, "text"), (BINARY, "bytes")])
@pytest.mark.parametrize("payload", [b"", b"one", b"x" * 126, b"y" * 70_000], ids=["empty", "short", "126", "70000"])
def test_messages_are_of_their_kind(server: RunningServer, opcode: int, key: str, payload: bytes) -> None:
    """Text arrives as str and binary as bytes, both ways and at any length."""
    exchange = opened(server)
    exchange.client.frame(opcode, payload)
    message = exchange.value("message", 2)
    assert message["type"] == "websocket.receive"
    assert message[key] == (payload.decode() if key == "text" else payload)
    assert message.get({"text": "bytes", "bytes": "text"}[key]) is None
    content, first = b"", exchange.client.next_frame()
    content += first.payload
    while not first.fin:
        first = exchange.client.next_frame()._replace(opcode=opcode)
        content += first.payload
    assert (first.opcode, content) == (opcode, payload)


@clause("ASGI-WS-004")
def test_fragments_are_one_message(server: RunningServer) -> None:
    """The app receives fragments as one message, even with a ping between them."""
    exchange = opened(server)
    exchange.client.frame(TEXT, b"on", fin=False).frame(PING, b"now").frame(CONTINUATION, b"e")
    assert exchange.value("message", 2)["text"] == "one"
    assert {exchange.client.next_frame()[:2] for _ in range(2)} == {(PONG, b"now"), (TEXT, b"one")}


@clause("ASGI-WS-003")
def test_pings_are_answered(server: RunningServer) -> None:
    """The server answers a ping with a pong of the same payload."""
    exchange = opened(server)
    exchange.client.frame(PING, b"are you there")
    assert exchange.client.next_frame()[:2] == (PONG, b"are you there")


async def sends_wrongly(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await receive()
    await send(ACCEPT)
    message: dict[str, Any] = {"type": "websocket.send"}
    if scope["query_string"] == b"both":
        message |= {"text": "one", "bytes": b"one"}
    await tries(send, notes, message)


@clause("ASGI-WS-018")
@pytest.mark.parametrize("kind", ["both", "neither"])
def test_a_message_is_either_text_or_bytes(server: RunningServer, kind: str) -> None:
    """send() raises for a message with both text and bytes, or neither."""
    assert opened(server, sends_wrongly, target=f"/?{kind}").value("tried") != "taken"


# --- The end ---------------------------------------------------------------------------------------


@clause("ASGI-WS-019", "ASGI-WS-020", "RFC6455-002")
@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [(close_payload(1000), 1000, ""), (close_payload(4001, "bye"), 4001, "bye"), (b"", 1005, "")],
)
def test_a_disconnect_has_the_clients_code(server: RunningServer, payload: bytes, code: int, reason: str) -> None:
    """websocket.disconnect has the client's code, or 1005 if there is none, and the server answers the close."""
    exchange = opened(server)
    exchange.client.frame(CLOSE, payload)
    message = exchange.value("disconnect")
    assert message.get("code", 1005) == code
    assert (message.get("reason") or "") in (reason, "")
    assert exchange.client.next_frame().opcode == CLOSE


@clause("ASGI-WS-006", "ASGI-WS-020")
def test_a_client_that_is_gone_is_a_disconnect(server: RunningServer) -> None:
    """If the client vanishes without a close, the code of websocket.disconnect is 1006 or 1005."""
    exchange = opened(server)
    exchange.client.reset()
    assert exchange.value("disconnect").get("code", 1005) in (1005, 1006)


async def closes(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await receive()
    await send(ACCEPT)
    if scope["query_string"] == b"plain":
        await send({"type": "websocket.close"})
    else:
        await send({"type": "websocket.close", "code": 4002, "reason": "enough"})
    with anyio.move_on_after(2):
        notes("after", (await receive())["type"])
    await tries(send, notes, {"type": "websocket.send", "text": "late"})


@clause("ASGI-WS-023", "RFC6455-002")
@pytest.mark.parametrize(
    ("target", "payload"), [("/?plain", close_payload(1000)), ("/", close_payload(4002, "enough"))]
)
def test_an_app_closes_with_its_code(server: RunningServer, target: str, payload: bytes) -> None:
    """The client gets the app's code and reason, by default 1000 and none, and nothing after the close."""
    exchange = opened(server, closes, target=target)
    frame = exchange.client.next_frame()
    assert (frame.opcode, frame.payload) == (CLOSE, payload)
    exchange.client.frame(CLOSE, payload)
    assert exchange.client.maybe_next_frame() is None


@clause("ASGI-WS-021")
def test_a_send_after_the_close_raises(server: RunningServer) -> None:
    """send() raises after the app has closed the WebSocket."""
    exchange = opened(server, closes)
    exchange.client.next_frame()
    exchange.client.frame(CLOSE, close_payload(4002))
    assert exchange.value("tried") != "taken"


async def raises(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await receive()
    await send(ACCEPT)
    if scope["query_string"] == b"raise":
        raise ValueError("this app raises on purpose")


@clause("ASGI-WS-006")
@pytest.mark.parametrize("target", ["/", "/?raise"])
def test_an_app_that_ends_closes_the_socket(server: RunningServer, target: str) -> None:
    """When the app returns or raises, the server sends a close or hangs up."""
    exchange = opened(server, raises, target=target)
    frame = exchange.client.maybe_next_frame()
    assert frame is None or frame.opcode == CLOSE


# --- Frames that are wrong -------------------------------------------------------------------------


@clause("RFC6455-003")
def test_text_is_utf8(server: RunningServer) -> None:
    """A text frame that is not UTF-8 fails the connection with 1007."""
    exchange = opened(server)
    exchange.client.frame(TEXT, b"\xff\xfe")
    frame = exchange.client.maybe_next_frame()
    assert frame is None or (frame.opcode, frame.payload[:2]) == (CLOSE, close_payload(1007))
    assert len(exchange.values("message")) == 1


@clause("RFC6455-005")
@pytest.mark.parametrize(
    ("opcode", "payload", "how"),
    [
        (TEXT, b"one", {"masked": False}),
        (TEXT, b"one", {"rsv": 2}),
        (0x3, b"one", {}),
        (CONTINUATION, b"one", {}),
        (PING, b"one", {"fin": False}),
        (PING, b"x" * 126, {}),
    ],
    ids=["unmasked", "reserved-bit", "opcode", "continuation", "fragmented-ping", "long-ping"],
)
def test_a_wrong_frame_fails_the_connection(
    server: RunningServer, opcode: int, payload: bytes, how: dict[str, Any]
) -> None:
    """The server closes the connection, and the app does not receive the frame."""
    exchange = opened(server)
    exchange.client.frame(opcode, payload, **how)
    frame = exchange.client.maybe_next_frame()
    assert frame is None or frame.opcode == CLOSE
    assert len(exchange.values("message")) == 1
