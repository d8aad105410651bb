"""Logs and error pages reveal no more of a request than behind an ASGI server."""

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.logging import TRACE_LOG_LEVEL
from uvicorn.middleware.message_logger import MessageLoggerMiddleware

from bridge import AppProtocolError
from bridge.types import ASGIApp, Environ, Message, Receive, Scope, Send
from tests.asgi_to_wsgi.apps import Adapt
from tests.fakes import WSGIServer, http_environ, in_thread, respond

SECRETS = {name: f"s3cret-{name}" for name in ("cookie", "authorization", "api-key", "body", "tls")}


def environ_with_secrets() -> Environ:
    return http_environ(
        "POST",
        "/",
        SECRETS["body"].encode(),
        HTTP_COOKIE=f"sid={SECRETS['cookie']}",
        HTTP_AUTHORIZATION=f"Bearer {SECRETS['authorization']}",
        HTTP_X_API_KEY=SECRETS["api-key"],
        SSL_CLIENT_CERT=SECRETS["tls"],
        **{"wsgi.early_hints": lambda headers: None},
    )


def told(text: str) -> list[str]:
    return [secret for secret in SECRETS.values() if secret in text]


def test_log_of_a_scope_that_masks_its_headers_masks_them_all(adapt: Adapt, caplog: pytest.LogCaptureFixture) -> None:
    """uvicorn's trace log masks headers and bodies by their keys, and the environ shows none of them either."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"x"})

    caplog.set_level(TRACE_LOG_LEVEL, "uvicorn.asgi")
    respond(adapt(MessageLoggerMiddleware(app)), environ_with_secrets())
    assert "wsgi_environ" in caplog.text
    assert told(caplog.text) == []


def test_nothing_in_a_scope_tells_of_the_request_by_its_repr(adapt: Adapt) -> None:
    """Only the keys that ASGI defines show values: headers, the query and the tls extension."""
    texts: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        ours = {key: value for key, value in scope.items() if key != "headers"}
        texts.append(repr([ours, receive, send]))
        await receive()
        texts.append(repr([ours, receive, send]))
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"x"})

    respond(adapt(app), environ_with_secrets())
    assert len(texts) == 2
    assert told(" ".join(texts)) == []


def test_starlettes_debug_page_tells_nothing_of_the_request(adapt: Adapt, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the debug page nor the log of an error after the response shows the request's values."""

    async def view(request: Request) -> Response:
        await request.body()
        raise ValueError("oops")

    app = Starlette(debug=True, routes=[Route("/", view, methods=["POST"])])
    server = WSGIServer(adapt(app), {**environ_with_secrets(), "HTTP_ACCEPT": "text/html"})
    in_thread(server.run)
    assert b"ValueError" in server.body
    assert told(f"{server.body!r} {caplog.text}") == []


WRONG: list[Any] = [
    {"body": SECRETS["body"].encode()},
    SECRETS["body"],
    {"type": "http.response.start", "status": 200, "headers": [(b"set-cookie", SECRETS["cookie"])]},
    {"type": "http.response.start", "status": 200, "headers": [(b"set-cookie", f"{SECRETS['cookie']}\n".encode())]},
    {"type": "http.response.start", "status": 200, "headers": [(f"set-cookie: {SECRETS['cookie']}".encode(), b"")]},
    {"type": "http.response.start", "status": 200, "headers": SECRETS["cookie"]},
]


@pytest.mark.parametrize("message", WRONG, ids=repr)
def test_error_for_an_apps_message_tells_nothing_of_it(adapt: Adapt, message: Message) -> None:
    """The error for a message that breaks the spec names its type and its keys, but no values."""

    def sends(message: Message) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(message)

        return app

    with pytest.raises(AppProtocolError) as caught:
        respond(adapt(sends(message)))
    assert told(str(caught.value)) == []
