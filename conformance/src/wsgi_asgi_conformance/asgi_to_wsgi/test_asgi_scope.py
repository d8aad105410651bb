import threading
from typing import Any

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import http_app
from wsgi_asgi_conformance.asgi_to_wsgi.recording import END, START, scope_of, until_set
from wsgi_asgi_conformance.samples import http_environ
from wsgi_asgi_conformance.types import Environ, Receive, Scope, Send
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIServer


@clause("ASGI-HTTP-003")
def test_requests_at_the_same_time_have_scopes_of_their_own(adapt: ToWSGI, serve: WSGIServer) -> None:
    """Each of eight concurrent requests gets the response that was made from its own scope."""
    scopes: list[Scope] = []
    all_open = threading.Event()

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        if len(scopes) == 8:
            all_open.set()
        await until_set(all_open, serve.deadline)
        await send({**START, "headers": [(b"x-path", scope["path"].encode())]})
        await send({**END, "body": scope["path"].encode()})

    adapter = adapt(app)
    requests = [serve(adapter, http_environ("GET", f"/{number}")) for number in range(8)]
    for number, request in enumerate(requests):
        assert request.finish().body == f"/{number}".encode()
        assert request.headers == [("x-path", f"/{number}")]
    assert len({id(scope) for scope in scopes}) == 8


@clause("ASGI-HTTP-008")
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "CONNECT"])
def test_the_type_is_http(adapt: ToWSGI, serve: WSGIServer, method: str) -> None:
    """An ordinary request, whatever its method, has a scope of the type "http"."""
    app_scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            app_scopes.append(scope)
        if scope["type"] == "http":
            await send(START)
            await send(END)

    serve(adapt(app), http_environ(method)).finish()
    assert [scope["type"] for scope in app_scopes] == ["http"]


@clause("ASGI-HTTP-009")
@pytest.mark.parametrize(
    ("protocol", "version"),
    [
        ("HTTP/1.0", "1.0"),
        ("HTTP/1.1", "1.1"),
        ("HTTP/2.0", "2"),
        ("HTTP/2", "2"),
        ("HTTP/3.0", "3"),
        ("HTTP/3", "3"),
    ],
)
def test_http_version_has_a_minor_number_in_version_1_alone(
    adapt: ToWSGI, serve: WSGIServer, protocol: str, version: str
) -> None:
    """Servers write HTTP/2 in two ways; ASGI has only "2"."""
    assert scope_of(adapt, serve, http_environ(SERVER_PROTOCOL=protocol))["http_version"] == version


@clause("ASGI-HTTP-010", "ASGI-HTTP-090")
@pytest.mark.parametrize(
    ("request_method", "method"),
    [("GET", "GET"), ("PATCH", "PATCH"), ("get", "GET"), ("M-Search", "M-SEARCH")],
)
def test_method_is_request_method_in_upper_case(
    adapt: ToWSGI, serve: WSGIServer, request_method: str, method: str
) -> None:
    """Any REQUEST_METHOD becomes the method, in upper case as ASGI requires."""
    assert scope_of(adapt, serve, http_environ(request_method))["method"] == method


@clause("ASGI-HTTP-011")
@pytest.mark.parametrize(("url_scheme", "scheme"), [("http", "http"), ("https", "https"), ("", "http")])
def test_scheme_is_not_empty(adapt: ToWSGI, serve: WSGIServer, url_scheme: str, scheme: str) -> None:
    """The scheme is wsgi.url_scheme; if the server leaves that empty, ASGI's default applies."""
    environ = http_environ(**{"wsgi.url_scheme": url_scheme})
    assert scope_of(adapt, serve, environ).get("scheme", "http") == scheme


@clause("ASGI-HTTP-028")
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"REMOTE_ADDR": "192.0.2.7", "REMOTE_PORT": "1234"}, ["192.0.2.7", 1234]),
        ({"REMOTE_ADDR": "2001:db8::7", "REMOTE_PORT": "1234"}, ["2001:db8::7", 1234]),
        ({"REMOTE_ADDR": None, "REMOTE_PORT": None}, None),
        ({"REMOTE_ADDR": "", "REMOTE_PORT": ""}, None),
    ],
    ids=["IPv4", "IPv6", "none", "empty"],
)
def test_client_is_a_host_and_a_port(
    adapt: ToWSGI, serve: WSGIServer, variables: Environ, expected: list[Any] | None
) -> None:
    """The client is REMOTE_ADDR as a str and REMOTE_PORT as an int, and None without them."""
    client = scope_of(adapt, serve, http_environ(**variables)).get("client")
    assert client == expected if client is None else list(client) == expected


@clause("ASGI-HTTP-028")
@pytest.mark.parametrize("port", [None, "", "many"])
def test_client_without_a_port_is_none_or_has_a_number(adapt: ToWSGI, serve: WSGIServer, port: str | None) -> None:
    """Most servers do not set REMOTE_PORT, which CGI does not have; the port is a number even then."""
    client = scope_of(adapt, serve, http_environ(REMOTE_PORT=port)).get("client")
    assert client is None or (client[0] == "192.0.2.1" and type(client[1]) is int)


@clause("ASGI-HTTP-030")
@pytest.mark.parametrize("name", ["192.0.2.2", "example.org", "::1"])
def test_server_is_a_host_and_a_port(adapt: ToWSGI, serve: WSGIServer, name: str) -> None:
    """The server is SERVER_NAME as a str and SERVER_PORT as an int."""
    server = scope_of(adapt, serve, http_environ(SERVER_NAME=name, SERVER_PORT="8080"))["server"]
    assert list(server) == [name, 8080]
    assert type(server[1]) is int


@clause("ASGI-HTTP-030")
def test_server_has_no_brackets(adapt: ToWSGI, serve: WSGIServer) -> None:
    """CGI writes an IPv6 address in brackets, and ASGI writes it without."""
    server = scope_of(adapt, serve, http_environ(SERVER_NAME="[::1]", SERVER_PORT="8080"))["server"]
    assert list(server) == ["::1", 8080]


@clause("ASGI-HTTP-030")
@pytest.mark.parametrize("port", [None, "", "0"])
def test_server_on_a_unix_socket_has_no_port(adapt: ToWSGI, serve: WSGIServer, port: str | None) -> None:
    """For a path without a port, the server is [path, None], or None."""
    server = scope_of(adapt, serve, http_environ(SERVER_NAME="/run/app.sock", SERVER_PORT=port)).get("server")
    assert server is None or list(server) == ["/run/app.sock", None]
