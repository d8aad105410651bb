import re
from typing import Any

import anyio
import pytest

from bridge.errors import ServerProtocolError
from bridge.types import Message, Receive, Scope, Send
from bridge.validate import ASGIWarning, validator
from tests.fakes import http_scope, request
from tests.validate.conversation import (
    BODY,
    CLOSE,
    COMPLETE,
    DENIAL_MIXED_CASE,
    DENIED,
    HTTP,
    LIFESPAN,
    LINES,
    MIXED_CASE,
    SHUTDOWN,
    START,
    STARTUP,
    STOPPED,
    WEBSOCKET,
    Said,
    converse,
    lifespan_scope,
    sends,
    websocket_scope,
    without,
)

TLS: dict[str, Any] = {"server_cert": None, "tls_version": None, "cipher_suite": None}
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
    (None, "not a dict", "ASGI-CORE-015"),
    ([("type", "http")], "not a dict", "ASGI-CORE-015"),
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
        ({**scope, key: value}, f"'{key}' must ", f"ASGI-{clause}")
        for scope in (HTTP, WEBSOCKET)
        for key, value, clause in BOTH
    ],
    (http_scope(headers=LINES), "no CR, LF or NUL", "RFC9110-003"),
    (websocket_scope(headers=[(b"a\0", b"b")]), "no CR, LF or NUL", "RFC9110-003"),
    (lifespan_scope(asgi=None), "'asgi' must be a dict", "ASGI-LS-004"),
    (lifespan_scope(asgi={}), "'asgi' must have a str 'version'", "ASGI-LS-004"),
    (lifespan_scope(asgi={"version": "3.0", "spec_version": 2}), "have a str 'spec_version' or none", "ASGI-LS-004"),
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
            f"tls extension whose '{key}' must ",
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
    """The server that made a wrong scope gets an error with the clause, and the app is not called."""
    with pytest.raises(ServerProtocolError, match=rf"the server passed .*{re.escape(text)}.*; {clause}") as caught:
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
    """What the spec only recommends to servers is a warning, and so are response headers not in lower case."""
    with pytest.warns(ASGIWarning, match=text):
        assert len(await converse(scope, *conversation)) == len(conversation)


@pytest.mark.parametrize("states", [[True], [False], [True, False]], ids=str)
@pytest.mark.parametrize("scope", [http_scope(state={}), HTTP], ids=["state", "none"])
async def test_state_is_in_both_scopes_or_in_none(states: list[bool], scope: dict[str, Any]) -> None:
    """While a lifespan runs, requests must have `state` if it has (ASGI-LS-013); otherwise nothing is checked."""
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
                with pytest.raises(ServerProtocolError, match=r"only one of the two scopes.*ASGI-LS-013"):
                    await request(validated, scope)
        finally:
            served.set()
    await request(validated, scope)


async def test_state_is_of_a_lifespan_that_serves() -> None:
    """A lifespan that has not completed its startup, or has raised, does not count (ASGI lifespan spec)."""

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
