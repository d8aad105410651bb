import http
import threading
from typing import Any

import anyio
import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import asgi_response, http_app
from wsgi_asgi_conformance.asgi_to_wsgi.recording import END, START, block, is_refused, until_set
from wsgi_asgi_conformance.types import Message, Receive, Scope, Send
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIServer

# The start


@clause("ASGI-HTTP-056")
def test_an_error_after_the_start_is_no_success(adapt: ToWSGI, serve: WSGIServer) -> None:
    """The start waits for the body, so the client gets a 500 if the app raises in between."""

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        raise ValueError("before the body")

    assert is_refused(serve(adapt(app)))


@clause("ASGI-HTTP-056")
def test_the_start_may_wait_for_the_body(adapt: ToWSGI, serve: WSGIServer) -> None:
    """The adapter passes the start on with the first body, because a server sends no headers before that."""
    started, go_on = threading.Event(), threading.Event()

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "status": 201})
        started.set()
        await until_set(go_on, serve.deadline)
        await send({**END, "body": b"one"})

    request = serve(adapt(app)).until(started.is_set, "the end of send()")
    assert request.blocks == []
    go_on.set()
    assert request.finish().body == b"one"
    assert request.status[:3] == "201"


@clause("ASGI-HTTP-062")
@pytest.mark.parametrize(
    ("before", "invalid"),
    [
        ([], END),
        ([], block(b"early")),
        ([START], {**START, "status": 404}),
        ([START, block(b"one")], {**START, "status": 404}),
    ],
    ids=["end before start", "block before start", "second start", "start after a block"],
)
def test_a_message_out_of_order_is_refused(
    adapt: ToWSGI, serve: WSGIServer, before: list[Message], invalid: Message
) -> None:
    """send() raises, nothing of the message reaches the server, and the app can still respond."""
    errors: list[Exception] = []

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in before:
            await send(message)
        try:
            await send(invalid)
        except Exception as error:
            errors.append(error)
        for message in [START, block(b"one"), END][len(before) :]:
            await send(message)

    request = serve(adapt(app)).finish()
    assert len(errors) == 1
    assert [start.args[0] for start in request.starts] == ["200 OK"]
    assert request.body == b"one"


@clause("ASGI-HTTP-063")
@pytest.mark.parametrize("status", [200, 204, 299, 304, 404, 418, 451, 500, 599, http.HTTPStatus.NOT_FOUND], ids=repr)
def test_a_status_is_any_integer_of_a_final_response(adapt: ToWSGI, serve: WSGIServer, status: int) -> None:
    """A status may be unregistered, or a member of an enum, which counts as its number."""
    request = serve(adapt(asgi_response(status=status))).finish()
    code, space, reason = request.status.partition(" ")
    assert (code, space) == (str(int(status)), " ")
    assert reason


@clause("ASGI-HTTP-063")
@pytest.mark.parametrize("status", [-200, 0, 99, 1000, True, "200", 200.0, None], ids=repr)
def test_a_status_that_is_none_is_refused(adapt: ToWSGI, serve: WSGIServer, status: Any) -> None:
    """send() raises, at the start or with the body, and the status does not reach the server."""
    errors: list[Exception] = []

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({**START, "status": status})
            await send(END)
        except Exception as error:
            errors.append(error)
            raise

    request = serve(adapt(app))
    assert is_refused(request)
    assert [start for start in request.starts if not str(start.args[0]).startswith("5")] == []
    assert errors


# The body


@clause("ASGI-HTTP-064")
def test_a_block_that_was_sent_goes_out_by_itself(adapt: ToWSGI, serve: WSGIServer) -> None:
    """Once send() has returned, its block reaches the server, whatever the app does next."""
    seen_one, seen_two = threading.Event(), threading.Event()

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(block(b"one"))
        await until_set(seen_one, serve.deadline)
        await send(block(b"two"))
        await until_set(seen_two, serve.deadline)
        await send(END)

    request = serve(adapt(app))
    request.until(lambda: request.body == b"one", "the first block")
    seen_one.set()
    request.until(lambda: request.body == b"onetwo", "the second block")
    seen_two.set()
    assert request.finish().body == b"onetwo"


@clause("ASGI-HTTP-065")
def test_the_last_body_completes_the_response(adapt: ToWSGI, serve: WSGIServer) -> None:
    """The iterable ends with the last block, even if the app continues to work."""
    go_on, done = threading.Event(), threading.Event()

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asgi_response(b"one")(scope, receive, send)
        await until_set(go_on, serve.deadline)
        done.set()

    request = serve(adapt(app)).finish()
    assert request.body == b"one"
    assert not done.is_set()
    go_on.set()
    request.until(done.is_set, "the end of the app")


@clause("ASGI-HTTP-066")
def test_a_body_may_be_left_out(adapt: ToWSGI, serve: WSGIServer) -> None:
    """A message with nothing but its type is an empty block, and the last one."""

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    request = serve(adapt(app)).finish()
    assert (request.status, request.body) == ("200 OK", b"")


@clause("ASGI-HTTP-067")
@pytest.mark.parametrize(
    "blocks",
    [(b"a", b"", b"b"), (b"", b"", b"a"), (b"a", b"b", b""), tuple(b"%d," % number for number in range(1000))],
    ids=["empty inside", "empty first", "empty last", "many"],
)
def test_blocks_are_joined_in_their_order(adapt: ToWSGI, serve: WSGIServer, blocks: tuple[bytes, ...]) -> None:
    """The body consists of all blocks in order, and an empty block does not end it."""
    assert serve(adapt(asgi_response(*blocks))).finish().body == b"".join(blocks)


@clause("ASGI-HTTP-068")
@pytest.mark.parametrize(
    "message",
    [block(b"more"), {**END, "body": b"more"}, {**START, "status": 500}],
    ids=["block", "end", "start"],
)
def test_messages_after_the_response_are_ignored(adapt: ToWSGI, serve: WSGIServer, message: Message) -> None:
    """send() returns or raises an OSError, and the response does not change."""
    errors: list[Exception] = []
    done = threading.Event()

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asgi_response(b"one")(scope, receive, send)
        try:
            await send(message)
        except Exception as error:
            errors.append(error)
        done.set()

    request = serve(adapt(app)).finish().until(done.is_set, "the end of the app")
    assert (request.body, len(request.starts)) == (b"one", 1)
    assert [error for error in errors if not isinstance(error, OSError)] == []


# The app's end


@clause("ASGI-HTTP-071")
@pytest.mark.parametrize("messages", [[], [START]], ids=["nothing", "start"])
def test_an_app_without_a_response_is_an_error(adapt: ToWSGI, serve: WSGIServer, messages: list[Message]) -> None:
    """If an app returns without a response, the client gets a 500 at once."""

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    assert is_refused(serve(adapt(app)))


@clause("ASGI-HTTP-072")
@pytest.mark.parametrize("raises", [False, True], ids=["returns", "raises"])
def test_a_response_that_is_not_complete_is_cut_off(adapt: ToWSGI, serve: WSGIServer, raises: bool) -> None:
    """If an app returns before its response is complete, the server sees an error, not an end."""
    seen = threading.Event()

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(block(b"one"))
        await until_set(seen, serve.deadline)
        if raises:
            raise ValueError("in the middle")

    request = serve(adapt(app)).until_logged("block")
    seen.set()
    assert request.until_ended().error is not None
    assert "exhausted" not in [entry.kind for entry in request.log]
    assert request.body == b"one"


@clause("ASGI-HTTP-073")
def test_an_error_after_the_response_is_logged(
    adapt: ToWSGI, serve: WSGIServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The client gets its response, and the error is logged."""

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asgi_response(b"one")(scope, receive, send)
        raise ValueError("in the background")

    request = serve(adapt(app)).finish()
    assert (request.status, request.body) == ("200 OK", b"one")
    request.until(lambda: "in the background" in caplog.text, "a log record")


# Time


@clause("ASGI-HTTP-037")
def test_an_app_may_take_its_time(adapt: ToWSGI, serve: WSGIServer) -> None:
    """The adapter sets no time limit on a silent app, before the response or within it."""

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(0.1)
        await send(START)
        await send(block(b"one"))
        await anyio.sleep(0.1)
        await send({**END, "body": b"two"})

    assert serve(adapt(app)).finish().body == b"onetwo"
