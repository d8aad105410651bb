"""The scope, the context and early hints."""

import contextvars
from typing import Any

import pytest

from bridge import AppProtocolError
from bridge.types import Receive, Scope, Send
from tests.asgi_to_wsgi.apps import Adapt
from tests.asgi_to_wsgi.http.apps import answers, body, reads, start
from tests.fakes import WSGIServer, http_environ, in_thread, respond


def scope_of(adapt: Adapt, **environ: Any) -> Scope:
    seen: list[Scope] = []
    respond(adapt(reads([], seen)), http_environ(**environ))
    return seen[0]


def test_the_scope_has_what_asgi_wants(adapt: Adapt) -> None:
    """The http scope is a new dict with the right values and the environ."""
    scope = scope_of(adapt)
    assert type(scope) is dict
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.3"}
    assert scope["wsgi_environ"]["PATH_INFO"] == "/"
    assert scope["extensions"] == {}
    assert "state" not in scope


def test_a_content_length_that_is_no_number_is_answered_400(adapt: Adapt) -> None:
    """A Content-Length that is not a number is answered 400 in plain words, and the app does not run."""
    server = respond(adapt(answers(ZeroDivisionError())), http_environ("POST", CONTENT_LENGTH="+5"))
    assert server.status == "400 Bad Request"
    assert b"Content-Length" in server.body


def test_the_callers_context_is_the_apps(adapt: Adapt) -> None:
    """The app sees the context variables of the WSGI side, and what it sets stays its own."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(variable.get())
        variable.set("the app's")
        await answers(start(), body())(scope, receive, send)

    adapter = adapt(app)

    def run() -> None:
        variable.set("the caller's")
        WSGIServer(adapter).run()
        seen.append(variable.get())

    in_thread(run)
    assert seen == ["the caller's", "the caller's"]


def test_early_hints_go_through_the_servers_callable(adapt: Adapt) -> None:
    """http.response.early_hint is offered where the environ has wsgi.early_hints, which gets the links."""
    hints: list[Any] = []
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload", b"</b.js>"]})
        with pytest.raises(AppProtocolError):
            await send({"type": "http.response.early_hint", "links": [b"a\r\nb"]})
        await answers(start(), body(b"x"))(scope, receive, send)

    assert respond(adapt(app), http_environ(**{"wsgi.early_hints": hints.append})).body == b"x"
    assert hints == [[("Link", "</a.css>; rel=preload"), ("Link", "</b.js>")]]
    assert "http.response.early_hint" in seen[0]["extensions"]


def test_links_that_are_none_are_the_apps_error(adapt: Adapt) -> None:
    """The links of http.response.early_hint are an iterable of bytes (docs/extensions, Early Hints)."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.early_hint", "links": 5})

    with pytest.raises(AppProtocolError, match="'links' must be an iterable of bytes, got int"):
        respond(adapt(app), http_environ(**{"wsgi.early_hints": list}))


def test_early_hints_in_mid_body_go_nowhere(adapt: Adapt) -> None:
    """Once the headers are sent they are dropped, because a 103 would become part of the body."""
    hints: list[Any] = []
    hint = {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]}
    app = answers(start(), body(b"one", True), hint, body(b"two"))
    assert respond(adapt(app), http_environ(**{"wsgi.early_hints": hints.append})).body == b"onetwo"
    assert hints == []


def test_early_hints_that_were_not_offered_are_refused(adapt: Adapt) -> None:
    """Without wsgi.early_hints send() raises, and the app can still respond."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(AppProtocolError, match="early_hint"):
            await send({"type": "http.response.early_hint", "links": [b"</a.css>"]})
        await answers(start(), body(b"x"))(scope, receive, send)

    assert respond(adapt(app)).body == b"x"
