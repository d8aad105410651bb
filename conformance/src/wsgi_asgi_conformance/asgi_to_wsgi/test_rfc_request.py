from typing import Any

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.asgi_to_wsgi.recording import Recording, scope_of
from wsgi_asgi_conformance.samples import http_environ
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIServer


@clause("RFC3875-002")
@pytest.mark.parametrize("length", ["abc", "-1", "+3", " 3", "3 ", "3_0", "3.0", "0x3", "3,3", "\u0663"], ids=ascii)
def test_a_content_length_that_is_no_number_is_refused(adapt: ToWSGI, serve: WSGIServer, length: str) -> None:
    """The client gets a 400, or the server an error, and nothing is read."""
    app = Recording()
    request = serve(adapt(app), http_environ("POST", CONTENT_LENGTH=length), b"one", more_body=True).until_ended()
    assert isinstance(request.error, Exception) or request.status.startswith("400 ")
    assert request.values("read") == []
    assert app.received == []


@clause("RFC3875-005", "RFC3875-006")
@pytest.mark.parametrize(
    "path",
    ["/FooBar/fOO", "//a//b/", "/a/../b/./c", "/c;x=1,y/d", "/a%2Fb", "/a\\b", "/~x", "/a b", "/%", "/.", "/a//"],
)
def test_a_path_is_not_normalised(adapt: ToWSGI, serve: WSGIServer, path: str) -> None:
    """Case, empty segments, dot segments and signs stay as the server passes them."""
    assert scope_of(adapt, serve, http_environ("GET", path))["path"] == path


@clause("RFC3875-008")
@pytest.mark.parametrize(
    "query", [b"q=%E2%82%AC+x&raw=\xe9", b"a=1&a=2;b", b"a+b=%2B%zz", b"?a=?#", b"\xe4\xb8\xad"], ids=repr
)
def test_a_query_is_carried_as_it_is(adapt: ToWSGI, serve: WSGIServer, query: bytes) -> None:
    """Each byte of the query stays as the client wrote it, encoded or not."""
    scope = scope_of(adapt, serve, http_environ(QUERY_STRING=query.decode("latin-1")))
    assert scope["query_string"] == query


@clause("RFC3875-011")
@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::1"])
@pytest.mark.parametrize("port", [None, "", "x", "-1", "50000.0", "9" * 5000, "50000"], ids=lambda port: repr(port)[:9])
def test_the_client_is_known_without_its_port(adapt: ToWSGI, serve: WSGIServer, address: str, port: str | None) -> None:
    """REMOTE_ADDR counts even if REMOTE_PORT, which no RFC defines, is missing or invalid."""
    client = scope_of(adapt, serve, http_environ(REMOTE_ADDR=address, REMOTE_PORT=port))["client"]
    assert client[0] == address
    assert type(client[1]) is int
    assert port != "50000" or client[1] == 50000


@clause("RFC3875-011")
@pytest.mark.parametrize("address", [None, ""])
def test_a_client_without_an_address_is_none(adapt: ToWSGI, serve: WSGIServer, address: str | None) -> None:
    """On a Unix socket there may be no REMOTE_ADDR, and a port alone tells nothing."""
    assert scope_of(adapt, serve, http_environ(REMOTE_ADDR=address)).get("client") is None


@clause("RFC3875-016")
@pytest.mark.parametrize(
    ("variables", "server"),
    [
        ({"SERVER_NAME": "example.org", "SERVER_PORT": "8080"}, [("example.org", 8080)]),
        ({"SERVER_PORT": ""}, [None, ("192.0.2.2", None)]),
        ({"SERVER_PORT": None}, [None, ("192.0.2.2", None)]),
        ({"SERVER_PORT": "unix"}, [None, ("192.0.2.2", None)]),
        ({"SERVER_NAME": "unix:/run/x.sock", "SERVER_PORT": ""}, [None, ("unix:/run/x.sock", None)]),
        ({"SERVER_NAME": "", "SERVER_PORT": ""}, [None]),
        ({"SERVER_NAME": None, "SERVER_PORT": None}, [None]),
    ],
    ids=repr,
)
def test_the_server_is_of_its_name_and_port(
    adapt: ToWSGI, serve: WSGIServer, variables: dict[str, Any], server: list[object]
) -> None:
    """The adapter does not fail if SERVER_PORT is empty or not a number, as on a Unix socket."""
    value = scope_of(adapt, serve, http_environ(**variables)).get("server")
    assert (tuple(value) if isinstance(value, list) else value) in server


@clause("RFC3875-018")
@pytest.mark.parametrize(
    ("protocol", "versions"),
    [
        ("HTTP/1.0", {"1.0"}),
        ("HTTP/1.1", {"1.1"}),
        ("http/1.1", {"1.1"}),
        ("HTTP/2", {"2"}),
        ("HTTP/2.0", {"2"}),
        ("HTTP/3", {"3"}),
        ("HTTP/3.0", {"3"}),
        ("INCLUDED", {"1.0", "1.1"}),
        ("", {"1.0", "1.1"}),
        (None, {"1.0", "1.1"}),
    ],
)
def test_the_protocol_is_a_version(adapt: ToWSGI, serve: WSGIServer, protocol: str | None, versions: set[str]) -> None:
    """ASGI has one spelling for each version, and CGI has protocols other than HTTP."""
    assert scope_of(adapt, serve, http_environ(SERVER_PROTOCOL=protocol))["http_version"] in versions


@clause("RFC3875-026")
def test_variables_become_headers(adapt: ToWSGI, serve: WSGIServer) -> None:
    """The adapter removes HTTP_, and writes the rest in lower case with hyphens."""
    variables = {"HTTP_X_FOO_BAR": "a, b", "HTTP_COOKIE": "a=1; b=2", "HTTP_EMPTY": "", "HTTPS": "on", "X_HTTP_Y": "1"}
    headers = scope_of(adapt, serve, http_environ(**variables))["headers"]
    expected = {(b"host", b"example.org"), (b"x-foo-bar", b"a, b"), (b"cookie", b"a=1; b=2"), (b"empty", b"")}
    assert {tuple(header) for header in headers} == expected
    assert len(headers) == 4


@clause("RFC3875-026")
def test_content_length_and_type_are_there_once(adapt: ToWSGI, serve: WSGIServer) -> None:
    """If a server also sets HTTP_CONTENT_LENGTH, which CGI does not have, that does not become a second header."""
    variables = {"CONTENT_TYPE": "a/b", "HTTP_CONTENT_TYPE": "c/d", "HTTP_CONTENT_LENGTH": "5"}
    headers = scope_of(adapt, serve, http_environ("POST", "/", b"one", **variables))["headers"]
    content = sorted(tuple(header) for header in headers if header[0].startswith(b"content"))
    assert content == [(b"content-length", b"3"), (b"content-type", b"a/b")]


@clause("RFC9112-005")
@pytest.mark.parametrize("target", ["http://example.org/a%20b?x=1", "HTTP://example.org:81/a%20b?x=1"])
@pytest.mark.parametrize("name", ["RAW_URI", "REQUEST_URI", None])
@pytest.mark.parametrize("cut", [True, False], ids=["path", "url"])
def test_a_target_may_be_a_url(adapt: ToWSGI, serve: WSGIServer, target: str, name: str | None, cut: bool) -> None:
    """gunicorn and waitress cut the path out of it; uWSGI, gevent and wsgiref do not; the target is the same."""
    path_info = "/a b" if cut else target.partition("?")[0].replace("%20", " ")
    kept = {name: target} if name else {}
    scope = scope_of(adapt, serve, http_environ("GET", path_info, QUERY_STRING="x=1", **kept))
    assert scope["path"] == "/a b"
    assert scope.get("raw_path") in (None, b"/a%20b")
    assert scope["query_string"] == b"x=1"


@clause("RFC9112-006")
@pytest.mark.parametrize("host", ["a.example,b.example", "a.example, b.example"])
def test_hosts_that_differ_are_refused(adapt: ToWSGI, serve: WSGIServer, host: str) -> None:
    """Most servers join repeated headers, and two hosts joined are not a valid Host."""
    app = Recording()
    request = serve(adapt(app), http_environ(HTTP_HOST=host)).until_ended()
    assert isinstance(request.error, Exception) or request.status.startswith("400 ")
    assert app.scopes == []


@clause("RFC9112-002")
@pytest.mark.parametrize(
    ("method", "path", "paths"),
    [("GET", "", ("", "/")), ("OPTIONS", "*", ("*", "", "/")), ("OPTIONS", "", ("", "/", "*"))],
)
def test_an_empty_path_is_usable(
    adapt: ToWSGI, serve: WSGIServer, method: str, path: str, paths: tuple[str, ...]
) -> None:
    """Neither a request for the mount's root without a slash nor `OPTIONS *` fails."""
    scope = scope_of(adapt, serve, http_environ(method, path))
    assert (scope["path"] in paths, scope["root_path"]) == (True, "")
