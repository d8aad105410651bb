import gc
import http
import logging
import re
import sys
import time
import weakref
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.errors import AppProtocolError
from bridge.sansio import response
from bridge.sansio.response import (
    BodyLength,
    ResponseFromASGI,
    ResponseFromWSGI,
    check_chunk,
    check_iterable,
    code_from_status,
    native_from_raw_headers,
    raw_headers_from_native,
    status_from_code,
)
from bridge.types import ExcInfo, Headers, RawHeaders

# The same examples in every run, at whatever speed.
PROPERTY = settings(derandomize=True, deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])

OK = "200 OK"
TOKEN = "!#$%&'*+-.^_`|~"  # of RFC 9110 5.6.2, besides letters and digits
# By which an app has the proxy in front of it send a file.
BODY_FROM_PROXY = ("X-Sendfile", "X-Accel-Redirect", "X-Lighttpd-Send-File", "X-Reproxy-URL")


def exc_info() -> ExcInfo:
    """Return the sys.exc_info() of an exception that has been raised."""
    try:
        raise ValueError("the app's own")
    except ValueError:
        return sys.exc_info()


# --- Status -------------------------------------------------------------------------------------

STATUSES = [
    (200, "200 OK"),
    (204, "204 No Content"),
    (304, "304 Not Modified"),
    (404, "404 Not Found"),
    # RFC 9110 15.5 renamed these four, and Python did so in 3.13.
    (413, "413 Content Too Large"),
    (414, "414 URI Too Long"),
    (416, "416 Range Not Satisfiable"),
    (422, "422 Unprocessable Content"),
    (500, "500 Internal Server Error"),
    (299, "299 Unknown"),
    (599, "599 Unknown"),
    (999, "999 Unknown"),
]


@pytest.mark.parametrize(("code", "status"), STATUSES)
def test_status_is_the_same_both_ways(code: int, status: str) -> None:
    """A code of ASGI is a code and a phrase in WSGI (ASGI HTTP spec, WSGI Compatibility)."""
    assert status_from_code(code) == status
    assert code_from_status(status) == code


def test_status_of_every_code_is_what_wsgi_asks_for() -> None:
    """Three digits, a space, a phrase, nothing around and no control character (PEP 3333, start_response)."""
    for code in range(200, 1000):
        status = status_from_code(code)
        assert re.fullmatch(r"[0-9]{3} [!-~]([ -~]*[!-~])?", status)
        assert code_from_status(status) == code


def test_status_may_be_an_http_status() -> None:
    """An enum of ints is an int (ASGI HTTP spec, Response Start)."""
    assert status_from_code(http.HTTPStatus.NOT_FOUND) == "404 Not Found"


@pytest.mark.parametrize("code", [99, 100, 103, 199, 1000, -200, 0, True, "200", b"404", 200.0, None])
def test_status_that_is_no_final_code_is_refused(code: object) -> None:
    """An int of three digits, and no interim one (ASGI HTTP spec, Response Start; RFC 9110 15)."""
    with pytest.raises(AppProtocolError, match="status must be an int from 200 to 999"):
        status_from_code(code)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("200", 200),
        ("200 ", 200),
        ("299 Custom Reason Here", 299),
        ("404 Nope", 404),
        ("200 D\xe9j\xe0 vu", 200),
    ],
)
def test_status_reason_means_nothing(status: str, code: int) -> None:
    """The phrase may be any latin-1 text, or missing, and is dropped (RFC 9110 15; PEP 3333, start_response)."""
    assert code_from_status(status) == code


@pytest.mark.parametrize(
    "status",
    [
        200,
        b"200 OK",
        None,
        "",
        "OK",
        "20 OK",
        "2000 OK",
        "200OK",
        " 200 OK",
        "200\tOK",
        "200 OK\r\nX: y",
        "200 OK\n",
        "200\n",
        "200 O\x00K",
        "200 O\x7fK",
        "200 \u20ac",
        "\u0662\u0660\u0660 OK",
        "100 Continue",
        "103 Early Hints",
        "099 X",
    ],
)
def test_status_that_is_malformed_is_refused(status: Any) -> None:
    """A str of three digits, a space and a phrase without control characters (PEP 3333, start_response)."""
    with pytest.raises(AppProtocolError, match="status must be a str like '200 OK'"):
        code_from_status(status)


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
    """All that a value may hold is carried exactly (ASGI HTTP spec, WSGI encoding differences; RFC 9110 5.5)."""
    assert native_from_raw_headers(raw_headers_from_native(headers)) == headers


def test_header_names_are_lower_case_for_asgi_and_as_they_came_for_wsgi() -> None:
    """ASGI has names in lower case, WSGI leaves them (ASGI HTTP spec, Response Start)."""
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
    """An app may change its list after start_response; what was said then counts (PEP 3333, start_response)."""
    headers = [("X-A", "1")]
    raw = raw_headers_from_native(headers)
    headers.clear()
    assert raw == [(b"x-a", b"1")]


def test_headers_of_a_wsgi_app_may_be_a_tuple() -> None:
    """They should be a list, but other servers take a tuple too (PEP 3333, start_response)."""
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
    """CR, LF, NUL and their like would split a response, and the error names the header (RFC 9110 5.5)."""
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
    """What belongs to a connection is its server's to send (PEP 3333, Other HTTP Features; RFC 9110 7.6.1)."""
    headers = [("x-a", "1"), (case(name), "close"), ("x-b", "2"), (case(name), "close")]
    raw = [(name.encode(), value.encode()) for name, value in headers]
    assert raw_headers_from_native(headers) == [(b"x-a", b"1"), (b"x-b", b"2")]
    assert native_from_raw_headers(raw) == [("x-a", "1"), ("x-b", "2")]


def test_headers_less_the_ones_that_connection_names() -> None:
    """Every field that Connection nominates goes with it (RFC 9110 7.6.1)."""
    headers = [("X-Hop", "1"), ("Connection", "close, x-HOP ,"), ("x-two", "2"), ("connection", "x-two"), ("x-c", "3")]
    assert raw_headers_from_native(headers) == [(b"x-c", b"3")]
    assert raw_headers_from_native([("X-Hop", "1"), ("x-two", "2"), ("Connection", "x-hop,x-two")]) == []
    assert raw_headers_from_native([("X-Hop", "1"), ("te", "x-hop")]) == [(b"x-hop", b"1")]


def test_hop_by_hop_header_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """The drop is told of, by name and once in a process, however many responses have it."""
    response._warn_hop_by_hop.cache_clear()  # other tests drop the same names
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


# --- Length -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "chunks", "passed_on", "reached", "overrun"),
    [
        (None, [b"ab", b"", b"c"], [b"ab", b"", b"c"], False, False),
        ("3", [b"ab", b"", b"c"], [b"ab", b"", b"c"], True, False),
        ("3", [b"abc"], [b"abc"], True, False),
        ("3", [b"abcdef"], [b"abc"], True, True),
        ("3", [b"ab", b"cd", b"ef"], [b"ab", b"c", b""], True, True),
        ("3", [b"abc", b""], [b"abc", b""], True, False),
        ("0", [], [], True, False),
        ("0", [b"a"], [b""], True, True),
        ("003", [b"abcd"], [b"abc"], True, True),
    ],
)
def test_body_is_held_to_its_content_length(
    length: str | None, chunks: list[bytes], passed_on: list[bytes], reached: bool, overrun: bool
) -> None:
    """No more bytes leave than were declared (PEP 3333, Handling the Content-Length Header; RFC 9110 8.6)."""
    body = BodyLength("GET", 200, [] if length is None else [length])
    assert body.declared == (None if length is None else int(length))
    assert [body.clamp(chunk) for chunk in chunks] == passed_on
    assert (body.reached, body.overrun, body.bodiless) == (reached, overrun, False)
    body.check_reached()


def test_body_too_long_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The surplus is dropped and the fault told of (PEP 3333, Handling the Content-Length Header)."""
    body = BodyLength("GET", 200, ["3"])
    for _ in range(3):
        body.clamp(b"ab")
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("bridge", logging.ERROR)
    assert "longer than its Content-Length of 3" in record.getMessage()


@pytest.mark.parametrize(("chunks", "missing"), [([], 3), ([b""], 3), ([b"a", b"b"], 1)])
def test_body_too_short_is_an_error_at_its_end(chunks: list[bytes], missing: int) -> None:
    """A client must not take it for whole (PEP 3333, Handling the Content-Length Header)."""
    body = BodyLength("GET", 200, ["3"])
    for chunk in chunks:
        body.clamp(chunk)
    assert not body.reached
    with pytest.raises(AppProtocolError, match=f"Content-Length of 3, and its body ended {missing} bytes short"):
        body.check_reached()


@pytest.mark.parametrize(("method", "code"), [("HEAD", 200), ("GET", 204), ("GET", 304), ("HEAD", 404)])
@pytest.mark.parametrize("lengths", [[], ["1234"], ["0"]])
def test_body_of_a_response_without_one_is_dropped_in_silence(
    method: str, code: int, lengths: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """HEAD, 204 and 304 have no body, and their Content-Length is of another one (RFC 9110 6.4.1 and 8.6)."""
    body = BodyLength(method, code, lengths)
    assert body.bodiless
    assert body.reached
    assert body.declared == (int(lengths[0]) if lengths else None)
    assert body.clamp(b"abc") == b""
    assert not body.overrun
    body.check_reached()
    assert not caplog.records


@pytest.mark.parametrize(("method", "code"), [("GET", 200), ("POST", 404), ("DELETE", 205), ("GET", 206), ("GET", 303)])
def test_body_of_any_other_response_is_passed_on(method: str, code: int) -> None:
    """No other method or status takes a body away (RFC 9110 6.4.1)."""
    body = BodyLength(method, code, [])
    assert not body.bodiless
    assert body.clamp(b"abc") == b"abc"


@pytest.mark.parametrize(
    "values", [["abc"], [""], ["-1"], ["+5"], ["5_0"], ["5.0"], ["0x5"], ["5,5"], ["\xb2"], ["5", "6"], ["5", "05"]]
)
def test_content_length_that_is_not_one_number_is_refused(values: list[str]) -> None:
    """Digits, and one meaning (RFC 9110 8.6)."""
    with pytest.raises(AppProtocolError, match="Content-Length must be one number"):
        BodyLength("GET", 200, values)


def test_content_length_is_no_other_header_of_as_many_letters() -> None:
    """Its name alone tells it (RFC 9110 8.6)."""
    assert len("Accept-Charset") == len("Content-Length")
    native, raw = (
        [("Accept-Charset", "utf-8"), ("cOnTeNt-lEnGtH", "5")],
        [(b"accept-charset", b"utf-8"), (b"cOnTeNt-lEnGtH", b"5")],
    )
    from_wsgi, from_asgi = ResponseFromWSGI("GET"), ResponseFromASGI("GET")
    from_wsgi.start_response(OK, native)
    from_asgi.start({"status": 200, "headers": raw})
    assert from_wsgi.length.declared == from_asgi.length.declared == 5


def test_content_length_that_no_integer_holds_is_refused() -> None:
    """Python converts no more than 4300 digits, and raises ValueError at that (RFC 9110 8.6)."""
    digits = "9" * 5000
    with pytest.raises(AppProtocolError, match="Content-Length"):
        BodyLength("GET", 200, [digits])


def test_content_length_may_be_said_twice() -> None:
    """Equal lengths contradict nothing (RFC 9110 8.6)."""
    assert BodyLength("GET", 200, ["5", "5"]).declared == 5


# --- A WSGI app's response ------------------------------------------------------------------------


def test_start_response_stores_a_start_message() -> None:
    """Status and headers become http.response.start; nothing has begun by that (ASGI HTTP spec, Response Start)."""
    answer = ResponseFromWSGI("GET")
    was_ready = answer.ready
    answer.start_response("404 Nope", [("Content-Length", "3"), ("Set-Cookie", "a"), ("Set-Cookie", "b")])
    before, message, after = answer.begun, answer.begin(), answer.begun
    assert (before, after) == (False, True)
    assert (was_ready, answer.ready) == (False, True)
    assert message == {
        "type": "http.response.start",
        "status": 404,
        "headers": [(b"content-length", b"3"), (b"set-cookie", b"a"), (b"set-cookie", b"b")],
    }
    assert type(message["status"]) is int
    assert answer.length.declared == 3


def test_start_response_knows_the_method() -> None:
    """A response to HEAD has no body (RFC 9110 9.3.2)."""
    answer = ResponseFromWSGI("HEAD")
    answer.start_response(OK, [("Content-Length", "3")])
    assert answer.length.bodiless


def test_start_response_knows_the_status() -> None:
    """A 204 has no body (RFC 9110 6.4.1)."""
    answer = ResponseFromWSGI("GET")
    answer.start_response("204 No Content", [])
    assert answer.length.bodiless


def test_start_response_of_a_204_has_no_content_length() -> None:
    """Content-Length of an app's 204 is dropped (RFC 9110 8.6)."""
    answer = ResponseFromWSGI("GET")
    with pytest.raises(AppProtocolError, match="Content-Length must be one number"):
        answer.start_response("204 No Content", [("Content-Length", "x")])
    answer.start_response("204 No Content", [("X-A", "1"), ("Content-Length", "0")], exc_info())
    assert answer.begin()["headers"] == [(b"x-a", b"1")]


@pytest.mark.parametrize("name", BODY_FROM_PROXY)
def test_start_response_of_an_empty_body_that_a_proxy_sends_has_no_content_length(name: str) -> None:
    """The length is that of the proxy's file, so a server would miss the body."""
    answer = ResponseFromWSGI("GET")
    answer.start_response(OK, [(name, "/file"), ("Content-Length", "3")])
    assert answer.begin(empty=True)["headers"] == [(name.lower().encode(), b"/file")]
    answer.length.check_reached()


def test_start_response_of_a_body_that_no_proxy_sends_has_its_content_length() -> None:
    """An empty body is short of its length, a body that the app sends itself is held to it, and HEAD has none."""
    answer = ResponseFromWSGI("GET")
    answer.start_response(OK, [("Content-Length", "3")])
    assert answer.begin(empty=True)["headers"] == [(b"content-length", b"3")]
    with pytest.raises(AppProtocolError, match="3 bytes short"):
        answer.length.check_reached()
    for method, empty in (("GET", False), ("HEAD", True)):
        answer = ResponseFromWSGI(method)
        answer.start_response(OK, [("X-Sendfile", "/file"), ("Content-Length", "3")])
        assert answer.begin(empty)["headers"] == [(b"x-sendfile", b"/file"), (b"content-length", b"3")]


def test_start_response_is_due_before_a_body() -> None:
    """A body, or an end, without start_response is the app's error (PEP 3333, The Application/Framework Side)."""
    answer = ResponseFromWSGI("GET")
    with pytest.raises(AppProtocolError, match="without calling start_response"):
        answer.begin()
    assert not answer.begun


@pytest.mark.parametrize("no_error", [None, (None, None, None)])
@pytest.mark.parametrize("begun", [False, True])
def test_start_response_twice_without_exc_info_is_an_error(begun: bool, no_error: ExcInfo | None) -> None:
    """It is fatal, also with sys.exc_info() of no error, and the first call stays (PEP 3333, start_response)."""
    answer = ResponseFromWSGI("GET")
    answer.start_response(OK, [], no_error)
    if begun:
        answer.begin()
    with pytest.raises(AppProtocolError, match="again without exc_info"):
        answer.start_response("201 Created", [], no_error)
    assert answer.begin()["status"] == 200


@pytest.mark.parametrize(
    "malformed",
    [5, True, "abc", (), (ValueError,), [None, None, None], (ValueError, "error", None), (1, ValueError(), 1)],
)
def test_exc_info_that_is_none_is_the_apps_error(malformed: Any) -> None:
    """It must be what sys.exc_info() returns (PEP 3333, The start_response() Callable)."""
    answer = ResponseFromWSGI("GET")
    with pytest.raises(AppProtocolError, match=f"exc_info must be .*, got {type(malformed).__name__}"):
        answer.start_response(OK, [], malformed)


@pytest.mark.parametrize(("status", "headers"), [("OK", []), (OK, [("X", "a\nb")]), (OK, [("Content-Length", "x")])])
def test_start_response_that_failed_has_been_called(status: str, headers: Headers) -> None:
    """After it only the form with exc_info is left (PEP 3333, The start_response() Callable)."""
    answer = ResponseFromWSGI("GET")
    with pytest.raises(AppProtocolError):
        answer.start_response(status, headers)
    with pytest.raises(AppProtocolError, match="again without exc_info"):
        answer.start_response(OK, [])
    with pytest.raises(AppProtocolError, match="without calling start_response"):
        answer.begin()
    assert not answer.ready
    answer.start_response("500 Oops", [], exc_info())
    assert answer.begin()["status"] == 500


def test_start_response_with_exc_info_replaces_all_that_was_stored() -> None:
    """Status, headers and what follows from them, as nothing has left yet (PEP 3333, start_response)."""
    answer = ResponseFromWSGI("GET")
    answer.start_response(OK, [("Content-Length", "5"), ("X-Old", "1")])
    answer.start_response("500 Oops", [("X-New", "1")], exc_info())
    answer.start_response("503 Oops", [("X-Newer", "1")], exc_info())
    assert answer.begin() == {"type": "http.response.start", "status": 503, "headers": [(b"x-newer", b"1")]}
    assert answer.length.declared is None
    assert answer.length.clamp(b"longer than 5") == b"longer than 5"


def test_start_response_may_have_exc_info_at_its_first_call() -> None:
    """An app may fail before it has said anything (PEP 3333, The start_response() Callable)."""
    answer = ResponseFromWSGI("GET")
    answer.start_response("500 Oops", [], exc_info())
    assert answer.begin()["status"] == 500


def test_start_response_too_late_raises_the_error_it_was_given() -> None:
    """The very object, with its traceback, and the old start stays (PEP 3333, The start_response() Callable)."""
    answer = ResponseFromWSGI("GET")
    answer.start_response(OK, [])
    answer.begin()
    given = exc_info()
    assert given[1] is not None
    given[1].__traceback__ = None  # the one that is given counts
    with pytest.raises(ValueError, match="the app's own") as caught:
        answer.start_response("500 Oops", [], given)
    assert caught.value is given[1]
    assert caught.traceback[-1].name == "exc_info"
    assert answer.begin()["status"] == 200


def test_start_response_too_late_raises_an_error_that_has_no_traceback() -> None:
    """The exception makes it the form with exc_info (PEP 3333, The start_response() Callable)."""
    answer = ResponseFromWSGI("GET")
    answer.start_response(OK, [])
    answer.begin()
    error = ValueError("never raised")
    with pytest.raises(ValueError, match="never raised"):
        answer.start_response("500 Oops", [], (ValueError, error, None))  # type: ignore[arg-type]


@pytest.mark.parametrize("begun", [False, True])
def test_start_response_keeps_no_exc_info(begun: bool) -> None:
    """Nothing refers to the exception once it is handled, so no cycle keeps it (PEP 3333, start_response)."""

    class Oops(Exception):
        pass

    answer = ResponseFromWSGI("GET")
    answer.start_response(OK, [])
    if begun:
        answer.begin()
    gc.disable()
    try:
        try:
            raise Oops
        except Oops as error:
            reference = weakref.ref(error)
            try:
                answer.start_response("500 Oops", [], sys.exc_info())
            except Oops:
                assert begun
        assert reference() is None
    finally:
        gc.enable()


# --- The body of a WSGI app -----------------------------------------------------------------------


@pytest.mark.parametrize("iterable", [None, "text", b"bytes", bytearray(b"bytes"), memoryview(b"bytes")], ids=type)
def test_iterable_that_would_yield_no_bytes_is_refused(iterable: object) -> None:
    """None, a str, or a block on its own is no iterable of bytes (PEP 3333, Specification Details)."""
    with pytest.raises(TypeError, match="returns an iterable of bytes"):
        check_iterable(iterable)


@pytest.mark.parametrize("iterable", [[], (), iter(()), [b"a"], (b"" for _ in "")])
def test_iterable_of_any_other_kind_is_accepted(iterable: object) -> None:
    """An iterable need not be a list (PEP 3333, Specification Details)."""
    check_iterable(iterable)


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        ("text", "got str of length 4; encode it first$"),
        (None, "got None$"),
        (65, "got 65$"),
        (bytearray(b"a"), "got bytearray of length 1$"),
        (memoryview(b"a"), "got memoryview"),
    ],
)
def test_chunk_that_is_not_bytes_is_refused(chunk: object, message: str) -> None:
    """A body is made of bytes, and anything else is the app's error (PEP 3333, Unicode Issues)."""
    with pytest.raises(TypeError, match=message):
        check_chunk(chunk)


@pytest.mark.parametrize("chunk", [b"", b"a", bytes(range(256))])
def test_chunk_of_bytes_is_accepted(chunk: bytes) -> None:
    """A chunk may hold any octets, or none (PEP 3333, Specification Details)."""
    check_chunk(chunk)


# --- An ASGI app's response -----------------------------------------------------------------------


def asgi_response(method: str = "GET", **start: Any) -> ResponseFromASGI:
    answer = ResponseFromASGI(method)
    answer.start({"type": "http.response.start", "status": 200, **start})
    return answer


def test_response_start_becomes_status_and_headers() -> None:
    """An int and pairs of bytes become a str and tuples of str (ASGI HTTP spec, WSGI Compatibility)."""
    answer = asgi_response(status=404, headers=[[b"content-length", b"3"], (b"X-A", b"caf\xe9")])
    assert answer.status == "404 Not Found"
    assert answer.headers == [("content-length", "3"), ("X-A", "caf\xe9")]
    assert answer.length.declared == 3


@pytest.mark.parametrize("start", [{}, {"headers": []}, {"headers": ()}, {"headers": None}])
def test_response_start_needs_no_headers(start: dict[str, Any]) -> None:
    """`headers` is optional (ASGI HTTP spec, Response Start)."""
    assert asgi_response(**start).headers == []


def test_response_start_needs_a_status() -> None:
    """`status` is not optional (ASGI HTTP spec, Response Start)."""
    with pytest.raises(AppProtocolError, match="has no 'status'"):
        ResponseFromASGI("GET").start({"type": "http.response.start"})


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_response_start_may_be_an_http_status_and_knows_the_method(method: str) -> None:
    """An enum serves as an int, and HEAD has no body (RFC 9110 9.3.2)."""
    answer = asgi_response(method, status=http.HTTPStatus.OK)
    assert answer.status == OK
    assert answer.length.bodiless is (method == "HEAD")
    assert asgi_response(method, status=http.HTTPStatus.NO_CONTENT).length.bodiless


def test_response_has_nothing_to_say_before_its_start() -> None:
    """A response that has not started has neither status nor headers."""
    answer = ResponseFromASGI("GET")
    assert (answer.status, answer.headers) == ("", [])


@pytest.mark.parametrize(
    ("body", "block"),
    [
        (b"abc", b"abc"),
        (b"", b""),
        (None, b""),
        (bytearray(b"abc"), b"abc"),
        (memoryview(b"abcdef")[::2], b"ace"),
        (bytes(range(256)), bytes(range(256))),
    ],
)
@pytest.mark.parametrize("more_body", [False, True])
def test_response_body_becomes_a_block_of_bytes(body: Any, block: bytes, more_body: bool) -> None:
    """WSGI gets bytes alone, and every octet as it was (PEP 3333, A Note On String Types)."""
    passed_on = asgi_response().pass_on({"type": "http.response.body", "body": body, "more_body": more_body})
    assert passed_on == block
    assert type(passed_on) is bytes


def test_response_body_is_optional() -> None:
    """`body` defaults to no bytes, `more_body` to False (ASGI HTTP spec, Response Body)."""
    assert asgi_response().pass_on({"type": "http.response.body"}) == b""


@pytest.mark.parametrize("body", ["abc", 5, [b"abc"]])
def test_response_body_that_is_not_bytes_is_refused(body: object) -> None:
    """The error is the app's, in send (ASGI HTTP spec, Response Body)."""
    with pytest.raises(AppProtocolError, match=f"must be bytes, got {type(body).__name__}"):
        asgi_response().pass_on({"type": "http.response.body", "body": body})


def test_response_body_is_held_to_its_content_length() -> None:
    """Surplus is dropped, over all blocks (RFC 9110 8.6)."""
    answer = asgi_response(headers=[(b"content-length", b"3")])
    assert answer.pass_on({"body": b"ab", "more_body": True}) == b"ab"
    assert answer.pass_on({"body": b"cd", "more_body": True}) == b"c"
    assert answer.pass_on({"body": b"ef"}) == b""


@pytest.mark.parametrize("last", [{}, {"more_body": False}, {"body": b"b"}])
def test_response_body_too_short_is_an_error_with_its_last_block(last: dict[str, Any]) -> None:
    """A short body is noticed at its end, and not before (RFC 9110 8.6)."""
    answer = asgi_response(headers=[(b"content-length", b"3")])
    assert answer.pass_on({"body": b"a", "more_body": True}) == b"a"
    with pytest.raises(AppProtocolError, match="bytes short"):
        answer.pass_on(last)


def test_response_of_a_204_has_no_content_length() -> None:
    """Content-Length of an app's 204 is dropped (RFC 9110 8.6)."""
    answer = asgi_response(status=204, headers=[(b"x-a", b"1"), (b"Content-Length", b"0")])
    assert answer.headers == [("x-a", "1")]
    assert answer.pass_on({"body": b"abc"}) == b""


@pytest.mark.parametrize("name", BODY_FROM_PROXY)
@pytest.mark.parametrize("empty_blocks", [0, 2])
def test_response_with_an_empty_body_that_a_proxy_sends_has_no_content_length(name: str, empty_blocks: int) -> None:
    """The length is that of the proxy's file; nothing is passed on before the body turns out to be empty."""
    answer = asgi_response(headers=[(name.encode(), b"/file"), (b"Content-Length", b"3")])
    for _ in range(empty_blocks):
        assert (answer.pass_on({"body": b"", "more_body": True}), answer.held) == (b"", True)
    assert (answer.pass_on({"body": b""}), answer.held) == (b"", False)
    assert answer.headers == [(name, "/file")]


def test_response_with_a_body_that_no_proxy_sends_has_its_content_length() -> None:
    """A body that the app sends itself is held to its length, and HEAD has none."""
    headers = [(b"x-sendfile", b"/file"), (b"content-length", b"3")]
    answer = asgi_response(headers=headers)
    assert (answer.pass_on({"body": b"", "more_body": True}), answer.held) == (b"", True)
    assert (answer.pass_on({"body": b"a", "more_body": True}), answer.held) == (b"a", False)
    with pytest.raises(AppProtocolError, match="2 bytes short"):
        answer.pass_on({})
    assert answer.headers == [("x-sendfile", "/file"), ("content-length", "3")]
    assert asgi_response("HEAD", headers=headers).held is False
    assert asgi_response(headers=headers[1:]).held is False
    assert asgi_response(headers=headers[:1]).held is False


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 304)])
def test_response_body_that_must_not_be_is_dropped(method: str, status: int) -> None:
    """An app may send the body or leave it out, and its headers stay (RFC 9110 9.3.2)."""
    for message in ({"body": b"abc"}, {}):
        answer = asgi_response(method, status=status, headers=[(b"content-length", b"1234")])
        assert answer.pass_on(message) == b""
        assert answer.headers == [("content-length", "1234")]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([(b"content-type", b"text/event-stream")], True),
        ([(b"Content-Type", b"Text/Event-Stream ; charset=utf-8")], True),
        ([(b"content-type", b"text/event-streams")], False),
        ([(b"content-type", b"text/plain"), (b"content-type", b"text/event-stream")], False),
        ([(b"content-type", b"text/event-stream"), (b"content-length", b"5")], False),  # it has an end of its own
        ([], False),
    ],
)
def test_event_streams_are_told_by_their_type(headers: Any, expected: bool) -> None:
    """text/event-stream without a length is one; before the start nothing is."""
    response = ResponseFromASGI("GET")
    assert not response.is_event_stream
    response.start({"type": "http.response.start", "status": 200, "headers": headers})
    assert response.is_event_stream == expected
