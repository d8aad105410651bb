"""The extensions that an ASGI server offers, and those that it does not."""

from pathlib import Path

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.asgi_servers.test_scope import OK, scope_of
from wsgi_asgi_conformance.asgi_servers.test_send import BODY, tries
from wsgi_asgi_conformance.notes import Notes
from wsgi_asgi_conformance.serving import RunningServer
from wsgi_asgi_conformance.types import Message, Receive, Scope, Send

FILE = Path(__file__)
MESSAGES: dict[str, Message] = {
    "http.response.push": {"type": "http.response.push", "path": "/a", "headers": []},
    "http.response.zerocopysend": {"type": "http.response.zerocopysend", "file": 0},
    "http.response.pathsend": {"type": "http.response.pathsend", "path": str(FILE)},
    "http.response.early_hint": {"type": "http.response.early_hint", "links": [b"</a>; rel=preload"]},
    "http.response.trailers": {"type": "http.response.trailers", "headers": [(b"x-a", b"1")]},
    "http.response.debug": {"type": "http.response.debug", "info": {}},
}


def offers(server: RunningServer, name: str) -> bool:
    """Return whether the server's scopes offer an extension."""
    return name in (scope_of(server).get("extensions") or {})


def skip_without(server: RunningServer, name: str) -> None:
    """Skip the test of an extension that the server does not offer."""
    if not offers(server, name):
        pytest.skip(f"{name} is not offered")


async def uses(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    """Send the message of an extension after the start, whether or not it is offered."""
    message = MESSAGES[scope["query_string"].decode()]
    before = message["type"].endswith(("early_hint", "debug"))
    if before:
        await tries(send, notes, message)
    await send(OK)
    if not before:
        await tries(send, notes, message)
    await send({"type": BODY, "body": b"one"})


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("http.response.push", marks=clause("ASGI-EXT-001")),
        pytest.param("http.response.zerocopysend", marks=clause("ASGI-EXT-007")),
        pytest.param("http.response.pathsend", marks=clause("ASGI-EXT-015")),
        pytest.param("http.response.early_hint", marks=clause("ASGI-EXT-021")),
        pytest.param("http.response.trailers", marks=clause("ASGI-EXT-025")),
        pytest.param("http.response.debug", marks=clause("ASGI-EXT-028")),
    ],
)
def test_an_extension_that_is_not_offered_is_refused(server: RunningServer, name: str) -> None:
    """send() raises for the message of an extension that is not offered, and nothing of it reaches the client."""
    if offers(server, name):
        pytest.skip(f"{name} is offered")
    exchange = server.exchange(uses).request(target=f"/?{name}")
    raw = exchange.client.rest()
    assert exchange.value("tried") != "taken"
    assert b"preload" not in raw


async def sends_path(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await send({**OK, "headers": [(b"x-one", b"1")]})
    await send({"type": "http.response.pathsend", "path": str(FILE)})


@clause("ASGI-EXT-011", "ASGI-EXT-012", "ASGI-EXT-014")
def test_a_path_is_sent(server: RunningServer) -> None:
    """A file that is sent by its path is the whole body, and the server adds no Content-Type."""
    skip_without(server, "http.response.pathsend")
    response, _ = server.get(sends_path)
    assert (response.body, response.complete) == (FILE.read_bytes(), True)
    assert response.values("content-type") == []


async def sends_no_path(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await send(OK)
    await tries(send, notes, {"type": "http.response.pathsend", "path": str(FILE.parent / "nothing")})


@clause("ASGI-EXT-013")
def test_a_path_that_does_not_exist_is_no_whole_response(server: RunningServer) -> None:
    """If the path does not exist, send() raises, or the client gets an error or an incomplete response."""
    skip_without(server, "http.response.pathsend")
    exchange = server.exchange(sends_no_path).request()
    try:
        response = exchange.response()
    except AssertionError:
        return
    assert response.status >= 400 or not response.complete or exchange.value("tried") != "taken"


async def hints(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    for link in (b"</a.css>; rel=preload", b"</b.css>; rel=preload"):
        await send({"type": "http.response.early_hint", "links": [link]})
    await send(OK)
    await send({"type": BODY, "body": b"one"})


@clause("ASGI-EXT-018", "ASGI-EXT-019", "ASGI-EXT-020")
def test_hints_come_before_the_response(server: RunningServer) -> None:
    """Early hints are sent as 103 responses with their links, before the response."""
    skip_without(server, "http.response.early_hint")
    exchange = server.exchange(hints).request()
    raw = exchange.client.rest()
    interim = raw.partition(b" 200 ")[0]
    assert interim.count(b" 103 ") == interim.count(b"rel=preload")
    assert raw.endswith((b"one", b"one\r\n0\r\n\r\n"))


async def trailers(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await send({**OK, "trailers": True})
    await send({"type": BODY, "body": b"one"})
    notes("body sent")
    await notes.wait_async("go on")
    await send({"type": "http.response.trailers", "headers": [(b"x-one", b"1")], "more_trailers": True})
    await send({"type": "http.response.trailers", "headers": [(b"x-two", b"2")]})


@clause("ASGI-EXT-024", "ASGI-HTTP-060")
def test_trailers_end_the_response(server: RunningServer) -> None:
    """The response is not complete until its trailers have been sent."""
    skip_without(server, "http.response.trailers")
    exchange = server.exchange(trailers).request(headers=[("TE", "trailers")])
    exchange.client.until(b"one")
    assert b"0\r\n\r\n" not in exchange.client.unread
    exchange.notes.open("go on")
    rest = exchange.client.rest().lower()
    assert b"x-one: 1" in rest
    assert b"x-two: 2" in rest


@clause("ASGI-EXT-026")
def test_trailers_go_to_those_who_asked_for_them(server: RunningServer) -> None:
    """A client that did not send "TE: trailers" gets no trailers."""
    skip_without(server, "http.response.trailers")
    exchange = server.exchange(trailers)
    exchange.notes.open("go on")
    exchange.request()
    assert b"x-one" not in exchange.client.rest().lower()


@clause("ASGI-EXT-023")
def test_trailers_are_offered_or_refused(server: RunningServer) -> None:
    """A server that offers trailers sends them."""
    if offers(server, "http.response.trailers"):
        exchange = server.exchange(trailers)
        exchange.notes.open("go on")
        exchange.request(headers=[("TE", "trailers")])
        assert b"x-two" in exchange.client.rest().lower()
