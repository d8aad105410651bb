import threading
from typing import Any

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import http_app
from wsgi_asgi_conformance.asgi_to_wsgi.recording import (
    END,
    START,
    block,
    is_refused,
    scope_of,
    sending,
    skip_without,
    until_set,
)
from wsgi_asgi_conformance.samples import http_environ
from wsgi_asgi_conformance.types import Message, Receive, Scope, Send
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIServer

# What the adapter does not offer


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("http.response.push", marks=clause("ASGI-EXT-001")),
        pytest.param("http.response.trailers", marks=clause("ASGI-EXT-023")),
        pytest.param("http.response.debug", marks=clause("ASGI-EXT-028")),
    ],
)
@pytest.mark.parametrize("protocol", ["HTTP/1.1", "HTTP/2.0"])
def test_what_wsgi_has_no_way_for_is_not_offered(adapt: ToWSGI, serve: WSGIServer, name: str, protocol: str) -> None:
    """The adapter does not offer push, debug, or trailers that the server cannot send."""
    environ = http_environ(SERVER_PROTOCOL=protocol, HTTP_TE="trailers")
    assert name not in (scope_of(adapt, serve, environ).get("extensions") or {})


@pytest.mark.parametrize(
    "message",
    [
        pytest.param({"type": "http.response.push", "path": "/", "headers": []}, marks=clause("ASGI-EXT-001")),
        pytest.param({"type": "http.response.zerocopysend", "file": 0}, marks=clause("ASGI-EXT-007")),
        pytest.param({"type": "http.response.pathsend", "path": __file__}, marks=clause("ASGI-EXT-015")),
        pytest.param({"type": "http.response.early_hint", "links": [b"</a>"]}, marks=clause("ASGI-EXT-021")),
        pytest.param({"type": "http.response.debug", "info": {}}, marks=clause("ASGI-EXT-028")),
    ],
    ids=lambda message: message["type"],
)
@pytest.mark.parametrize("place", [0, 1, 2], ids=["before the start", "after the start", "in the body"])
def test_what_is_not_offered_is_refused(adapt: ToWSGI, serve: WSGIServer, message: dict[str, Any], place: int) -> None:
    """send() raises for an extension that was not offered; the response has none of it, and the app may continue."""
    if message["type"] in (scope_of(adapt, serve).get("extensions") or {}):
        pytest.skip(f"the adapter offers {message['type']}")
    errors: list[Exception] = []
    messages: list[Message] = [START, block(b"one"), END]
    messages.insert(place, message)
    request = serve(adapt(sending(*messages, errors=errors))).finish()
    assert (request.status, request.headers, request.body) == ("200 OK", [], b"one")
    assert len(errors) == 1


# Early Hints


class Calls:
    """A server's callable, such as wsgi.early_hints, which records its arguments."""

    def __init__(self) -> None:
        self.called_with: list[Any] = []

    def __call__(self, headers: Any) -> None:
        self.called_with.append(headers)


@clause("ASGI-EXT-018")
@pytest.mark.parametrize("facility", [None, "not callable"])
def test_early_hints_need_a_server_that_sends_them(adapt: ToWSGI, serve: WSGIServer, facility: str | None) -> None:
    """The adapter offers early hints only if the server has a callable for them."""
    environ = http_environ(**{"wsgi.early_hints": facility})
    assert "http.response.early_hint" not in (scope_of(adapt, serve, environ).get("extensions") or {})


@clause("ASGI-EXT-018", "ASGI-EXT-019", "ASGI-EXT-020")
@pytest.mark.parametrize("place", [0, 1, 2], ids=["before the start", "after the start", "in the body"])
def test_early_hints_are_given_to_the_server(adapt: ToWSGI, serve: WSGIServer, place: int) -> None:
    """The links of each message become Link headers of one hint; the response stays the same, and nothing raises."""
    skip_without(adapt, serve, "http.response.early_hint", **{"wsgi.early_hints": Calls()})
    hints, errors = Calls(), list[Exception]()
    messages: list[Message] = [START, block(b"one"), END]
    messages[place:place] = [
        {"type": "http.response.early_hint", "links": (link for link in [b"</a>; rel=preload", b"</b>"])},
        {"type": "http.response.early_hint", "links": (b"</c>",)},
        {"type": "http.response.early_hint", "links": []},
    ]
    request = serve(adapt(sending(*messages, errors=errors)), http_environ(**{"wsgi.early_hints": hints})).finish()
    assert errors == []
    assert (request.status, request.headers, request.body) == ("200 OK", [], b"one")
    given = [headers for headers in hints.called_with if headers]
    # Within the body the adapter may ignore them, because the server has sent its headers by then.
    all_of_them = [[("Link", "</a>; rel=preload"), ("Link", "</b>")], [("Link", "</c>")]]
    assert given == all_of_them or (place == 2 and given == [])


# HTTP Trailers

TRAILING = {**START, "trailers": True}
TRAILERS = {"type": "http.response.trailers", "headers": [(b"x-trailer", b"1")]}


@clause("ASGI-HTTP-060", "ASGI-EXT-024", "ASGI-EXT-026")
@pytest.mark.parametrize("accepts", ["trailers", None])
def test_trailers_complete_a_response_that_promised_them(adapt: ToWSGI, serve: WSGIServer, accepts: str | None) -> None:
    """The last trailers end the response and later messages are ignored, although WSGI cannot send trailers."""
    errors: list[Exception] = []
    more = {**TRAILERS, "more_trailers": True}
    app = sending(TRAILING, block(b"one"), END, more, TRAILERS, {**END, "body": b"two"}, errors=errors)
    request = serve(adapt(app), http_environ(HTTP_TE=accepts)).finish()
    assert (request.status, request.headers, request.body) == ("200 OK", [], b"one")
    assert [error for error in errors if not isinstance(error, OSError)] == []


@clause("ASGI-HTTP-060", "ASGI-EXT-024")
def test_a_response_that_promised_trailers_waits_for_them(adapt: ToWSGI, serve: WSGIServer) -> None:
    """The response ends neither with its last body nor with trailers that say more_trailers."""
    go_on = threading.Event()

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(TRAILING)
        await send({**END, "body": b"one"})
        await send({**TRAILERS, "more_trailers": True})
        await until_set(go_on, serve.deadline)
        await send(TRAILERS)

    request = serve(adapt(app)).until_logged("block")
    go_on.wait(0.02)  # enough time for an adapter that does not wait
    assert "exhausted" not in [entry.kind for entry in request.log]
    go_on.set()
    assert request.finish().body == b"one"


@clause("ASGI-HTTP-060")
def test_trailers_that_do_not_come_are_an_error(adapt: ToWSGI, serve: WSGIServer) -> None:
    """If an app promised trailers and returns without sending them, its response is cut off."""
    request = serve(adapt(sending(TRAILING, block(b"one"), END, errors=[])))
    assert is_refused(request)
    assert "exhausted" not in [entry.kind for entry in request.log]


SEND_TRAILERS = ("wsgi.ext.http.send_trailers", "gunicorn.http2.send_trailers")


@clause("ASGI-EXT-023")
@pytest.mark.parametrize("key", SEND_TRAILERS)
def test_trailers_need_a_server_that_sends_them(adapt: ToWSGI, serve: WSGIServer, key: str) -> None:
    """The adapter does not offer trailers if the server's value for them is not callable."""
    environ = http_environ(HTTP_TE="trailers", **{key: "not callable"})
    assert "http.response.trailers" not in (scope_of(adapt, serve, environ).get("extensions") or {})


@clause("ASGI-EXT-023", "ASGI-EXT-024", "ASGI-EXT-026")
@pytest.mark.parametrize("accepts", ["trailers", "deflate;q=0.5, trailers", "deflate", None])
@pytest.mark.parametrize("key", SEND_TRAILERS)
def test_trailers_are_given_to_the_server(adapt: ToWSGI, serve: WSGIServer, key: str, accepts: str | None) -> None:
    """The server's callable gets all trailers in one call if the client accepts any; the response stays the same."""
    skip_without(adapt, serve, "http.response.trailers", **{key: Calls(), "HTTP_TE": "trailers"})
    trailers, errors = Calls(), list[Exception]()
    more = {**TRAILERS, "headers": [(b"x-first", b"0")], "more_trailers": True}
    app = sending(TRAILING, block(b"one"), END, more, TRAILERS, errors=errors)
    request = serve(adapt(app), http_environ(HTTP_TE=accepts, **{key: trailers})).finish()
    assert errors == []
    assert (request.status, request.headers, request.body) == ("200 OK", [], b"one")
    taken = accepts is not None and "trailers" in accepts
    assert trailers.called_with == ([[("x-first", "0"), ("x-trailer", "1")]] if taken else [])


@clause("ASGI-EXT-025")
@pytest.mark.parametrize(
    "before",
    [[START, block(b"one")], [TRAILING, block(b"one")], []],
    ids=["not promised", "before the end of the body", "before the start"],
)
def test_trailers_out_of_place_are_refused(adapt: ToWSGI, serve: WSGIServer, before: list[Message]) -> None:
    """send() raises for trailers out of place, and the response continues as if they had not been sent."""
    errors: list[Exception] = []
    after: list[Message] = [END] if before else [START, block(b"one"), END]
    if TRAILING in before:
        after.append(TRAILERS)
    request = serve(adapt(sending(*before, TRAILERS, *after, errors=errors))).finish()
    assert (request.headers, request.body) == ([], b"one")
    assert len(errors) == 1
