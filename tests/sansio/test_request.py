import io
import sys
import time
from typing import Any
from wsgiref.util import request_uri
from wsgiref.validate import check_environ  # type: ignore[attr-defined]  # public, but not to typeshed

import pytest
from hypothesis import HealthCheck, settings

from bridge.errors import ServerProtocolError
from bridge.sansio.announcement import announcement_from_scope
from bridge.sansio.request import (
    environ_from_scope,
    http_version_from_server_protocol,
    scope_from_environ,
    server_protocol_from_http_version,
)
from bridge.sansio.request_headers import (
    with_header_pairs,
)
from bridge.types import Environ
from tests.sansio.requests import environ_with, scope_with

# The same examples in every run, without a time limit.
PROPERTY = settings(derandomize=True, deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])

LATIN_1_TEXT = bytes(range(0xA1, 0x100))


# --- Protocol -----------------------------------------------------------------------------------

PROTOCOLS = [("1.0", "HTTP/1.0"), ("1.1", "HTTP/1.1"), ("2", "HTTP/2.0"), ("3", "HTTP/3.0")]


@pytest.mark.parametrize(("version", "protocol"), PROTOCOLS)
def test_protocol_is_the_same_both_ways(version: str, protocol: str) -> None:
    """CGI requires a minor version, which ASGI does not have from 2 on (RFC 3875 4.1.16; ASGI HTTP spec, Scope)."""
    assert server_protocol_from_http_version(version) == protocol
    assert http_version_from_server_protocol(protocol) == version


@pytest.mark.parametrize("version", ["1.2", "4"])
def test_protocol_of_an_unknown_version_is_still_of_http(version: str) -> None:
    """An unknown version is passed on as HTTP/x (PEP 3333, environ Variables)."""
    assert server_protocol_from_http_version(version) == f"HTTP/{version}"


@pytest.mark.parametrize(
    ("protocol", "version"),
    [
        ("HTTP/2", "2"),
        ("HTTP/3", "3"),
        ("http/1.0", "1.0"),
        ("HTTP/1", "1.0"),
        ("INCLUDED", "1.1"),
        ("", "1.1"),
        (None, "1.1"),
        ("HTTP/", "1.1"),
        ("HTTP/x.y", "1.1"),
        ("HTTP/11", "1.1"),
        ("HTTP/1.10", "1.1"),
        ("HTTPS/1.0", "1.1"),
        ("xHTTP/1.0", "1.1"),
    ],
)
def test_protocol_is_read_in_whatever_form_it_comes(protocol: object, version: str) -> None:
    """SERVER_PROTOCOL may be spelt with or without a minor version, be INCLUDED, or be absent (RFC 3875 4.1.16)."""
    assert http_version_from_server_protocol(protocol) == version


def test_protocol_http_0_9_is_read_as_a_version_that_asgi_knows() -> None:
    """ASGI has the versions 1.0, 1.1, 2 and later; a server that still speaks 0.9 says so (ASGI HTTP spec, Scope)."""
    assert http_version_from_server_protocol("HTTP/0.9") in ("1.0", "1.1")


# --- The whole ----------------------------------------------------------------------------------

WHOLE: list[tuple[dict[str, Any], Environ]] = [
    (
        {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "PATCH",
            "scheme": "http",
            "path": "/base/caf\xe9",
            "raw_path": b"/base/caf%C3%A9",
            "query_string": b"q=%E2%82%AC+x&raw=\xe9",
            "root_path": "/base",
            "headers": [(b"host", b"example.org"), (b"content-type", b"text/plain"), (b"content-length", b"3")],
            "client": ("192.0.2.1", 50000),
            "server": ("192.0.2.2", 8080),
            "extensions": {},
        },
        {
            "REQUEST_METHOD": "PATCH",
            "SCRIPT_NAME": "/base",
            "PATH_INFO": "/caf\xc3\xa9",
            "QUERY_STRING": "q=%E2%82%AC+x&raw=\xe9",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.url_scheme": "http",
            "HTTP_HOST": "example.org",
            "CONTENT_TYPE": "text/plain",
            "CONTENT_LENGTH": "3",
            "RAW_URI": "/base/caf%C3%A9?q=%E2%82%AC+x&raw=\xe9",
            "REQUEST_URI": "/base/caf%C3%A9?q=%E2%82%AC+x&raw=\xe9",
            "SERVER_NAME": "192.0.2.2",
            "SERVER_PORT": "8080",
            "REMOTE_ADDR": "192.0.2.1",
            "REMOTE_PORT": "50000",
        },
    ),
    (
        {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "2",
            "method": "HEAD",
            "scheme": "https",
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "root_path": "",
            "headers": [],
            "client": None,
            "server": ("example.org", 443),
            "extensions": {
                "tls": {
                    "server_cert": None,
                    "client_cert_chain": [],
                    "client_cert_name": None,
                    "client_cert_error": None,
                    "tls_version": 0x0304,
                    "cipher_suite": 0x1301,
                }
            },
        },
        {
            "REQUEST_METHOD": "HEAD",
            "SCRIPT_NAME": "",
            "PATH_INFO": "/",
            "QUERY_STRING": "",
            "SERVER_PROTOCOL": "HTTP/2.0",
            "wsgi.url_scheme": "https",
            "HTTPS": "on",
            "SSL_PROTOCOL": "TLSv1.3",
            "SSL_CIPHER": "TLS_AES_128_GCM_SHA256",
            "SSL_CLIENT_VERIFY": "NONE",
            "RAW_URI": "/",
            "REQUEST_URI": "/",
            "SERVER_NAME": "example.org",
            "SERVER_PORT": "443",
            "REMOTE_ADDR": "",
        },
    ),
]


@pytest.mark.parametrize(("scope", "environ"), WHOLE, ids=["http", "https"])
def test_request_is_the_same_both_ways(scope: dict[str, Any], environ: Environ) -> None:
    """Each variable has its key, and each side has the other's original (ASGI HTTP spec, WSGI Compatibility)."""
    there = environ_from_scope(scope)
    assert type(there) is dict
    assert there.pop("asgi.scope") == scope
    assert there == environ
    # spec_version is 2.3 on purpose, because with 2.4 frameworks rely on `send` alone to notice that a client left.
    back = scope_from_environ(environ)
    assert back.pop("wsgi_environ") == environ
    assert back == scope


def test_environ_of_the_least_scope_has_every_variable_that_is_required() -> None:
    """Optional keys of the scope have defaults; a variable without a value is left out (PEP 3333, environ)."""
    scope = {"path": "/"}
    assert environ_from_scope(scope) == {
        "asgi.scope": scope,
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "REMOTE_ADDR": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
    }


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"SCRIPT_NAME": "", "PATH_INFO": "", "QUERY_STRING": "", "CONTENT_TYPE": "", "CONTENT_LENGTH": ""},
        {"REMOTE_ADDR": "", "REMOTE_PORT": "", "SERVER_NAME": "", "SERVER_PORT": "", "RAW_URI": "", "REQUEST_URI": ""},
        {"SERVER_PROTOCOL": "", "wsgi.url_scheme": "", "QUERY_STRING": None, "CONTENT_LENGTH": None},
    ],
)
def test_scope_of_the_least_environ_has_every_key_that_is_required(environ: Environ) -> None:
    """A variable that is absent or empty has a default (PEP 3333, environ Variables; ASGI HTTP spec, Scope)."""
    environ = {"REQUEST_METHOD": "GET", **environ}
    assert scope_from_environ(environ) == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "client": None,
        "server": None,
        "extensions": {},
        "wsgi_environ": environ,
    }


@pytest.mark.parametrize("environ", [{}, {"REQUEST_METHOD": ""}])
def test_scope_needs_a_request_method(environ: Environ) -> None:
    """REQUEST_METHOD can never be empty, and so is always there (PEP 3333, environ Variables)."""
    with pytest.raises(ServerProtocolError, match="REQUEST_METHOD"):
        scope_from_environ(environ)


UNREADABLE_SCOPES = [
    ("query_string", "a=secret"),
    ("path", b"/secret"),
    ("path", None),
    ("raw_path", "/secret"),
    ("root_path", b"/secret"),
    ("method", b"GET"),
    ("method", 1),
    ("scheme", b"https"),
    ("http_version", b"1.1"),
    ("http_version", ["1.1"]),
    ("headers", 1),
    ("headers", [(b"secret",)]),
    ("headers", [("x-secret", "secret")]),
    ("headers", [("expect", "secret")]),
    ("headers", [(b"x-secret", None)]),
    ("client", ["secret"]),
    ("client", (b"secret", 1)),
    ("client", ("secret", b"1")),
    ("server", ("secret", [80])),
    ("server", (b"secret", 80)),
]


@pytest.mark.parametrize(("key", "value"), UNREADABLE_SCOPES)
def test_a_scope_that_cannot_be_read_is_the_servers_error(key: str, value: Any) -> None:
    """The error names the key, what it must be and the type that it has, but not its value, which may be secret."""

    def read(scope: Any) -> None:
        announcement_from_scope(scope)
        environ_from_scope(with_header_pairs(scope))

    with pytest.raises(ServerProtocolError, match=f"'{key}' must be .*, got {type(value).__name__} ") as caught:
        read(scope_with(**{key: value}))
    assert "secret" not in str(caught.value)


def test_a_scope_without_a_path_is_the_servers_error() -> None:
    """Each http scope must have a path (ASGI HTTP spec, HTTP Connection Scope)."""
    with pytest.raises(ServerProtocolError, match="no 'path'"):
        environ_from_scope({"type": "http", "method": "GET"})


@pytest.mark.parametrize("key", ["server_cert", "client_cert_name", "tls_version"])
def test_a_tls_extension_that_cannot_be_read_is_the_servers_error(key: str) -> None:
    """The error names the key (ASGI TLS spec)."""
    scope = scope_with(scheme="https", extensions={"tls": {key: [b"secret"]}})
    with pytest.raises(ServerProtocolError, match=f"'{key}' must be .*, got list "):
        environ_from_scope(scope)


@pytest.mark.parametrize(
    ("key", "value"), [("subprotocols", "chat"), ("subprotocols", [1]), ("extensions", 1), ("asgi", "3.0")]
)
def test_a_websocket_scope_that_cannot_be_read_is_the_servers_error(key: str, value: Any) -> None:
    """The error names the key (ASGI WebSocket spec)."""
    with pytest.raises(ServerProtocolError, match=f"'{key}' must be "):
        environ_from_scope(scope_with(type="websocket", **{key: value}))


@pytest.mark.parametrize("value", [b"secret", 5, ["secret"]], ids=["bytes", "int", "list"])
@pytest.mark.parametrize(
    "key",
    [
        *("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "SERVER_NAME", "REMOTE_ADDR"),
        *("wsgi.url_scheme", "SSL_CLIENT_CERT"),
    ],
)
def test_an_environ_that_cannot_be_read_is_the_servers_error(key: str, value: Any) -> None:
    """The error names the key and its type, but not its value, which may be secret (PEP 3333, environ Variables)."""
    environ = {"REQUEST_METHOD": "GET", "wsgi.url_scheme": "https", "SSL_PROTOCOL": "TLSv1.3", key: value}
    with pytest.raises(ServerProtocolError, match=f"{key} is {type(value).__name__}") as caught:
        scope_from_environ(environ)
    assert "secret" not in str(caught.value)


def test_an_environ_with_a_key_that_is_no_str_is_the_servers_error() -> None:
    """Keys of an environ are names, so they must be str (PEP 3333, environ Variables)."""
    environ: dict[Any, Any] = {"REQUEST_METHOD": "GET", b"PATH_INFO": "/"}
    with pytest.raises(ServerProtocolError, match="a key is bytes"):
        scope_from_environ(environ)


def test_method_is_upper_case_in_a_scope_and_as_it_came_in_an_environ() -> None:
    """ASGI has methods upper-cased, CGI has them case-sensitive (ASGI HTTP spec, Scope; RFC 3875 4.1.12)."""
    assert scope_from_environ(environ_with(REQUEST_METHOD="purge"))["method"] == "PURGE"
    assert environ_from_scope(scope_with(method="Purge"))["REQUEST_METHOD"] == "Purge"


@pytest.mark.parametrize(
    ("scheme", "url_scheme"),
    [("http", "http"), ("https", "https"), ("ws", "http"), ("wss", "https"), (None, "http"), ("", "http")],
)
def test_scheme_is_http_or_https_and_https_says_so(scheme: str | None, url_scheme: str) -> None:
    """wsgi.url_scheme is http or https, and HTTPS is set only with TLS (PEP 3333, environ Variables)."""
    environ = environ_from_scope(scope_with(scheme=scheme))
    assert environ["wsgi.url_scheme"] == url_scheme
    assert environ.get("HTTPS") == ("on" if url_scheme == "https" else None)


@pytest.mark.parametrize("extensions", [None, {}, {"tls": None}, {"tls": {}}, {"http.response.push": {}}])
def test_https_needs_no_tls_extension(extensions: dict[str, Any] | None) -> None:
    """Without the extension, the environ has no details of the TLS (ASGI TLS spec, When to use)."""
    environ = environ_from_scope(scope_with(scheme="https", extensions=extensions))
    assert environ["HTTPS"] == "on"
    assert "SSL_PROTOCOL" not in environ


def test_tls_extension_is_ignored_on_a_plain_connection() -> None:
    """Only TLS connections may have the extension (ASGI TLS spec, When to use)."""
    tls = {"server_cert": None, "tls_version": 0x0304, "cipher_suite": None}
    assert "SSL_PROTOCOL" not in environ_from_scope(scope_with(scheme="http", extensions={"tls": tls}))
    forwarded = {"HTTPS": "on", "HTTP_X_FORWARDED_PROTO": "https"}
    for environ in environ_with(SSL_PROTOCOL="TLSv1.3"), environ_with(SSL_PROTOCOL="TLSv1.3", **forwarded):
        assert scope_from_environ(environ)["extensions"] == {}


@pytest.mark.parametrize(
    ("server", "host", "scheme", "name_and_port"),
    [
        (("192.0.2.2", 8080), None, "http", ("192.0.2.2", "8080")),
        (["192.0.2.2", 80], b"example.org:81", "http", ("192.0.2.2", "80")),
        (("192.0.2.2", 0), None, "http", ("192.0.2.2", "0")),
        (("::1", 80), None, "http", ("[::1]", "80")),
        (("[::1]", 80), None, "http", ("[::1]", "80")),
        # On a Unix socket, or if the server is unknown, the Host header counts, if it is valid.
        (("/run/x.sock", None), b"example.org:8080", "http", ("example.org", "8080")),
        (("/run/x.sock", "0"), b"example.org:8080", "http", ("example.org", "8080")),
        (("/run/x.sock", None), None, "http", ("localhost", "80")),
        (("", 80), b"example.org", "http", ("example.org", "80")),
        (None, b"example.org", "http", ("example.org", "80")),
        (None, b"example.org", "https", ("example.org", "443")),
        (None, b"example.org:", "https", ("example.org", "443")),
        (None, b"[::1]:8080", "http", ("[::1]", "8080")),
        (None, b"[::1]", "https", ("[::1]", "443")),
        (None, b"::1", "http", ("localhost", "80")),
        (None, b":8080", "http", ("localhost", "80")),
        (None, b"example.org:x", "https", ("localhost", "443")),
        (None, b"[::1", "http", ("localhost", "80")),
        (None, b"", "http", ("localhost", "80")),
        (None, None, "https", ("localhost", "443")),
    ],
)
def test_server_name_and_port_are_never_empty(
    server: Any, host: bytes | None, scheme: str, name_and_port: tuple[str, str]
) -> None:
    """Every request has both, as str, with IPv6 in brackets (PEP 3333, environ; RFC 3875 4.1.14)."""
    headers = [] if host is None else [(b"host", host)]
    environ = environ_from_scope(scope_with(server=server, headers=headers, scheme=scheme))
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == name_and_port


def test_server_name_from_a_long_host_costs_linear_time() -> None:
    """A Host header of any length is read once."""
    scope = scope_with(server=("/run/x.sock", None), headers=[(b"host", b"1" * 12_000 + b":x")])
    start = time.process_time()
    environ_from_scope(scope)
    assert time.process_time() - start < 0.1


@pytest.mark.parametrize(
    ("variables", "server"),
    [
        ({"SERVER_NAME": "example.org", "SERVER_PORT": "8080"}, ("example.org", 8080)),
        ({"SERVER_NAME": "example.org", "SERVER_PORT": 8080}, ("example.org", 8080)),
        ({"SERVER_NAME": "example.org", "SERVER_PORT": "65535"}, ("example.org", 65535)),
        ({"SERVER_NAME": "example.org"}, ("example.org", None)),
        ({"SERVER_NAME": "/run/x.sock", "SERVER_PORT": ""}, ("/run/x.sock", None)),
        ({"SERVER_NAME": "/run/x.sock", "SERVER_PORT": "unix"}, ("/run/x.sock", None)),
        ({"SERVER_NAME": "/run/x.sock", "SERVER_PORT": "0"}, ("/run/x.sock", None)),
        ({"SERVER_NAME": "[::1]", "SERVER_PORT": "80"}, ("::1", 80)),
        ({"SERVER_NAME": "::1", "SERVER_PORT": "80"}, ("::1", 80)),
        ({"SERVER_NAME": "", "SERVER_PORT": "80"}, None),
        ({"SERVER_NAME": "example.org", "SERVER_PORT": "-1"}, ("example.org", None)),
        ({"SERVER_NAME": "example.org", "SERVER_PORT": "\xb2"}, ("example.org", None)),
        ({"SERVER_NAME": "example.org", "SERVER_PORT": "123456"}, ("example.org", None)),
        ({"SERVER_PORT": "80"}, None),
    ],
)
def test_server_port_that_is_no_port_is_none(variables: Environ, server: tuple[str, int | None] | None) -> None:
    """A server is a host and an int, a path and None, or not known (ASGI HTTP spec, Scope; RFC 3875 4.1.15)."""
    assert scope_from_environ(environ_with(**variables))["server"] == server


@pytest.mark.parametrize(
    ("client", "variables"),
    [
        (("192.0.2.1", 5), {"REMOTE_ADDR": "192.0.2.1", "REMOTE_PORT": "5"}),
        (["192.0.2.1", 0], {"REMOTE_ADDR": "192.0.2.1", "REMOTE_PORT": "0"}),
        (("::1", 5), {"REMOTE_ADDR": "::1", "REMOTE_PORT": "5"}),
        (("192.0.2.1", None), {"REMOTE_ADDR": "192.0.2.1"}),
        # A Unix socket, as granian passes it, and as the others do.
        (("", "0"), {"REMOTE_ADDR": ""}),
        (None, {"REMOTE_ADDR": ""}),
    ],
)
def test_remote_addr_and_port_are_those_of_the_client(client: Any, variables: dict[str, str]) -> None:
    """They are copied as str; REMOTE_ADDR exists even if it is unknown (RFC 3875 4.1.8; gunicorn)."""
    environ = environ_from_scope(scope_with(client=client))
    assert {key: value for key, value in environ.items() if key.startswith("REMOTE_")} == variables


@pytest.mark.parametrize(
    ("variables", "client"),
    [
        ({"REMOTE_ADDR": "192.0.2.1", "REMOTE_PORT": "5"}, ("192.0.2.1", 5)),
        ({"REMOTE_ADDR": "::1", "REMOTE_PORT": 5}, ("::1", 5)),
        ({"REMOTE_ADDR": "192.0.2.1"}, ("192.0.2.1", 0)),
        ({"REMOTE_ADDR": "192.0.2.1", "REMOTE_PORT": ""}, ("192.0.2.1", 0)),
        ({"REMOTE_ADDR": "192.0.2.1", "REMOTE_PORT": "x"}, ("192.0.2.1", 0)),
        ({"REMOTE_PORT": "5"}, None),
        ({"REMOTE_ADDR": "", "REMOTE_PORT": ""}, None),
    ],
)
def test_client_is_there_though_its_port_is_not(variables: Environ, client: tuple[str, int] | None) -> None:
    """The port must be an int, so it is 0 with wsgiref, which passes none (ASGI HTTP spec, Scope; RFC 3875 4.1.8)."""
    assert scope_from_environ(environ_with(**variables))["client"] == client


def test_query_string_beyond_latin_1_is_utf_8() -> None:
    """The query becomes bytes, still percent-encoded, even if the server has decoded it (ASGI HTTP spec, Scope)."""
    assert scope_from_environ(environ_with(QUERY_STRING="a=\u20ac%20+"))["query_string"] == "a=\u20ac%20+".encode()


@pytest.mark.parametrize(
    ("keys", "raw_uri"),
    [
        ({"raw_path": b"/a%20b"}, "/a%20b"),
        ({"raw_path": b"/a%20b", "query_string": b"x=\xe9"}, "/a%20b?x=\xe9"),
        ({"raw_path": b"*"}, "*"),
        ({"raw_path": b"~%A9x"}, "~%A9x"),
        ({"raw_path": b"http://example.org:81/a%20b", "query_string": b"x=1"}, "/a%20b?x=1"),
        ({"raw_path": b"http://example.org", "query_string": b"x=1"}, "/?x=1"),
        ({"raw_path": b"/http://example.org/"}, "/http://example.org/"),
        ({"raw_path": b""}, None),
        ({"raw_path": None}, None),
        ({"query_string": b"x=1"}, None),
    ],
)
def test_raw_uri_is_the_target_where_it_is_known(keys: dict[str, Any], raw_uri: str | None) -> None:
    """RAW_URI (gunicorn) and REQUEST_URI (uWSGI, mod_wsgi) hold the target without an authority, or are absent."""
    environ = environ_from_scope(scope_with(**keys))
    assert (environ.get("RAW_URI"), environ.get("REQUEST_URI")) == (raw_uri, raw_uri)


def test_headers_cannot_overwrite_what_the_server_says() -> None:
    """A client's headers make HTTP_ variables and the two CONTENT_ ones, and no others (RFC 3875 4.1.18)."""
    names = [b"request-method", b"script-name", b"wsgi.input", b"remote-addr", b"server-name", b"https", b"asgi.scope"]
    plain = environ_from_scope(scope_with())
    environ = environ_from_scope(scope_with(headers=[(name, b"evil") for name in names]))
    added = {key for key in environ if environ[key] == "evil"}
    assert len(added) == len(names)
    assert all(key.startswith("HTTP_") for key in added)
    assert {key: environ[key] for key in plain if key != "asgi.scope"} == {
        key: plain[key] for key in plain if key != "asgi.scope"
    }


URLS: list[tuple[str, dict[str, Any]]] = [
    ("http://example.org/", {"headers": [(b"host", b"example.org")]}),
    ("http://example.org:8080/a", {"headers": [(b"host", b"example.org:8080")], "path": "/a"}),
    ("http://192.0.2.2/", {"server": ("192.0.2.2", 80)}),
    ("http://192.0.2.2:443/", {"server": ("192.0.2.2", 443)}),
    ("https://192.0.2.2/", {"server": ("192.0.2.2", 443), "scheme": "https"}),
    ("http://[::1]:8080/", {"server": ("::1", 8080)}),
    ("http://example.org/b/a%20b?q=%20", {
        "headers": [(b"host", b"example.org")], "root_path": "/b/", "path": "/b/a b", "query_string": b"q=%20",
    }),
    ("http://localhost/caf%C3%A9/%FF", {"path": "/caf\xe9/\ufffd", "raw_path": b"/caf%C3%A9/%FF"}),
    ("https://localhost/caf%C3%A9", {"root_path": "/caf\xe9", "path": "/caf\xe9", "scheme": "https"}),
    ("http://localhost/", {"server": ("/run/x.sock", None), "client": None}),
]  # fmt: skip


@pytest.mark.parametrize(("url", "keys"), URLS)
def test_environ_makes_the_url_of_the_request(url: str, keys: dict[str, Any]) -> None:
    """The URL can be rebuilt from the environ, wherever the app is mounted (PEP 3333, URL Reconstruction)."""
    assert request_uri(environ_from_scope(scope_with(**keys))) == url


@pytest.mark.parametrize(
    "scope",
    [scope_with(**keys) for _, keys in URLS]
    + [scope for scope, _ in WHOLE]
    + [{"path": "/"}, scope_with(path="/\u4e2d\udcff\ud800", root_path="/\u4e2d\ud800", raw_path=b"/\xff")],
)
def test_environ_is_sound_by_the_stdlibs_own_check(scope: dict[str, Any]) -> None:
    """wsgiref.validate accepts the types, names and required variables without a warning."""
    environ = environ_from_scope(scope)
    environ["wsgi.version"] = (1, 0)
    environ["wsgi.input"] = io.BytesIO()
    environ["wsgi.errors"] = sys.stderr
    environ["wsgi.multithread"] = environ["wsgi.multiprocess"] = environ["wsgi.run_once"] = False
    check_environ(environ)
    for key, value in environ.items():
        if "." not in key:
            assert type(value) is str
            value.encode("latin-1")


def test_environ_is_latin_1_whatever_the_servers_addresses_are() -> None:
    """No code point above 0xFF reaches an app, not even from an address (PEP 3333, Unicode Issues)."""
    environ = environ_from_scope(scope_with(server=("\u4e2d.example", 80), client=("\u4e2d", 5)))
    assert max(environ["SERVER_NAME"] + environ["REMOTE_ADDR"]) <= "\xff"


def test_environ_and_scope_are_new_for_each_request() -> None:
    """An app may change its environ or scope in any way (PEP 3333, Specification Details; ASGI spec, Middleware)."""
    scope, environ = scope_with(), environ_with()
    assert environ_from_scope(scope) is not environ_from_scope(scope)
    one, other = scope_from_environ(environ), scope_from_environ(environ)
    for key in ("asgi", "headers", "extensions"):
        assert one[key] is not other[key]


def test_environ_begins_as_a_copy_of_its_template() -> None:
    """The values that all environs share cost a request only the copy, and do not change."""
    template = {"PATH_INFO": None, "REMOTE_ADDR": "", "wsgi.version": (1, 0)}
    environ = environ_from_scope(scope_with(path="/a"), template)
    assert environ == {**environ_from_scope(scope_with(path="/a")), "wsgi.version": (1, 0)}
    assert template == {"PATH_INFO": None, "REMOTE_ADDR": "", "wsgi.version": (1, 0)}


def test_a_servers_port_is_checked_though_its_equal_was_seen_before() -> None:
    """80.0 equals 80 and hashes alike, but is no port (ASGI HTTP spec, HTTP Connection Scope)."""
    assert environ_from_scope(scope_with(server=("192.0.2.2", 80)))["SERVER_PORT"] == "80"
    with pytest.raises(ServerProtocolError, match="'server' must be"):
        environ_from_scope(scope_with(server=("192.0.2.2", 80.0)))


def test_a_server_name_that_no_cache_can_hold_is_the_servers_error() -> None:
    """SERVER_NAME is a str (PEP 3333, environ Variables); a list raises an error that names it."""
    with pytest.raises(ServerProtocolError, match="SERVER_NAME is list"):
        scope_from_environ(environ_with(SERVER_NAME=["a"]))
