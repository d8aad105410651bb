import pytest

from bridge.sansio.announcement import announcement_from_scope
from bridge.types import RawHeaders
from tests.sansio.requests import scope_with


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], "NONE"),
        ([(b"expect", b"100-continue")], "CONTINUE"),
        ([(b"host", b"a"), (b"expect", b"100-Continue"), (b"x", b"y")], "CONTINUE"),  # in any case (RFC 9110 10.1.1)
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
