import re
import warnings
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.validate import validator

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import wsgi_response
from wsgi_asgi_conformance.asgi_server import ASGIServer, ToASGI
from wsgi_asgi_conformance.samples import http_scope
from wsgi_asgi_conformance.types import Environ, RawHeaders, StartResponse


@clause("RFC3875-001")
def test_content_length_is_that_of_the_body(environ_for: Callable[..., Environ]) -> None:
    """CONTENT_LENGTH is the client's number, and is missing or empty if the client sent none."""
    assert environ_for(headers=[(b"content-length", b"0")])["CONTENT_LENGTH"] == "0"
    assert environ_for(headers=[(b"content-length", b"10")])["CONTENT_LENGTH"] == "10"
    assert environ_for().get("CONTENT_LENGTH", "") == ""


@clause("RFC3875-001", "RFC9112-003")
@pytest.mark.parametrize("length", [None, b"3"], ids=["chunked", "chunked-and-a-length"])
def test_content_length_does_not_bound_a_chunked_body(adapt: ToASGI, serve: ASGIServer, length: bytes | None) -> None:
    """For a chunked body, CONTENT_LENGTH is missing or exact, whatever the client claims, or the request is refused."""
    seen: list[tuple[str, bytes]] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append((environ.get("CONTENT_LENGTH", ""), environ["wsgi.input"].read()))
        start_response("200 OK", [])
        return []

    headers = [(b"host", b"example.org"), (b"transfer-encoding", b"chunked")]
    headers += [] if length is None else [(b"content-length", length)]
    connection = serve(adapt(app), http_scope("POST", headers=headers), b"01234", b"56789").until_ended()
    if seen or length is None:
        connection.finish()
        assert seen in ([("", b"0123456789")], [("10", b"0123456789")])
    else:
        assert connection.error is not None or connection.status == 400


@clause("RFC3875-003")
def test_content_type_is_the_clients(environ_for: Callable[..., Environ]) -> None:
    """CONTENT_TYPE is what the client sent, and the adapter invents none."""
    headers = [(b"content-length", b"3"), (b"content-type", b"Text/X-A; b=C")]
    assert environ_for(method="POST", headers=headers)["CONTENT_TYPE"] == "Text/X-A; b=C"
    assert environ_for(method="POST", headers=headers[:1]).get("CONTENT_TYPE", "") == ""


@clause("RFC3875-004", "RFC3875-013", "RFC3875-014")
@pytest.mark.parametrize(
    ("root_path", "path", "whole"),
    [
        ("", "/", "/"),
        ("/", "/foo", "/foo"),
        ("/", "/", "/"),
        ("/base/", "/base/foo", "/base/foo"),
        ("base", "/base/foo", "/base/foo"),
        ("/base", "/base", "/base"),
        ("/base", "/basement", "/base/basement"),  # from a server that has stripped root_path
        ("/base", "/other", "/base/other"),
        ("/base/", "/", "/base/"),
    ],
)
def test_script_name_and_path_info_are_the_path(
    environ_for: Callable[..., Environ], root_path: str, path: str, whole: str
) -> None:
    """Both are empty or start with a slash, SCRIPT_NAME does not end with one, and joined they are the whole path."""
    environ = environ_for(root_path=root_path, path=path)
    script_name, path_info = environ["SCRIPT_NAME"], environ["PATH_INFO"]
    assert re.fullmatch("(/.*[^/])?", script_name)
    assert re.fullmatch("(/.*)?", path_info)
    assert script_name + path_info == whole


@clause("RFC3875-004")
def test_path_info_is_not_percent_encoded(environ_for: Callable[..., Environ]) -> None:
    """The path is percent-decoded exactly once."""
    assert environ_for(path="/a b%20c", raw_path=b"/a%20b%2520c")["PATH_INFO"] == "/a b%20c"


@clause("RFC3875-005", "RFC3875-006")
@pytest.mark.parametrize("path", ["/FooBar", "//a//b/../c;x=1", "/./a/..", "/a/b//", "/a/b;c=d;e"])
def test_a_path_is_left_as_it_is(environ_for: Callable[..., Environ], path: str) -> None:
    """The adapter does not change case, repeated slashes, dots or parameters of a path."""
    assert environ_for(path=path)["PATH_INFO"] == path


@clause("RFC3875-006")
def test_an_encoded_slash_is_what_the_server_says(environ_for: Callable[..., Environ]) -> None:
    """An encoded slash stays as the server passed it on, decoded or not."""
    assert environ_for(path="/a/b", raw_path=b"/a%2Fb")["PATH_INFO"] == "/a/b"
    assert environ_for(path="/a%2Fb", raw_path=b"/a%2Fb")["PATH_INFO"] == "/a%2Fb"


@clause("RFC3875-007")
def test_query_string_is_there_without_a_query(environ_for: Callable[..., Environ]) -> None:
    """QUERY_STRING exists and is empty if there is no query."""
    assert environ_for()["QUERY_STRING"] == ""


@clause("RFC3875-009", "RFC3875-010")
@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "::1"])
def test_remote_addr_is_the_clients_address(environ_for: Callable[..., Environ], address: str) -> None:
    """REMOTE_ADDR is the bare address, and REMOTE_HOST, if it is set, is the same: the adapter looks up no name."""
    environ = environ_for(client=(address, 50000))
    assert environ["REMOTE_ADDR"] == address
    assert environ.get("REMOTE_HOST", address) == address


@clause("RFC3875-012")
@pytest.mark.parametrize("method", ["GET", "M-SEARCH", "Custom", "get"])
def test_a_method_keeps_its_case(environ_for: Callable[..., Environ], method: str) -> None:
    """REQUEST_METHOD is the client's method in its own case, even if it is not a standard one."""
    assert environ_for(method=method)["REQUEST_METHOD"] == method


@clause("RFC3875-015")
@pytest.mark.parametrize(
    ("server", "names"),
    [(("example.org", 80), ["example.org"]), (("::1", 8080), ["::1", "[::1]"]), (("192.0.2.2", 443), ["192.0.2.2"])],
)
def test_server_name_is_a_host_and_server_port_a_number(
    environ_for: Callable[..., Environ], server: tuple[str, int], names: list[str]
) -> None:
    """SERVER_NAME is the host, in brackets or not if it is an IPv6 address, and SERVER_PORT is set for any port."""
    environ = environ_for(server=server)
    assert environ["SERVER_NAME"] in names
    assert environ["SERVER_PORT"] == str(server[1])


@clause("RFC3875-019")
@pytest.mark.parametrize("name", ["SERVER_SOFTWARE", "GATEWAY_INTERFACE"])
def test_what_cgi_adds_is_text(environ_for: Callable[..., Environ], name: str) -> None:
    """SERVER_SOFTWARE and GATEWAY_INTERFACE are non-empty strings if they are set."""
    value = environ_for().get(name, "there is none")
    assert type(value) is str
    assert value != ""


@clause("RFC3875-020")
@pytest.mark.parametrize(("name", "key"), [(b"x-Foo-bar", "HTTP_X_FOO_BAR"), (b"accept", "HTTP_ACCEPT")])
def test_a_header_is_an_http_variable(environ_for: Callable[..., Environ], name: bytes, key: str) -> None:
    """The variable of a header is HTTP_ and the header's name, in upper case and with _ instead of -."""
    assert environ_for(headers=[(name, b"a")])[key] == "a"


@clause("RFC3875-021", "RFC9110-001", "RFC9110-002")
@pytest.mark.parametrize("other", [b"accept", b"Accept", b"ACCEPT"])
def test_repeated_headers_are_joined_in_order(environ_for: Callable[..., Environ], other: bytes) -> None:
    """Repeated headers, in whatever case, are joined with commas in their order."""
    headers = [(b"accept", b"b"), (b"x-a", b"1"), (other, b"a"), (b"accept", b"c")]
    environ = environ_for(headers=headers)
    assert re.fullmatch("b, ?a, ?c", environ["HTTP_ACCEPT"])
    assert [key for key in environ if key.lower() == "http_accept"] == ["HTTP_ACCEPT"]


@clause("RFC3875-024")
@pytest.mark.parametrize(
    ("headers", "lengths"),
    [
        ([(b"content-length", b"5"), (b"content-length", b"5")], ["5"]),
        ([(b"content-length", b"5"), (b"Content-Length", b"5")], ["5"]),
        ([(b"content-length", b"5"), (b"content-length", b"6")], []),
    ],
    ids=["same", "same-in-another-case", "different"],
)
def test_repeated_content_length_is_one_number(
    adapt: ToASGI, serve: ASGIServer, headers: RawHeaders, lengths: list[str]
) -> None:
    """Equal lengths are merged or refused; different ones are refused, with status 400 or an exception."""
    seen: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(environ["CONTENT_LENGTH"])
        start_response("200 OK", [])
        return []

    connection = serve(adapt(app), http_scope("POST", headers=headers), b"01234").until_ended()
    if seen:
        assert seen == lengths
    else:
        assert connection.error is not None or connection.status == 400


@clause("RFC3875-024")
def test_repeated_content_type_is_one(environ_for: Callable[..., Environ]) -> None:
    """Of two Content-Types one is used, because joined they would be no valid type."""
    headers = [(b"content-type", b"text/x-a"), (b"content-type", b"text/x-b")]
    assert environ_for(method="POST", headers=headers)["CONTENT_TYPE"] in ("text/x-a", "text/x-b")


@clause("RFC3875-025")
def test_authorization_gets_through(environ_for: Callable[..., Environ]) -> None:
    """The app gets Authorization, because WSGI apps authenticate their own users; it may also get Connection."""
    headers = [(b"authorization", b"Basic YTpi"), (b"connection", b"keep-alive")]
    environ = environ_for(headers=headers)
    assert environ["HTTP_AUTHORIZATION"] == "Basic YTpi"
    assert environ.get("HTTP_CONNECTION", "keep-alive") == "keep-alive"


@clause("RFC9112-006")
def test_hosts_that_differ_are_refused(adapt: ToASGI, serve: ASGIServer) -> None:
    """A request with two different Hosts is refused, because nobody knows which one a proxy in front used."""
    hosts: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        hosts.append(environ["HTTP_HOST"])
        start_response("200 OK", [])
        return []

    headers = [(b"host", b"a.example"), (b"Host", b"b.example")]
    connection = serve(adapt(app), http_scope(headers=headers)).until_ended()
    assert connection.error is not None or connection.status == 400
    assert hosts == []


@clause("CONV-003")
@pytest.mark.parametrize("name", ["RAW_URI", "REQUEST_URI"])
def test_the_target_is_given_as_it_was(environ_for: Callable[..., Environ], name: str) -> None:
    """RAW_URI and REQUEST_URI are the undecoded path and query, and are missing if the scope has no raw_path."""
    target = "/a%20b?x=1"
    assert environ_for(path="/a b", raw_path=b"/a%20b", query_string=b"x=1").get(name, target) == target
    assert name not in environ_for("raw_path", path="/a b", query_string=b"x=1")


@clause("CONV-005")
@pytest.mark.parametrize("reverse", [False, True], ids=["spoof-first", "spoof-last"])
def test_an_underscore_does_not_pass_for_a_hyphen(environ_for: Callable[..., Environ], reverse: bool) -> None:
    """A header with an underscore does not add to the proxy's header with a hyphen."""
    headers = [(b"x_forwarded_for", b"198.51.100.1"), (b"x-forwarded-for", b"192.0.2.9")]
    environ = environ_for(headers=headers[::-1] if reverse else headers)
    assert environ["HTTP_X_FORWARDED_FOR"] == "192.0.2.9"


@clause("CONV-006")
@pytest.mark.parametrize("name", [b"proxy", b"Proxy", b"PROXY"])
def test_proxy_is_not_passed_on(environ_for: Callable[..., Environ], name: bytes) -> None:
    """The Proxy header is dropped, because HTTP clients in the app would take HTTP_PROXY for their proxy."""
    assert "HTTP_PROXY" not in environ_for(headers=[(name, b"http://evil.example")])


@clause("CONV-007")
@pytest.mark.parametrize(
    "name",
    [
        b"script-name",
        b"remote-addr",
        b"request-method",
        b"server-name",
        b"wsgi.input",
        b"wsgi.url-scheme",
        b"content_length",
        b"content_type",
        b"https",
    ],
)
def test_a_header_sets_no_other_variable(environ_for: Callable[..., Environ], name: bytes) -> None:
    """Apart from Content-Type and Content-Length, a header sets only a variable that starts with HTTP_."""
    of_the_request = ("asgi.scope", "wsgi.input", "wsgi.early_hints", "bridge.disconnected")
    plain, spoofed = environ_for(headers=[]), environ_for(headers=[(name, b"spoofed")])
    names = {key for key in spoofed if not key.startswith("HTTP_") and key not in of_the_request}
    assert names == {key for key in plain if key not in of_the_request}
    assert "spoofed" not in [spoofed[key] for key in names]
    assert spoofed["wsgi.input"] != "spoofed"


@clause("CONV-008")
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"method": "POST", "headers": [(b"content-type", b"text/x-a"), (b"content-length", b"3")]},
        {"method": "POST", "headers": [(b"transfer-encoding", b"chunked")], "query_string": b"a=%20&b=\xe9"},
        {"root_path": "/base", "path": "/base"},
        {"root_path": "/base/", "path": "/base/\xe9"},
        {"scheme": "https", "http_version": "2", "extensions": {"tls": {"tls_version": 0x0304}}},
        {"server": ("/run/app.sock", None), "client": None, "headers": []},
        {"server": ("::1", 80), "client": ("::1", 5)},
        {"extensions": {"http.response.early_hint": {}, "http.response.pathsend": {}}, "state": {"a": 1}},
    ],
    ids=["plain", "body", "chunked", "mounted", "mounted-slash", "tls", "unix-socket", "ipv6", "extensions"],
)
def test_environ_passes_wsgirefs_checks(adapt: ToASGI, serve: ASGIServer, keys: dict[str, Any]) -> None:
    """wsgiref.validate finds no error in environ, and warns of nothing."""
    app = validator(wsgi_response([b"one"], headers=[("Content-Type", "text/plain")]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert serve(adapt(app), http_scope(**keys)).finish().body == b"one"


@clause("RFC9112-005")
@pytest.mark.parametrize("url", ["http://example.org", "HTTP://example.org:81", "http://[::1]:81"])
@pytest.mark.parametrize("raw_path", [None, b"/a%20b", b"%s/a%%20b"], ids=["no-raw-path", "path", "url"])
def test_a_target_may_be_a_url(environ_for: Callable[..., Environ], url: str, raw_path: bytes | None) -> None:
    """PATH_INFO is the path of a target that is a URL, because most servers pass on the whole URL."""
    raw = raw_path and raw_path.replace(b"%s", url.encode()).replace(b"%%", b"%")
    assert environ_for(path=f"{url}/a b", raw_path=raw)["PATH_INFO"] == "/a b"


@clause("RFC9112-001")
@pytest.mark.parametrize("root_path", ["", "/base"])
@pytest.mark.parametrize(
    ("path", "path_infos"),
    [
        ("*", ["*", ""]),
        ("", ["", "/"]),
        ("a/b", ["/a/b", "a/b"]),
        ("http://example.org/a", ["/http://example.org/a", "http://example.org/a", "/a"]),
    ],
)
def test_a_target_may_be_no_path(
    environ_for: Callable[..., Environ], root_path: str, path: str, path_infos: list[str]
) -> None:
    """OPTIONS * and other targets that do not start with a slash cause no error, and SCRIPT_NAME is root_path."""
    environ = environ_for("raw_path", method="OPTIONS", path=path, root_path=root_path)
    assert environ["SCRIPT_NAME"] == root_path
    assert environ["PATH_INFO"] in path_infos
