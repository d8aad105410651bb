import http
import re
from typing import Any

import pytest

from bridge.errors import AppProtocolError
from bridge.sansio.status import code_from_status, status_from_code

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
    """ASGI's code becomes a code and a phrase in WSGI (ASGI HTTP spec, WSGI Compatibility)."""
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
    """A status is an int of three digits, and not an interim one (ASGI HTTP spec, Response Start; RFC 9110 15)."""
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
    """A status is three digits, a space and a phrase without control characters (PEP 3333, start_response)."""
    with pytest.raises(AppProtocolError, match="status must be a str like '200 OK'"):
        code_from_status(status)
