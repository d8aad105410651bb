from collections.abc import Callable, Iterable
from typing import Any

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.asgi_server import ASGIServer, ToASGI
from wsgi_asgi_conformance.samples import http_scope
from wsgi_asgi_conformance.types import Environ, StartResponse


@clause("ASGI-HTTP-089")
@pytest.mark.parametrize("method", ["GET", "POST", "PROPFIND"])
def test_the_method_is_request_method(environ_for: Callable[..., Environ], method: str) -> None:
    """REQUEST_METHOD is the scope's method."""
    assert environ_for(method=method)["REQUEST_METHOD"] == method


@clause("ASGI-HTTP-091", "ASGI-HTTP-092")
@pytest.mark.parametrize(
    ("root_path", "path", "script_name", "path_info"),
    [
        ("", "/", "", "/"),
        ("", "/a/b", "", "/a/b"),
        ("/base", "/base/a", "/base", "/a"),
        ("/base", "/base", "/base", ""),
        ("/base", "/base/", "/base", "/"),
        ("/base", "/base/base/a", "/base", "/base/a"),
        ("/a/b", "/a/b/c", "/a/b", "/c"),
        ("/base", "/basement", "/base", "/basement"),
        ("/base", "/a/base/b", "/base", "/a/base/b"),
    ],
)
def test_a_path_is_split_behind_root_path(
    environ_for: Callable[..., Environ], root_path: str, path: str, script_name: str, path_info: str
) -> None:
    """SCRIPT_NAME is root_path; PATH_INFO is the path without that prefix, removed once, at a segment boundary."""
    environ = environ_for(root_path=root_path, path=path)
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == (script_name, path_info)


@clause("ASGI-HTTP-106")
@pytest.mark.parametrize(
    ("text", "native"), [("/\u4e2d", "/\xe4\xb8\xad"), ("/\xe9", "/\xc3\xa9"), ("/\U0001f600", "/\xf0\x9f\x98\x80")]
)
def test_a_path_is_utf8_in_latin1(environ_for: Callable[..., Environ], text: str, native: str) -> None:
    """SCRIPT_NAME and PATH_INFO hold the UTF-8 bytes of the path, one character per byte."""
    environ = environ_for("raw_path", root_path=text, path=f"{text}{text}")
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == (native, native)


@clause("ASGI-HTTP-108")
@pytest.mark.parametrize("path", [b"/\xff".decode("utf-8", "surrogateescape"), "/\ud800"], ids=["escaped", "lone"])
@pytest.mark.parametrize("key", ["path", "root_path"])
def test_a_path_that_is_no_text_does_not_fail(adapt: ToASGI, serve: ASGIServer, key: str, path: str) -> None:
    """A surrogate in the path becomes a byte, a replacement character or a 400 response, not a UnicodeEncodeError."""
    environs: list[Environ] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environs.append(environ)
        start_response("200 OK", [])
        return [b"one"]

    scope = http_scope() | {key: path}
    del scope["raw_path"]
    connection = serve(adapt(app), scope).finish()
    assert connection.status == (200 if environs else 400)
    for environ in environs:
        assert (environ["SCRIPT_NAME"] + environ["PATH_INFO"]).encode("latin-1").startswith(b"/")


@clause("ASGI-HTTP-111")
@pytest.mark.parametrize(
    ("path", "raw_path", "native"),
    [
        ("/\ufffd", b"/%FF", ["/\xff", "/\xef\xbf\xbd"]),
        ("/a\ufffdb/\xe9", b"/a%FFb/%C3%A9", ["/a\xffb/\xc3\xa9", "/a\xef\xbf\xbdb/\xc3\xa9"]),
        ("/new\ufffd", b"/old%FF", ["/new\xef\xbf\xbd"]),
        ("/new", b"/%FF", ["/new"]),
        ("/\xe9", b"/%FF", ["/\xc3\xa9"]),
        ("~\ufffdx", b"~%A9x", ["/~\xa9x", "/~\xef\xbf\xbdx", "~\xa9x", "~\xef\xbf\xbdx"]),
    ],
    ids=["bytes", "bytes-and-text", "rewritten", "rewritten-as-ascii", "rewritten-as-text", "no-slash"],
)
def test_the_bytes_of_a_path_may_come_from_raw_path(
    environ_for: Callable[..., Environ], path: str, raw_path: bytes, native: list[str]
) -> None:
    """The bytes of a path that is not UTF-8 may come from raw_path, unless middleware has changed the path since."""
    assert environ_for(path=path, raw_path=raw_path)["PATH_INFO"] in native


@clause("ASGI-HTTP-093", "ASGI-HTTP-110", "RFC3875-008")
@pytest.mark.parametrize(
    "query",
    [b"a=1&b=2", b"q=%E2%82%AC+x&raw=\xe9", b"a=%2F%25&a=", b"?a#", b"+"],
)
def test_a_query_is_carried_as_it_is(environ_for: Callable[..., Environ], query: bytes) -> None:
    """QUERY_STRING is query_string byte for byte; nothing is unquoted."""
    assert environ_for(query_string=query)["QUERY_STRING"].encode("latin-1") == query


@clause("ASGI-HTTP-025", "ASGI-HTTP-094", "RFC3875-023")
@pytest.mark.parametrize("change", [bytes.lower, bytes.upper, bytes.title], ids=["lower", "upper", "title"])
def test_content_type_and_length_come_from_the_headers(
    adapt: ToASGI, serve: ASGIServer, change: Callable[[bytes], bytes]
) -> None:
    """Content-Type and Content-Length get no HTTP_ prefix, and the case of a header's name does not matter."""
    environs: list[Environ] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environs.append(environ)
        start_response("200 OK", [])
        return [environ["wsgi.input"].read(3)]

    headers = [(b"content-type", b"text/x-a; b=C"), (b"content-length", b"3"), (b"cookie", b"a=1"), (b"host", b"b")]
    scope = http_scope("POST", headers=[(change(name), value) for name, value in headers])
    assert serve(adapt(app), scope, b"one").finish().body == b"one"
    (environ,) = environs
    assert environ["CONTENT_TYPE"] == "text/x-a; b=C"
    assert environ["CONTENT_LENGTH"] == "3"
    assert environ["HTTP_COOKIE"] == "a=1"
    assert environ["HTTP_HOST"] == "b"
    assert not environ.keys() & {"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"}


@clause("ASGI-HTTP-027")
@pytest.mark.parametrize(
    "make",
    [
        lambda headers: tuple(list(header) for header in headers),
        lambda headers: [tuple(header) for header in headers],
        lambda headers: (header for header in headers),
        lambda headers: (iter(header) for header in headers),
    ],
    ids=["tuple-of-lists", "list-of-tuples", "generator", "generator-of-iterators"],
)
def test_headers_may_be_any_iterable(
    environ_for: Callable[..., Environ], make: Callable[[list[tuple[bytes, bytes]]], Any]
) -> None:
    """The headers may be any iterable of pairs, even one that can be read only once."""
    headers = [(b"host", b"example.org"), (b"content-type", b"text/x-a"), (b"x-a", b"1"), (b"x-b", b"2")]
    environ = environ_for(headers=make(headers))
    keys = ("HTTP_HOST", "CONTENT_TYPE", "HTTP_X_A", "HTTP_X_B")
    assert [environ.get(key) for key in keys] == ["example.org", "text/x-a", "1", "2"]


@clause("ASGI-HTTP-096")
@pytest.mark.parametrize(
    ("server", "expected"), [(("a.example", 80), ("a.example", "80")), (("192.0.2.2", 8443), ("192.0.2.2", "8443"))]
)
def test_the_server_is_server_name_and_port(
    environ_for: Callable[..., Environ], server: tuple[str, int], expected: tuple[str, str]
) -> None:
    """SERVER_NAME and SERVER_PORT are the scope's server; the port is a str, even if it is the scheme's default."""
    environ = environ_for(server=server)
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == expected


@clause("ASGI-HTTP-031", "ASGI-HTTP-096")
@pytest.mark.parametrize("headers", [[(b"host", b"example.org")], [(b"host", b"[::1]:")], []], ids=repr)
@pytest.mark.parametrize("server", [None, ("/run/app.sock", None), ["/run/app.sock", None]], ids=repr)
def test_a_server_without_a_port_has_a_name_and_a_port(
    environ_for: Callable[..., Environ], server: Any, headers: list[tuple[bytes, bytes]]
) -> None:
    """For a Unix socket, or if the scope names no server, SERVER_NAME is not empty and SERVER_PORT is a number."""
    environ = environ_for(server=server, headers=headers)
    assert type(environ["SERVER_NAME"]) is str
    assert environ["SERVER_NAME"] != ""
    assert environ["SERVER_PORT"].isdecimal()


@clause("ASGI-HTTP-029", "ASGI-HTTP-097")
@pytest.mark.parametrize(
    ("client", "expected"),
    [
        (("192.0.2.1", 50000), ("192.0.2.1", "50000")),
        (["192.0.2.1", 5], ("192.0.2.1", "5")),
        (("::1", 5), ("::1", "5")),
        (None, None),
    ],
    ids=repr,
)
def test_the_client_is_remote_addr_and_port(
    environ_for: Callable[..., Environ], client: Any, expected: tuple[str, str] | None
) -> None:
    """REMOTE_ADDR is the client's address, and REMOTE_PORT its port; they are missing if the client is unknown."""
    environ = environ_for(client=client)
    if expected is None:
        assert not environ.get("REMOTE_ADDR")
    else:
        assert environ["REMOTE_ADDR"] == expected[0]
        assert environ.get("REMOTE_PORT", expected[1]) == expected[1]


@clause("ASGI-HTTP-012", "ASGI-HTTP-099")
@pytest.mark.parametrize("scheme", ["http", "https", None])
def test_the_scheme_is_url_scheme(environ_for: Callable[..., Environ], scheme: str | None) -> None:
    """wsgi.url_scheme is the scope's scheme, and http by default."""
    environ = environ_for("scheme") if scheme is None else environ_for(scheme=scheme)
    assert environ["wsgi.url_scheme"] == (scheme or "http")


@clause("ASGI-HTTP-098", "RFC3875-017")
@pytest.mark.parametrize(
    ("version", "protocols"),
    [
        ("1.0", ["HTTP/1.0"]),
        ("1.1", ["HTTP/1.1"]),
        ("2", ["HTTP/2.0", "HTTP/2"]),
        ("3", ["HTTP/3.0", "HTTP/3"]),
    ],
)
def test_the_version_is_server_protocol(
    environ_for: Callable[..., Environ], version: str, protocols: list[str]
) -> None:
    """SERVER_PROTOCOL is HTTP/ and the version; a version without a minor number may get the .0 that CGI requires."""
    assert environ_for(http_version=version)["SERVER_PROTOCOL"] in protocols


@clause("ASGI-HTTP-012", "ASGI-HTTP-016", "ASGI-HTTP-019", "ASGI-HTTP-029", "ASGI-HTTP-031", "ASGI-CORE-019")
@pytest.mark.parametrize(
    "missing",
    [
        ["asgi"],
        ["scheme"],
        ["raw_path"],
        ["root_path"],
        ["client"],
        ["server"],
        ["extensions"],
        ["asgi", "scheme", "raw_path", "root_path", "client", "server", "extensions"],
    ],
    ids=",".join,
)
def test_what_is_optional_may_be_missing(environ_for: Callable[..., Environ], missing: list[str]) -> None:
    """A scope without its optional keys is served like any other."""
    environ = environ_for(*missing, path="/a")
    assert environ["wsgi.url_scheme"] == "http"
    assert environ["PATH_INFO"] == "/a"
    assert environ.get("SCRIPT_NAME", "") == ""
    assert environ["SERVER_NAME"] != ""
    assert str(environ["SERVER_PORT"]).isdecimal()


@clause("ASGI-HTTP-016")
def test_raw_path_may_be_none(environ_for: Callable[..., Environ]) -> None:
    """If raw_path is None, PATH_INFO comes from path."""
    assert environ_for(path="/a b\xe9", raw_path=None)["PATH_INFO"] == "/a b\xc3\xa9"


@clause("ASGI-CORE-019")
@pytest.mark.parametrize(
    "asgi", [{}, {"version": "2.0"}, {"version": "3.0"}, {"version": "3.0", "spec_version": "2.9"}], ids=repr
)
def test_any_version_of_asgi_will_do(environ_for: Callable[..., Environ], asgi: dict[str, str]) -> None:
    """The adapter serves a scope of any ASGI version; a missing version means 2.0 and is not an error."""
    assert environ_for(asgi=asgi)["REQUEST_METHOD"] == "GET"


@clause("ASGI-CORE-033", "ASGI-HTTP-032")
@pytest.mark.parametrize("keys", [{"foo": object()}, {"state": {"a": 1}}, {"state": {}}], ids=["foo", "state", "empty"])
def test_a_scope_may_hold_more(environ_for: Callable[..., Environ], keys: dict[str, Any]) -> None:
    """A scope may hold unknown keys and the lifespan's state; a state that the app sees is the server's own object."""
    environ = environ_for(**keys)
    assert environ["PATH_INFO"] == "/"
    if "state" in environ.get("asgi.scope", {}):
        assert environ["asgi.scope"]["state"] is keys["state"]


@clause("ASGI-HTTP-007", "RFC3875-022", "RFC6265-001")
def test_cookies_are_joined_by_semicolons(environ_for: Callable[..., Environ]) -> None:
    """HTTP/2 may split a cookie into several headers; HTTP_COOKIE joins them with semicolons."""
    headers = [(b"cookie", b"a=1"), (b"host", b"example.org"), (b"Cookie", b"b=2; c=3"), (b"cookie", b"d=4")]
    assert environ_for(http_version="2", headers=headers)["HTTP_COOKIE"] == "a=1; b=2; c=3; d=4"
