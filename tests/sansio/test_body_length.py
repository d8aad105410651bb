import logging

import pytest

from bridge.errors import AppProtocolError
from bridge.sansio.body_length import BodyLength
from bridge.sansio.response import ResponseFromASGI, ResponseFromWSGI

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
    """No more bytes are passed on than declared (PEP 3333, Handling the Content-Length Header; RFC 9110 8.6)."""
    body = BodyLength("GET", 200, [] if length is None else [length])
    assert body.declared == (None if length is None else int(length))
    assert [body.clamp(chunk) for chunk in chunks] == passed_on
    assert (body.reached, body.overrun, body.bodiless) == (reached, overrun, False)
    body.check_reached()


def test_body_too_long_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The surplus is dropped, and the error is logged (PEP 3333, Handling the Content-Length Header)."""
    body = BodyLength("GET", 200, ["3"])
    for _ in range(3):
        body.clamp(b"ab")
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("bridge", logging.ERROR)
    assert "longer than its Content-Length of 3" in record.getMessage()


@pytest.mark.parametrize(("chunks", "missing"), [([], 3), ([b""], 3), ([b"a", b"b"], 1)])
def test_body_too_short_is_an_error_at_its_end(chunks: list[bytes], missing: int) -> None:
    """A client must not take a short body for whole (PEP 3333, Handling the Content-Length Header)."""
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
    """HEAD, 204 and 304 have no body, and their Content-Length is that of another response (RFC 9110 6.4.1 and 8.6)."""
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
    """Content-Length consists of digits, and all values must agree (RFC 9110 8.6)."""
    with pytest.raises(AppProtocolError, match="Content-Length must be one number"):
        BodyLength("GET", 200, values)


def test_content_length_is_no_other_header_of_as_many_letters() -> None:
    """A header of the same length is not taken for Content-Length (RFC 9110 8.6)."""
    assert len("Accept-Charset") == len("Content-Length")
    native, raw = (
        [("Accept-Charset", "utf-8"), ("cOnTeNt-lEnGtH", "5")],
        [(b"accept-charset", b"utf-8"), (b"cOnTeNt-lEnGtH", b"5")],
    )
    from_wsgi, from_asgi = ResponseFromWSGI("GET"), ResponseFromASGI("GET")
    from_wsgi.start_response("200 OK", native)
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
