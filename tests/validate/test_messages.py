import io
import re
import tomllib
import warnings
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import anyio
import pytest

from bridge import ASGIToWSGI, WSGIToASGI
from bridge.errors import AppProtocolError, BridgeError, ClientDisconnected, ServerProtocolError
from bridge.sansio import shapes
from bridge.sansio.shapes import EXTENSION_MESSAGES
from bridge.types import Environ, Message, Receive, Scope, Send, StartResponse
from bridge.validate import ASGIWarning, connection, validator
from tests.fakes import ASGIWebSocket, http_environ, http_scope, request, respond
from tests.processes import serving

TESTS = Path(__file__).parent.parent

# --- A conversation -----------------------------------------------------------------------------


class Said(NamedTuple):
    """A message, and who says it."""

    by_app: bool
    message: Any


def gives(message_type: str, **keys: Any) -> Said:
    """Return what a server says."""
    return Said(False, {"type": message_type, **keys})


def sends(message_type: str, **keys: Any) -> Said:
    """Return what an app says."""
    return Said(True, {"type": message_type, **keys})


async def converse(scope: Any, *conversation: Said, returned: Any = None) -> list[Message]:
    """Have an app and a server say all of it, with the validator between; return what each got of the other."""
    got: list[Message] = []
    given = iter([said.message for said in conversation if not said.by_app])

    async def app(scope: Scope, receive: Receive, send: Send) -> Any:
        for said in conversation:
            if said.by_app:
                await send(said.message)
            else:
                got.append(await receive())
        return returned

    async def receive() -> Message:
        return next(given)

    async def send(message: Message) -> None:
        got.append(message)

    await validator(app)(scope, receive, send)
    return got


def websocket_scope(**keys: Any) -> dict[str, Any]:
    """Return the scope of a plain WebSocket, with `keys` in place of its own."""
    scope = {**http_scope(), "type": "websocket", "scheme": "ws", "subprotocols": ["chat"], **keys}
    del scope["method"]
    return scope


def lifespan_scope(**keys: Any) -> dict[str, Any]:
    """Return the scope of a lifespan, with `keys` in place of its own."""
    return {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}, **keys}


def without(scope: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the scope less one key."""
    return {name: value for name, value in scope.items() if name != key}


EXTENSIONS: dict[str, Any] = {
    name: {}
    for name in [*EXTENSION_MESSAGES, "websocket.http.response"]
    if not name.startswith("websocket.http.response.")
}
HTTP = http_scope()
OFFERING = http_scope(extensions=EXTENSIONS)
WEBSOCKET = websocket_scope(extensions=EXTENSIONS)
LIFESPAN = lifespan_scope()

REQUEST = gives("http.request", body=b"", more_body=False)
GONE = gives("http.disconnect")
START = sends("http.response.start", status=200, headers=[(b"content-type", b"text/plain")])
TRAILED = sends("http.response.start", status=200, trailers=True)
MIXED_CASE = sends("http.response.start", status=200, headers=[(b"Content-Type", b"text/plain")])
BODY = sends("http.response.body", body=b"whole")
MORE = sends("http.response.body", body=b"part", more_body=True)
HINT = sends("http.response.early_hint", links=[b"</style.css>; rel=preload"])
PUSH = sends("http.response.push", path="/style.css", headers=[])
FILE = sends("http.response.pathsend", path="/etc/hostname")
TRAILERS = sends("http.response.trailers", headers=[(b"digest", b"x")])
DEBUG = sends("http.response.debug", info={"template": object()})
CONNECT = gives("websocket.connect")
ACCEPT = sends("websocket.accept")
TEXT = gives("websocket.receive", text="text")
REPLY = sends("websocket.send", bytes=b"bytes")
CLOSE = sends("websocket.close")
LEFT = gives("websocket.disconnect", code=1001)
DENIAL = sends("websocket.http.response.start", status=401)
DENIAL_MIXED_CASE = sends("websocket.http.response.start", status=401, headers=[(b"A", b"b")])
DENIED = sends("websocket.http.response.body", body=b"no")
STARTUP = gives("lifespan.startup")
COMPLETE = sends("lifespan.startup.complete")
SHUTDOWN = gives("lifespan.shutdown")
STOPPED = sends("lifespan.shutdown.complete")


def zero_copy(**keys: Any) -> Said:
    return sends("http.response.zerocopysend", **keys)


class Descriptor:
    """The least of a file object that can be sent so."""

    def fileno(self) -> int:
        return 1


# --- What is legal ------------------------------------------------------------------------------

LEGAL: dict[str, tuple[dict[str, Any], list[Said]]] = {
    "a request": (HTTP, [REQUEST, START, BODY]),
    "nothing received": (HTTP, [START, BODY]),
    "a long request": (
        HTTP,
        [gives("http.request", body=b"a", more_body=True), gives("http.request", more_body=True), gives("http.request")]
        + [START, MORE, MORE, sends("http.response.body"), GONE, GONE],
    ),
    "the defaults": (
        HTTP,
        [gives("http.request"), sends("http.response.start", status=204), sends("http.response.body")],
    ),
    "a body for HEAD": (http_scope("HEAD"), [START, BODY]),
    "a body with 304": (HTTP, [sends("http.response.start", status=304), BODY]),
    "a client that leaves": (HTTP, [gives("http.request", more_body=True), GONE]),
    "messages to a client that has left": (HTTP, [REQUEST, GONE, BODY, START, START]),
    "unknown keys": (
        http_scope(other=object(), asgi={"version": "3.0", "other": 1}),
        [
            gives("http.request", other=[2**63 - 1, -(2**63), 2.5, {"a": None}]),
            sends("http.response.start", status=200, other=(b"", True)),
            BODY,
        ],
    ),
    "trailers": (
        OFFERING,
        [TRAILED, MORE, BODY, sends("http.response.trailers", headers=[], more_trailers=True), TRAILERS],
    ),
    "a file": (OFFERING, [START, FILE]),
    "early hints and pushes": (OFFERING, [HINT, START, HINT, PUSH, MORE, PUSH, HINT, BODY]),
    "zero copy": (OFFERING, [START, zero_copy(file=1, offset=0, count=2, more_body=True), MORE, zero_copy(file=2)]),
    "zero copy in a stream": (
        OFFERING,
        [START, MORE, zero_copy(file=1, more_body=True), zero_copy(file=1, more_body=True), BODY],
    ),
    "a file with trailers": (OFFERING, [TRAILED, HINT, PUSH, FILE, TRAILERS]),
    "zero copy of a file object": (OFFERING, [START, zero_copy(file=Descriptor())]),
    "zero copy with trailers": (OFFERING, [TRAILED, zero_copy(file=1), TRAILERS]),
    "all of it with trailers": (
        OFFERING,
        [TRAILED, zero_copy(file=1, more_body=True), MORE, HINT, PUSH, zero_copy(file=1, more_body=True)]
        + [zero_copy(file=1), TRAILERS],
    ),
    "debug": (OFFERING, [DEBUG, HINT, START, BODY]),
    "debug with trailers": (OFFERING, [HINT, DEBUG, TRAILED, BODY, TRAILERS]),
    "an extension of the server's own": (
        http_scope(extensions={"fullflush": {}, "http.request.kind": {}}),
        [
            gives("http.request.kind", kind="odd"),
            REQUEST,
            START,
            sends("http.fullflush"),
            BODY,
            sends("http.fullflush.all"),
        ],
    ),
    "optional keys of a scope": (
        {"type": "http", "asgi": {"version": "3.0"}, "http_version": "2", "method": "GET", "path": "/"}
        | {"query_string": b"", "headers": []},
        [START, BODY],
    ),
    "None in a scope": (http_scope(raw_path=None, client=None, server=None), [START, BODY]),
    "a Unix socket": (http_scope(server=["/run/socket", None], client=["", 0], http_version="1.0"), [START, BODY]),
    "a prefix": (http_scope(path="/a/b", root_path="/a", state={"a": 1}, method="M-SEARCH"), [START, BODY]),
    "TLS": (
        http_scope(extensions={"tls": {"server_cert": None, "tls_version": 0x304, "cipher_suite": None}}),
        [START, BODY],
    ),
    "a WebSocket": (
        WEBSOCKET,
        [CONNECT, sends("websocket.accept", subprotocol="chat", headers=[(b"a", b"b")]), TEXT, REPLY]
        + [gives("websocket.receive", bytes=b"", text=None), sends("websocket.send", text="", bytes=None)]
        + [sends("websocket.close", code=4000, reason="bye"), gives("websocket.disconnect", code=4000, reason=None)],
    ),
    "a WebSocket that is refused": (WEBSOCKET, [CONNECT, CLOSE, gives("websocket.disconnect", code=1006)]),
    "a WebSocket that is refused unheard": (WEBSOCKET, [CLOSE]),
    "a WebSocket that is denied": (
        WEBSOCKET,
        [CONNECT, DENIAL, sends("websocket.http.response.body", body=b"n", more_body=True), DENIED, LEFT],
    ),
    "a WebSocket that the client leaves": (WEBSOCKET, [CONNECT, ACCEPT, LEFT, REPLY, CLOSE, LEFT]),
    "a WebSocket that the app leaves": (WEBSOCKET, [CONNECT, ACCEPT]),
    "a WebSocket that ends before it begins": (WEBSOCKET, [CONNECT, LEFT]),
    "optional keys of a WebSocket's scope": (
        {"type": "websocket", "asgi": {"version": "3.0"}, "path": "/", "headers": [], "query_string": None},
        [CLOSE],
    ),
    "a lifespan": (LIFESPAN, [STARTUP, COMPLETE, SHUTDOWN, STOPPED]),
    "a lifespan without state": (
        {"type": "lifespan", "asgi": {"version": "3.0"}},
        [STARTUP, COMPLETE, SHUTDOWN, STOPPED],
    ),
    "a startup that fails": (LIFESPAN, [STARTUP, sends("lifespan.startup.failed", message="why")]),
    "a shutdown that fails": (LIFESPAN, [STARTUP, COMPLETE, SHUTDOWN, sends("lifespan.shutdown.failed")]),
    "another protocol": ({"type": "mqtt"}, [gives("mqtt.connect"), sends("anything")]),
}


@pytest.mark.parametrize("name", LEGAL)
async def test_what_is_legal_passes_as_it_is(name: str) -> None:
    """Each message gets through, the very same, and nothing is raised, nor warned of."""
    scope, conversation = LEGAL[name]
    got = await converse(scope, *conversation)
    assert len(got) == len(conversation)
    assert all(message is said.message for message, said in zip(got, conversation, strict=True))


async def test_iterators_are_still_there_for_who_comes_next() -> None:
    """Headers may be any iterable of iterables, one that can be used once too (ASGI HTTP spec)."""
    seen: Any = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([scope["headers"], scope["client"], scope["server"]])
        await send({"type": "http.response.start", "status": 200, "headers": (iter(pair) for pair in pairs)})
        await send({"type": "http.response.early_hint", "links": iter([b"link"])})
        await send({"type": "http.response.body"})

    pairs = [(b"a", b"b"), (b"c", b"d")]
    server = await request(
        validator(app),
        http_scope(
            headers=(iter(pair) for pair in pairs),
            client=iter(("::1", 1)),
            server=iter(("::1", 80)),
            extensions=EXTENSIONS,
        ),
    )
    assert seen == [[[b"a", b"b"], [b"c", b"d"]], ["::1", 1], ["::1", 80]]
    assert [*map(tuple, server.headers)] == pairs
    assert server.sent[1]["links"] == [b"link"]


async def test_an_iterator_of_subprotocols_is_still_there_too() -> None:
    """They may be any iterable (ASGI WebSocket spec, WebSocket Connection Scope)."""
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend(scope["subprotocols"])
        await send({"type": "websocket.close"})

    await ASGIWebSocket(validator(app), websocket_scope(subprotocols=iter(["chat", "v2"]))).run()
    assert seen == ["chat", "v2"]


# --- What the server does wrong -----------------------------------------------------------------

TLS: dict[str, Any] = {"server_cert": None, "tls_version": None, "cipher_suite": None}
LINES = [(b"a", b"b\r\nc: d")]
BOTH: list[tuple[str, Any, str]] = [
    ("asgi", "3.0", "CORE-015"),
    ("asgi", {}, "CORE-015"),
    ("asgi", {"version": 3}, "CORE-015"),
    ("asgi", {"version": "3.0", "spec_version": 2.3}, "CORE-015"),
    ("http_version", "1", "HTTP-009"),
    ("http_version", "2.0", "HTTP-009"),
    ("scheme", b"http", "HTTP-011"),
    ("scheme", "", "HTTP-011"),
    ("scheme", None, "HTTP-011"),
    ("path", b"/", "HTTP-013"),
    ("raw_path", "/", "HTTP-015"),
    ("raw_path", b"/?a=b", "HTTP-015"),
    ("query_string", "a=b", ""),
    ("root_path", None, "HTTP-018"),
    ("headers", None, "HTTP-021"),
    ("headers", b"ab", "HTTP-021"),
    ("headers", {b"a": b"b"}, "HTTP-021"),
    ("headers", [("a", "b")], "HTTP-021"),
    ("headers", [(b"a", b"b", b"c")], "HTTP-021"),
    ("headers", [(b"a", "b")], "HTTP-021"),
    ("headers", [(b":authority", b"a")], "HTTP-026"),
    ("extensions", {"tls": []}, "CORE-038"),
    ("client", "192.0.2.1", "HTTP-028"),
    ("client", ("192.0.2.1", "1"), "HTTP-028"),
    ("client", ("192.0.2.1", True), "HTTP-028"),
    ("client", ("192.0.2.1", None), "HTTP-028"),
    ("client", (None, 1), "HTTP-028"),
    ("client", ("192.0.2.1",), "HTTP-028"),
    ("server", ("192.0.2.1", "80"), "HTTP-030"),
    ("server", [b"/run/socket", None], "HTTP-030"),
    ("state", None, "HTTP-033"),
    ("extensions", None, "CORE-038"),
    ("extensions", {"tls": None}, "CORE-038"),
    ("extensions", {b"a": {}}, "CORE-038"),
]
SCOPES: list[tuple[Any, str, str]] = [
    (None, "no dict", "ASGI-CORE-015"),
    ([("type", "http")], "no dict", "ASGI-CORE-015"),
    ({"asgi": {}}, "a str 'type'", "ASGI-CORE-015"),
    ({"type": b"http"}, "a str 'type'", "ASGI-CORE-015"),
    ({**HTTP, 5: 6}, "str keys", "ASGI-CORE-015"),
    *[
        (without(HTTP, key), f"without '{key}'", "ASGI-")
        for key in ("asgi", "http_version", "method", "path", "query_string", "headers")
    ],
    *[(without(WEBSOCKET, key), f"without '{key}'", "ASGI-") for key in ("asgi", "path", "headers")],
    (without(LIFESPAN, "asgi"), "without 'asgi'", "ASGI-LS-004"),
    *[
        ({**scope, key: value}, f"'{key}' must be", f"ASGI-{clause}")
        for scope in (HTTP, WEBSOCKET)
        for key, value, clause in BOTH
    ],
    (http_scope(headers=LINES), "without CR, LF and NUL", "RFC9110-003"),
    (websocket_scope(headers=[(b"a\0", b"b")]), "without CR, LF and NUL", "RFC9110-003"),
    (lifespan_scope(asgi=None), "'asgi' must be a dict", "ASGI-LS-004"),
    (lifespan_scope(asgi={}), "'asgi' must be with a str 'version'", "ASGI-LS-004"),
    (lifespan_scope(asgi={"version": "3.0", "spec_version": 2}), "with no 'spec_version' but a str", "ASGI-LS-004"),
    (http_scope(query_string=None), "'query_string' must be bytes", "ASGI-HTTP-017"),
    (http_scope(method="get"), "'method' must be in upper case", "ASGI-HTTP-010"),
    (http_scope(method=""), "'method' must be", "ASGI-HTTP-010"),
    ({**HTTP, "method": b"GET"}, "'method' must be", "ASGI-HTTP-010"),
    (websocket_scope(subprotocols="chat"), "'subprotocols' must be", "ASGI-WS-007"),
    (websocket_scope(subprotocols=[b"chat"]), "'subprotocols' must be", "ASGI-WS-007"),
    (lifespan_scope(state=None), "'state' must be an empty dict", "ASGI-LS-010"),
    (lifespan_scope(state={"a": 1}), "'state' must be an empty dict", "ASGI-LS-010"),
    *[
        (http_scope(extensions={"tls": without(TLS, key)}), f"tls extension without '{key}'", "ASGI-TLS-")
        for key in TLS
    ],
    *[
        (
            http_scope(extensions={"tls": {**TLS, key: value}}),
            f"tls extension whose '{key}' must be",
            clause,
        )
        for key, value, clause in [
            ("server_cert", b"PEM", "ASGI-TLS-005"),
            ("client_cert_chain", "PEM", "ASGI-TLS-006"),
            ("client_cert_chain", [b"PEM"], "ASGI-TLS-006"),
            ("client_cert_name", 5, "ASGI-TLS-007"),
            ("client_cert_error", b"expired", "ASGI-TLS-008"),
            ("client_cert_error", "", "ASGI-TLS-008"),
            ("tls_version", "TLSv1.3", "ASGI-TLS-009"),
            ("cipher_suite", "AES", "ASGI-TLS-010"),
        ]
    ],
]


@pytest.mark.parametrize(("scope", "text", "clause"), SCOPES)
async def test_a_scope_is_looked_at_before_the_app_is_called(scope: Any, text: str, clause: str) -> None:
    """What is wrong with a scope is raised to the server that made it, with the clause, and the app is not called."""
    with pytest.raises(ServerProtocolError, match=rf"the server gave .*{re.escape(text)}.*; {clause}") as caught:
        await converse(scope, sends("never"))
    assert "never" not in str(caught.value)


@pytest.mark.parametrize(
    ("scope", "conversation", "text"),
    [
        (http_scope(headers=[(b"Host", b"a")]), [START, BODY], "in lower case.*ASGI-HTTP-024"),
        (websocket_scope(headers=[(b"Host", b"a")]), [CLOSE], "in lower case.*ASGI-HTTP-024"),
        (http_scope(path="/b", root_path="/a"), [START, BODY], "begins with its 'root_path'.*ASGI-HTTP-020"),
        (websocket_scope(path="/b", root_path="/a"), [CLOSE], "begins with its 'root_path'.*ASGI-HTTP-020"),
        (WEBSOCKET, [DENIAL_MIXED_CASE, DENIED], "in lower case.*ASGI-HTTP-051"),
        (HTTP, [MIXED_CASE, BODY], "in lower case.*ASGI-HTTP-051"),
    ],
)
async def test_what_can_be_lived_with_is_warned_of(scope: dict[str, Any], conversation: list[Said], text: str) -> None:
    """What the spec recommends to servers, and lower case in a response, which servers see to."""
    with pytest.warns(ASGIWarning, match=text):
        assert len(await converse(scope, *conversation)) == len(conversation)


# Of each conversation the last message is the fault.
Case: TypeAlias = tuple[dict[str, Any], list[Said], str, str]


def cases(
    scope: dict[str, Any],
    before: list[Said],
    say: Callable[..., Said],
    message_type: str,
    *rows: tuple[dict[str, Any], str, str],
) -> list[Case]:
    """Return a conversation for each row: the keys of its last message, the report's text, and the clause."""
    return [(scope, [*before, say(message_type, **keys)], text, clause) for keys, text, clause in rows]


GIVEN: list[Case] = [
    (HTTP, [Said(False, None)], "gave None, and not a dict", "ASGI-CORE-011"),
    (HTTP, [Said(False, {})], "gave dict with no keys, and not a dict", "ASGI-CORE-011"),
    (HTTP, [Said(False, {"type": 5})], "and not a dict", "ASGI-CORE-011"),
    (HTTP, [Said(False, {"type": "http.request", b"body": b""})], "and not a dict with str keys", "ASGI-CORE-011"),
    (HTTP, [gives("http.requests")], "gave 'http.requests', which neither", "ASGI-CORE-039"),
    (HTTP, [gives("websocket.connect")], "gave 'websocket.connect', which neither", "ASGI-CORE-039"),
    (HTTP, [gives("http.response.start", status=200)], "gave 'http.response.start', which neither", "ASGI-CORE-039"),
    (HTTP, [gives("http.request", body="")], "whose 'body' must be bytes, got str of length 0", "ASGI-HTTP-039"),
    (HTTP, [gives("http.request", body=None)], "whose 'body' must be bytes", "ASGI-HTTP-039"),
    (HTTP, [gives("http.request", body=bytearray())], "whose 'body' must be bytes", "ASGI-HTTP-039"),
    (HTTP, [gives("http.request", more_body=1)], "whose 'more_body' must be bool", "ASGI-HTTP-040"),
    (HTTP, [gives("http.request", other=object())], "whose 'other' could not be sent", "ASGI-CORE-012"),
    (HTTP, [gives("http.request", other=2**63)], "whose 'other' could not be sent", "ASGI-CORE-012"),
    (HTTP, [gives("http.request", other=-(2**63) - 1)], "whose 'other' could not be sent", "ASGI-CORE-012"),
    (HTTP, [gives("http.request", other=[{"a": float("nan")}])], "whose 'other' could not be sent", "ASGI-CORE-012"),
    (HTTP, [gives("http.request", other={1: 2})], "whose 'other' could not be sent", "ASGI-CORE-012"),
    (HTTP, [REQUEST, REQUEST], "gave 'http.request' where the spec has 'http.disconnect'", "ASGI-HTTP-040"),
    (HTTP, [GONE, REQUEST], "gave 'http.request' where the spec has 'http.disconnect' (gone)", "ASGI-HTTP-040"),
    (HTTP, [START, BODY, REQUEST], "gave 'http.request' after the response", "ASGI-HTTP-079"),
    (WEBSOCKET, [TEXT], "gave 'websocket.receive' before 'websocket.accept'", "ASGI-WS-012"),
    (WEBSOCKET, [LEFT], "where the spec has 'websocket.connect'", "ASGI-WS-020"),
    (WEBSOCKET, [ACCEPT, TEXT], "where the spec has 'websocket.connect'", "ASGI-WS-012"),
    (WEBSOCKET, [CONNECT, TEXT], "gave 'websocket.receive' before 'websocket.accept'", "ASGI-WS-012"),
    (WEBSOCKET, [CONNECT, CONNECT], "gave 'websocket.connect' where", "ASGI-WS-010"),
    (WEBSOCKET, [CONNECT, ACCEPT, LEFT, TEXT], "where the spec has 'websocket.disconnect' (gone)", "ASGI-WS-012"),
    *cases(
        WEBSOCKET,
        [CONNECT, ACCEPT],
        gives,
        "websocket.receive",
        ({}, "exactly one", "ASGI-WS-017"),
        ({"bytes": None, "text": None}, "exactly one", "ASGI-WS-017"),
        ({"bytes": b"", "text": ""}, "exactly one", "ASGI-WS-017"),
        ({"text": b""}, "'text' must be str or None", "ASGI-WS-017"),
        ({"bytes": ""}, "'bytes' must be bytes or None", "ASGI-WS-017"),
    ),
    *cases(
        WEBSOCKET,
        [CONNECT],
        gives,
        "websocket.disconnect",
        ({}, "without 'code'", "ASGI-WS-019"),
        ({"code": None}, "'code' must be int", "ASGI-WS-019"),
        ({"code": 0}, "'code' must be from 1000", "ASGI-WS-019"),
        ({"code": 1000, "reason": b""}, "'reason' must be str or None", "ASGI-WS-019"),
    ),
    (LIFESPAN, [SHUTDOWN], "before 'lifespan.startup.complete'", "ASGI-LS-023"),
    (LIFESPAN, [STARTUP, SHUTDOWN], "before 'lifespan.startup.complete'", "ASGI-LS-023"),
    (
        LIFESPAN,
        [STARTUP, sends("lifespan.startup.failed"), SHUTDOWN],
        "before 'lifespan.startup.complete'",
        "ASGI-LS-023",
    ),
    (LIFESPAN, [STARTUP, STARTUP], "where the spec has 'lifespan.shutdown'", "ASGI-LS-016"),
    (LIFESPAN, [STARTUP, COMPLETE, SHUTDOWN, SHUTDOWN], "where the spec has no message", "ASGI-LS-023"),
    (LIFESPAN, [REQUEST], "which neither this protocol", "ASGI-CORE-039"),
]

# --- What the app does wrong --------------------------------------------------------------------

BASE = http_scope(extensions={})
SENT: list[Case] = [
    (HTTP, [Said(True, None)], "sent None, and not a dict", "ASGI-CORE-011"),
    (HTTP, [Said(True, [])], "and not a dict", "ASGI-CORE-011"),
    (HTTP, [Said(True, {"type": None})], "and not a dict", "ASGI-CORE-011"),
    (HTTP, [Said(True, {"type": "http.response.start", 5: 6})], "and not a dict", "ASGI-CORE-011"),
    (HTTP, [sends("http.response.strat")], "sent 'http.response.strat', which neither", "ASGI-CORE-039"),
    (HTTP, [sends("http.request")], "which neither this protocol", "ASGI-CORE-039"),
    (HTTP, [ACCEPT], "which neither this protocol", "ASGI-CORE-039"),
    (LIFESPAN, [START], "which neither this protocol", "ASGI-CORE-039"),
    (WEBSOCKET, [sends("http.response.start", status=200)], "which neither this protocol", "ASGI-CORE-039"),
    *[
        (scope, [*before, said], f"sent '{said.message['type']}', which neither", "ASGI-CORE-039")
        for scope in (BASE, without(BASE, "extensions"))
        for before, said in [
            ([START], FILE),
            ([START], PUSH),
            ([START], HINT),
            ([], DEBUG),
            ([START], zero_copy(file=1)),
            ([START, BODY], TRAILERS),
            ([START], sends("http.fullflush")),
        ]
    ],
    (BASE, [TRAILED], "with trailers, an extension that the scope does not offer", "ASGI-CORE-039"),
    (http_scope(extensions={"flush": {}}), [sends("http.flushed")], "which neither", "ASGI-CORE-039"),
    (http_scope(extensions={"flush": {}}), [sends("flush", all=object())], "'all' could not be sent", "ASGI-CORE-012"),
    (websocket_scope(), [CONNECT, DENIAL], "which neither this protocol", "ASGI-CORE-039"),
    *cases(
        OFFERING,
        [],
        sends,
        "http.response.start",
        ({}, "without 'status'", "ASGI-HTTP-049"),
        ({"status": "200"}, "'status' must be int, got str of length 3", "ASGI-HTTP-049"),
        ({"status": True}, "'status' must be int", "ASGI-HTTP-049"),
        ({"status": 99}, "'status' must be from 100 to 999", "ASGI-HTTP-063"),
        ({"status": 1000}, "'status' must be from 100 to 999", "ASGI-HTTP-063"),
        ({"status": 200, "trailers": None}, "'trailers' must be bool", "ASGI-HTTP-060"),
    ),
    *cases(
        HTTP,
        [START],
        sends,
        "http.response.body",
        ({"body": "text"}, "'body' must be bytes, got str of length 4", "ASGI-HTTP-069"),
        ({"body": None}, "'body' must be bytes", "ASGI-HTTP-069"),
        ({"body": memoryview(b"")}, "'body' must be bytes", "ASGI-HTTP-069"),
        ({"more_body": None}, "'more_body' must be bool", "ASGI-HTTP-069"),
        ({"more_body": "no"}, "'more_body' must be bool", "ASGI-HTTP-069"),
    ),
    (HTTP, [BODY], "where the spec has 'http.response.start' or", "ASGI-HTTP-069"),
    (HTTP, [START, START], "where the spec has 'http.response.body' or", "ASGI-HTTP-049"),
    (HTTP, [START, MORE, START], "(streaming)", "ASGI-HTTP-049"),
    (HTTP, [START, BODY, BODY], "where the spec has no message (done)", "ASGI-HTTP-069"),
    (OFFERING, [START, MORE, FILE], "sent 'http.response.pathsend' where", "ASGI-EXT-012"),
    (OFFERING, [START, FILE, FILE], "sent 'http.response.pathsend' where", "ASGI-EXT-012"),
    (OFFERING, [START, zero_copy(file=1, more_body=True), FILE], "(streaming)", "ASGI-EXT-012"),
    (OFFERING, [zero_copy(file=1)], "(nothing sent)", "ASGI-EXT-010"),
    (OFFERING, [PUSH], "(nothing sent)", "ASGI-EXT-002"),
    (OFFERING, [START, BODY, PUSH], "(done)", "ASGI-EXT-002"),
    (OFFERING, [START, BODY, HINT], "(done)", "ASGI-EXT-019"),
    (OFFERING, [TRAILED, BODY, HINT], "where the spec has 'http.response.trailers' (trailers due)", "ASGI-EXT-019"),
    (OFFERING, [START, TRAILERS], "(started)", "ASGI-EXT-025"),
    (OFFERING, [START, BODY, TRAILERS], "(done)", "ASGI-EXT-025"),
    (OFFERING, [START, DEBUG], "(started)", "ASGI-EXT-029"),
    (OFFERING, [DEBUG, HINT, DEBUG], "(debug sent)", "ASGI-EXT-029"),
    *cases(
        OFFERING,
        [START],
        sends,
        "http.response.pathsend",
        ({}, "without 'path'", "ASGI-EXT-013"),
        ({"path": b"/etc/hostname"}, "'path' must be str", "ASGI-EXT-013"),
        ({"path": "hostname"}, "'path' must be absolute", "ASGI-EXT-013"),
    ),
    *cases(
        OFFERING,
        [START],
        sends,
        "http.response.zerocopysend",
        ({}, "without 'file'", "ASGI-EXT-005"),
        ({"file": io.BytesIO()}, "'file' must be a file with a descriptor", "ASGI-EXT-005"),
        ({"file": "/etc/hostname"}, "'file' must be a file with a descriptor", "ASGI-EXT-005"),
        ({"file": 1, "offset": None}, "'offset' must be int", "ASGI-EXT-005"),
        ({"file": 1, "count": 1.5}, "'count' must be int", "ASGI-EXT-005"),
        ({"file": 1, "more_body": 0}, "'more_body' must be bool", "ASGI-EXT-005"),
    ),
    *cases(
        OFFERING,
        [START],
        sends,
        "http.response.push",
        ({"path": "/"}, "without 'headers'", "ASGI-EXT-002"),
        ({"headers": []}, "without 'path'", "ASGI-EXT-002"),
        ({"path": b"/", "headers": []}, "'path' must be str", "ASGI-EXT-002"),
        ({"path": "/", "headers": [(b"A", b"b")]}, "in lower case", "ASGI-EXT-002"),
    ),
    *cases(
        OFFERING,
        [START],
        sends,
        "http.response.early_hint",
        ({}, "without 'links'", "ASGI-EXT-019"),
        ({"links": b"</a>"}, "'links' must be an iterable of bytes", "ASGI-EXT-019"),
        ({"links": ["</a>"]}, "'links' must be an iterable of bytes", "ASGI-EXT-019"),
    ),
    *cases(
        OFFERING,
        [TRAILED, BODY],
        sends,
        "http.response.trailers",
        ({}, "without 'headers'", "ASGI-EXT-024"),
        ({"headers": [(b"A", b"b")]}, "in lower case", "ASGI-EXT-024"),
        ({"headers": [], "more_trailers": 1}, "'more_trailers' must be bool", "ASGI-EXT-024"),
    ),
    *cases(
        OFFERING,
        [],
        sends,
        "http.response.debug",
        ({}, "without 'info'", "ASGI-EXT-029"),
        ({"info": "text"}, "'info' must be a dict", "ASGI-EXT-029"),
    ),
    (WEBSOCKET, [CONNECT, REPLY], "where the spec has 'websocket.accept' or 'websocket.close' or", "ASGI-WS-018"),
    (WEBSOCKET, [CONNECT, ACCEPT, ACCEPT], "sent 'websocket.accept' where", "ASGI-WS-016"),
    (WEBSOCKET, [CONNECT, CLOSE, ACCEPT], "sent 'websocket.accept' where", "ASGI-WS-016"),
    (WEBSOCKET, [CONNECT, ACCEPT, CLOSE, REPLY], "sent 'websocket.send' where", "ASGI-WS-018"),
    (WEBSOCKET, [CONNECT, ACCEPT, CLOSE, CLOSE], "sent 'websocket.close' where", "ASGI-WS-023"),
    (WEBSOCKET, [CONNECT, ACCEPT, DENIAL], "sent 'websocket.http.response.start' where", "ASGI-WS-026"),
    (WEBSOCKET, [CONNECT, DENIED], "sent 'websocket.http.response.body' where", "ASGI-WS-026"),
    (WEBSOCKET, [CONNECT, DENIAL, ACCEPT], "sent 'websocket.accept' where", "ASGI-WS-016"),
    (WEBSOCKET, [CONNECT, sends("websocket.http.response.start")], "without 'status'", "ASGI-HTTP-049"),
    *cases(
        WEBSOCKET,
        [CONNECT],
        sends,
        "websocket.accept",
        ({"subprotocol": b"chat"}, "'subprotocol' must be str or None", "ASGI-WS-014"),
        ({"headers": [(b"A", b"b")]}, "in lower case", "ASGI-WS-014"),
        ({"headers": [(b"sec-websocket-protocol", b"")]}, "'subprotocol' is for", "ASGI-WS-015"),
    ),
    *cases(
        WEBSOCKET,
        [CONNECT, ACCEPT],
        sends,
        "websocket.send",
        ({}, "exactly one of 'bytes' and 'text'", "ASGI-WS-018"),
        ({"bytes": b"", "text": ""}, "exactly one of 'bytes' and 'text'", "ASGI-WS-018"),
        ({"text": b""}, "'text' must be str or None", "ASGI-WS-018"),
        ({"bytes": ""}, "'bytes' must be bytes or None", "ASGI-WS-018"),
    ),
    *cases(
        WEBSOCKET,
        [CONNECT, ACCEPT],
        sends,
        "websocket.close",
        ({"code": None}, "'code' must be int", "ASGI-WS-024"),
        ({"code": 999}, "'code' must be from 1000", "ASGI-WS-024"),
        ({"code": 5000}, "'code' must be from 1000", "ASGI-WS-024"),
        ({"code": 1005}, "not 1005", "ASGI-WS-024"),
        ({"code": 1006}, "not 1006", "ASGI-WS-024"),
        ({"code": 1015}, "not 1015", "ASGI-WS-024"),
        ({"reason": b""}, "'reason' must be str or None", "ASGI-WS-024"),
    ),
    (WEBSOCKET, [CONNECT, ACCEPT, sends("websocket.http.response.start", status=401)], "where the spec", "ASGI-WS-026"),
    *[
        (scope, [*before, sends(message_type, **{**keys, "headers": headers})], text, clause)
        for scope, before, message_type, keys, clauses in (
            (OFFERING, [], "http.response.start", {"status": 200}, ("ASGI-HTTP-049", "ASGI-HTTP-053")),
            (OFFERING, [START], "http.response.push", {"path": "/"}, ("ASGI-EXT-002", "ASGI-EXT-002")),
            (OFFERING, [TRAILED, BODY], "http.response.trailers", {}, ("ASGI-EXT-024", "ASGI-EXT-024")),
            (WEBSOCKET, [], "websocket.accept", {}, ("ASGI-WS-014", "ASGI-WS-015")),
            (WEBSOCKET, [], "websocket.http.response.start", {"status": 401}, ("ASGI-HTTP-049", "ASGI-HTTP-053")),
        )
        for headers, text, clause in (
            (None, "'headers' must be an iterable", clauses[0]),
            ([("a", "b")], "'headers' must be an iterable", clauses[0]),
            ([(b"a", 5)], "'headers' must be an iterable", clauses[0]),
            ({b"ab": b"cd"}, "'headers' must be an iterable", clauses[0]),
            ([(b":status", b"200")], "without pseudo headers", clauses[1]),
            (LINES, "without CR, LF and NUL", "RFC9110-003"),
            ([(b"a\n", b"")], "without CR, LF and NUL", "RFC9110-003"),
        )
    ],
    *cases(
        WEBSOCKET,
        [CONNECT],
        sends,
        "websocket.http.response.start",
        ({"status": "401"}, "'status' must be int", "ASGI-HTTP-049"),
        ({"status": 1000}, "'status' must be from 100 to 999", "ASGI-HTTP-063"),
    ),
    *cases(
        WEBSOCKET,
        [CONNECT, DENIAL],
        sends,
        "websocket.http.response.body",
        ({"body": "text"}, "'body' must be bytes", "ASGI-HTTP-069"),
        ({"more_body": 1}, "'more_body' must be bool", "ASGI-HTTP-069"),
    ),
    (LIFESPAN, [COMPLETE], "before 'lifespan.startup'", "ASGI-LS-018"),
    (
        LIFESPAN,
        [STARTUP, COMPLETE, SHUTDOWN, sends("lifespan.shutdown.failed", message=b"")],
        "'message' must be str",
        "ASGI-LS-021",
    ),
    (LIFESPAN, [sends("lifespan.startup.failed")], "before 'lifespan.startup'", "ASGI-LS-018"),
    (LIFESPAN, [STARTUP, COMPLETE, COMPLETE], "where the spec has no message (serving)", "ASGI-LS-018"),
    (LIFESPAN, [STARTUP, STOPPED], "where the spec has 'lifespan.startup.complete' or", "ASGI-LS-026"),
    (LIFESPAN, [STARTUP, COMPLETE, STOPPED], "where the spec has no message (serving)", "ASGI-LS-026"),
    (LIFESPAN, [STARTUP, sends("lifespan.startup.failed", message=b"")], "'message' must be str", "ASGI-LS-021"),
    (LIFESPAN, [STARTUP, COMPLETE, SHUTDOWN, STOPPED, STOPPED], "(done)", "ASGI-LS-026"),
]


@pytest.mark.parametrize(
    ("error", "scope", "conversation", "text", "clause"),
    [*((ServerProtocolError, *each) for each in GIVEN), *((AppProtocolError, *each) for each in SENT)],
)
async def test_a_message_is_refused_where_it_is_said(
    error: type[BridgeError], scope: dict[str, Any], conversation: list[Said], text: str, clause: str
) -> None:
    """The app's call of send, or of receive, raises, with the clause; what came before was legal."""
    *before, last = conversation
    passed = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal passed
        for said in before:
            await (send(said.message) if said.by_app else receive())
            passed += 1
        with pytest.raises(error, match=re.escape(text)) as caught:
            await (send(last.message) if last.by_app else receive())
        assert str(caught.value).startswith("the ASGI app sent " if last.by_app else "the server gave ")
        assert str(caught.value).endswith(f"; {clause})")
        raise caught.value

    given = iter([said.message for said in conversation if not said.by_app])
    sent: list[Message] = []

    async def receive() -> Message:
        return next(given)

    async def send(message: Message) -> None:
        sent.append(message)

    with pytest.raises(error):
        await validator(app)(scope, receive, send)
    assert passed == len(before)
    assert sent == [said.message for said in before if said.by_app]


@pytest.mark.parametrize(
    ("scope", "conversation", "clause"),
    [
        (HTTP, [], "ASGI-HTTP-071"),
        (HTTP, [REQUEST], "ASGI-HTTP-071"),
        (OFFERING, [DEBUG], "ASGI-HTTP-071"),
        (HTTP, [START], "ASGI-HTTP-072"),
        (HTTP, [START, MORE], "ASGI-HTTP-072"),
        (OFFERING, [TRAILED, BODY], "ASGI-HTTP-072"),
        (WEBSOCKET, [], "ASGI-WS-011"),
        (WEBSOCKET, [CONNECT], "ASGI-WS-011"),
        (WEBSOCKET, [CONNECT, DENIAL], "ASGI-WS-026"),
        (LIFESPAN, [], "ASGI-LS-007"),
        (LIFESPAN, [STARTUP], "ASGI-LS-007"),
        (LIFESPAN, [STARTUP, COMPLETE], "ASGI-LS-019"),
        (LIFESPAN, [STARTUP, COMPLETE, SHUTDOWN], "ASGI-LS-026"),
    ],
)
async def test_an_app_must_not_return_too_early(scope: dict[str, Any], conversation: list[Said], clause: str) -> None:
    """A response, the answer to a handshake and a lifespan are to be whole when the app returns."""
    with pytest.raises(AppProtocolError, match=rf"the ASGI app returned too early .*; {clause}\)"):
        await converse(scope, *conversation)


async def test_an_app_must_return_none() -> None:
    """What it returns could reach nobody (ASGI-CORE-005)."""
    with pytest.raises(AppProtocolError, match=r"returned 5, not None .*ASGI-CORE-005"):
        await converse(HTTP, START, BODY, returned=5)


async def test_an_app_must_be_async() -> None:
    """A WSGI app that takes three arguments by chance is told what it lacks (ASGI-CORE-013)."""

    def app(scope: Scope, receive: Receive, send: Send) -> Any:
        return []

    with pytest.raises(AppProtocolError, match=r"its call gave list of length 0 .*ASGI-CORE-013"):
        await request(validator(app))


async def test_the_argument_of_send_is_positional() -> None:
    """So the spec has it for send; the app's own arguments have names, and Daphne uses them (ASGI-CORE-018)."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(TypeError, match="positional"):
            await send(message={"type": "http.response.start", "status": 200})  # type: ignore[call-arg]
        await send(START.message)
        await send(BODY.message)

    async def send(message: Message) -> None:
        pass

    await validator(app)(scope=HTTP, receive=anyio.sleep_forever, send=send)  # type: ignore[call-arg]


@pytest.mark.parametrize("raises", [False, True])
async def test_calls_after_the_return_are_refused(raises: bool) -> None:
    """The connection ends with the app's coroutine, however that ends (ASGI-CORE-005)."""
    kept: list[Callable[[], Awaitable[object]]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        kept.extend([receive, lambda: send(BODY.message)])
        await send(START.message)
        await send(BODY.message)
        if raises:
            raise ValueError("the app's own")

    if raises:
        with pytest.raises(ValueError, match="the app's own"):
            await request(validator(app))
    else:
        await request(validator(app))
    for call, name in zip(kept, ("receive", "send"), strict=True):
        with pytest.raises(AppProtocolError, match=f"called {name} after its return .*ASGI-CORE-005"):
            await call()


async def test_a_report_that_the_app_catches_is_raised_when_it_returns() -> None:
    """An app that swallows errors hides no fault, its own or the server's; of several, the first counts."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in ({"type": "http.response.start"}, {"type": "http.response.body"}):
            with pytest.raises(AppProtocolError):
                await send(message)
        await send(START.message)
        await send(BODY.message)

    with pytest.raises(AppProtocolError, match="without 'status'"):
        await request(validator(app))


async def test_what_the_app_raises_passes() -> None:
    """An error of the app's own is not the validator's business."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("the app's own")

    with pytest.raises(ValueError, match="the app's own"):
        await request(validator(app))


async def test_a_send_may_fail_for_a_client_that_has_left() -> None:
    """OSError is the server's right, and with it the app's to give up (ASGI HTTP spec, Disconnected Client)."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for said in (START, START, MORE):
            with pytest.raises(ClientDisconnected):
                await send(said.message)

    async def receive() -> Message:
        raise AssertionError("not called")

    async def send(message: Message) -> None:
        raise ClientDisconnected

    await validator(app)(HTTP, receive, send)


async def test_a_receive_that_waits_may_get_more_of_the_request_after_the_response() -> None:
    """Only calls that come after the response are to get http.disconnect (ASGI HTTP spec, Disconnect)."""
    waits, responded = anyio.Event(), anyio.Event()
    got: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def watch() -> None:
            got.append(await receive())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            await waits.wait()
            await send(START.message)
            await send(BODY.message)
            responded.set()

    async def receive() -> Message:
        waits.set()
        await responded.wait()
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        pass

    await validator(app)(HTTP, receive, send)
    assert got == [{"type": "http.request"}]


@pytest.mark.parametrize("states", [[True], [False], [True, False]], ids=str)
@pytest.mark.parametrize("scope", [http_scope(state={}), HTTP], ids=["state", "none"])
async def test_state_is_in_both_scopes_or_in_none(states: list[bool], scope: dict[str, Any]) -> None:
    """Requests have a copy of the lifespan's state, while that is running; else nothing is known (ASGI-LS-013)."""
    served = anyio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            assert (await receive())["type"] == "lifespan.startup"
            await send(COMPLETE.message)
            assert (await receive())["type"] == "lifespan.shutdown"
            await send(STOPPED.message)
        else:
            await send(START.message)
            await send(BODY.message)

    async def serve_lifespan(state: bool, started: anyio.Event) -> None:
        given = iter([STARTUP.message, SHUTDOWN.message])

        async def receive() -> Message:
            if started.is_set():
                await served.wait()
            return next(given)

        async def send(message: Message) -> None:
            started.set()

        await validated(LIFESPAN if state else without(LIFESPAN, "state"), receive, send)

    validated = validator(app)
    await request(validated, scope)
    async with anyio.create_task_group() as tasks:
        for state in states:
            started = anyio.Event()
            tasks.start_soon(serve_lifespan, state, started)
            await started.wait()
        try:
            if ("state" in scope) in states:
                await request(validated, scope)
            else:
                with pytest.raises(ServerProtocolError, match=r"only one of lifespan and connection .*ASGI-LS-013"):
                    await request(validated, scope)
        finally:
            served.set()
    await request(validated, scope)


async def test_state_is_of_a_lifespan_that_serves() -> None:
    """A lifespan whose startup is not complete, or that has raised, says nothing of requests (ASGI lifespan spec)."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await request(validated, HTTP)
            await send(COMPLETE.message)
            raise ValueError("the app's own")
        await send(START.message)
        await send(BODY.message)

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        pass

    validated = validator(app)
    with pytest.raises(ValueError, match="the app's own"):
        await validated(LIFESPAN, receive, send)
    await request(validated, HTTP)


async def test_what_is_offered_is_what_the_server_offered() -> None:
    """An app cannot offer itself an extension (ASGI spec, Extensions)."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"] = EXTENSIONS
        await send(TRAILED.message)

    with pytest.raises(AppProtocolError, match="with trailers, an extension that the scope does not offer"):
        await request(validator(app))


def test_clauses_are_those_of_the_catalogue() -> None:
    """What a report cites can be looked up."""
    catalogue = [tomllib.loads(path.read_text()) for path in (TESTS / "conformance" / "clauses").glob("*.toml")]
    sources = [Path(module.__file__ or "").read_text() for module in (shapes, connection)]
    cited = {clause for source in sources for clause in re.findall(r"\b(?:ASGI-[A-Z]+|RFC[0-9]+)-[0-9]{3}\b", source)}
    assert len(cited) > 50
    assert cited <= {clause for clauses in catalogue for clause in clauses}


# --- Real apps, and real servers ----------------------------------------------------------------


def wsgi_app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Echo the body in blocks."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield from iter(lambda: environ["wsgi.input"].read(2), b"")


async def test_wsgi_to_asgi_is_legal() -> None:
    """The adapter, as an app, keeps to the spec."""
    server = await request(validator(WSGIToASGI(wsgi_app)), http_scope("POST"), b"one", b"two", b"three")
    assert server.body == b"onetwothree"


def test_asgi_to_wsgi_is_legal() -> None:
    """The adapter, as a server, keeps to the spec, and an app that reads, streams and goes on runs on it."""
    from tests.validated_app import app

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*ASGI-HTTP-051", ASGIWarning)  # Django's headers
        with ASGIToWSGI(app, lifespan="on") as wsgi:
            for method, path, body, expected in TRAFFIC:
                server = respond(wsgi, http_environ(method, path, body))
                assert (server.status, server.body) == ("200 OK", expected), path
            assert respond(wsgi, http_environ("GET", "/nowhere")).status == "404 Not Found"


TRAFFIC: list[tuple[str, str, bytes | None, bytes]] = [
    ("GET", "/echo", None, b"state"),
    ("HEAD", "/echo", None, b""),
    ("POST", "/echo", b"x" * 100_000, b"x" * 100_000),
    ("GET", "/stream", None, b"01234"),
    ("GET", "/file", None, (TESTS / "validated_app.py").read_bytes()),
    ("GET", "/django/stream", None, b"01234"),
    ("POST", "/django/echo", b"body", b"body"),
    ("POST", "/wsgi/", b"y" * 5000, b"y" * 5000),
]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("uvicorn --lifespan on --port {port}", id="uvicorn"),
        pytest.param("uvicorn --lifespan on --http h11 --ws wsproto --loop asyncio --port {port}", id="uvicorn-h11"),
        pytest.param("hypercorn --bind 127.0.0.1:{port}", id="hypercorn"),
    ],
)
def test_servers_and_frameworks_are_legal(command: str) -> None:
    """Starlette, FastAPI, Django and the adapter, under real servers, give no reason for a report."""
    pytest.importorskip(command.split()[0])
    client = pytest.importorskip("websockets.sync.client")
    from websockets.exceptions import ConnectionClosed, InvalidStatus

    with serving(["{python}", "-m", *command.split(), "tests.validated_app:app"]) as server:
        for method, path, body, expected in TRAFFIC:
            response = server.client.request(method, path, content=None if body is None else iter([body[:1], body[1:]]))
            assert (response.status_code, response.content) == (200, expected), path
        assert server.client.get("/nowhere").status_code == 404
        with server.client.stream("GET", "/endless") as response:
            assert next(response.iter_raw())  # and then leave
        with server.connect() as sock:  # leave within the request
            sock.sendall(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf")
        url = f"ws://127.0.0.1:{server.port}"
        with client.connect(f"{url}/socket", subprotocols=["chat"]) as socket:
            assert (socket.subprotocol, socket.response.headers["x-name"]) == ("chat", "value")
            socket.send("text")
            assert (socket.recv(5), socket.recv(5)) == ("text", b"text")
            socket.send("bye")
            with pytest.raises(ConnectionClosed, match="4000"):
                socket.recv(5)
        with client.connect(f"{url}/socket", subprotocols=["chat"]):
            pass  # leave at once
        for path, status in [("/refused", 403), ("/denied", 401), ("/nowhere", 403)]:
            with pytest.raises(InvalidStatus, match=str(status)):
                client.connect(f"{url}{path}")
        server.stop()
        reports = re.findall(".*(?:ProtocolError|ASGIWarning).*", server.output())
        assert not [report for report in reports if "ASGI-HTTP-051" not in report]  # which is Django's headers
