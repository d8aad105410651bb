import copy
from typing import Any

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.asgi_to_wsgi.recording import Recording, scope_of
from wsgi_asgi_conformance.exchange import joined
from wsgi_asgi_conformance.samples import http_environ
from wsgi_asgi_conformance.types import Environ, Scope
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIServer

# The keys that the spec defines; an adapter may add others.
_CONNECTION = ("type", "asgi", "http_version", "scheme", "headers", "client", "server", "extensions")
_TARGET = ("method", "path", "raw_path", "query_string", "root_path")


def of_spec(scope: Scope) -> dict[str, Any]:
    return {key: copy.deepcopy(scope[key]) for key in _CONNECTION + _TARGET if key in scope}


@clause("P3333-055")
@pytest.mark.parametrize(
    ("name", "key", "allowed"),
    [
        ("SCRIPT_NAME", "root_path", [""]),
        ("PATH_INFO", "path", ["", "/", "/app", "/app/"]),
        ("QUERY_STRING", "query_string", [b""]),
        ("REMOTE_ADDR", "client", [None]),
        ("SERVER_PROTOCOL", "http_version", ["1.0", "1.1"]),
        ("SERVER_SOFTWARE", "path", ["/app/x"]),
        ("wsgi.multithread", "path", ["/app/x"]),
    ],
)
def test_a_variable_may_be_missing(
    adapt: ToWSGI, serve: WSGIServer, name: str, key: str, allowed: list[object]
) -> None:
    """The adapter serves a request without the variable, with the spec's default."""
    environ = http_environ("GET", "/x", SCRIPT_NAME="/app", QUERY_STRING="a=1", SERVER_SOFTWARE="x/1")
    del environ[name]
    assert scope_of(adapt, serve, environ).get(key) in allowed


@clause("P3333-055")
@pytest.mark.parametrize("name", ["CONTENT_TYPE", "HTTP_HOST"])
def test_a_header_may_be_missing(adapt: ToWSGI, serve: WSGIServer, name: str) -> None:
    """A header that the client did not send is absent from the scope, not empty."""
    environ = http_environ("POST", "/", b"one", CONTENT_TYPE="text/plain")
    del environ[name]
    left = {b"host", b"content-type", b"content-length"} - {
        name.removeprefix("HTTP_").lower().replace("_", "-").encode()
    }
    assert {header for header, _ in scope_of(adapt, serve, environ)["headers"]} == left


@clause("P3333-056")
@pytest.mark.parametrize("name", ["SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "CONTENT_TYPE", "CONTENT_LENGTH"])
def test_an_empty_variable_is_an_absent_one(adapt: ToWSGI, serve: WSGIServer, name: str) -> None:
    """An empty variable and a missing one give the same scope, without an empty content-type or content-length."""
    scopes = []
    for value in (None, ""):
        app = Recording()
        serve(adapt(app), http_environ(**{name: value})).finish()
        assert joined(message["body"] for message in app.received) == b""
        scopes.append(of_spec(app.scopes[0]))
    assert scopes[0] == scopes[1]
    assert scopes[0]["headers"] == [(b"host", b"example.org")]


@clause("P3333-167")
def test_the_scope_is_of_the_environ_that_the_adapter_gets(adapt: ToWSGI, serve: WSGIServer) -> None:
    """The scope shows the path, headers and everything else as WSGI middleware has rewritten them."""
    adapter = adapt(app := Recording())

    def middleware(environ: Environ, start_response: Any) -> Any:
        environ["SCRIPT_NAME"] += "/cut"
        environ["PATH_INFO"] = "/rest"
        environ["HTTP_X_USER"] = "someone"
        environ["wsgi.url_scheme"] = "https"
        environ["REMOTE_ADDR"] = "198.51.100.7"
        del environ["HTTP_HOST"]
        return adapter(environ, start_response)

    serve(middleware, http_environ("GET", "/cut/rest", RAW_URI="/cut/rest", REQUEST_URI="/old")).finish()
    (scope,) = app.scopes
    assert (scope["root_path"], scope["path"], scope["scheme"]) == ("/cut", "/cut/rest", "https")
    assert scope["headers"] == [(b"x-user", b"someone")]
    assert scope["client"][0] == "198.51.100.7"
    assert scope.get("raw_path") in (None, b"/cut/rest")


@clause("CONV-004")
@pytest.mark.parametrize("name", ["RAW_URI", "REQUEST_URI"])
@pytest.mark.parametrize("query", ["", "?a=%20"])
def test_raw_path_is_from_the_request_target(adapt: ToWSGI, serve: WSGIServer, name: str, query: str) -> None:
    """If the server passes the request's target, raw_path is the path in it, as the client wrote it."""
    scope = scope_of(adapt, serve, http_environ("GET", "/caf\xc3\xa9/a b", **{name: f"/caf%C3%A9/a%20b{query}"}))
    if scope.get("raw_path") is None:
        pytest.skip(f"the adapter does not look at {name}")
    assert scope["raw_path"] == b"/caf%C3%A9/a%20b"


@clause("CONV-004")
@pytest.mark.parametrize("name", ["RAW_URI", "REQUEST_URI"])
@pytest.mark.parametrize("target", ["/old", "", "*", "http://example.org/new/", 7], ids=repr)
def test_a_request_target_that_disagrees_is_left_out(
    adapt: ToWSGI, serve: WSGIServer, name: str, target: object
) -> None:
    """If middleware has rewritten PATH_INFO, the target belongs to another path, and raw_path does not use it."""
    scope = scope_of(adapt, serve, http_environ("GET", "/new", **{name: target}))
    assert scope["path"] == "/new"
    assert scope.get("raw_path") in (None, b"/new")
