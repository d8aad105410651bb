import io
import math
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import Blocks, wsgi_response
from wsgi_asgi_conformance.asgi_server import ASGIServer, ToASGI
from wsgi_asgi_conformance.samples import http_scope
from wsgi_asgi_conformance.types import Environ, Message, Receive, Scope, Send, StartResponse, WSGIApp


def writes(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with `write()`, and then with an iterable."""
    write = start_response("200 OK", [])
    write(b"one")
    return [b"two"]


def starts_late(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    """Call start_response during the iteration, because the app is a generator."""
    yield b""
    start_response("200 OK", [])
    yield b"onetwo"


def starts_again(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Replace the status before anything has been sent."""
    start_response("404 Not Found", [])
    try:
        raise ValueError("one")
    except ValueError:
        start_response("200 OK", [], sys.exc_info())
    return [b"onetwo"]


def wraps_a_file(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with a file, through wsgi.file_wrapper if there is one."""
    start_response("200 OK", [])
    wrapper: Callable[[Any], Iterable[bytes]] = environ.get("wsgi.file_wrapper", lambda file: [file.read()])
    return wrapper(io.BytesIO(b"onetwo"))


class Text(str):
    """A subclass of str, as frameworks use."""


HEADERS = [("Content-Type", "text/plain"), (Text("X-A"), Text("a")), ("X-A", "b")]
APPS = {
    "empty": (wsgi_response([], "204 No Content"), b""),
    "empty-block": (wsgi_response([b""], headers=HEADERS), b""),
    "list": (wsgi_response([b"one", b"", b"two"], "404 Not Found", HEADERS), b"onetwo"),
    "iterator": (
        lambda environ, start_response: wsgi_response(iter([b"one", b"two"]))(environ, start_response),
        b"onetwo",
    ),
    "content-length": (wsgi_response([b"onetwo"], headers=[("Content-Length", "6")]), b"onetwo"),
    "write": (writes, b"onetwo"),
    "late": (starts_late, b"onetwo"),
    "exc_info": (starts_again, b"onetwo"),
    "file": (wraps_a_file, b"onetwo"),
}
by_app = pytest.mark.parametrize(("app", "body"), APPS.values(), ids=list(APPS))


@clause("ASGI-HTTP-049", "ASGI-HTTP-050", "ASGI-HTTP-058", "ASGI-HTTP-061", "ASGI-HTTP-069", "ASGI-HTTP-104")
@by_app
def test_a_response_is_one_start_and_a_body_with_one_end(
    adapt: ToASGI, serve: ASGIServer, app: WSGIApp, body: bytes
) -> None:
    """The start comes first, then blocks of bytes; only the last block has more_body false."""
    connection = serve(adapt(app)).finish()
    start, *messages = connection.sent
    assert start["type"] == "http.response.start"
    assert type(start["status"]) is int
    assert all([type(part) for part in header] == [bytes, bytes] for header in start["headers"])
    assert b"transfer-encoding" not in dict(connection.headers)
    assert not start.get("trailers", False)
    assert [message["type"] for message in messages] == ["http.response.body"] * max(len(messages), 1)
    assert [message.get("more_body", False) for message in messages] == [True] * (len(messages) - 1) + [False]
    assert connection.body == body


def assert_plain(value: object) -> None:
    """Fail unless the spec allows the value in an event."""
    if type(value) is dict:
        assert all(type(key) is str for key in value), value
        for each in value.values():
            assert_plain(each)
    elif type(value) in (list, tuple):
        for each in value:  # type: ignore[attr-defined]
            assert_plain(each)
    elif type(value) is int:
        assert -(2**63) <= value < 2**63
    elif type(value) is float:
        assert math.isfinite(value)
    else:
        assert type(value) in (bytes, str, bool, type(None)), f"{type(value)}: {value!r}"


@clause("ASGI-CORE-011", "ASGI-CORE-012", "ASGI-CORE-040")
@by_app
def test_an_event_is_made_of_plain_types(adapt: ToASGI, serve: ASGIServer, app: WSGIApp, body: bytes) -> None:
    """An event is a dict with a type, and holds only values that could be serialised."""
    for message in serve(adapt(app)).finish().sent:
        assert type(message) is dict
        assert type(message["type"]) is str
        assert_plain(message)


@clause("ASGI-CORE-018")
def test_send_and_receive_are_called_as_they_are_defined(adapt: ToASGI, serve: ASGIServer) -> None:
    """`send` gets one positional argument, and `receive` none."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield environ["wsgi.input"].read()

    adapter = adapt(app)

    async def strict(scope: Scope, receive: Receive, send: Send) -> None:
        async def strict_receive() -> Message:
            return await receive()

        async def strict_send(message: Message, /) -> None:
            await send(message)

        await adapter(scope, strict_receive, strict_send)

    assert serve(strict, http_scope("POST"), b"one", b"two").finish().body == b"onetwo"


@clause("ASGI-HTTP-004", "ASGI-HTTP-052", "ASGI-HTTP-103")
def test_headers_keep_their_order(adapt: ToASGI, serve: ASGIServer) -> None:
    """Headers are pairs in the app's order, and repeated ones are not joined."""
    headers = [(f"x-{name}", str(number)) for number, name in enumerate("zabacczxby")]
    connection = serve(adapt(wsgi_response([b"one"], headers=headers))).finish()
    ours = [header for header in connection.headers if header[0].startswith(b"x-")]
    assert ours == [(name.encode(), value.encode()) for name, value in headers]


@clause("ASGI-HTTP-004", "ASGI-HTTP-005", "RFC6265-002")
def test_set_cookie_is_never_joined(adapt: ToASGI, serve: ASGIServer) -> None:
    """Each cookie stays in a header of its own."""
    cookies = ["a=1; Path=/", "b=2; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "a=1; Path=/"]
    connection = serve(adapt(wsgi_response([b"one"], headers=[("Set-Cookie", cookie) for cookie in cookies]))).finish()
    found = [value for name, value in connection.headers if name == b"set-cookie"]
    assert found == [cookie.encode() for cookie in cookies]


@clause("ASGI-HTTP-051", "ASGI-HTTP-103")
def test_names_of_headers_are_in_lower_case(adapt: ToASGI, serve: ASGIServer) -> None:
    """The adapter changes the names of headers to lower case, but not their values."""
    connection = serve(adapt(wsgi_response([b"one"], headers=[("X-Camel", "Camel"), ("ETAG", '"A"')]))).finish()
    assert {(b"x-camel", b"Camel"), (b"etag", b'"A"')} <= set(connection.headers)
    assert all(name == name.lower() for name, _ in connection.headers)


@clause("ASGI-HTTP-053")
@pytest.mark.parametrize("name", [":status", ":path"])
def test_pseudo_headers_are_not_sent(adapt: ToASGI, serve: ASGIServer, name: str) -> None:
    """Pseudo headers, which only a server may send, are refused or left out."""
    connection = serve(adapt(wsgi_response([b"one"], headers=[(name, "404")]))).until_ended()
    sent = [header for message in connection.sent for header in message.get("headers", ())]
    assert name.encode() not in dict(sent)


@clause("ASGI-HTTP-102", "RFC9110-011")
@pytest.mark.parametrize(
    ("status", "code"),
    [("200 OK", 200), ("404 Nope", 404), ("299 Whatever", 299), ("599 \xe9", 599), ("418 I'm a", 418)],
)
def test_a_status_is_its_code(adapt: ToASGI, serve: ASGIServer, status: str, code: int) -> None:
    """The adapter sends the status code as an int, even an unregistered one, and ignores the reason phrase."""
    assert serve(adapt(wsgi_response([b"one"], status))).finish().status == code


@clause("ASGI-HTTP-109")
def test_bytes_of_headers_are_carried_as_they_are(adapt: ToASGI, serve: ASGIServer) -> None:
    """Every byte that a header may hold arrives unchanged, in both directions."""
    value = bytes(number for number in range(0x20, 0x100) if number != 0x7F).strip()
    seen: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(environ["HTTP_X_A"])
        start_response("200 OK", [("X-A", environ["HTTP_X_A"])])
        return [b"one"]

    connection = serve(adapt(app), http_scope(headers=[(b"x-a", value)])).finish()
    assert [text.encode("latin-1") for text in seen] == [value]
    assert dict(connection.headers)[b"x-a"] == value


@clause("ASGI-HTTP-070")
def test_a_block_does_not_wait_for_the_next(adapt: ToASGI, serve: ASGIServer) -> None:
    """Each block is sent with more_body True while the app makes the next one; the end follows the last."""
    go_on = [threading.Event(), threading.Event()]

    def content() -> Iterator[bytes]:
        yield b"a"
        go_on[0].wait(serve.deadline)
        yield b"b"
        go_on[1].wait(serve.deadline)

    connection = serve(adapt(wsgi_response(content())))
    connection.until(lambda: connection.body == b"a", "the first block")
    go_on[0].set()
    connection.until(lambda: connection.body == b"ab", "the second block")
    assert not connection.complete
    go_on[1].set()
    assert connection.finish().complete


@clause("ASGI-HTTP-070")
def test_blocks_wait_for_a_client_that_does_not_read(adapt: ToASGI, serve: ASGIServer) -> None:
    """The app runs only a few blocks ahead of the client, so that even a huge body needs little memory."""
    blocks = Blocks(b"x" * 65_536 for _ in range(100))
    connection = serve(adapt(wsgi_response(blocks)), hold_after=2)
    connection.until_logged("send", 2)
    made = -1
    while made < blocks.started:  # until the app has stopped
        made = blocks.started
        threading.Event().wait(0.02)
    assert made < 50
    connection.release()
    assert len(connection.finish().body) == 100 * 65_536


@clause("ASGI-HTTP-037")
def test_an_app_may_take_its_time(adapt: ToASGI, serve: ASGIServer) -> None:
    """The response and each of its blocks arrive, however long the app takes."""
    silence = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        silence.wait(0.1)
        start_response("200 OK", [])
        yield b"one"
        silence.wait(0.1)
        yield b"two"

    connection = serve(adapt(app)).finish()
    assert (connection.body, connection.complete) == (b"onetwo", True)


@clause("ASGI-EXT-027", "ASGI-HTTP-061")
def test_trailer_is_not_passed_on(adapt: ToASGI, serve: ASGIServer) -> None:
    """The adapter does not pass on the app's Trailer header, and promises no trailers to a client without TE."""
    scope = http_scope(extensions={"http.response.trailers": {}})
    connection = serve(adapt(wsgi_response([b"one"], headers=[("Trailer", "X-A")])), scope).until_ended()
    for message in connection.sent:
        assert b"trailer" not in dict(message.get("headers", ()))
        assert not message.get("trailers", False)
    assert connection.error is not None or connection.complete


@clause("ASGI-EXT-027", "ASGI-HTTP-061")
@pytest.mark.parametrize("headers", [[], [("Content-Length", "3")]], ids=["", "content-length"])
@pytest.mark.parametrize("trailers", [[("X-Trailer", "1")], []], ids=["some", "none"])
def test_trailers_that_were_promised_follow_the_body(
    adapt: ToASGI, serve: ASGIServer, headers: list[tuple[str, str]], trailers: list[tuple[str, str]]
) -> None:
    """The response ends with the trailers that the app passes to wsgi.ext.http.send_trailers, or with empty ones."""
    offered: list[bool] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        send_trailers = environ.get("wsgi.ext.http.send_trailers")
        offered.append(send_trailers is not None)
        start_response("200 OK", headers)
        yield b"one"
        if send_trailers is not None and trailers:
            send_trailers(trailers)

    scope = http_scope(headers=[(b"te", b"trailers")], extensions={"http.response.trailers": {}})
    connection = serve(adapt(app), scope).until_ended()
    if not offered[0]:
        pytest.skip("the adapter has no wsgi.ext.http.send_trailers")
    start, *blocks, last = connection.sent
    assert (start["trailers"], connection.body) == (True, b"one")
    assert [message.get("more_body", False) for message in blocks] == [True] * (len(blocks) - 1) + [False]
    assert last["type"] == "http.response.trailers"
    assert list(last["headers"]) == [(b"x-trailer", b"1")][: len(trailers)]
    assert not last.get("more_trailers", False)
