from collections.abc import Callable, Iterable
from typing import Any

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import asgi_response, http_app
from wsgi_asgi_conformance.asgi_to_wsgi.recording import END, scope_of
from wsgi_asgi_conformance.samples import http_environ
from wsgi_asgi_conformance.types import ASGIApp, Receive, Scope, Send
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIServer

# All that a field value may hold (RFC 9110 5.5); a space at either end would not belong to the value.
ALL_BYTES = b"x" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100)) + b"x"
MIXED = [
    (b"content-type", b"text/plain"),
    (b"x-b", b"1"),
    (b"set-cookie", b"a=1"),
    (b"x-a", b"2"),
    (b"x-b", b"3"),
    (b"set-cookie", b"b=2"),
    (b"link", b"</b>"),
    (b"link", b"</a>"),
    (b"x-b", b"1"),
    (b"vary", b""),
]


def started_by(headers: Any) -> ASGIApp:
    """Return an app that answers with `headers`, whatever these are."""

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({**END, "body": b"done"})

    return app


# Request headers


@clause("ASGI-HTTP-004", "ASGI-HTTP-021")
def test_request_headers_are_pairs_of_bytes(adapt: ToWSGI, serve: WSGIServer) -> None:
    """Each header is a pair of bytes objects, however often the app iterates over the headers."""
    headers = scope_of(adapt, serve, http_environ("POST", "/", b"x", CONTENT_TYPE="a/b", HTTP_X_ONE="1"))["headers"]
    first, second = ([[*header] for header in headers] for _ in range(2))
    assert first == second
    assert len(first) == 4
    assert all([type(part) for part in header] == [bytes, bytes] for header in first)


@clause("ASGI-HTTP-022", "ASGI-HTTP-024")
def test_request_headers_are_those_of_the_environ(adapt: ToWSGI, serve: WSGIServer) -> None:
    """No header is lost or invented, names are in lower case, and values that the server joined stay joined."""
    environ = http_environ(
        HTTP_ACCEPT="b, a",
        HTTP_COOKIE="b=2; a=1",
        HTTP_X_FORWARDED_FOR="192.0.2.9, 192.0.2.8,192.0.2.9",
        HTTP_X_EMPTY="",
        SERVER_SOFTWARE="not a header",
        NOT_HTTP_X="nor this",
    )
    assert sorted(map(tuple, scope_of(adapt, serve, environ)["headers"])) == [
        (b"accept", b"b, a"),
        (b"cookie", b"b=2; a=1"),
        (b"host", b"example.org"),
        (b"x-empty", b""),
        (b"x-forwarded-for", b"192.0.2.9, 192.0.2.8,192.0.2.9"),
    ]


@clause("ASGI-HTTP-026")
def test_request_headers_have_no_pseudo_header(adapt: ToWSGI, serve: WSGIServer) -> None:
    """Names of HTTP/2 that begin with a colon are not headers, and the authority becomes host."""
    environ = http_environ(**{"HTTP_:AUTHORITY": "example.net", "HTTP_:METHOD": "GET", "SERVER_PROTOCOL": "HTTP/2.0"})
    assert [tuple(header) for header in scope_of(adapt, serve, environ)["headers"]] == [(b"host", b"example.org")]


@clause("ASGI-HTTP-095")
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"CONTENT_TYPE": "text/plain"}, [(b"content-length", b"3"), (b"content-type", b"text/plain")]),
        ({}, [(b"content-length", b"3")]),
        ({"CONTENT_TYPE": "", "CONTENT_LENGTH": ""}, []),
        (
            {"CONTENT_TYPE": "text/plain", "HTTP_CONTENT_TYPE": "text/plain", "HTTP_CONTENT_LENGTH": "3"},
            [(b"content-length", b"3"), (b"content-type", b"text/plain")],
        ),
    ],
    ids=["both", "length", "empty", "twice"],
)
def test_content_type_and_length_are_headers_where_they_are_not_empty(
    adapt: ToWSGI, serve: WSGIServer, variables: dict[str, str], expected: list[tuple[bytes, bytes]]
) -> None:
    """CONTENT_TYPE and CONTENT_LENGTH, which have no HTTP_ prefix, each become one header unless empty."""
    headers = scope_of(adapt, serve, http_environ("POST", "/", b"one", **variables))["headers"]
    assert sorted(tuple(header) for header in headers if header[0].startswith(b"content-")) == expected


@clause("ASGI-HTTP-109")
def test_request_header_values_are_carried_exactly(adapt: ToWSGI, serve: WSGIServer) -> None:
    """Each byte that a request header may hold reaches the app unchanged."""
    headers = scope_of(adapt, serve, http_environ(HTTP_X_ALL=ALL_BYTES.decode("latin-1")))["headers"]
    assert dict(headers)[b"x-all"] == ALL_BYTES


# Response headers


@clause("ASGI-HTTP-004", "ASGI-HTTP-052")
def test_response_headers_keep_their_order(adapt: ToWSGI, serve: WSGIServer) -> None:
    """Each header reaches the server separately, in the app's order, with all repeats."""
    request = serve(adapt(asgi_response(b"one", headers=MIXED))).finish()
    assert request.headers == [(name.decode(), value.decode()) for name, value in MIXED]


@clause("ASGI-HTTP-006")
def test_set_cookie_is_not_joined(adapt: ToWSGI, serve: WSGIServer) -> None:
    """Three cookies stay three headers, because a cookie may hold a comma."""
    cookies = [b"a=1", b"b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT", b"a=1"]
    request = serve(adapt(asgi_response(headers=[(b"set-cookie", cookie) for cookie in cookies]))).finish()
    assert request.headers == [("set-cookie", cookie.decode()) for cookie in cookies]


@clause("ASGI-HTTP-036")
@pytest.mark.parametrize("blocks", [(), (b"one",), (b"one", b"two")], ids=len)
def test_framing_is_left_to_the_server(adapt: ToWSGI, serve: WSGIServer, blocks: tuple[bytes, ...]) -> None:
    """A response without Content-Length gets no Transfer-Encoding from the adapter, and no wrong length."""
    request = serve(adapt(asgi_response(*blocks))).finish()
    assert [header for header in request.headers if header != ("content-length", str(len(request.body)))] == []


@clause("ASGI-HTTP-054")
def test_response_headers_are_optional(adapt: ToWSGI, serve: WSGIServer) -> None:
    """http.response.start without headers means an empty list of them."""

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({**END, "body": b"done"})

    request = serve(adapt(app)).finish()
    assert (request.headers, request.body) == ([], b"done")


@clause("ASGI-HTTP-055")
@pytest.mark.parametrize(
    "make",
    [tuple, lambda headers: (list(header) for header in headers), lambda headers: (iter(header) for header in headers)],
    ids=["tuple of tuples", "generator of lists", "generator of iterators"],
)
def test_response_headers_are_any_iterable(
    adapt: ToWSGI, serve: WSGIServer, make: Callable[[Iterable[tuple[bytes, bytes]]], Any]
) -> None:
    """Headers may be an iterable of iterables that can be iterated only once."""
    request = serve(adapt(started_by(make(MIXED)))).finish()
    assert request.headers == [(name.decode(), value.decode()) for name, value in MIXED]


@clause("ASGI-HTTP-055")
def test_response_headers_in_upper_case_are_not_corrupted(adapt: ToWSGI, serve: WSGIServer) -> None:
    """A name that the app gives in upper case arrives in some case, or is refused."""
    request = serve(adapt(started_by([(b"X-One", b"Two")]))).until_ended()
    assert request.error is not None or [(name.lower(), value) for name, value in request.headers] == [("x-one", "Two")]


@clause("ASGI-HTTP-057")
@pytest.mark.parametrize("name", [b"transfer-encoding", b"Transfer-Encoding"])
def test_transfer_encoding_is_ignored(adapt: ToWSGI, serve: WSGIServer, name: bytes) -> None:
    """The adapter drops the app's Transfer-Encoding, because only the server frames the body."""
    request = serve(adapt(started_by([(b"x-one", b"1"), (name, b"chunked")]))).finish()
    assert (request.headers, request.body) == ([("x-one", "1")], b"done")


@clause("ASGI-HTTP-059")
@pytest.mark.parametrize("accepted", ["gzip", None])
def test_content_encoding_is_the_apps(adapt: ToWSGI, serve: WSGIServer, accepted: str | None) -> None:
    """The body leaves as the app sent it, with its Content-Encoding, if any."""
    environ = http_environ(HTTP_ACCEPT_ENCODING=accepted)
    request = serve(adapt(asgi_response(b"\x1f\x8b..", headers=[(b"content-encoding", b"gzip")])), environ).finish()
    assert (request.headers, request.body) == ([("content-encoding", "gzip")], b"\x1f\x8b..")
    plain = serve(adapt(asgi_response(b"plain" * 1000)), environ).finish()
    assert "content-encoding" not in dict(plain.headers)
    assert plain.body == b"plain" * 1000


@clause("ASGI-HTTP-105")
def test_a_response_is_translated_to_wsgi(adapt: ToWSGI, serve: WSGIServer) -> None:
    """An int becomes a status line, bytes become latin-1 str in a list of tuples, and messages become blocks."""
    app = asgi_response(b"one", b"two", status=404, headers=[(b"x-a", b"caf\xe9")])
    request = serve(adapt(app)).finish()
    assert request.status == "404 Not Found"
    assert request.starts[0].args[1] == [("x-a", "caf\xe9")]
    assert type(request.starts[0].args[1]) is list
    assert [type(part) for header in request.headers for part in (header, *header)] == [tuple, str, str]
    assert request.body == b"onetwo"


@clause("ASGI-HTTP-109")
def test_response_header_values_are_carried_exactly(adapt: ToWSGI, serve: WSGIServer) -> None:
    """Each byte that a response header may hold reaches the server unchanged."""
    request = serve(adapt(asgi_response(headers=[(b"x-all", ALL_BYTES)]))).finish()
    assert request.headers == [("x-all", ALL_BYTES.decode("latin-1"))]
