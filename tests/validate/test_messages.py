import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from bridge import validate
from bridge.errors import AppProtocolError, BridgeError, ServerProtocolError
from bridge.sansio import rules, shapes
from bridge.types import Message, Receive, Scope, Send
from bridge.validate import validator
from tests.fakes import http_scope, request
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
    LINES,
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
    Said,
    gives,
    sends,
    websocket_scope,
    without,
    zero_copy,
)
from wsgi_asgi_conformance.catalogue import read_catalogue

# A scope, a conversation whose last message is wrong, the text of the report, and the clause.
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


# --- What the server does wrong -----------------------------------------------------------------

GIVEN: list[Case] = [
    (HTTP, [Said(False, None)], "sent None instead of a dict", "ASGI-CORE-011"),
    (HTTP, [Said(False, {})], "sent dict with no keys instead of a dict", "ASGI-CORE-011"),
    (HTTP, [Said(False, {"type": 5})], "instead of a dict", "ASGI-CORE-011"),
    (HTTP, [Said(False, {"type": "http.request", b"body": b""})], "instead of a dict with str keys", "ASGI-CORE-011"),
    (HTTP, [gives("http.requests")], "sent 'http.requests', which neither", "ASGI-CORE-039"),
    (HTTP, [gives("websocket.connect")], "sent 'websocket.connect', which neither", "ASGI-CORE-039"),
    (HTTP, [gives("http.response.start", status=200)], "sent 'http.response.start', which neither", "ASGI-CORE-039"),
    (HTTP, [gives("http.request", body="")], "whose 'body' must be bytes, got str of length 0", "ASGI-HTTP-039"),
    (HTTP, [gives("http.request", body=None)], "whose 'body' must be bytes", "ASGI-HTTP-039"),
    (HTTP, [gives("http.request", body=bytearray())], "whose 'body' must be bytes", "ASGI-HTTP-039"),
    (HTTP, [gives("http.request", more_body=1)], "whose 'more_body' must be bool", "ASGI-HTTP-040"),
    (HTTP, [gives("http.request", other=object())], "whose 'other' could not be sent", "ASGI-CORE-012"),
    (HTTP, [gives("http.request", other=2**63)], "whose 'other' could not be sent", "ASGI-CORE-012"),
    (HTTP, [gives("http.request", other=-(2**63) - 1)], "whose 'other' could not be sent", "ASGI-CORE-012"),
    (HTTP, [gives("http.request", other=[{"a": float("nan")}])], "whose 'other' could not be sent", "ASGI-CORE-012"),
    (HTTP, [gives("http.request", other={1: 2})], "whose 'other' could not be sent", "ASGI-CORE-012"),
    (HTTP, [REQUEST, REQUEST], "sent 'http.request' where the spec allows 'http.disconnect'", "ASGI-HTTP-040"),
    (HTTP, [GONE, REQUEST], "sent 'http.request' where the spec allows 'http.disconnect' (gone)", "ASGI-HTTP-040"),
    (HTTP, [START, BODY, REQUEST], "sent 'http.request' after the response", "ASGI-HTTP-079"),
    (WEBSOCKET, [TEXT], "sent 'websocket.receive' before 'websocket.accept'", "ASGI-WS-012"),
    (WEBSOCKET, [LEFT], "where the spec allows 'websocket.connect'", "ASGI-WS-020"),
    (WEBSOCKET, [ACCEPT, TEXT], "where the spec allows 'websocket.connect'", "ASGI-WS-012"),
    (WEBSOCKET, [CONNECT, TEXT], "sent 'websocket.receive' before 'websocket.accept'", "ASGI-WS-012"),
    (WEBSOCKET, [CONNECT, CONNECT], "sent 'websocket.connect' where", "ASGI-WS-010"),
    (WEBSOCKET, [CONNECT, ACCEPT, LEFT, TEXT], "where the spec allows 'websocket.disconnect' (gone)", "ASGI-WS-012"),
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
    (LIFESPAN, [STARTUP, STARTUP], "where the spec allows 'lifespan.shutdown'", "ASGI-LS-016"),
    (LIFESPAN, [STARTUP, COMPLETE, SHUTDOWN, SHUTDOWN], "where the spec allows no message", "ASGI-LS-023"),
    (LIFESPAN, [REQUEST], "which neither this protocol", "ASGI-CORE-039"),
]


# --- What the app does wrong --------------------------------------------------------------------

BASE = http_scope(extensions={})
SENT: list[Case] = [
    (HTTP, [Said(True, None)], "sent None instead of a dict", "ASGI-CORE-011"),
    (HTTP, [Said(True, [])], "instead of a dict", "ASGI-CORE-011"),
    (HTTP, [Said(True, {"type": None})], "instead of a dict", "ASGI-CORE-011"),
    (HTTP, [Said(True, {"type": "http.response.start", 5: 6})], "instead of a dict", "ASGI-CORE-011"),
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
        ({"more_body": None}, "'more_body' must be bool", "ASGI-HTTP-069"),
        ({"more_body": "no"}, "'more_body' must be bool", "ASGI-HTTP-069"),
    ),
    (HTTP, [BODY], "where the spec allows 'http.response.start' or", "ASGI-HTTP-069"),
    (HTTP, [START, START], "where the spec allows 'http.response.body' or", "ASGI-HTTP-049"),
    (HTTP, [START, MORE, START], "(streaming)", "ASGI-HTTP-049"),
    (HTTP, [START, BODY, BODY], "where the spec allows no message (done)", "ASGI-HTTP-069"),
    (OFFERING, [START, MORE, FILE], "sent 'http.response.pathsend' where", "ASGI-EXT-012"),
    (OFFERING, [START, FILE, FILE], "sent 'http.response.pathsend' where", "ASGI-EXT-012"),
    (OFFERING, [START, zero_copy(file=1, more_body=True), FILE], "(streaming)", "ASGI-EXT-012"),
    (OFFERING, [zero_copy(file=1)], "(nothing sent)", "ASGI-EXT-010"),
    (OFFERING, [PUSH], "(nothing sent)", "ASGI-EXT-002"),
    (OFFERING, [START, BODY, PUSH], "(done)", "ASGI-EXT-002"),
    (OFFERING, [START, BODY, HINT], "(done)", "ASGI-EXT-019"),
    (OFFERING, [TRAILED, BODY, HINT], "where the spec allows 'http.response.trailers' (trailers due)", "ASGI-EXT-019"),
    (OFFERING, [START, TRAILERS], "(started)", "ASGI-EXT-025"),
    (OFFERING, [START, BODY, TRAILERS], "(done)", "ASGI-EXT-025"),
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
    (WEBSOCKET, [CONNECT, REPLY], "where the spec allows 'websocket.accept' or 'websocket.close' or", "ASGI-WS-018"),
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
        ({"headers": [(b"sec-websocket-protocol", b"")]}, "which 'subprotocol' is for", "ASGI-WS-015"),
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
            ([(b":status", b"200")], "no pseudo-headers", clauses[1]),
            (LINES, "no CR, LF or NUL", "RFC9110-003"),
            ([(b"a\n", b"")], "no CR, LF or NUL", "RFC9110-003"),
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
    (LIFESPAN, [STARTUP, COMPLETE, COMPLETE], "where the spec allows no message (serving)", "ASGI-LS-018"),
    (LIFESPAN, [STARTUP, STOPPED], "where the spec allows 'lifespan.startup.complete' or", "ASGI-LS-026"),
    (LIFESPAN, [STARTUP, COMPLETE, STOPPED], "where the spec allows no message (serving)", "ASGI-LS-026"),
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
    """The app's call of send or receive raises with the clause, after the earlier messages have passed."""
    *before, last = conversation
    passed = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal passed
        for said in before:
            await (send(said.message) if said.by_app else receive())
            passed += 1
        with pytest.raises(error, match=re.escape(text)) as caught:
            await (send(last.message) if last.by_app else receive())
        assert str(caught.value).startswith("the ASGI app sent " if last.by_app else "the server sent ")
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


async def test_what_is_offered_is_what_the_server_offered() -> None:
    """An app cannot offer itself an extension (ASGI spec, Extensions)."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"] = EXTENSIONS
        await send(TRAILED.message)

    with pytest.raises(AppProtocolError, match="with trailers, an extension that the scope does not offer"):
        await request(validator(app))


def test_clauses_are_those_of_the_catalogue() -> None:
    """Each clause that a report may name is in the catalogue."""
    files = [Path(rules.__file__), Path(shapes.__file__), *Path(validate.__file__).parent.glob("*.py")]
    sources = [file.read_text() for file in files]
    cited = {clause for source in sources for clause in re.findall(r"\b(?:ASGI-[A-Z]+|RFC[0-9]+)-[0-9]{3}\b", source)}
    assert len(cited) > 50
    assert cited <= read_catalogue().keys()
