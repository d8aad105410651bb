import logging
import re
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.errors import AppProtocolError
from bridge.sansio import response_headers
from bridge.sansio.response_headers import native_from_raw_headers, raw_headers_from_native
from bridge.types import Headers, RawHeaders

# The same examples in every run, without a time limit.
PROPERTY = settings(derandomize=True, deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])

TOKEN = "!#$%&'*+-.^_`|~"  # of RFC 9110 5.6.2, besides letters and digits


# --- Headers ------------------------------------------------------------------------------------

HEADERS: list[tuple[Headers, RawHeaders]] = [
    ([], []),
    ([("content-type", "text/plain")], [(b"content-type", b"text/plain")]),
    ([("b", "2"), ("a", "1"), ("c", "3"), ("a", "0")], [(b"b", b"2"), (b"a", b"1"), (b"c", b"3"), (b"a", b"0")]),
    ([("set-cookie", "a=1"), ("set-cookie", "b=2")], [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]),
    ([("x-empty", "")], [(b"x-empty", b"")]),
    ([("x-a", "caf\xe9")], [(b"x-a", b"caf\xe9")]),
    ([("x-a", "=?utf-8?q?caf=C3=A9?=")], [(b"x-a", b"=?utf-8?q?caf=C3=A9?=")]),
    ([("content-length", "5")], [(b"content-length", b"5")]),
    ([("content-encoding", "gzip")], [(b"content-encoding", b"gzip")]),
    ([(TOKEN, "1")], [(TOKEN.encode(), b"1")]),
    ([("x-connection", "1"), ("upgrade-to", "1")], [(b"x-connection", b"1"), (b"upgrade-to", b"1")]),
]


@pytest.mark.parametrize(("native", "raw"), HEADERS)
def test_headers_are_the_same_both_ways(native: Headers, raw: RawHeaders) -> None:
    """Order and repeats are kept, values go through latin-1 (ASGI HTTP spec, HTTP and Response Start)."""
    assert raw_headers_from_native(native) == raw
    assert native_from_raw_headers(raw) == native


def test_a_tab_in_a_value_gets_through_as_far_as_it_may() -> None:
    """HTTP allows it (RFC 9110 5.5), WSGI does not (PEP 3333, The start_response() Callable)."""
    assert raw_headers_from_native([("x-a", "a\tb\t")]) == [(b"x-a", b"a\tb")]
    assert native_from_raw_headers([(b"x-a", b"\ta\tb\t")]) == [("x-a", "a b")]


NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789" + TOKEN, min_size=1).map(lambda name: f"x{name}")
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"))


@PROPERTY
@given(st.lists(st.tuples(NAMES, VALUES.map(lambda value: value.strip(" ")))))
def test_headers_of_any_bytes_survive_the_way_there_and_back(headers: Headers) -> None:
    """Every legal value arrives unchanged (ASGI HTTP spec, WSGI encoding differences; RFC 9110 5.5)."""
    assert native_from_raw_headers(raw_headers_from_native(headers)) == headers


def test_header_names_are_lower_case_for_asgi_and_as_they_came_for_wsgi() -> None:
    """ASGI requires names in lower case, WSGI keeps them (ASGI HTTP spec, Response Start)."""
    assert raw_headers_from_native([("X-Camel", "V")]) == [(b"x-camel", b"V")]
    assert native_from_raw_headers([(b"X-Camel", b"V")]) == [("X-Camel", "V")]


def test_header_values_have_no_whitespace_around_them() -> None:
    """Leading and trailing whitespace is not part of a value (RFC 9110 5.5)."""
    assert raw_headers_from_native([("a", " \tb c\t ")]) == [(b"a", b"b c")]
    assert native_from_raw_headers([(b"a", b" \tb c\t ")]) == [("a", "b c")]


@pytest.mark.parametrize(
    "headers",
    [
        [[b"x-a", b"1"], [b"x-b", b"2"]],
        ((b"x-a", b"1"), (b"x-b", b"2")),
        (pair for pair in [(b"x-a", b"1"), (b"x-b", b"2")]),
        [iter([b"x-a", b"1"]), iter([b"x-b", b"2"])],
        {b"x-a": b"1", b"x-b": b"2"}.items(),
    ],
    ids=["lists", "tuples", "generator", "iterators", "dict items"],
)
def test_headers_of_an_asgi_app_may_be_any_iterable_of_pairs(headers: Any) -> None:
    """They are an iterable of two-item iterables; WSGI gets a list of tuples (ASGI HTTP spec, Response Start)."""
    native = native_from_raw_headers(headers)
    assert native == [("x-a", "1"), ("x-b", "2")]
    assert type(native) is list
    assert {type(item) for item in native} == {tuple}


def test_headers_of_a_wsgi_app_are_copied() -> None:
    """If an app changes its list after start_response, the response does not change (PEP 3333, start_response)."""
    headers = [("X-A", "1")]
    raw = raw_headers_from_native(headers)
    headers.clear()
    assert raw == [(b"x-a", b"1")]


def test_headers_of_a_wsgi_app_may_be_a_tuple() -> None:
    """Headers should be a list, but other servers accept a tuple, too (PEP 3333, start_response)."""
    headers: Any = (("X-A", "1"),)
    assert raw_headers_from_native(headers) == [(b"x-a", b"1")]


BAD_NAMES = [
    "",
    "a b",
    "a:",
    ":status",
    "a\r\nb",
    "a\x00",
    "(a)",
    "a,b",
    '"a"',
    "caf\xe9",
    "a\x7f",
    "a/b",
    "a@",
    "[",
    "{",
]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("before", [[], [("x-ok", "1")]], ids=["first", "second"])
def test_header_name_that_is_no_token_is_refused(name: str, before: Headers) -> None:
    """A name is a token; a pseudo header is none (RFC 9110 5.1; ASGI HTTP spec, Response Start)."""
    headers = [*before, (name, "1")]
    raw = [(name.encode("latin-1"), value.encode()) for name, value in headers]
    token = re.match("[a-z]*", name)
    assert token is not None
    followed_by = f" followed by {name[token.end()]!r}" if name else ""
    expected = re.escape(f"header name {token[0]!r}{followed_by} is not a token")
    with pytest.raises(AppProtocolError, match=expected):
        raw_headers_from_native(headers)
    with pytest.raises(AppProtocolError, match=expected):
        native_from_raw_headers(raw)


BAD_VALUES = ["a\r\nSet-Cookie: b", "a\n", "a\r", "\na", "a\x00b", "\x0b", "\x1f", "\x7f"]


@pytest.mark.parametrize("value", BAD_VALUES)
@pytest.mark.parametrize("before", [[], [("x-ok", "1")]], ids=["first", "second"])
def test_header_value_with_a_control_character_is_refused_by_name(value: str, before: Headers) -> None:
    """CR, LF, NUL and the like could split a response, so the error names the header (RFC 9110 5.5)."""
    headers = [*before, ("X-Bad", value)]
    raw = [(name.encode(), value.encode()) for name, value in headers]
    with pytest.raises(AppProtocolError, match="header 'X-Bad' holds CR, LF, NUL"):
        raw_headers_from_native(headers)
    with pytest.raises(AppProtocolError, match="header 'X-Bad' holds CR, LF, NUL"):
        native_from_raw_headers(raw)


@pytest.mark.parametrize("header", [("X-Bad", "\u20ac"), ("X-Bad", "\udcff"), ("X-Bad\u20ac", "a")])
def test_header_text_beyond_latin_1_is_refused_by_name(header: tuple[str, str]) -> None:
    """A native string holds no code point above 0xFF (PEP 3333, Unicode Issues)."""
    with pytest.raises(AppProtocolError, match="X-Bad"):
        raw_headers_from_native([header])


@pytest.mark.parametrize(
    "headers",
    [
        None,
        "X: 1",
        {"X": "1"},
        iter([("X", "1")]),
        5,
        [("X", 1)],
        [("X", None)],
        [("X", b"1")],
        [(b"X", "1")],
        [(1, "1")],
        [(None, "1")],
        [("X",)],
        [("X", "1", "2")],
        [None],
        [5],
    ],
)
def test_headers_of_a_wsgi_app_are_a_list_of_pairs_of_str(headers: Any) -> None:
    """Anything else is refused in start_response, with nothing sent (PEP 3333, The start_response() Callable)."""
    with pytest.raises(AppProtocolError, match=r"headers must be|header name"):
        raw_headers_from_native(headers)


@pytest.mark.parametrize(
    "headers",
    [
        5,
        [5],
        [None],
        [("x", "1")],
        [(b"x", "1")],
        [("x", b"1")],
        [(b"x", 1)],
        [(b"x",)],
        [(b"x", b"1", b"2")],
        {b"x": b"1"},
        b"x: 1",
        "x: 2",
    ],
)
def test_headers_of_an_asgi_app_are_pairs_of_bytes(headers: Any) -> None:
    """Anything else is refused in send (ASGI HTTP spec, Response Start)."""
    with pytest.raises(AppProtocolError, match="headers must be pairs of bytes"):
        native_from_raw_headers(headers)


HOP_BY_HOP = [
    "Connection",
    "Keep-Alive",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Trailers",
    "Transfer-Encoding",
    "Upgrade",
]


@pytest.mark.parametrize("name", HOP_BY_HOP)
@pytest.mark.parametrize("case", [str, str.lower, str.upper])
def test_headers_less_the_hop_by_hop_ones(name: str, case: Any) -> None:
    """Only the server may send the headers of a connection (PEP 3333, Other HTTP Features; RFC 9110 7.6.1)."""
    headers = [("x-a", "1"), (case(name), "close"), ("x-b", "2"), (case(name), "close")]
    raw = [(name.encode(), value.encode()) for name, value in headers]
    assert raw_headers_from_native(headers) == [(b"x-a", b"1"), (b"x-b", b"2")]
    assert native_from_raw_headers(raw) == [("x-a", "1"), ("x-b", "2")]


def test_headers_less_the_ones_that_connection_names() -> None:
    """Every field that Connection names is dropped, too (RFC 9110 7.6.1)."""
    headers = [("X-Hop", "1"), ("Connection", "close, x-HOP ,"), ("x-two", "2"), ("connection", "x-two"), ("x-c", "3")]
    assert raw_headers_from_native(headers) == [(b"x-c", b"3")]
    assert raw_headers_from_native([("X-Hop", "1"), ("x-two", "2"), ("Connection", "x-hop,x-two")]) == []
    assert raw_headers_from_native([("X-Hop", "1"), ("te", "x-hop")]) == [(b"x-hop", b"1")]


def test_hop_by_hop_header_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """The dropped header is named in one warning per process, however many responses have it."""
    response_headers._warn_hop_by_hop.cache_clear()  # other tests drop the same names
    for name in ("Keep-Alive", "keep-alive", "TE"):
        raw_headers_from_native([(name, "1"), (name, "2")])
    warnings = [(record.name, record.levelno, record.args) for record in caplog.records]
    assert warnings == [("bridge", logging.WARNING, ("keep-alive",)), ("bridge", logging.WARNING, ("te",))]


def test_hop_by_hop_header_that_is_invalid_is_an_error_all_the_same() -> None:
    """CR and LF are refused before anything is dropped (RFC 9110 5.5)."""
    with pytest.raises(AppProtocolError, match="'Connection' holds CR, LF, NUL"):
        raw_headers_from_native([("Connection", "a\r\nb")])


def test_headers_cost_linear_time() -> None:
    """60,000 headers of one name take no longer than their bytes need."""
    headers = [("x-a", "1234567890")] * 60_000 + [("connection", "x-b,") for _ in range(1000)]
    start = time.process_time()
    assert len(native_from_raw_headers(raw_headers_from_native(headers))) == 60_000
    assert time.process_time() - start < 1
