from typing import Any

import pytest

from bridge.types import Receive, Scope, Send
from bridge.validate import validator
from tests.fakes import ASGIWebSocket, http_scope, request
from tests.validate.conversation import (
    ACCEPT,
    BODY,
    CLOSE,
    COMPLETE,
    CONNECT,
    DEBUG,
    DENIAL,
    DENIED,
    EXTENSIONS,
    FILE,
    GONE,
    HINT,
    HTTP,
    LEFT,
    LIFESPAN,
    MORE,
    OFFERING,
    PUSH,
    REPLY,
    REQUEST,
    SHUTDOWN,
    START,
    STARTUP,
    STOPPED,
    TEXT,
    TRAILED,
    TRAILERS,
    WEBSOCKET,
    Descriptor,
    Said,
    converse,
    gives,
    sends,
    websocket_scope,
    zero_copy,
)

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
    """Each legal message passes as the same object, and nothing raises or warns."""
    scope, conversation = LEGAL[name]
    got = await converse(scope, *conversation)
    assert len(got) == len(conversation)
    assert all(message is said.message for message, said in zip(got, conversation, strict=True))


async def test_iterators_are_still_there_for_who_comes_next() -> None:
    """The app and the server can still read headers that are iterators (ASGI HTTP spec)."""
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
    """Subprotocols may be any iterable (ASGI WebSocket spec, WebSocket Connection Scope)."""
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend(scope["subprotocols"])
        await send({"type": "websocket.close"})

    await ASGIWebSocket(validator(app), websocket_scope(subprotocols=iter(["chat", "v2"]))).run()
    assert seen == ["chat", "v2"]
