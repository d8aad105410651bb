"""`wsgi.ext.http.send_trailers`, by which a WSGI app sends trailers. Its twin is in asgi_to_wsgi/http."""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import anyio
import pytest

from bridge import AppProtocolError
from bridge.types import Environ, Headers, Message, Scope, StartResponse
from tests.fakes import ASGIServer, http_scope, request
from tests.wsgi_to_asgi.http.apps import OK, app_of, types

KEY = "wsgi.ext.http.send_trailers"
STATUS: Headers = [("Grpc-Status", "0")]
TRAILERS: Message = {
    "type": "http.response.trailers",
    "headers": [(b"grpc-status", b"0")],
    "more_trailers": False,
}
NO_TRAILERS: Message = {**TRAILERS, "headers": []}


def scope(method: str = "GET", te: bytes | None = b"trailers", *extensions: str) -> Scope:
    """Return the scope of a request whose server offers trailers."""
    headers = [(b"host", b"example.org")] + ([] if te is None else [(b"te", te)])
    return http_scope(method, headers=headers, extensions={key: {} for key in ("http.response.trailers", *extensions)})


def body(block: bytes, more_body: bool = False) -> Message:
    return {"type": "http.response.body", "body": block, "more_body": more_body}


def streams(*blocks: bytes, headers: Headers | None = None, trailers: Any = STATUS) -> Any:
    """Return a WSGI app that yields `blocks`, and then sets `trailers`, unless that is None."""

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response(OK, headers or [])
        yield from blocks
        if trailers is not None:
            environ[KEY](trailers)

    return app


async def test_trailers_follow_the_body() -> None:
    """The start announces the trailers, and they come after the body (docs/extensions, HTTP Trailers)."""
    server = await request(app_of(streams(b"one")), scope())
    assert server.sent[0] == {"type": "http.response.start", "status": 200, "headers": [], "trailers": True}
    assert server.sent[1:] == [body(b"one", more_body=True), body(b""), TRAILERS]


async def test_trailers_come_behind_a_content_length() -> None:
    """A body that fills its Content-Length does not end the response while trailers may follow."""
    server = await request(app_of(streams(b"hello", headers=[("Content-Length", "5")])), scope())
    assert (server.body, server.sent[-2:]) == (b"hello", [body(b""), TRAILERS])


async def test_trailers_of_a_response_without_a_body() -> None:
    """An app that yields nothing may still have trailers."""
    server = await request(app_of(streams()), scope())
    assert server.sent[0]["trailers"] is True
    assert server.sent[1:] == [body(b""), TRAILERS]


async def test_a_promise_is_kept_by_no_trailers() -> None:
    """A stream that sets no trailers ends with an empty list, because the start has announced some."""
    server = await request(app_of(streams(b"one", trailers=None)), scope())
    assert server.sent[0]["trailers"] is True
    assert server.sent[-1] == NO_TRAILERS


@pytest.mark.parametrize("blocks", [[b"one"], []])
@pytest.mark.parametrize("trails", [True, False])
async def test_a_list_promises_only_what_it_has(blocks: list[bytes], trails: bool) -> None:
    """An app that has returned a list cannot set trailers any more, so a plain response is not changed."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [])
        if trails:
            environ[KEY](STATUS)
        return blocks

    server = await request(app_of(app), scope())
    assert server.sent[0].get("trailers", False) is trails
    assert (server.sent[-1] == TRAILERS) is trails
    assert server.body == b"".join(blocks)


async def test_a_list_behind_write_keeps_the_promise() -> None:
    """After write() has sent a start that announces trailers, even a list ends with them."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [])(b"one")
        return [b"two"]

    server = await request(app_of(app), scope())
    assert (server.sent[0]["trailers"], server.body, server.sent[-1]) == (True, b"onetwo", NO_TRAILERS)


async def test_a_later_call_replaces_the_trailers() -> None:
    """The last list counts, as with gunicorn's callable."""

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        environ[KEY]([("x-a", "1")])
        start_response(OK, [])
        yield b"one"
        environ[KEY](STATUS)

    assert (await request(app_of(app), scope())).sent[-1] == TRAILERS


@pytest.mark.parametrize("te", [None, b"deflate"])
async def test_a_client_that_does_not_ask_gets_no_trailers(te: bytes | None) -> None:
    """Without `TE: trailers`, the app's call has no effect (docs/extensions, HTTP Trailers)."""
    server = await request(app_of(streams(b"one")), scope(te=te))
    assert (set(types(server)), server.complete) == ({"start", "body"}, True)
    assert "trailers" not in server.sent[0]


async def test_a_server_without_trailers_has_no_callable() -> None:
    """An app that needs trailers can see that the server does not support them."""
    seen: list[Environ] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(environ)
        start_response(OK, [])
        return [b"one"]

    server = await request(app_of(app), http_scope(headers=[(b"te", b"trailers")]))
    assert KEY not in seen[0]
    assert "trailers" not in server.sent[0]


@pytest.mark.parametrize(("method", "status"), [("HEAD", OK), ("GET", "304 Not Modified")])
async def test_a_response_that_has_no_body_has_no_trailers(method: str, status: str) -> None:
    """Trailers follow content, which HEAD and 304 do not have (RFC 9110 6.5)."""

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response(status, [])
        environ[KEY](STATUS)
        yield b"one"

    server = await request(app_of(app), scope(method))
    assert server.sent[0].get("trailers", False) is False
    assert (server.sent[-1]["type"], server.sent[-1]["more_body"]) == ("http.response.body", False)


@pytest.mark.parametrize(("te", "kept"), [(b"trailers", True), (None, False)])
async def test_the_trailer_header_leaves_with_the_trailers(te: bytes | None, kept: bool) -> None:
    """The header lists the trailers; without trailers it is dropped."""
    server = await request(app_of(streams(b"one", headers=[("Trailer", "Grpc-Status"), ("X-A", "1")])), scope(te=te))
    assert server.headers == ([(b"trailer", b"Grpc-Status")] if kept else []) + [(b"x-a", b"1")]


@pytest.mark.parametrize("trailers", [[("Content-Length", "1")], [("x-a", "1\r\n")], [(b"x-a", b"1")], 5])
async def test_an_invalid_trailer_is_raised_to_the_app(trailers: Any) -> None:
    """The call raises in the app, which here does not catch it, so the response is cut."""
    server = ASGIServer(app_of(streams(b"one", trailers=trailers)), scope())
    with pytest.raises(AppProtocolError), anyio.fail_after(5):
        await server.run()
    assert TRAILERS["type"] not in [message["type"] for message in server.sent]


async def test_a_file_with_trailers_is_sent_in_blocks(tmp_path: Any) -> None:
    """A file with trailers is not sent by path, because http.response.pathsend ends the response."""
    path = tmp_path / "file"
    path.write_bytes(b"of a file")

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [])
        environ[KEY](STATUS)
        wrapper: Callable[..., Iterable[bytes]] = environ["wsgi.file_wrapper"]
        return wrapper(path.open("rb"))

    server = await request(app_of(app), scope("GET", b"trailers", "http.response.pathsend"))
    assert (server.body, server.sent[-1]) == (b"of a file", TRAILERS)


async def test_the_client_is_watched_until_the_trailers() -> None:
    """A client that leaves between the body and the trailers is noticed."""
    left = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response(OK, [("Content-Length", "3")])
        yield b"one"
        assert environ["bridge.disconnected"].wait(5)
        left.set()

    server = ASGIServer(app_of(app), scope())
    async with server.running():
        await server.until_sent(2)
        server.disconnect()
    assert left.is_set()
