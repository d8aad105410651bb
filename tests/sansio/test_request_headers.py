import io
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.errors import ClientProtocolError
from bridge.sansio.request import (
    scope_from_environ,
)
from bridge.sansio.request_headers import (
    add_headers,
    content_length_from_header,
    headers_from_environ,
    maybe_cgi_name_from_header,
    maybe_header_from_cgi_name,
    with_header_pairs,
)
from bridge.types import Environ, RawHeaders
from tests.sansio.requests import environ_with, scope_with

# The same examples in every run, without a time limit.
PROPERTY = settings(derandomize=True, deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])

LATIN_1_TEXT = bytes(range(0xA1, 0x100))
TOKEN = "!#$%&'*+.^`|~"  # of RFC 9110 5.6.2, less "-", "_", letters and digits


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
    """Upper case, `_` for `-`, and HTTP_ in front, except for the two CONTENT_ variables (RFC 3875 4.1.18)."""
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
    """A `_` could pass for `-`, and Proxy for HTTP_PROXY; nginx and gunicorn drop both. ASGI has no pseudo-headers."""
    assert maybe_cgi_name_from_header(name) is None


@pytest.mark.parametrize(
    ("name", "other"), [(b"x-\xdf", b"x-ss"), (b"x-\xb5", None), (b"x-\xff", None)], ids=["sharp s", "micro", "y"]
)
def test_header_name_beyond_ascii_does_not_become_another(name: bytes, other: bytes | None) -> None:
    """Only ASCII letters change case (RFC 9110 5.1), and the environ is latin-1 (PEP 3333, Unicode Issues)."""
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
    """A variable that no server should set must not fail the request (PEP 3333, environ Variables)."""
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
    """Values pass through latin-1 byte by byte, in order, and none is invented (ASGI HTTP spec, WSGI Compatibility)."""
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
    """From WSGI to ASGI and back, no byte is lost (ASGI HTTP spec, WSGI encoding differences)."""
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
    """They become one value of the same meaning (RFC 3875 4.1.18); chunked beats a length (RFC 9112 6.3)."""
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
    """ASGI promises only an iterable of two-item iterables (ASGI HTTP spec, Scope)."""
    assert environ_from_headers(headers) == {"HTTP_HOST": "x", "CONTENT_LENGTH": "3"}


@pytest.mark.parametrize("name", [b"x-a", b"cookie", b"content-length", b"content-type", b"x_a"])
def test_headers_that_repeat_cost_linear_time(name: bytes) -> None:
    """A request with 60,000 equal headers, about 1 MB, does not stop a server (as in CVE-2025-14550)."""
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
    """Anything but digits is refused, not partly used (RFC 9110 8.6; RFC 3875 4.1.2)."""
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
    """Two lengths allow request smuggling, so they are never joined (RFC 9112 6.3)."""
    headers = [(b"content-length", b"5"), *chunked, (b"Content-Length", other)]
    with pytest.raises(ClientProtocolError, match="differing Content-Length headers: 5, "):
        environ_from_headers(headers)


def test_hosts_that_differ_are_the_clients_fault() -> None:
    """Nobody knows which Host a proxy has used (RFC 9112 3.2)."""
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
    """The answer quotes only a part of what the client sent."""
    headers = [(b"content-length", b"1" * 100_000), (b"content-length", b"2")]
    with pytest.raises(ClientProtocolError) as caught:
        environ_from_headers(headers)
    assert len(str(caught.value)) < 200


def test_content_length_is_checked_though_chunked_beats_it() -> None:
    """A length that is no number contradicts the request, whatever else frames it (RFC 9112 6.3)."""
    with pytest.raises(ClientProtocolError):
        environ_from_headers([(b"transfer-encoding", b"chunked"), (b"content-length", b"-1")])


def test_headers_leave_out_what_is_no_header_of_the_request() -> None:
    """A server's other variables, of any type, are no headers, nor is an empty CONTENT_ one (PEP 3333, environ)."""
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
    """Some middleware and test clients set an int where PEP 3333 requires a str; it counts as the header."""
    assert scope_from_environ(environ_with(CONTENT_LENGTH=length))["headers"] == [(b"content-length", b"%d" % length)]
    with pytest.raises(ClientProtocolError, match="Content-Length is not a number: '-1'"):
        scope_from_environ(environ_with(CONTENT_LENGTH=-1))


def test_headers_beyond_latin_1_are_utf_8() -> None:
    """A server that decoded a header to Unicode broke PEP 3333 (A Note On String Types); the bytes were UTF-8."""
    assert headers_from_environ({"HTTP_X_A": "\u20ac"}) == [(b"x-a", "\u20ac".encode())]


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
