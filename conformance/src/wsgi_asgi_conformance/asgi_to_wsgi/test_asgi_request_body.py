import os
import threading

import anyio
import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import http_app
from wsgi_asgi_conformance.asgi_to_wsgi.recording import END, START, Recording, block, until_set
from wsgi_asgi_conformance.samples import http_environ
from wsgi_asgi_conformance.types import Environ, Message, Receive, Scope, Send
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIServer


@clause("ASGI-HTTP-034")
@pytest.mark.parametrize("size", [0, 5, 200_000])
def test_a_chunked_body_comes_without_its_coding(adapt: ToWSGI, serve: WSGIServer, size: int) -> None:
    """A body of unknown length, which the server has decoded and terminates itself, arrives whole."""
    body = os.urandom(size)
    environ = http_environ("POST", HTTP_TRANSFER_ENCODING="chunked", **{"wsgi.input_terminated": True})
    app = Recording()
    serve(adapt(app), environ, body).finish()
    assert b"".join(message.get("body", b"") for message in app.received) == body


@clause("ASGI-HTTP-039")
def test_a_large_body_comes_in_events_that_add_up(adapt: ToWSGI, serve: WSGIServer) -> None:
    """A megabyte arrives in several events, each with only a part of it as bytes."""
    body = os.urandom(1024 * 1024)
    app = Recording()
    serve(adapt(app), http_environ("POST", "/", body)).finish()
    assert {message["type"] for message in app.received} == {"http.request"}
    assert {type(message["body"]) for message in app.received} == {bytes}
    assert b"".join(message["body"] for message in app.received) == body
    assert max(len(message["body"]) for message in app.received) <= len(body) // 2


@clause("ASGI-HTTP-040")
@pytest.mark.parametrize("size", [0, 1, 4096, 65535, 65536, 65537, 131072, 1_000_000])
def test_more_body_is_false_in_the_last_event_alone(adapt: ToWSGI, serve: WSGIServer, size: int) -> None:
    """An app that receives until more_body is False then has the whole body."""
    app = Recording()
    serve(adapt(app), http_environ("POST", "/", b"x" * size)).finish()
    more = [message.get("more_body", False) for message in app.received]
    assert more == [True] * (len(more) - 1) + [False]
    assert sum(len(message.get("body", b"")) for message in app.received) == size


@clause("ASGI-HTTP-041")
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("length", [None, "", "0"])
def test_a_request_without_a_body_is_one_event(
    adapt: ToWSGI, serve: WSGIServer, method: str, length: str | None
) -> None:
    """Without CONTENT_LENGTH, the adapter does not read, whatever follows on the connection."""
    app = Recording()
    serve(adapt(app), http_environ(method, CONTENT_LENGTH=length), b"the next request", more_body=True).finish()
    assert [(m["type"], m.get("body", b""), m.get("more_body", False)) for m in app.received] == [
        ("http.request", b"", False)
    ]


@clause("ASGI-HTTP-047")
@pytest.mark.parametrize(
    "variables",
    [{"CONTENT_LENGTH": "1000000"}, {"CONTENT_LENGTH": "3", "HTTP_EXPECT": "100-continue"}],
    ids=["large", "expect"],
)
def test_the_app_is_called_before_the_body_is_there(adapt: ToWSGI, serve: WSGIServer, variables: Environ) -> None:
    """An app that does not call receive() can answer before any of the body is read."""

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "status": 413})
        await send(END)

    request = serve(adapt(app), http_environ("POST", **variables), more_body=True).finish()
    assert request.status[:3] == "413"
    assert request.values("read") == []


@clause("ASGI-HTTP-047")
def test_only_receive_pulls_the_body(adapt: ToWSGI, serve: WSGIServer) -> None:
    """While the app works on the first event, the adapter does not read further."""
    first, go_on = threading.Event(), threading.Event()
    received: list[Message] = []

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        received.append(await receive())
        await anyio.sleep(0.01)  # enough time for an adapter that does not wait
        first.set()
        await until_set(go_on, serve.deadline)
        while received[-1]["more_body"]:
            received.append(await receive())
        await send(START)
        await send(END)

    size = 4 * 1024 * 1024
    request = serve(adapt(app), http_environ("POST", "/", b"x" * size)).until(first.is_set, "the first event")
    assert sum(map(len, request.values("was read"))) <= size // 4
    go_on.set()
    request.finish()
    assert sum(len(message["body"]) for message in received) == size


@clause("ASGI-HTTP-048")
def test_a_slow_client_stalls_nothing_but_receive(adapt: ToWSGI, serve: WSGIServer) -> None:
    """While a read waits, the loop runs, other requests are served, and this request's send() does not block."""
    ask, sending = threading.Event(), threading.Event()

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "GET":
            await send(START)
            await send({**END, "body": b"other"})
            return

        async def respond() -> None:
            await until_set(ask, serve.deadline)
            sending.set()
            await send(START)
            await send(block(b"early "))

        body = b""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(respond)
            more_body = True
            while more_body:
                message = await receive()
                body += message["body"]
                more_body = message["more_body"]
        await send({**END, "body": b"late" if body == b"x" * 100_000 else b"wrong"})

    adapter = adapt(app)
    request = serve(adapter, http_environ("POST", CONTENT_LENGTH="100000"), more_body=True).until_logged("read")
    assert serve(adapter).finish().body == b"other"
    ask.set()
    request.until(sending.is_set, "a task of the app beside its receive()")
    assert len(request.values("was read")) == 0
    request.feed(b"x" * 100_000)
    assert request.finish().body == b"early late"


@clause("ASGI-HTTP-083")
def test_a_cancelled_receive_loses_nothing(adapt: ToWSGI, serve: WSGIServer) -> None:
    """A cancelled receive() ends at once although its read waits, and the next receive() returns the data."""
    give_up = threading.Event()
    cancelled: list[bool] = []
    received: list[Message] = []

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def give_up_when_told(patience: anyio.CancelScope) -> None:
            await until_set(give_up, serve.deadline)
            patience.cancel()

        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as patience:
                tasks.start_soon(give_up_when_told, patience)
                received.append(await receive())
        cancelled.append(patience.cancelled_caught)
        await send(START)
        while not received or received[-1].get("more_body"):
            received.append(await receive())
        await send(END)

    body = os.urandom(150_000)
    request = serve(adapt(app), http_environ("POST", CONTENT_LENGTH="150000"), body[:1000], more_body=True)
    request.until_logged("read")
    give_up.set()
    request.until(lambda: cancelled, "the end of the cancelled receive()")
    request.feed(body[1000:])
    request.finish()
    assert cancelled == [True]
    assert {message["type"] for message in received} == {"http.request"}
    assert b"".join(message["body"] for message in received) == body
