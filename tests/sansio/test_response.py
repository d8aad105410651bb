import gc
import http
import sys
import weakref
from typing import Any

import pytest

from bridge.errors import AppProtocolError
from bridge.sansio.response import ResponseFromASGI, ResponseFromWSGI, check_chunk, check_iterable
from bridge.types import ExcInfo, Headers

OK = "200 OK"
# With these an app makes the proxy in front of it send a file.
BODY_FROM_PROXY = ("X-Sendfile", "X-Accel-Redirect", "X-Lighttpd-Send-File", "X-Reproxy-URL")


def exc_info() -> ExcInfo:
    """Return the sys.exc_info() of an exception that has been raised."""
    try:
        raise ValueError("the app's own")
    except ValueError:
        return sys.exc_info()


# --- A WSGI app's response ------------------------------------------------------------------------


def test_start_response_stores_a_start_message() -> None:
    """Status and headers become http.response.start, which is not sent yet (ASGI HTTP spec, Response Start)."""
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
    """The length is that of the proxy's file, so a server would find the body too short."""
    answer = ResponseFromWSGI("GET")
    answer.start_response(OK, [(name, "/file"), ("Content-Length", "3")])
    assert answer.begin(empty=True)["headers"] == [(name.lower().encode(), b"/file")]
    answer.length.check_reached()


def test_start_response_of_a_body_that_no_proxy_sends_has_its_content_length() -> None:
    """An empty body is too short, a body that the app sends is checked against its length, and HEAD has none."""
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
    with pytest.raises(AppProtocolError, match="before it called start_response"):
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
    """After a failed call, only one with exc_info is allowed (PEP 3333, The start_response() Callable)."""
    answer = ResponseFromWSGI("GET")
    with pytest.raises(AppProtocolError):
        answer.start_response(status, headers)
    with pytest.raises(AppProtocolError, match="again without exc_info"):
        answer.start_response(OK, [])
    with pytest.raises(AppProtocolError, match="before it called start_response"):
        answer.begin()
    assert not answer.ready
    answer.start_response("500 Oops", [], exc_info())
    assert answer.begin()["status"] == 500


def test_start_response_with_exc_info_replaces_all_that_was_stored() -> None:
    """It replaces status, headers and length, because nothing was sent yet (PEP 3333, start_response)."""
    answer = ResponseFromWSGI("GET")
    answer.start_response(OK, [("Content-Length", "5"), ("X-Old", "1")])
    answer.start_response("500 Oops", [("X-New", "1")], exc_info())
    answer.start_response("503 Oops", [("X-Newer", "1")], exc_info())
    assert answer.begin() == {"type": "http.response.start", "status": 503, "headers": [(b"x-newer", b"1")]}
    assert answer.length.declared is None
    assert answer.length.clamp(b"longer than 5") == b"longer than 5"


def test_start_response_may_have_exc_info_at_its_first_call() -> None:
    """An app may fail before its first start_response (PEP 3333, The start_response() Callable)."""
    answer = ResponseFromWSGI("GET")
    answer.start_response("500 Oops", [], exc_info())
    assert answer.begin()["status"] == 500


def test_start_response_too_late_raises_the_error_it_was_given() -> None:
    """It raises the same object with its traceback, and the old start stays (PEP 3333, start_response)."""
    answer = ResponseFromWSGI("GET")
    answer.start_response(OK, [])
    answer.begin()
    given = exc_info()
    assert given[1] is not None
    given[1].__traceback__ = None  # the given traceback counts
    with pytest.raises(ValueError, match="the app's own") as caught:
        answer.start_response("500 Oops", [], given)
    assert caught.value is given[1]
    assert caught.traceback[-1].name == "exc_info"
    assert answer.begin()["status"] == 200


def test_start_response_too_late_raises_an_error_that_has_no_traceback() -> None:
    """The exception alone makes it a call with exc_info (PEP 3333, The start_response() Callable)."""
    answer = ResponseFromWSGI("GET")
    answer.start_response(OK, [])
    answer.begin()
    error = ValueError("never raised")
    with pytest.raises(ValueError, match="never raised"):
        answer.start_response("500 Oops", [], (ValueError, error, None))  # type: ignore[arg-type]


@pytest.mark.parametrize("begun", [False, True])
def test_start_response_keeps_no_exc_info(begun: bool) -> None:
    """Nothing refers to the exception once it is handled, so it is freed (PEP 3333, start_response)."""

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
    """None, a str or a bare bytes is not an iterable of bytes (PEP 3333, Specification Details)."""
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


@pytest.mark.parametrize("header", [(b"bad name", b"1"), (b"content-length", b"many")])
def test_response_start_that_is_invalid_starts_nothing(header: tuple[bytes, bytes]) -> None:
    """An invalid start changes nothing, so another one can still be sent."""
    answer = ResponseFromASGI("GET")
    with pytest.raises(AppProtocolError):
        answer.start({"type": "http.response.start", "status": 200, "headers": [header]})
    assert (answer.status, answer.headers) == ("", [])


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
    """WSGI gets only bytes, and every octet unchanged (PEP 3333, A Note On String Types)."""
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
    """Whether or not the app sends the body, its headers stay (RFC 9110 9.3.2)."""
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
        ([(b"content-type", b"text/event-stream"), (b"content-length", b"5")], False),  # its length tells its end
        ([], False),
    ],
)
def test_event_streams_are_told_by_their_type(headers: Any, expected: bool) -> None:
    """text/event-stream without a length is one; before the start nothing is."""
    response = ResponseFromASGI("GET")
    assert not response.is_event_stream
    response.start({"type": "http.response.start", "status": 200, "headers": headers})
    assert response.is_event_stream == expected
