from typing import Any

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import asgi_response, http_app
from wsgi_asgi_conformance.asgi_to_wsgi.recording import END, START, is_refused, scope_of
from wsgi_asgi_conformance.samples import http_environ
from wsgi_asgi_conformance.types import Receive, Scope, Send
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIRequest, WSGIServer

HOP_BY_HOP = [
    b"connection",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"trailers",
    b"transfer-encoding",
    b"upgrade",
]


def sends(errors: list[Exception], headers: Any) -> Any:
    """Return an app whose response has `headers`; it notes that send() refuses them, and then ends."""

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({**START, "headers": headers})
        except Exception as error:
            errors.append(error)
            raise
        await send({**END, "body": b"one"})

    return app


def names(request: WSGIRequest) -> list[str]:
    return [name.lower() for name, _ in request.headers]


@clause("P3333-002")
def test_the_server_gets_native_strings_and_bytes(adapt: ToWSGI, serve: WSGIServer) -> None:
    """Status, names and values are exactly of the type str, and blocks exactly of the type bytes."""
    request = serve(adapt(asgi_response(b"one", b"two", headers=[(b"x-one", b"1")]))).finish()
    status, headers = request.starts[0].args[:2]
    strings = [status, *(part for header in headers for part in header)]
    assert {type(string) for string in strings} == {str}
    assert request.body == b"onetwo"


@clause("P3333-002")
@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_a_block_of_another_type_does_not_reach_the_server(adapt: ToWSGI, serve: WSGIServer, kind: Any) -> None:
    """A bytes-like block is converted to bytes, or refused."""

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send({**END, "body": kind(b"one")})

    request = serve(adapt(app)).until_ended()
    assert {type(block) for block in request.blocks} <= {bytes}
    assert request.body == b"one" or is_refused(request)


@clause("P3333-003", "P3333-149")
def test_native_strings_are_latin_1(adapt: ToWSGI, serve: WSGIServer) -> None:
    """Each byte of a header becomes one character below 256."""
    value = bytes(range(0x20, 0x7F)) + bytes(range(0xA0, 0x100)) + "中\N{GRINNING FACE}".encode()
    request = serve(adapt(asgi_response(headers=[(b"x-one", b"a" + value + b"z")]))).finish()
    assert request.status.encode("latin-1")
    assert [(name, text.encode("latin-1")) for name, text in request.headers] == [("x-one", b"a" + value + b"z")]


@clause("P3333-144")
def test_encoded_words_are_not_decoded(adapt: ToWSGI, serve: WSGIServer) -> None:
    """RFC 2047 concerns only the app and its client, so a value is the same on both sides."""
    word = "=?utf-8?q?caf=C3=A9?="
    assert (b"x-word", word.encode()) in scope_of(adapt, serve, http_environ(HTTP_X_WORD=word))["headers"]
    request = serve(adapt(asgi_response(headers=[(b"x-word", word.encode())]))).finish()
    assert request.headers == [("x-word", word)]


@clause("P3333-099")
@pytest.mark.parametrize(
    "name",
    [b"", b"x y", b"x:", b":status", b"x\r\ny", b"x\0", b"x\t", b" x", b'"x"', b"x/y", b"\xe9", b"x\n"],
    ids=repr,
)
def test_a_name_that_is_no_token_is_refused(adapt: ToWSGI, serve: WSGIServer, name: bytes) -> None:
    """send() raises, and the server never sees the name."""
    errors: list[Exception] = []
    request = serve(adapt(sends(errors, [(b"x-good", b"1"), (name, b"1")]))).until_ended()
    assert [error for error in request.starts if any(each[0] == name.decode("latin-1") for each in error.args[1])] == []
    assert len(errors) == 1
    assert is_refused(request)


@clause("P3333-100", "RFC9110-003")
@pytest.mark.parametrize(
    "value", [b"a\r\nset-cookie: x=1", b"a\nb", b"a\rb", b"a\0", b"\x7fa", b"a\x1fb", b"a\n", b"a\r\n b"], ids=repr
)
def test_a_value_with_control_characters_is_refused(adapt: ToWSGI, serve: WSGIServer, value: bytes) -> None:
    """send() raises, and the server never sees the value."""
    errors: list[Exception] = []
    request = serve(adapt(sends(errors, [(b"x-one", value)]))).until_ended()
    assert all(text.isprintable() for start in request.starts for header in start.args[1] for text in header)
    assert len(errors) == 1
    assert is_refused(request)


@clause("P3333-100")
def test_a_tab_in_a_value_does_not_reach_the_server(adapt: ToWSGI, serve: WSGIServer) -> None:
    """HTTP allows a tab, but PEP 3333 and wsgiref.validate forbid it: it becomes a space, or is refused."""
    request = serve(adapt(asgi_response(headers=[(b"x-one", b"a\tb")]))).until_ended()
    assert is_refused(request) or request.headers == [("x-one", "a b")]


@clause("RFC9110-003")
@pytest.mark.parametrize("value", [b" v", b"v ", b"\tv", b" \tv\t "], ids=repr)
def test_space_around_a_value_is_not_part_of_it(adapt: ToWSGI, serve: WSGIServer, value: bytes) -> None:
    """The adapter strips the space or leaves it."""
    request = serve(adapt(asgi_response(headers=[(b"x-one", value)]))).finish()
    assert request.headers in ([("x-one", "v")], [("x-one", value.decode())])


@clause("P3333-104", "RFC9110-007", "RFC9110-001")
@pytest.mark.parametrize("name", [*HOP_BY_HOP, b"Transfer-Encoding", b"CONNECTION"], ids=bytes.decode)
def test_hop_by_hop_headers_do_not_reach_the_server(adapt: ToWSGI, serve: WSGIServer, name: bytes) -> None:
    """Hop-by-hop headers belong to the server, so the adapter drops or refuses them, whatever their case."""
    errors: list[Exception] = []
    value = {b"connection": b"close", b"transfer-encoding": b"chunked"}.get(name.lower(), b"x-other")
    request = serve(adapt(sends(errors, [(b"x-one", b"1"), (name, value)]))).until_ended()
    if errors:
        assert is_refused(request)
    else:
        assert (request.headers, request.body) == ([("x-one", "1")], b"one")


@clause("RFC9110-006")
@pytest.mark.parametrize("values", [[b"close, x-hop, X-Other"], [b"close", b"X-Hop ,x-other"]], ids=["one", "two"])
def test_headers_that_connection_names_do_not_reach_the_server(
    adapt: ToWSGI, serve: WSGIServer, values: list[bytes]
) -> None:
    """Headers that the app's Connection header names are hop-by-hop, too."""
    errors: list[Exception] = []
    headers = [(b"x-hop", b"1"), *((b"connection", value) for value in values), (b"X-Other", b"2"), (b"x-one", b"1")]
    request = serve(adapt(sends(errors, headers))).until_ended()
    if errors:
        assert is_refused(request)
    else:
        assert request.headers == [("x-one", "1")]


@clause("P3333-129")
@pytest.mark.parametrize("blocks", [(), (b"one",), (b"one", b"two")], ids=repr)
@pytest.mark.parametrize("declared", [True, False], ids=["declared", "undeclared"])
def test_content_length_is_the_apps(
    adapt: ToWSGI, serve: WSGIServer, blocks: tuple[bytes, ...], declared: bool
) -> None:
    """The adapter passes the app's Content-Length on unchanged; if it adds one itself, the number is right."""
    length = len(b"".join(blocks))
    headers = [(b"Content-Length", str(length).encode())] if declared else []
    request = serve(adapt(asgi_response(*blocks, headers=headers))).finish()
    lengths = [value for name, value in request.headers if name.lower() == "content-length"]
    assert lengths in ([[str(length)]] if declared else [[], [str(length)]])
    assert request.body == b"".join(blocks)


@clause("P3333-160", "RFC6265-002")
@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (304, [(b"etag", b'W/"1"'), (b"vary", b"accept")], b""),
        (206, [(b"content-range", b"bytes 0-2/10"), (b"content-length", b"3")], b"one"),
        (200, [(b"content-encoding", b"gzip"), (b"content-type", b"text/plain")], b"\x1f\x8b\x08\0\0"),
        (200, [(b"set-cookie", b"a=1, b"), (b"x-one", b"1"), (b"set-cookie", b"b=2"), (b"x-one", b"2")], b"one"),
        (302, [(b"location", b"../x?a=%20#b"), (b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")], b""),
        (401, [(b"www-authenticate", b'Basic realm="x"'), (b"server", b"x/1"), (b"empty", b"")], b"no"),
    ],
    ids=["not modified", "range", "gzip", "cookies", "redirect", "challenge"],
)
def test_a_response_means_the_same(
    adapt: ToWSGI, serve: WSGIServer, status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    """Status, headers with their order and repeats, and the body are the app's, and nothing is added."""
    request = serve(adapt(asgi_response(body, status=status, headers=headers))).finish()
    assert request.status.startswith(f"{status} ")
    assert [(name.lower().encode(), value.encode()) for name, value in request.headers] == headers
    assert request.body == body


@clause("P3333-163")
def test_a_conditional_request_is_the_apps_to_answer(adapt: ToWSGI, serve: WSGIServer) -> None:
    """If-None-Match reaches the app, and its 200 reaches the client, whatever the ETag is."""
    variables = {"HTTP_IF_NONE_MATCH": '"1"', "HTTP_RANGE": "bytes=0-0"}
    headers = scope_of(adapt, serve, http_environ(**variables))["headers"]
    assert {(b"if-none-match", b'"1"'), (b"range", b"bytes=0-0")} <= {tuple(header) for header in headers}
    app = asgi_response(b"one", headers=[(b"etag", b'"1"')])
    request = serve(adapt(app), http_environ(**variables)).finish()
    assert (request.status, request.body) == ("200 OK", b"one")


@clause("CONV-010")
@pytest.mark.parametrize(
    "app",
    [
        asgi_response(b"one", headers=[(b"content-type", b"text/plain"), (b"x-a-1", b"2")]),
        asgi_response(),
        asgi_response(status=204),
    ],
    ids=["headers", "no headers", "no content"],
)
def test_an_adapter_adds_no_odd_header(adapt: ToWSGI, serve: WSGIServer, app: Any) -> None:
    """The adapter adds no `Status` header, which is CGI's, and none that wsgiref.validate rejects."""
    request = serve(adapt(app)).finish()
    assert "status" not in names(request)
    assert all(name.replace("-", "").isalnum() and not name.endswith("-") for name in names(request))
