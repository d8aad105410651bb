from typing import Any

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import asgi_response, http_app
from wsgi_asgi_conformance.asgi_to_wsgi.recording import END, START, block, is_refused
from wsgi_asgi_conformance.samples import http_environ
from wsgi_asgi_conformance.types import Receive, Scope, Send
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIServer


@clause("RFC9110-005")
@pytest.mark.parametrize("body", [(), (b"",), (b"12345",), (b"12", b"345")], ids=repr)
@pytest.mark.parametrize("headers", [[(b"content-length", b"5"), (b"etag", b'"1"')], []], ids=["length", "no length"])
def test_a_response_to_head_has_the_apps_headers(
    adapt: ToWSGI, serve: WSGIServer, body: tuple[bytes, ...], headers: list[tuple[bytes, bytes]]
) -> None:
    """The headers are those of a GET, whether or not the app also sends the body, which may be dropped."""
    request = serve(adapt(asgi_response(*body, headers=headers)), http_environ("HEAD")).finish()
    assert request.status == "200 OK"
    assert [(name.lower().encode(), value.encode()) for name, value in request.headers] == headers
    assert request.body in (b"", b"".join(body))


@clause("RFC9110-008")
@pytest.mark.parametrize(("status", "method"), [(204, "GET"), (304, "GET"), (204, "HEAD"), (200, "HEAD"), (205, "GET")])
def test_no_content_length_is_made_up(adapt: ToWSGI, serve: WSGIServer, status: int, method: str) -> None:
    """The adapter adds no Content-Length to a response without content, except 0 to a 205."""
    request = serve(adapt(asgi_response(status=status)), http_environ(method)).finish()
    lengths = [value for name, value in request.headers if name.lower() == "content-length"]
    assert lengths == [] or (status == 205 and lengths == ["0"])
    assert request.body == b""


@clause("RFC9110-008")
@pytest.mark.parametrize("length", [b"0", b"5"])
def test_204_has_no_length(adapt: ToWSGI, serve: WSGIServer, length: bytes) -> None:
    """A server must not send Content-Length with a 204, so the adapter drops the app's."""
    request = serve(adapt(asgi_response(status=204, headers=[(b"content-length", length)]))).finish()
    assert [name for name, _ in request.headers if name.lower() == "content-length"] == []
    assert request.body == b""


@clause("CONV-020")
@pytest.mark.parametrize("name", ["X-Sendfile", "X-Accel-Redirect", "X-Lighttpd-Send-File", "X-Reproxy-URL"])
@pytest.mark.parametrize("blocks", [(), (b"",)], ids=repr)
def test_a_file_may_be_left_to_the_proxy(
    adapt: ToWSGI, serve: WSGIServer, name: str, blocks: tuple[bytes, ...]
) -> None:
    """An app that leaves a file to the proxy gives its length and an empty body, which must not count as too short."""
    headers = [(b"content-length", b"1234"), (name.lower().encode(), b"/files/a")]
    request = serve(adapt(asgi_response(*blocks, headers=headers))).finish()
    found = {name.lower(): value for name, value in request.headers}
    assert found[name.lower()] == "/files/a"
    assert found.get("content-length", "0") == "0"
    assert request.body == b""


@clause("RFC9110-008")
@pytest.mark.parametrize("blocks", [(b"one",), (b"one", b"two")], ids=repr)
def test_a_content_length_that_is_made_up_is_right(adapt: ToWSGI, serve: WSGIServer, blocks: tuple[bytes, ...]) -> None:
    """An adapter may add the length of a body that is complete, and then the number must be right."""
    request = serve(adapt(asgi_response(*blocks))).finish()
    lengths = [value for name, value in request.headers if name.lower() == "content-length"]
    assert lengths in ([], [str(len(request.body))])


@clause("RFC9110-009", "RFC9110-001")
@pytest.mark.parametrize("name", [b"content-length", b"Content-Length", b"CONTENT-LENGTH"], ids=bytes.decode)
@pytest.mark.parametrize("blocks", [(b"abcdef",), (b"ab", b"cdef"), (b"abc", b"def")], ids=repr)
def test_a_body_does_not_go_beyond_content_length(
    adapt: ToWSGI, serve: WSGIServer, name: bytes, blocks: tuple[bytes, ...]
) -> None:
    """The client would take surplus bytes for another response, so they are dropped or refused."""
    request = serve(adapt(asgi_response(*blocks, headers=[(name, b"3")]))).until_ended()
    assert b"abc".startswith(request.body)
    assert request.body == b"abc" or is_refused(request)


@clause("RFC9110-009")
@pytest.mark.parametrize("blocks", [(), (b"a",), (b"a", b"b")], ids=repr)
def test_a_body_that_falls_short_of_content_length_is_not_padded(
    adapt: ToWSGI, serve: WSGIServer, blocks: tuple[bytes, ...]
) -> None:
    """The response ends with an error, or its Content-Length is left for the server to check."""
    request = serve(adapt(asgi_response(*blocks, headers=[(b"content-length", b"3")]))).until_ended()
    assert b"".join(blocks).startswith(request.body)
    if request.error is None and not request.status.startswith("500 "):
        assert [(name.lower(), value) for name, value in request.headers] == [("content-length", "3")]


@clause("RFC9110-012")
@pytest.mark.parametrize("status", [100, 101, 102, 103, 199])
def test_an_informational_status_is_no_answer(adapt: ToWSGI, serve: WSGIServer, status: int) -> None:
    """The adapter refuses a 1xx response, or leaves that to the server, and the request does not hang."""
    errors: list[Exception] = []

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({**START, "status": status})
        except Exception as error:
            errors.append(error)
            await send({**START, "status": 500})
        await send(END)

    request = serve(adapt(app)).until_ended()
    assert errors or is_refused(request) or request.status.startswith(f"{status} ")
    assert len(request.starts) <= 1


@clause("RFC6265-002")
@pytest.mark.parametrize("name", [b"set-cookie", b"Set-Cookie"], ids=bytes.decode)
def test_cookies_are_headers_of_their_own(adapt: ToWSGI, serve: WSGIServer, name: bytes) -> None:
    """A cookie may hold a comma, so joined cookies could not be separated again."""
    cookies = [b"a=1; expires=Thu, 01 Jan 1970 00:00:00 GMT", b"b=2", b"a=1", b"b=2"]

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "headers": [(name, cookie) for cookie in cookies]})
        await send(block(b"one"))
        await send(END)

    headers: list[Any] = serve(adapt(app)).finish().headers
    assert [(name.lower(), value.encode()) for name, value in headers] == [("set-cookie", each) for each in cookies]
