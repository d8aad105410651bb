import io
import sys
import time
from typing import Any
from urllib.parse import quote, quote_from_bytes
from wsgiref.util import request_uri
from wsgiref.validate import check_environ  # type: ignore[attr-defined]  # public, but not to typeshed

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bridge.errors import ClientProtocolError, ServerProtocolError
from bridge.sansio.request import (
    add_headers,
    announcement_from_scope,
    content_length_from_header,
    environ_from_scope,
    headers_from_environ,
    http_version_from_server_protocol,
    maybe_cgi_name_from_header,
    maybe_header_from_cgi_name,
    paths_from_environ,
    scope_from_environ,
    script_name_and_path_info_from_scope,
    server_protocol_from_http_version,
    with_header_pairs,
)
from bridge.types import Environ, RawHeaders

# The same examples in every run, at whatever speed.
PROPERTY = settings(derandomize=True, deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])

LATIN_1_TEXT = bytes(range(0xA1, 0x100))
TOKEN = "!#$%&'*+.^`|~"  # of RFC 9110 5.6.2, less "-", "_", letters and digits


def scope_with(**keys: Any) -> dict[str, Any]:
    """Return the least of an http scope, as the ASGI spec requires it, with `keys`."""
    return {"type": "http", "http_version": "1.1", "method": "GET", "path": "/", "query_string": b"", **keys}


def environ_with(**variables: Any) -> Environ:
    return {"REQUEST_METHOD": "GET", "PATH_INFO": "/", **variables}


# --- Protocol -----------------------------------------------------------------------------------

PROTOCOLS = [("1.0", "HTTP/1.0"), ("1.1", "HTTP/1.1"), ("2", "HTTP/2.0"), ("3", "HTTP/3.0")]


@pytest.mark.parametrize(("version", "protocol"), PROTOCOLS)
def test_protocol_is_the_same_both_ways(version: str, protocol: str) -> None:
    """CGI's grammar wants a minor version, ASGI has none from 2 on (RFC 3875 4.1.16; ASGI HTTP spec, Scope)."""
    assert server_protocol_from_http_version(version) == protocol
    assert http_version_from_server_protocol(protocol) == version


@pytest.mark.parametrize("version", ["1.2", "4"])
def test_protocol_of_an_unknown_version_is_still_of_http(version: str) -> None:
    """A version nobody has heard of is passed on in HTTP/x form (PEP 3333, environ Variables)."""
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


# --- Header names -------------------------------------------------------------------------------

HEADER_NAMES = [
    (b"host", "HTTP_HOST"),
    (b"x-foo-bar", "HTTP_X_FOO_BAR"),
    (b"content-type", "CONTENT_TYPE"),
    (b"content-length", "CONTENT_LENGTH"),
    (b"content-encoding", "HTTP_CONTENT_ENCODING"),
    (b"authorization", "HTTP_AUTHORIZATION"),
    (b"proxy-authorization", "HTTP_PROXY_AUTHORIZATION"),
    (b"x-proxy", "HTTP_X_PROXY"),
    (b"transfer-encoding", "HTTP_TRANSFER_ENCODING"),
    (b"script-name", "HTTP_SCRIPT_NAME"),
    (b"remote-addr", "HTTP_REMOTE_ADDR"),
    (b"wsgi.input", "HTTP_WSGI.INPUT"),
    (b"http-host", "HTTP_HTTP_HOST"),
    (TOKEN.encode(), f"HTTP_{TOKEN.upper()}"),
]


@pytest.mark.parametrize(("name", "key"), HEADER_NAMES)
def test_header_name_is_the_same_both_ways(name: bytes, key: str) -> None:
    """Upper case, `-` as `_`, HTTP_ in front, but for the two with names of their own (RFC 3875 4.1.18)."""
    assert maybe_cgi_name_from_header(name) == key
    assert maybe_header_from_cgi_name(key) == name


@pytest.mark.parametrize(("name", "key"), HEADER_NAMES)
def test_header_name_is_known_in_any_case(name: bytes, key: str) -> None:
    """Field names are case-insensitive (RFC 9110 5.1)."""
    assert maybe_cgi_name_from_header(name.upper()) == key
    assert maybe_cgi_name_from_header(name.title()) == key


@pytest.mark.parametrize(
    "name",
    [
        b"x_forwarded_for",
        b"x-forwarded_for",
        b"content_length",
        b"CONTENT_TYPE",
        b"_",
        b"proxy",
        b"Proxy",
        b"PROXY",
        b":method",
        b":authority",
    ],
)
def test_header_name_that_would_pass_for_another_is_dropped(name: bytes) -> None:
    """A `_` reads as `-`, Proxy as HTTP_PROXY; nginx and gunicorn drop both, and ASGI has no pseudo headers."""
    assert maybe_cgi_name_from_header(name) is None


@pytest.mark.parametrize(
    ("name", "other"), [(b"x-\xdf", b"x-ss"), (b"x-\xb5", None), (b"x-\xff", None)], ids=["sharp s", "micro", "y"]
)
def test_header_name_beyond_ascii_does_not_become_another(name: bytes, other: bytes | None) -> None:
    """Case is a matter of ASCII in field names, and environ of latin-1 (RFC 9110 5.1; PEP 3333, Unicode Issues)."""
    key = maybe_cgi_name_from_header(name)
    if key is not None:
        assert other is None or key != maybe_cgi_name_from_header(other)
        assert max(key) <= "\xff"


def test_header_name_that_is_empty_is_dropped() -> None:
    """A field name has at least one character (RFC 9110 5.1)."""
    assert not maybe_cgi_name_from_header(b"")


@pytest.mark.parametrize(
    "key",
    [
        "",
        "REQUEST_METHOD",
        "CONTENT_FOO",
        "content_type",
        "HTTPS",
        "HTTPS_X",
        "XHTTP_HOST",
        "wsgi.input",
        "HTTP_CONTENT_TYPE",
        "HTTP_CONTENT_LENGTH",
        "HTTP_:AUTHORITY",
    ],
)
def test_cgi_name_that_is_no_header_has_none(key: str) -> None:
    """Only HTTP_ and the two CONTENT_ variables are headers, each once (RFC 3875 4.1.18; ASGI HTTP spec, Scope)."""
    assert maybe_header_from_cgi_name(key) is None


@pytest.mark.parametrize("key", ["HTTP_", "HTTP_PROXY"])
def test_cgi_name_that_no_request_header_makes_has_none(key: str) -> None:
    """An empty name is no token; HTTP_PROXY is the process's own, which wsgiref copies to environ (RFC 3875 4.1.18)."""
    assert maybe_header_from_cgi_name(key) is None


def test_cgi_name_beyond_latin_1_does_not_raise() -> None:
    """What no server should set is still no reason to fail a request (PEP 3333, environ Variables)."""
    assert maybe_header_from_cgi_name("HTTP_X_\u20ac") == b"x-?"


# --- Headers ------------------------------------------------------------------------------------

HEADERS: list[tuple[RawHeaders, dict[str, str]]] = [
    ([], {}),
    ([(b"host", b"example.org")], {"HTTP_HOST": "example.org"}),
    (
        [(b"content-type", b"text/plain"), (b"x-a", b"1"), (b"content-length", b"5")],
        {"CONTENT_TYPE": "text/plain", "HTTP_X_A": "1", "CONTENT_LENGTH": "5"},
    ),
    ([(b"b", b"2"), (b"a", b"1"), (b"c", b"3")], {"HTTP_B": "2", "HTTP_A": "1", "HTTP_C": "3"}),
    ([(b"x-empty", b"")], {"HTTP_X_EMPTY": ""}),
    ([(b"x-latin", LATIN_1_TEXT)], {"HTTP_X_LATIN": LATIN_1_TEXT.decode("latin-1")}),
    ([(b"x-rfc2047", b"=?utf-8?q?caf=C3=A9?=")], {"HTTP_X_RFC2047": "=?utf-8?q?caf=C3=A9?="}),
    ([(b"transfer-encoding", b"chunked")], {"HTTP_TRANSFER_ENCODING": "chunked"}),
]


def environ_from_headers(headers: RawHeaders) -> Environ:
    environ: Environ = {}
    add_headers(environ, headers)
    return environ


@pytest.mark.parametrize(("headers", "variables"), HEADERS)
def test_headers_are_the_same_both_ways(headers: RawHeaders, variables: dict[str, str]) -> None:
    """Values go through latin-1 byte by byte, in order, and none is made up (ASGI HTTP spec, WSGI Compatibility)."""
    assert environ_from_headers(headers) == variables
    assert headers_from_environ(variables) == headers
    assert list(environ_from_headers(headers)) == list(variables)


NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-" + TOKEN, min_size=1).map(str.encode)
RESERVED = {b"proxy", b"content-type", b"content-length"}


@PROPERTY
@given(st.dictionaries(NAMES.filter(lambda name: name not in RESERVED), st.binary()))
def test_headers_of_any_bytes_survive_the_way_there_and_back(headers: dict[bytes, bytes]) -> None:
    """Every byte of a header's value is kept, through latin-1 (ASGI HTTP spec, WSGI encoding differences)."""
    assert headers_from_environ(environ_from_headers(list(headers.items()))) == list(headers.items())


@PROPERTY
@given(st.dictionaries(st.text("ABCXYZ019_", min_size=1), st.binary()))
def test_cgi_variables_of_any_bytes_survive_the_way_there_and_back(variables: dict[str, bytes]) -> None:
    """The other way round nothing is lost either (ASGI HTTP spec, WSGI encoding differences)."""
    environ = {f"HTTP_{key}": value.decode("latin-1") for key, value in variables.items()}
    assert environ_from_headers(headers_from_environ(environ)) == environ


@pytest.mark.parametrize(
    ("headers", "variables"),
    [
        (
            [(b"accept", b"a"), (b"x", b"0"), (b"Accept", b"b"), (b"accept", b"c")],
            {"HTTP_ACCEPT": "a,b,c", "HTTP_X": "0"},
        ),
        ([(b"cookie", b"a=1"), (b"cookie", b"b=2")], {"HTTP_COOKIE": "a=1; b=2"}),
        ([(b"content-length", b"5"), (b"Content-Length", b"5")], {"CONTENT_LENGTH": "5"}),
        ([(b"content-type", b"text/a"), (b"content-type", b"text/b")], {"CONTENT_TYPE": "text/a"}),
        ([(b"x-user", b"good"), (b"x_user", b"evil")], {"HTTP_X_USER": "good"}),
        ([(b"x_user", b"evil"), (b"x-user", b"good")], {"HTTP_X_USER": "good"}),
        ([(b"transfer-encoding", b"chunked"), (b"content-length", b"3")], {"HTTP_TRANSFER_ENCODING": "chunked"}),
    ],
    ids=["list", "cookie", "same length", "type", "underscore last", "underscore first", "chunked"],
)
def test_headers_that_repeat_or_clash_have_one_value(headers: RawHeaders, variables: dict[str, str]) -> None:
    """One value of the same meaning (RFC 3875 4.1.18; RFC 9113 8.2.3), and chunked beats a length (RFC 9112 6.3)."""
    assert environ_from_headers(headers) == variables


@pytest.mark.parametrize(
    "headers",
    [
        ([b"host", b"x"], [b"content-length", b"3"]),
        iter([(b"host", b"x"), (b"content-length", b"3")]),
    ],
    ids=["lists in a tuple", "iterator"],
)
def test_headers_may_be_any_iterable_of_pairs(headers: Any) -> None:
    """ASGI promises an iterable of two-item iterables, and no more (ASGI HTTP spec, Scope)."""
    assert environ_from_headers(headers) == {"HTTP_HOST": "x", "CONTENT_LENGTH": "3"}


@pytest.mark.parametrize("name", [b"x-a", b"cookie", b"content-length", b"content-type", b"x_a"])
def test_headers_that_repeat_cost_linear_time(name: bytes) -> None:
    """A request of 60,000 equal headers, about 1 MB, is no way to stop a server (the fault of CVE-2025-14550)."""
    headers = [(name, b"1234567890")] * 60_000
    start = time.process_time()
    environ_from_headers(headers)
    assert time.process_time() - start < 1


@pytest.mark.parametrize("value", [b"5", b"0", b"0005", b"18446744073709551616"])
def test_content_length_of_digits_is_kept_as_it_came(value: bytes) -> None:
    """Content-Length is digits, of any number, and is passed on as sent (RFC 9110 8.6; RFC 3875 4.1.2)."""
    assert environ_from_headers([(b"content-length", value)]) == {"CONTENT_LENGTH": value.decode()}
    assert content_length_from_header(value.decode()) == int(value)


BAD_LENGTHS = ["abc", "", "-1", "+5", " 5", "5 ", "5_0", "5\n", "0x5", "5.0", "5,5", "5, 6", "\xb2"]


@pytest.mark.parametrize("value", BAD_LENGTHS)
def test_content_length_that_is_no_number_is_the_clients_fault(value: str) -> None:
    """Anything but digits is refused, not half used (RFC 9110 8.6; RFC 3875 4.1.2)."""
    with pytest.raises(ClientProtocolError, match="Content-Length"):
        environ_from_headers([(b"content-length", value.encode("latin-1"))])
    if value:
        with pytest.raises(ClientProtocolError, match="Content-Length"):
            scope_from_environ(environ_with(CONTENT_LENGTH=value))


def test_content_length_that_no_integer_holds_is_the_clients_fault() -> None:
    """Python converts no more than 4300 digits, and raises ValueError at that (RFC 9110 8.6)."""
    digits = "9" * 5000
    with pytest.raises(ClientProtocolError, match="Content-Length"):
        environ_from_headers([(b"content-length", digits.encode())])
    with pytest.raises(ClientProtocolError, match="Content-Length"):
        scope_from_environ(environ_with(CONTENT_LENGTH=digits))


def test_content_length_error_does_not_repeat_all_that_the_client_sent() -> None:
    """The error is sent back and logged, so it quotes a bounded part of the header, and of its repeats."""
    with pytest.raises(ClientProtocolError) as caught:
        content_length_from_header("x" * 10_000)
    assert len(str(caught.value)) < 200
    with pytest.raises(ClientProtocolError) as caught:
        environ_from_headers([(b"content-length", b"%d" % length) for length in range(10_000)])
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("other", [b"6", b"05", b"", b"x"])
@pytest.mark.parametrize("chunked", [[], [(b"transfer-encoding", b"chunked")]], ids=["plain", "chunked"])
def test_content_lengths_that_differ_are_the_clients_fault(other: bytes, chunked: RawHeaders) -> None:
    """Two lengths are how requests are smuggled; they are never glued together (RFC 9112 6.3)."""
    headers = [(b"content-length", b"5"), *chunked, (b"Content-Length", other)]
    with pytest.raises(ClientProtocolError, match="differing Content-Length headers: 5, "):
        environ_from_headers(headers)


def test_hosts_that_differ_are_the_clients_fault() -> None:
    """Who knows which one a proxy went by? (RFC 9112 3.2)."""
    with pytest.raises(ClientProtocolError, match=r"differing Host headers: a\.example, b\.example"):
        environ_from_headers([(b"host", b"a.example"), (b"x", b"y"), (b"Host", b"b.example")])


@pytest.mark.parametrize("host", ["a.example,b.example", "a.example, b.example", "a.example,", ",a", "a,a,b"])
def test_hosts_that_a_server_has_joined_are_the_clients_fault(host: str) -> None:
    """Most WSGI servers join repeated headers, of which Host must not be one (RFC 9112 3.2)."""
    with pytest.raises(ClientProtocolError, match="differing Host headers: "):
        scope_from_environ(environ_with(HTTP_HOST=host))


def test_hosts_that_are_the_same_are_one() -> None:
    """A client of HTTP/2 may send Host beside an equal :authority (RFC 9113 8.3.1)."""
    assert environ_from_headers([(b"host", b"a:80"), (b"host", b"a:80")]) == {"HTTP_HOST": "a:80"}
    for host in ("a:80,a:80", "a:80, a:80"):
        assert headers_from_environ({"HTTP_HOST": host, "HTTP_X": "b,c"}) == [(b"host", b"a:80"), (b"x", b"b,c")]


def test_answer_to_content_lengths_that_differ_is_short() -> None:
    """What the client sent is told back in part only."""
    headers = [(b"content-length", b"1" * 100_000), (b"content-length", b"2")]
    with pytest.raises(ClientProtocolError) as caught:
        environ_from_headers(headers)
    assert len(str(caught.value)) < 200


def test_content_length_is_checked_though_chunked_beats_it() -> None:
    """A length that is no number contradicts the request, whatever else frames it (RFC 9112 6.3)."""
    with pytest.raises(ClientProtocolError):
        environ_from_headers([(b"transfer-encoding", b"chunked"), (b"content-length", b"-1")])


def test_headers_leave_out_what_is_no_header_of_the_request() -> None:
    """A server may add variables of any type; none leaks, and an empty CONTENT_ means none (PEP 3333, environ)."""
    environ = {
        "wsgi.input": io.BytesIO(),
        "HTTP_X_OBJECT": object(),
        "CONTENT_TYPE": "",
        "CONTENT_LENGTH": "",
        "HTTP_CONTENT_LENGTH": "5",
        "HTTP_CONTENT_TYPE": "text/plain",
        "HTTPS": "on",
        "HTTP_X_A": "1",
    }
    assert headers_from_environ(environ) == [(b"x-a", b"1")]


@pytest.mark.parametrize("length", [3, 0])
def test_content_length_may_be_an_int(length: int) -> None:
    """Some middleware and test clients set an int where PEP 3333 has a str: it is the header, as it is the body's."""
    assert scope_from_environ(environ_with(CONTENT_LENGTH=length))["headers"] == [(b"content-length", b"%d" % length)]
    with pytest.raises(ClientProtocolError, match="Content-Length is not a number: '-1'"):
        scope_from_environ(environ_with(CONTENT_LENGTH=-1))


def test_headers_beyond_latin_1_are_utf_8() -> None:
    """A server that decoded a header to Unicode broke PEP 3333 (A Note On String Types); the bytes were UTF-8."""
    assert headers_from_environ({"HTTP_X_A": "\u20ac"}) == [(b"x-a", "\u20ac".encode())]


# --- Path ---------------------------------------------------------------------------------------

# root_path, path, raw_path <-> SCRIPT_NAME, PATH_INFO, RAW_URI
PATHS = [
    (("", "/", None), ("", "/", None)),
    (("", "/", b"/"), ("", "/", "/")),
    (("", "/FooBar", None), ("", "/FooBar", None)),
    (("", "//a//b/../c;x=1", b"//a//b/../c;x=1"), ("", "//a//b/../c;x=1", "//a//b/../c;x=1")),
    (("/base", "/base", None), ("/base", "", None)),
    (("/base", "/base/", None), ("/base", "/", None)),
    (("/base", "/base/x", b"/base/x"), ("/base", "/x", "/base/x")),
    (("/base", "/base/base", None), ("/base", "/base", None)),
    (("/a/b", "/a/b/c", b"/a/b/c"), ("/a/b", "/c", "/a/b/c")),
    (("", "/a b", b"/a%20b"), ("", "/a b", "/a%20b")),
    (("", "/a/b", b"/a%2Fb"), ("", "/a/b", "/a%2Fb")),
    (("", "/a?b", b"/a%3Fb"), ("", "/a?b", "/a%3Fb")),
    (("", "/100%", b"/100%25"), ("", "/100%", "/100%25")),
    (("", "/100%25", b"/100%2525"), ("", "/100%25", "/100%2525")),
    (("", "/\u4e2d\U0001f600", None), ("", "/\xe4\xb8\xad\xf0\x9f\x98\x80", None)),
    (("", "/caf\xe9", b"/caf%C3%A9"), ("", "/caf\xc3\xa9", "/caf%C3%A9")),
    (("", "/caf\xe9", b"/caf\xc3\xa9"), ("", "/caf\xc3\xa9", "/caf\xc3\xa9")),
    (("/b\xe9", "/b\xe9/\xfc", None), ("/b\xc3\xa9", "/\xc3\xbc", None)),
    (("/b\xe9", "/b\xe9/\xfc", b"/b%C3%A9/%C3%BC"), ("/b\xc3\xa9", "/\xc3\xbc", "/b%C3%A9/%C3%BC")),
    # Bytes that are not UTF-8, and an honest U+FFFD, for which servers decode them.
    (("", "/\ufffd", b"/%FF"), ("", "/\xff", "/%FF")),
    (("", "/\ufffd", b"/%EF%BF%BD"), ("", "/\xef\xbf\xbd", "/%EF%BF%BD")),
    (("/base", "/base/\ufffdx", b"/base/%FFx"), ("/base", "/\xffx", "/base/%FFx")),
    (("/b\xe9", "/b\xe9/\ufffd", b"/b%C3%A9/%80"), ("/b\xc3\xa9", "/\x80", "/b%C3%A9/%80")),
]


@pytest.mark.parametrize(("paths", "variables"), PATHS)
def test_paths_are_the_same_both_ways(
    paths: tuple[str, str, bytes | None], variables: tuple[str, str, str | None]
) -> None:
    """Text as UTF-8, UTF-8 as latin-1, `path` begins with `root_path` (ASGI HTTP spec, WSGI Compatibility)."""
    (root_path, path, raw_path), (script_name, path_info, raw_uri) = paths, variables
    scope = scope_with(root_path=root_path, path=path, raw_path=raw_path)
    assert script_name_and_path_info_from_scope(scope) == (script_name, path_info)
    assert environ_from_scope(scope).get("RAW_URI") == raw_uri
    environ = {"SCRIPT_NAME": script_name, "PATH_INFO": path_info, "RAW_URI": raw_uri}
    assert paths_from_environ(environ) == (root_path, path, quote(path).encode() if raw_path is None else raw_path)


@PROPERTY
@example(path=b"\xff", script_name="", target=True)
@example(path=b"%2f?#;", script_name="/base", target=True)
@given(st.binary(), st.sampled_from(["", "/base", "/b\xc3\xa9"]), st.booleans())
def test_path_of_any_bytes_survives_the_way_there_and_back(path: bytes, script_name: str, target: bool) -> None:
    """environ -> scope -> environ keeps every byte of PATH_INFO, and the request target (RFC 3875 4.1.5)."""
    path_info = "/" + path.decode("latin-1")
    environ = environ_with(SCRIPT_NAME=script_name, PATH_INFO=path_info)
    if target:
        environ["RAW_URI"] = quote_from_bytes((script_name + path_info).encode("latin-1")) + "?a=%20"
        environ["QUERY_STRING"] = "a=%20"
    back = environ_from_scope(scope_from_environ(environ))
    assert {**back, **environ} == back


@PROPERTY
@given(st.text(st.characters()), st.text(st.characters()), st.none() | st.binary())
def test_path_of_any_text_makes_a_sound_split(path: str, root_path: str, raw_path: bytes | None) -> None:
    """Whatever a server says, both are latin-1, and begin with `/` or are empty (RFC 3875 4.1.5 and 4.1.13)."""
    scope = scope_with(path=path, root_path=root_path, raw_path=raw_path)
    script_name, path_info = script_name_and_path_info_from_scope(scope)
    assert max(script_name + path_info, default="") <= "\xff"
    assert path_info == "" or path_info.startswith("/")
    assert script_name == "" or (script_name.startswith("/") and not script_name.endswith("/"))


@pytest.mark.parametrize(
    ("root_path", "path", "split"),
    [
        ("/", "/foo", ("", "/foo")),
        ("//", "/foo", ("", "/foo")),
        ("/base/", "/base/foo", ("/base", "/foo")),
        ("/base/", "/base", ("/base", "")),
        ("base", "/base/foo", ("/base", "/foo")),
        ("/base", "/basement", ("/base", "/basement")),
        ("/base", "/other", ("/base", "/other")),
        ("/base", "/", ("/base", "/")),
        ("/base", "/base/base/x", ("/base", "/base/x")),
        ("/base", "/Base/x", ("/base", "/Base/x")),
        ("/base", "/x/base", ("/base", "/x/base")),
        ("/base", "base/x", ("/base", "/x")),
        (None, "/foo", ("", "/foo")),
        ("", "*", ("", "")),
        ("", "", ("", "")),
        ("/base", "", ("/base", "")),
        ("", "foo", ("", "/foo")),
        # The absolute form, to which uvicorn's --root-path is put in front as well.
        ("", "http://example.org/x", ("", "/x")),
        ("", "HTTP://example.org:81/x/y", ("", "/x/y")),
        ("", "http://[::1]:81/x", ("", "/x")),
        ("", "http://example.org", ("", "/")),
        ("/base", "http://example.org/base/x", ("/base", "/x")),
        ("/base", "/basehttp://example.org/x", ("/base", "/x")),
        ("/base/", "/base/http://example.org/x", ("/base", "/http://example.org/x")),
        ("", "/http://example.org/x", ("", "/http://example.org/x")),
        ("", "://example.org/x", ("", "/://example.org/x")),
        # A lone surrogate is a byte by Python's surrogateescape, or else no character at all.
        ("", "/\udcff", ("", "/\xff")),
        ("", "/\ud800\xe9", ("", "/?\xc3\xa9")),
        ("/\udce9", "/\udce9/x", ("/\xe9", "/x")),
    ],
)
def test_root_path_is_stripped_once_at_a_segment_boundary(
    root_path: str | None, path: str, split: tuple[str, str]
) -> None:
    """Behind either kind of proxy no character is lost, and SCRIPT_NAME ends in no `/` (RFC 3875 4.1.13)."""
    assert script_name_and_path_info_from_scope(scope_with(root_path=root_path, path=path)) == split


def test_root_path_may_be_left_out() -> None:
    """`root_path` and `raw_path` are optional (ASGI HTTP spec, Scope)."""
    assert script_name_and_path_info_from_scope({"path": "/caf\xe9"}) == ("", "/caf\xc3\xa9")


@pytest.mark.parametrize(
    ("root_path", "path", "raw_path", "path_info"),
    [
        # Proxy modes: `path` or `raw_path` or both without the prefix.
        ("/base", "/base/\ufffd", b"/%FF", "/\xff"),
        ("/base", "/\ufffd", b"/base/%FF", "/\xff"),
        ("/base", "/\ufffd", b"/%FF", "/\xff"),
        # A target without a slash in front, and one in absolute form.
        ("", "~\ufffdx", b"~%A9x", "/~\xa9x"),
        ("", "http://h/\ufffd", b"http://h/%FF", "/\xff"),
        ("", "/\ufffd", b"http://h/%FF", "/\xff"),
        ("/base", "http://h/base/\ufffd", b"http://h/base/%FF", "/\xff"),
        ("/base", "/basehttp://h/\ufffd", b"/basehttp://h/%FF", "/\xff"),
        # `raw_path` speaks of something else, as middleware has rewritten `path`: that counts.
        ("", "/\ufffd", b"/other", "/\xef\xbf\xbd"),
        ("", "/\ufffd", b"/x%FF", "/\xef\xbf\xbd"),
        ("", "/caf\xe9", b"/caf%E9", "/caf\xc3\xa9"),
        ("", "/new", b"/%FF", "/new"),
        ("/base", "/\ufffd", b"/base%FF", "/\xef\xbf\xbd"),
        ("/base", "/\ufffd", b"/evil/%FF", "/\xef\xbf\xbd"),
        ("/\ud800", "/\ufffd", b"/%FF", "/\xff"),
        ("", "/\ufffd", b"", "/\xef\xbf\xbd"),
        ("", "/\ufffd", None, "/\xef\xbf\xbd"),
    ],
)
def test_raw_path_gives_bytes_back_only_while_it_agrees(
    root_path: str, path: str, raw_path: bytes | None, path_info: str
) -> None:
    """`raw_path` can tell what a path that is not UTF-8 was made of (ASGI HTTP spec, WSGI encoding differences)."""
    scope = scope_with(root_path=root_path, path=path, raw_path=raw_path)
    assert script_name_and_path_info_from_scope(scope)[1] == path_info


@pytest.mark.parametrize(
    ("environ", "paths"),
    [
        ({}, ("", "/", b"/")),
        ({"SCRIPT_NAME": "", "PATH_INFO": ""}, ("", "/", b"/")),
        ({"SCRIPT_NAME": None, "PATH_INFO": None}, ("", "/", b"/")),
        ({"SCRIPT_NAME": "/"}, ("", "/", b"/")),
        ({"SCRIPT_NAME": "/", "PATH_INFO": "/x"}, ("", "/x", b"/x")),
        ({"SCRIPT_NAME": "/base/", "PATH_INFO": "/x"}, ("/base", "/base/x", b"/base/x")),
        ({"PATH_INFO": "*"}, ("", "*", b"*")),
        ({"PATH_INFO": "/a b/100%25?#;x=1"}, ("", "/a b/100%25?#;x=1", b"/a%20b/100%2525%3F%23;x=1")),
        # The target: RAW_URI before REQUEST_URI, less its query, if it is of this path.
        ({"PATH_INFO": "/a b", "REQUEST_URI": "/a%20b"}, ("", "/a b", b"/a%20b")),
        ({"PATH_INFO": "/a b", "RAW_URI": "/a%20b", "REQUEST_URI": "/a b"}, ("", "/a b", b"/a%20b")),
        ({"PATH_INFO": "/a b", "RAW_URI": "/a%20b?x=%20?y"}, ("", "/a b", b"/a%20b")),
        ({"PATH_INFO": "/a b", "RAW_URI": "/b"}, ("", "/a b", b"/a%20b")),
        ({"PATH_INFO": "/a b", "RAW_URI": b"/a b"}, ("", "/a b", b"/a%20b")),
        ({"PATH_INFO": "/a b", "RAW_URI": None}, ("", "/a b", b"/a%20b")),
        ({"PATH_INFO": "/a", "RAW_URI": "/a#b"}, ("", "/a", b"/a")),
        ({"PATH_INFO": "", "RAW_URI": "?x"}, ("", "/", b"/")),
        # OPTIONS *, as gunicorn, the other direction and cheroot have it.
        ({"PATH_INFO": "*", "RAW_URI": "*"}, ("", "*", b"*")),
        ({"PATH_INFO": "", "RAW_URI": "*"}, ("", "*", b"*")),
        ({"PATH_INFO": "/*", "REQUEST_URI": "*"}, ("", "*", b"*")),
        ({"PATH_INFO": "/*", "REQUEST_URI": "/*"}, ("", "/*", b"/*")),
        ({"SCRIPT_NAME": "/base", "PATH_INFO": "", "RAW_URI": "*"}, ("/base", "/base", b"/base")),
        ({"PATH_INFO": "/x", "RAW_URI": "*"}, ("", "/x", b"/x")),
        # The absolute form: in the target alone (gunicorn), in PATH_INFO (gevent, wsgiref), or in both (uWSGI).
        ({"PATH_INFO": "/a b", "RAW_URI": "http://example.org:81/a%20b?x=1"}, ("", "/a b", b"/a%20b")),
        ({"PATH_INFO": "http://example.org:81/a b"}, ("", "/a b", b"/a%20b")),
        ({"PATH_INFO": "HTTP://h/a\xff", "REQUEST_URI": "HTTP://h/a%ff?x"}, ("", "/a\ufffd", b"/a%ff")),
        ({"PATH_INFO": "", "RAW_URI": "http://example.org?x=1"}, ("", "/", b"/")),
        ({"PATH_INFO": "http://example.org", "REQUEST_URI": "http://example.org"}, ("", "/", b"/")),
        ({"SCRIPT_NAME": "/b", "PATH_INFO": "/a", "RAW_URI": "http://h/b/a"}, ("/b", "/b/a", b"/b/a")),
        # What only looks like it.
        ({"PATH_INFO": "/http://h/a", "RAW_URI": "/http://h/a?z"}, ("", "/http://h/a", b"/http://h/a")),
        ({"PATH_INFO": "/a", "RAW_URI": "/a?u=http://h/b"}, ("", "/a", b"/a")),
        ({"PATH_INFO": "://h/a"}, ("", "://h/a", b"://h/a")),
        # A target without a slash in front.
        ({"PATH_INFO": "~\xa9x", "REQUEST_URI": "~%A9x"}, ("", "~\ufffdx", b"~%A9x")),
        ({"PATH_INFO": "~\xef\xbf\xbdx", "REQUEST_URI": "~%A9x"}, ("", "~\ufffdx", b"~%A9x")),
        # cheroot and Apache may leave encoded slashes encoded; a percent sign that was encoded is none of them.
        ({"PATH_INFO": "/a%2Fb c", "REQUEST_URI": "/a%2Fb%20c?x"}, ("", "/a/b c", b"/a%2Fb%20c")),
        ({"PATH_INFO": "/a%2fb", "REQUEST_URI": "/a%2fb"}, ("", "/a/b", b"/a%2fb")),
        ({"PATH_INFO": "/a%2Fb%2Fc", "REQUEST_URI": "/a%2Fb%252Fc"}, ("", "/a/b%2Fc", b"/a%2Fb%252Fc")),
        ({"PATH_INFO": "/a%2Fb", "REQUEST_URI": "/a%252Fb"}, ("", "/a%2Fb", b"/a%252Fb")),
        ({"PATH_INFO": "/a%2Fb"}, ("", "/a%2Fb", b"/a%252Fb")),
        ({"PATH_INFO": "/a%2Fb", "REQUEST_URI": "/c%2Fb"}, ("", "/a%2Fb", b"/a%252Fb")),
        ({"SCRIPT_NAME": "/b", "PATH_INFO": "/c%2Fd", "REQUEST_URI": "/b/c%2Fd"}, ("/b", "/b/c/d", b"/b/c%2Fd")),
        ({"SCRIPT_NAME": "/b", "PATH_INFO": "/c%2Fd", "REQUEST_URI": "/c%2Fd"}, ("/b", "/b/c/d", b"/b/c%2Fd")),
        # A server that was told its SCRIPT_NAME by configuration leaves it out of the target.
        ({"SCRIPT_NAME": "/my app", "PATH_INFO": "/%", "RAW_URI": "/%25"}, ("/my app", "/my app/%", b"/my%20app/%25")),
        (
            {"SCRIPT_NAME": "/~a:@!$&'()*+,;=-._", "PATH_INFO": "/", "RAW_URI": "/"},
            ("/~a:@!$&'()*+,;=-._", "/~a:@!$&'()*+,;=-._/", b"/~a:@!$&'()*+,;=-._/"),
        ),
        # Bytes that are not UTF-8, without a target that holds them; and a target as the client sent it.
        ({"PATH_INFO": "/a b\xff"}, ("", "/a b\ufffd", b"/a%20b%FF")),
        ({"PATH_INFO": "/~a:@!$&'()*+,;=-._\xff"}, ("", "/~a:@!$&'()*+,;=-._\ufffd", b"/~a:@!$&'()*+,;=-._%FF")),
        ({"PATH_INFO": "/\xff", "RAW_URI": "/other"}, ("", "/\ufffd", b"/%FF")),
        ({"PATH_INFO": "/\xff", "RAW_URI": "/\xff"}, ("", "/\ufffd", b"/\xff")),
        ({"PATH_INFO": "/\xff", "RAW_URI": "/%ff"}, ("", "/\ufffd", b"/%ff")),
        ({"PATH_INFO": "/\xff", "RAW_URI": "/%FE"}, ("", "/\ufffd", b"/%FF")),
        # Werkzeug's server puts U+FFFD in PATH_INFO, and the target still has the bytes.
        ({"PATH_INFO": "/\xef\xbf\xbd", "RAW_URI": "/%FF"}, ("", "/\ufffd", b"/%FF")),
        ({"SCRIPT_NAME": "/b", "PATH_INFO": "/\xef\xbf\xbd", "RAW_URI": "/%FF"}, ("/b", "/b/\ufffd", b"/b/%FF")),
        ({"PATH_INFO": "/\xef\xbf\xbd", "RAW_URI": "/x%FF"}, ("", "/\ufffd", b"/%EF%BF%BD")),
        ({"SCRIPT_NAME": "/\xff", "PATH_INFO": "/x"}, ("/\ufffd", "/\ufffd/x", b"/%FF/x")),
        ({"SCRIPT_NAME": "/\xe4", "PATH_INFO": "\xb8\xad"}, ("/\ufffd", "/\ufffd\ufffd\ufffd", b"/%E4%B8%AD")),
        # Text beyond latin-1 is the server's slip: it decoded UTF-8, or CGI's variables, by itself.
        ({"PATH_INFO": "/\u4e2d"}, ("", "/\u4e2d", b"/%E4%B8%AD")),
        ({"PATH_INFO": "/\udcff\u4e2d"}, ("", "/\ufffd\u4e2d", b"/%FF%E4%B8%AD")),
        ({"PATH_INFO": "/\ud800"}, ("", "/?", b"/%3F")),
    ],
)
def test_paths_are_read_from_whatever_the_server_gives(environ: Environ, paths: tuple[str, str, bytes]) -> None:
    """Absent and empty mean the same, nothing crashes, and a stale target is ignored (PEP 3333, environ Variables)."""
    assert paths_from_environ(environ) == paths


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
    # spec_version is 2.3 on purpose: 2.4 would have frameworks rely on `send` alone to notice that a client left.
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
    """It names the key, what it must be and what it is, and not its value, which may be a secret."""

    def read(scope: Any) -> None:
        announcement_from_scope(scope)
        environ_from_scope(with_header_pairs(scope))

    with pytest.raises(ServerProtocolError, match=f"'{key}' must be .*, got {type(value).__name__} ") as caught:
        read(scope_with(**{key: value}))
    assert "secret" not in str(caught.value)


def test_a_scope_without_a_path_is_the_servers_error() -> None:
    """The spec has none without (ASGI HTTP spec, HTTP Connection Scope)."""
    with pytest.raises(ServerProtocolError, match="no 'path'"):
        environ_from_scope({"type": "http", "method": "GET"})


@pytest.mark.parametrize("key", ["server_cert", "client_cert_name", "tls_version"])
def test_a_tls_extension_that_cannot_be_read_is_the_servers_error(key: str) -> None:
    """It names the key (ASGI TLS spec)."""
    scope = scope_with(scheme="https", extensions={"tls": {key: [b"secret"]}})
    with pytest.raises(ServerProtocolError, match=f"'{key}' must be .*, got list "):
        environ_from_scope(scope)


@pytest.mark.parametrize(
    ("key", "value"), [("subprotocols", "chat"), ("subprotocols", [1]), ("extensions", 1), ("asgi", "3.0")]
)
def test_a_websocket_scope_that_cannot_be_read_is_the_servers_error(key: str, value: Any) -> None:
    """It names the key (ASGI WebSocket spec)."""
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
    """It names the key and what it is, and not its value, which may be a secret (PEP 3333, environ Variables)."""
    environ = {"REQUEST_METHOD": "GET", "wsgi.url_scheme": "https", "SSL_PROTOCOL": "TLSv1.3", key: value}
    with pytest.raises(ServerProtocolError, match=f"{key} is {type(value).__name__}") as caught:
        scope_from_environ(environ)
    assert "secret" not in str(caught.value)


def test_an_environ_with_a_key_that_is_no_str_is_the_servers_error() -> None:
    """CGI has names (PEP 3333, environ Variables)."""
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
    """wsgi.url_scheme is one of two, and HTTPS is there under TLS alone (PEP 3333, environ Variables)."""
    environ = environ_from_scope(scope_with(scheme=scheme))
    assert environ["wsgi.url_scheme"] == url_scheme
    assert environ.get("HTTPS") == ("on" if url_scheme == "https" else None)


@pytest.mark.parametrize("extensions", [None, {}, {"tls": None}, {"tls": {}}, {"http.response.push": {}}])
def test_https_needs_no_tls_extension(extensions: dict[str, Any] | None) -> None:
    """Without the extension nothing is known of the TLS, and that is all (ASGI TLS spec, When to use)."""
    environ = environ_from_scope(scope_with(scheme="https", extensions=extensions))
    assert environ["HTTPS"] == "on"
    assert "SSL_PROTOCOL" not in environ


def test_tls_extension_is_ignored_on_a_plain_connection() -> None:
    """The extension is of TLS connections alone (ASGI TLS spec, When to use)."""
    tls = {"server_cert": None, "tls_version": 0x0304, "cipher_suite": None}
    assert "SSL_PROTOCOL" not in environ_from_scope(scope_with(scheme="http", extensions={"tls": tls}))
    assert scope_from_environ(environ_with(SSL_PROTOCOL="TLSv1.3"))["extensions"] == {}


@pytest.mark.parametrize(
    ("server", "host", "scheme", "name_and_port"),
    [
        (("192.0.2.2", 8080), None, "http", ("192.0.2.2", "8080")),
        (["192.0.2.2", 80], b"example.org:81", "http", ("192.0.2.2", "80")),
        (("192.0.2.2", 0), None, "http", ("192.0.2.2", "0")),
        (("::1", 80), None, "http", ("[::1]", "80")),
        (("[::1]", 80), None, "http", ("[::1]", "80")),
        # A Unix socket, or no word of the server: the Host header, if it is fit for it.
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
    """Both are there for every request, as str, IPv6 in brackets (PEP 3333, environ; RFC 3875 4.1.14)."""
    headers = [] if host is None else [(b"host", host)]
    environ = environ_from_scope(scope_with(server=server, headers=headers, scheme=scheme))
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == name_and_port


def test_server_name_from_a_long_host_costs_linear_time() -> None:
    """A Host header is of any length where the server does not limit it, and is looked at once."""
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
        # A Unix socket, as granian has it, and the others.
        (("", "0"), {"REMOTE_ADDR": ""}),
        (None, {"REMOTE_ADDR": ""}),
    ],
)
def test_remote_addr_and_port_are_those_of_the_client(client: Any, variables: dict[str, str]) -> None:
    """Copied as given, as str; REMOTE_ADDR is there though it is not known (RFC 3875 4.1.8; gunicorn)."""
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
    """A client has an int port, and wsgiref gives none: then it is 0 (ASGI HTTP spec, Scope; RFC 3875 4.1.8)."""
    assert scope_from_environ(environ_with(**variables))["client"] == client


def test_query_string_beyond_latin_1_is_utf_8() -> None:
    """The query is bytes, still percent-encoded, whatever the server made of it (ASGI HTTP spec, Scope)."""
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
    """RAW_URI (gunicorn) and REQUEST_URI (uWSGI, mod_wsgi) hold the target, less an authority, or are not there."""
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
    """The URL can be put together from environ, wherever the app is mounted (PEP 3333, URL Reconstruction)."""
    assert request_uri(environ_from_scope(scope_with(**keys))) == url


@pytest.mark.parametrize(
    "scope",
    [scope_with(**keys) for _, keys in URLS]
    + [scope for scope, _ in WHOLE]
    + [{"path": "/"}, scope_with(path="/\u4e2d\udcff\ud800", root_path="/\u4e2d\ud800", raw_path=b"/\xff")],
)
def test_environ_is_sound_by_the_stdlibs_own_check(scope: dict[str, Any]) -> None:
    """Types, names and required variables are as wsgiref.validate has them, without a warning."""
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
    """No code point above 0xFF gets to an app, be it from an address (PEP 3333, Unicode Issues)."""
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
    """What an adapter has in every environ costs no request but the copy, and stays as it is."""
    template = {"PATH_INFO": None, "REMOTE_ADDR": "", "wsgi.version": (1, 0)}
    environ = environ_from_scope(scope_with(path="/a"), template)
    assert environ == {**environ_from_scope(scope_with(path="/a")), "wsgi.version": (1, 0)}
    assert template == {"PATH_INFO": None, "REMOTE_ADDR": "", "wsgi.version": (1, 0)}


# --- WebSockets -----------------------------------------------------------------------------------


@pytest.mark.parametrize("http_version", ["1.1", "2"])
def test_websocket_looks_as_over_http_1_1(http_version: str) -> None:
    """What marks a WebSocket there is put in, as HTTP/2 has none of it (RFC 8441); what is the server's is left out."""
    headers = [
        (b"connection", b"keep-alive, Upgrade"),
        (b"upgrade", b"WebSocket"),
        (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
        (b"sec-websocket-extensions", b"permessage-deflate"),
        (b"sec-websocket-protocol", b"chat, v2"),
        (b"content-length", b"5"),
        (b"origin", b"https://example.org"),
    ]
    scope = scope_with(
        type="websocket",
        scheme="wss",
        http_version=http_version,
        headers=headers if http_version == "1.1" else headers[-1:],
        subprotocols=["chat", "v2"],
    )
    del scope["method"]
    environ = environ_from_scope(scope)
    check = {key: environ.get(key) for key in environ if key.startswith(("HTTP_", "CONTENT_", "REQUEST_METHOD"))}
    assert check == {
        "REQUEST_METHOD": "GET",
        "HTTP_CONNECTION": "Upgrade",
        "HTTP_UPGRADE": "websocket",
        "HTTP_HOST": f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}",
        "HTTP_ORIGIN": "https://example.org",
        "HTTP_SEC_WEBSOCKET_PROTOCOL": "chat, v2",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
    }
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert environ["wsgi.url_scheme"] == "https"


@pytest.mark.parametrize("subprotocols", [None, [], ["", "a b", "ü", "a\r\nb"]])
def test_websocket_offers_no_subprotocol_that_is_no_token(subprotocols: list[str] | None) -> None:
    """RFC 6455 4.1; a server may let others through."""
    headers = [(b"sec-websocket-protocol", b"a b")]
    scope = scope_with(type="websocket", scheme="ws", headers=headers, subprotocols=subprotocols)
    assert "HTTP_SEC_WEBSOCKET_PROTOCOL" not in environ_from_scope(scope)


@pytest.mark.parametrize("header", [(b"content-length", b"5"), (b"transfer-encoding", b"chunked")])
def test_websocket_begins_with_a_get_that_has_no_body(header: tuple[bytes, bytes]) -> None:
    """RFC 6455 4.1, whatever HTTP/2 has in its place (CONNECT, of RFC 8441)."""
    environ = environ_from_scope(scope_with(type="websocket", scheme="ws", method="CONNECT", headers=[header]))
    assert environ["REQUEST_METHOD"] == "GET"
    assert "CONTENT_LENGTH" not in environ
    assert "HTTP_TRANSFER_ENCODING" not in environ


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], "NONE"),
        ([(b"expect", b"100-continue")], "CONTINUE"),
        ([(b"host", b"a"), (b"expect", b"100-Continue"), (b"x", b"y")], "CONTINUE"),  # RFC 9110 10.1.1: in any case
        ([[b"Expect", b"100-continue"]], "CONTINUE"),
        ([(b"content-length", b"3"), (b"expect", b"100-continue")], "CONTINUE"),
        ([(b"expect", b"200-ok")], "NONE"),
        ([(b"x-expect", b"100-continue"), (b"host", b"100-continue")], "NONE"),
        ([(b"content-length", b"3")], "BODY"),
        ([[b"Content-Length", b"10"], [b"Expect", b"200-ok"]], "BODY"),
        ([(b"content-length", b"0")], "NONE"),
        ([(b"content-length", b"0, 0")], "NONE"),
        ([(b"content-length", b"0"), (b"content-length", b"5")], "BODY"),
        ([(b"content-length", b"bogus")], "BODY"),
        ([(b"transfer-encoding", b"chunked")], "BODY"),
        ([(b"x-content-lengt", b"3"), (b"transfer-encodinq", b"chunked")], "NONE"),
    ],
)
def test_what_announces_a_body_is_known(headers: RawHeaders, expected: str) -> None:
    assert announcement_from_scope(scope_with(headers=headers)).name == expected


def test_a_scope_without_headers_announces_nothing() -> None:
    assert announcement_from_scope(scope_with()).name == "NONE"


@pytest.mark.parametrize("headers", [[], [(b"a", b"b")], [[b"a", b"b"]], ((b"a", b"b"),)])
def test_headers_that_can_be_read_twice_are_left_alone(headers: Any) -> None:
    scope = scope_with(headers=headers)
    assert with_header_pairs(scope) is scope


@pytest.mark.parametrize(
    "make",
    [iter, lambda headers: [iter(header) for header in headers], lambda headers: map(iter, headers)],
    ids=["iterator", "list-of-iterators", "iterator-of-iterators"],
)
def test_headers_that_can_be_read_once_are_made_pairs(make: Any) -> None:
    headers = [(b"a", b"b"), (b"c", b"d")]
    scope = scope_with(headers=make(headers))
    copy = with_header_pairs(scope)
    assert copy is not scope
    assert copy == {**scope, "headers": headers}
