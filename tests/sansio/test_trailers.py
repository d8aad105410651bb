from typing import Any

import pytest

from bridge.errors import AppProtocolError
from bridge.sansio.trailers import (
    accepts_trailers,
    maybe_send_trailers,
    native_trailers_from_raw,
    raw_trailers_from_native,
)
from bridge.types import Headers, RawHeaders

TRAILERS: list[tuple[Headers, RawHeaders]] = [
    ([], []),
    ([("grpc-status", "0"), ("grpc-message", "")], [(b"grpc-status", b"0"), (b"grpc-message", b"")]),
    ([("x-a", "caf\xe9"), ("x-a", "2")], [(b"x-a", b"caf\xe9"), (b"x-a", b"2")]),
]


@pytest.mark.parametrize(("native", "raw"), TRAILERS)
def test_trailers_are_the_same_both_ways(native: Headers, raw: RawHeaders) -> None:
    """Order and repeats are kept, as with headers."""
    assert raw_trailers_from_native(native) == raw
    assert native_trailers_from_raw(raw) == native


@pytest.mark.parametrize("name", ["Content-Length", "content-type", "Host", "Set-Cookie", "authorization"])
def test_a_field_that_is_needed_before_the_body_is_no_trailer(name: str) -> None:
    """Fields that frame, route, authorise or describe the content come too late (RFC 9110 6.5.1)."""
    with pytest.raises(AppProtocolError, match=f"(?i)'{name}' must not be a trailer"):
        raw_trailers_from_native([("x-a", "1"), (name, "1")])
    with pytest.raises(AppProtocolError, match=f"'{name}' must not be a trailer"):
        native_trailers_from_raw([(name.encode(), b"1")])


@pytest.mark.parametrize("name", ["Transfer-Encoding", "Connection", "Trailer"])
def test_a_hop_by_hop_field_is_no_trailer(name: str) -> None:
    """Only the server may send such fields, so they are dropped, as in headers (PEP 3333, Other HTTP Features)."""
    assert raw_trailers_from_native([(name, "x"), ("x-a", "1")]) == [(b"x-a", b"1")]
    assert native_trailers_from_raw([(name.lower().encode(), b"x"), (b"x-a", b"1")]) == [("x-a", "1")]


@pytest.mark.parametrize(("name", "value"), [(":status", "200"), ("x-a", "1\r\nx-b: 2"), ("", "1")])
def test_an_invalid_trailer_is_the_apps_error(name: str, value: str) -> None:
    """Pseudo-headers and line breaks are refused (docs/extensions, HTTP Trailers; RFC 9110 5.5)."""
    with pytest.raises(AppProtocolError):
        raw_trailers_from_native([(name, value)])
    with pytest.raises(AppProtocolError):
        native_trailers_from_raw([(name.encode(), value.encode())])


@pytest.mark.parametrize(
    ("te", "accepts"),
    [
        ("trailers", True),
        ("Trailers", True),
        ("deflate;q=0.5, trailers", True),
        ("trailers;q=1", True),
        ("deflate", False),
        ("x-trailers", False),
        ("", False),
        (None, False),
    ],
)
def test_te_says_whether_the_client_takes_trailers(te: str | None, accepts: bool) -> None:
    """`trailers` is one member of the list, in any case (RFC 9110 10.1.4)."""
    assert accepts_trailers({"HTTP_TE": te} if te is not None else {}) is accepts


@pytest.mark.parametrize("key", ["wsgi.ext.http.send_trailers", "gunicorn.http2.send_trailers"])
def test_the_servers_callable_is_found_by_either_name(key: str) -> None:
    """A value that is not callable is ignored."""
    environ: dict[str, Any] = {key: list}
    assert maybe_send_trailers(environ) is list
    assert maybe_send_trailers({key: "yes"}) is None
    assert maybe_send_trailers({}) is None
