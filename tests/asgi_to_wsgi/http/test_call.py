"""The response, from the app's messages to what the server iterates."""

import threading
from http import HTTPStatus
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from bridge import AppProtocolError, ClientDisconnected
from bridge.asgi_to_wsgi.http import exchange as http_module
from bridge.types import Message, Receive, Scope, Send
from tests.asgi_to_wsgi.apps import Adapt
from tests.asgi_to_wsgi.http.apps import DISCONNECTS, Recorder, answers, body, start, until
from tests.fakes import WSGIServer, http_environ, in_thread, respond


def test_a_response_of_one_block_is_a_list_of_one(adapt: Adapt) -> None:
    """A complete response is returned whole, so that a server writes it in one go."""
    server = WSGIServer(
        adapt(
            answers(start(201, (b"x-a", b"caf\xe9"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")), body(b"hello"))
        )
    )
    in_thread(server.run)
    assert (server.status, server.body) == ("201 Created", b"hello")
    assert server.headers == [("x-a", "caf\xe9"), ("set-cookie", "a=1"), ("set-cookie", "b=2")]
    assert server.iterable == [b"hello"]


@pytest.mark.parametrize(
    "messages",
    [
        [{"type": "http.response.start", "status": 200}, {"type": "http.response.body"}],
        [start(HTTPStatus.OK), body(b"")],
        [start(), body(b"", True), body(b"")],
    ],
    ids=["defaults", "empty", "empty twice"],
)
def test_an_empty_response_is_complete(adapt: Adapt, messages: list[Message]) -> None:
    """A status is enough: headers and body have defaults (ASGI HTTP spec)."""
    server = respond(adapt(answers(*messages)))
    assert (server.status, server.headers, server.body) == ("200 OK", [], b"")


def test_each_block_arrives_before_the_next_is_sent(adapt: Adapt) -> None:
    """The server has the first block before the app sends the second one."""
    seen = threading.Event()
    server = WSGIServer(adapt(answers(start(), body(b"one", True), seen, body(b"two", True), body())))

    def run() -> None:
        for block in server.call():
            server.blocks.append(block)
            seen.set()
        server.close()

    in_thread(run)
    assert server.blocks[0] == b"one"
    assert server.body == b"onetwo"


def test_blocks_of_any_bytes_like_type_arrive_as_bytes(adapt: Adapt) -> None:
    """bytearray and memoryview become bytes."""
    server = respond(adapt(answers(start(), body(bytearray(b"a"), True), body(memoryview(b"b"), True), body(b"c"))))
    assert server.body == b"abc"


def test_the_response_ends_before_the_app(adapt: Adapt) -> None:
    """The WSGI thread does not wait for background work after the last body message; close() does."""
    proceed, done = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answers(start(), body(b"hello"))(scope, receive, send)
        await until(proceed)
        done.set()

    adapter = adapt(app)
    assert respond(adapter).body == b"hello"
    assert not done.is_set()
    proceed.set()
    adapter.close()
    assert done.is_set()


def test_surplus_beyond_content_length_is_dropped_and_logged(adapt: Adapt, caplog: pytest.LogCaptureFixture) -> None:
    """Bytes beyond Content-Length are dropped, and the log says so."""
    server = respond(adapt(answers(start(200, (b"content-length", b"3")), body(b"ab", True), body(b"cdef"))))
    assert server.body == b"abc"
    assert "longer than its Content-Length of 3" in caplog.text


def test_a_body_short_of_content_length_is_cut(adapt: Adapt) -> None:
    """Too little data raises into the app and out of the iterator, so that the client sees a cut response."""
    server = WSGIServer(adapt(answers(start(200, (b"content-length", b"30")), body(b"abc", True), body(b""))))
    with pytest.raises(AppProtocolError, match="27 bytes short"):
        in_thread(server.run)
    assert server.body in (b"abc", b"")


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_a_response_without_a_body_has_none(adapt: Adapt, method: str, status: int) -> None:
    """For HEAD, 204 and 304 the app's body is dropped, and for 204 its Content-Length too."""
    app = answers(start(status, (b"content-length", b"1234")), body(b"abc", True), body(b"def"))
    server = respond(adapt(app), http_environ(method))
    assert (server.headers, server.body) == ([] if status == 204 else [("content-length", "1234")], b"")


@pytest.mark.parametrize("first", [[], [body(b"", True)]], ids=["one message", "two messages"])
def test_a_body_that_a_proxy_sends_has_no_length(adapt: Adapt, first: list[Message]) -> None:
    """If nginx sends the file (X-Accel-Redirect), the app's body is empty, and its Content-Length is dropped."""
    headers = [(b"x-accel-redirect", b"/files/a"), (b"content-length", b"1234")]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in (start(200, *headers), *first):
            await send(message)
        await anyio.sleep(0.02)  # during this, an adapter that does not wait for the end would start the response
        await send(body())

    server = respond(adapt(app))
    assert (server.headers, server.body) == ([("x-accel-redirect", "/files/a")], b"")


def test_a_body_that_no_proxy_sends_has_its_length(adapt: Adapt) -> None:
    """If the app sends the body itself, its Content-Length is passed on."""
    headers = [(b"x-accel-redirect", b"/files/a"), (b"content-length", b"3")]
    server = respond(adapt(answers(start(200, *headers), body(b"", True), body(b"abc"))))
    assert server.headers == [("x-accel-redirect", "/files/a"), ("content-length", "3")]
    assert server.body == b"abc"


@pytest.mark.parametrize(
    ("blocks", "headers", "length"),
    [
        ([b"hello"], [], "5"),
        ([b"hello"], [(b"content-length", b"5")], "5"),
        ([b""], [], None),  # nothing tells whether GET has a body
        ([b"hel", b"lo"], [], None),
    ],
)
def test_a_response_to_head_tells_the_length_of_what_it_leaves_out(
    adapt: Adapt, blocks: list[bytes], headers: Any, length: str | None
) -> None:
    """A response to HEAD has its body's length; without it wsgiref and gevent would say that it is 0."""
    messages = [body(block, more) for block, more in zip(blocks, [*[True] * (len(blocks) - 1), False], strict=True)]
    server = respond(adapt(answers(start(200, *headers), *messages)), http_environ("HEAD"))
    assert server.body == b""
    assert [value for name, value in server.headers if name.lower() == "content-length"] == ([length] if length else [])


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_response_that_has_all_of_its_body_is_complete(adapt: Adapt, method: str) -> None:
    """A stream that sends more than its Content-Length frees the thread, and its app is stopped."""
    app = Recorder(start(200, (b"content-length", b"1500")), endless=True)
    server = respond(adapt(app), http_environ(method))
    assert len(server.body) == (0 if method == "HEAD" else 1500)
    assert app.done.wait(5)
    assert isinstance(app.error, ClientDisconnected)
    assert app.received == DISCONNECTS


def test_an_app_may_end_a_response_that_is_complete_by_its_length(adapt: Adapt) -> None:
    """The empty last message of a stream that has filled its Content-Length is not surplus."""
    done = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answers(start(200, (b"content-length", b"3")), body(b"abc", True), body(b"", True), body())(
            scope, receive, send
        )
        done.set()

    assert respond(adapt(app)).body == b"abc"
    assert done.wait(5)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_an_idle_stream_that_has_all_of_its_body_is_told(
    adapt: Adapt, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """An app that waits for its client to leave gets http.disconnect once the client has the whole body."""
    monkeypatch.setattr(http_module, "_SURPLUS_TIME", 0.02)
    received: list[str] = []
    told = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def listen() -> None:
            received.extend([(await receive())["type"], (await receive())["type"]])
            told.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            await anyio.wait_all_tasks_blocked()
            await send(start(200, (b"content-length", b"3")))
            await send(body(b"abc", True))

    assert respond(adapt(app), http_environ(method)).body == (b"" if method == "HEAD" else b"abc")
    assert told.wait(5)
    assert received == ["http.request", "http.disconnect"]


@pytest.mark.parametrize("status", [99, 100, 1000, "200", True, None])
def test_a_status_that_is_none_is_refused(adapt: Adapt, status: Any) -> None:
    """send() raises for a status that is not an int from 200 to 999."""
    with pytest.raises(AppProtocolError, match="status"):
        respond(adapt(answers(start(status), body())))


def test_an_app_may_recover_from_a_refused_message(adapt: Adapt) -> None:
    """A refused message changes nothing, so the app can still send a proper response."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        bad: list[Any] = [{"type": "bogus"}, {}, None, {"type": "http.response.start"}, start(200, (b"a", b"b\r\n"))]
        for message in [*bad, body(b"early"), {"type": "http.response.debug", "info": {}}]:
            with pytest.raises(AppProtocolError):
                await send(message)
        await send(start())
        with pytest.raises(AppProtocolError):
            await send(start())
        with pytest.raises(AppProtocolError):
            await send(body("text"))
        await send(body(b"fine"))

    assert respond(adapt(app)).body == b"fine"


def test_messages_after_the_end_are_ignored(adapt: Adapt) -> None:
    """Messages after the end of the response are ignored, and receive() returns http.disconnect."""
    app = Recorder(start(), body(b"hello"), body(b"more"), start(500), {"type": "bogus"})
    assert respond(adapt(app)).body == b"hello"
    assert app.done.wait(5)
    assert (app.error, app.received) == (None, DISCONNECTS)


def test_trailers_are_taken_and_dropped(adapt: Adapt) -> None:
    """WSGI cannot send trailers: they are not offered, and an app that sends them anyway does not hang."""
    trailers = {"type": "http.response.trailers", "headers": [(b"x-t", b"1")]}
    app = answers(start(trailers=True), body(b"hello"), {**trailers, "more_trailers": True}, trailers)
    server = respond(adapt(app))
    assert (server.headers, server.body) == ([], b"hello")
