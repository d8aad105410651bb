import io
from typing import Any
from wsgiref.validate import validator

import pytest
from flask import Flask, url_for
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from bridge import ASGIToWSGI
from bridge.migration import environ_for
from bridge.types import Environ, StartResponse
from tests.fakes import http_environ, http_scope, request, respond, websocket_scope

HEADERS = [
    (b"host", b"example.org"),
    (b"cookie", b"session=a"),
    (b"content-length", b"7"),
    (b"expect", b"100-continue"),
]


def test_the_environ_is_whole_and_has_no_body() -> None:
    """A WSGI app may be called with it."""

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["HTTP_COOKIE"].encode(), environ["wsgi.input"].read(10)]

    environ = environ_for(http_scope("POST", "/a", query_string=b"b=c", headers=HEADERS))
    assert "CONTENT_LENGTH" not in environ
    assert "HTTP_EXPECT" not in environ
    assert environ["QUERY_STRING"] == "b=c"
    assert respond(validator(app), environ).body == b"session=a"


def test_each_call_returns_a_new_dict() -> None:
    """A key that one caller adds does not show up for the next."""
    scope = http_scope()
    environ_for(scope)["added"] = True
    assert "added" not in environ_for(scope)


def test_a_websocket_has_one_too() -> None:
    """It describes the handshake request."""
    environ = environ_for(websocket_scope("/ws"))
    assert (environ["REQUEST_METHOD"], environ["HTTP_UPGRADE"]) == ("GET", "websocket")


def flask_app() -> Flask:
    app = Flask("old")
    app.add_url_rule("/page", "page", lambda: "")
    return app


def show(request: Request) -> JSONResponse:
    """Answer with what the old app reads from the request's environ."""
    environ = environ_for(request.scope)
    with flask_app().request_context(environ):
        urls = [url_for("page"), url_for("page", _external=True)]
    return JSONResponse([environ["SCRIPT_NAME"], environ["PATH_INFO"], *urls])


NEW = Starlette(routes=[Route("/a", show), Mount("/in", routes=[Route("/a", show)])])


@pytest.mark.parametrize("path", ["/a", "/in/a"])
@pytest.mark.parametrize("root_path", ["", "/app"])
async def test_urls_are_those_of_the_old_app(path: str, root_path: str) -> None:
    """This holds inside a Mount too, whose prefix does not belong to the old app."""
    scope = http_scope(path=root_path + path, root_path=root_path)
    page = f"{root_path}/page"
    expected: list[Any] = [root_path, path, page, f"http://example.org{page}"]
    server = await request(NEW, scope)
    assert JSONResponse(expected).body == server.body


@pytest.mark.parametrize("path", ["/a", "/in/a"])
@pytest.mark.parametrize("root_path", ["", "/app"])
def test_urls_are_those_of_the_old_app_under_a_wsgi_server(path: str, root_path: str) -> None:
    """The environ is the server's own, except for the body."""
    with ASGIToWSGI(NEW) as app:
        server = respond(app, http_environ("GET", path, SCRIPT_NAME=root_path))
    page = f"{root_path}/page"
    assert JSONResponse([root_path, path, page, f"http://example.org{page}"]).body == server.body


def test_the_servers_environ_stays_as_it_is() -> None:
    """Its body is still there to be read."""
    recorded = http_environ("POST", "/a", b"body", **{"wsgi.input_terminated": True, "server.own": object()})
    environ = environ_for({**http_scope("POST", "/a"), "wsgi_environ": recorded})
    assert environ["wsgi.input"].read() == b""
    assert environ["server.own"] is recorded["server.own"]
    assert "wsgi.input_terminated" not in environ
    assert isinstance(recorded["wsgi.input"], io.BytesIO)
    assert recorded["wsgi.input"].read() == b"body"
    assert recorded["CONTENT_LENGTH"] == "4"
