from collections.abc import Iterable

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import wsgi_response
from wsgi_asgi_conformance.asgi_server import ASGIConnection, ASGIServer, ToASGI
from wsgi_asgi_conformance.samples import http_scope
from wsgi_asgi_conformance.types import Environ, StartResponse


def lengths(connection: ASGIConnection) -> list[bytes]:
    """Return the values of Content-Length in the response."""
    return [value for name, value in connection.headers if name == b"content-length"]


@clause("RFC3875-029", "RFC9110-004")
@pytest.mark.parametrize("content", [[], [b""], [b"abc"], [b"a", b"bc"]], ids=repr)
@pytest.mark.parametrize("headers", [[], [("Content-Length", "3")]], ids=["", "content-length"])
def test_head_has_the_headers_of_get(
    adapt: ToASGI, serve: ASGIServer, content: list[bytes], headers: list[tuple[str, str]]
) -> None:
    """For HEAD, the adapter keeps the app's Content-Length and adds none; it may drop the body or pass it on."""
    connection = serve(adapt(wsgi_response(content, headers=headers)), http_scope("HEAD")).finish()
    assert lengths(connection) == [value.encode() for _, value in headers]
    assert connection.body in (b"", b"".join(content))
    assert connection.complete


@clause("RFC9110-004", "RFC9110-008")
@pytest.mark.parametrize("status", ["204 No Content", "205 Reset Content", "304 Not Modified"])
@pytest.mark.parametrize("content", [[], [b""]], ids=repr)
def test_a_status_without_a_body_gets_no_length(
    adapt: ToASGI, serve: ASGIServer, status: str, content: list[bytes]
) -> None:
    """204, 205 and 304 have no body, and the adapter adds no Content-Length."""
    connection = serve(adapt(wsgi_response(content, status))).finish()
    assert lengths(connection) == []
    assert (connection.body, connection.complete) == (b"", True)


@clause("RFC9110-004")
def test_304_may_say_how_long_the_body_would_be(adapt: ToASGI, serve: ASGIServer) -> None:
    """The adapter keeps the Content-Length of a 304, and does not report the body as too short."""
    connection = serve(adapt(wsgi_response([], "304 Not Modified", [("Content-Length", "1234")]))).finish()
    assert lengths(connection) == [b"1234"]
    assert connection.complete


@clause("RFC9110-008")
@pytest.mark.parametrize("length", ["0", "5"])
def test_204_has_no_length(adapt: ToASGI, serve: ASGIServer, length: str) -> None:
    """The adapter drops the Content-Length of a 204, because a server must not send one."""
    connection = serve(adapt(wsgi_response([], "204 No Content", [("Content-Length", length)]))).finish()
    assert lengths(connection) == []
    assert connection.complete


@clause("CONV-020")
@pytest.mark.parametrize("name", ["X-Sendfile", "X-Accel-Redirect", "X-Lighttpd-Send-File", "X-Reproxy-URL"])
@pytest.mark.parametrize("content", [[], [b""]], ids=repr)
def test_a_file_may_be_left_to_the_proxy(adapt: ToASGI, serve: ASGIServer, name: str, content: list[bytes]) -> None:
    """An empty body with a file's length is no error if a proxy sends the file; Flask and Django respond so."""
    headers = [("Content-Length", "1234"), (name, "/files/a")]
    connection = serve(adapt(wsgi_response(content, headers=headers))).finish()
    assert (name.lower().encode(), b"/files/a") in connection.headers
    assert lengths(connection) in ([], [b"0"])
    assert (connection.body, connection.complete) == (b"", True)


@clause("RFC9110-003")
@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\nb", "a\rb", "a\0b"], ids=repr)
def test_a_value_with_a_line_break_is_refused(adapt: ToASGI, serve: ASGIServer, value: str) -> None:
    """CR, LF and NUL never reach the server."""
    connection = serve(adapt(wsgi_response([b"one"], headers=[("X-A", value)]))).until_ended()
    sent = [value for message in connection.sent for _, value in message.get("headers", ())]
    assert not [value for value in sent if set(value) & set(b"\r\n\0")]
    assert connection.error is not None or connection.complete


@clause("RFC9110-003")
def test_space_around_a_value_is_no_part_of_it(adapt: ToASGI, serve: ASGIServer) -> None:
    """In both directions, space around a header's value is stripped or left alone."""
    seen: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(environ["HTTP_X_A"])
        start_response("200 OK", [("X-A", " v ")])
        return [b"one"]

    connection = serve(adapt(app), http_scope(headers=[(b"x-a", b" v ")])).finish()
    assert seen[0].strip() == "v"
    assert dict(connection.headers)[b"x-a"].strip() == b"v"


@clause("RFC9110-012")
@pytest.mark.parametrize("status", ["100 Continue", "101 Switching Protocols", "103 Early Hints"])
def test_1xx_is_no_answer(adapt: ToASGI, serve: ASGIServer, status: str) -> None:
    """A 1xx status from the app, which is not a final response, is refused or passed on, and the call ends."""
    connection = serve(adapt(wsgi_response([], status))).until_ended()
    if connection.error is None:
        assert connection.status == int(status[:3])
        assert connection.complete
    else:
        assert isinstance(connection.error, Exception)
