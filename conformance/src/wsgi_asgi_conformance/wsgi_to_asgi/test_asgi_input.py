import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import anyio
import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.asgi_server import ASGIServer, ToASGI
from wsgi_asgi_conformance.samples import http_scope
from wsgi_asgi_conformance.types import ASGIApp, Environ, Message, Receive, Scope, Send, StartResponse, WSGIApp


def echo(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the request's body."""
    body = environ["wsgi.input"].read()
    start_response("200 OK", [])
    return [body]


def echo_lines(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the request's body, read in lines."""
    body = b"".join(iter(environ["wsgi.input"].readline, b""))
    start_response("200 OK", [])
    return [body]


def echo_blocks(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the request's body, read in small blocks."""
    body = b"".join(iter(lambda: environ["wsgi.input"].read(2), b""))
    start_response("200 OK", [])
    return [body]


@pytest.fixture(params=[echo, echo_lines, echo_blocks], ids=["read", "readline", "read-a-few"])
def reader(request: pytest.FixtureRequest) -> WSGIApp:
    """An app that answers with its request's body; each reads it in another way."""
    app: WSGIApp = request.param
    return app


def with_messages(adapter: ASGIApp, *messages: Any, given: threading.Event | None = None) -> ASGIApp:
    """Return an app whose `receive` returns these messages and then waits for ever: it reports no disconnect.

    `given` is set when the last one is returned.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        left: list[Message] = list(messages)

        async def receive_those() -> Message:
            if not left:
                await anyio.sleep_forever()
            message = left.pop(0)
            if not left and given is not None:
                given.set()
            return message

        await adapter(scope, receive_those, send)

    return app


@clause("ASGI-HTTP-100")
def test_input_is_the_bytes_of_the_request(adapt: ToASGI, serve: ASGIServer, reader: WSGIApp) -> None:
    """wsgi.input returns the bytes of the messages unchanged."""
    blocks = [bytes(range(256)), b"a\r\nb\n", b"", b"\n", b"c" * 70_000, b"end"]
    connection = serve(adapt(reader), http_scope("POST"), *blocks).finish()
    assert connection.body == b"".join(blocks)


@clause("ASGI-HTTP-035")
def test_the_body_of_a_chunked_request_is_plain(adapt: ToASGI, serve: ASGIServer, reader: WSGIApp) -> None:
    """The server has already decoded the chunks; what still looks like a chunk belongs to the body."""
    scope = http_scope("POST", headers=[(b"transfer-encoding", b"chunked")])
    assert serve(adapt(reader), scope, b"3\r\none\r\n", b"0\r\n\r\n").finish().body == b"3\r\none\r\n0\r\n\r\n"


@clause("CONV-001")
def test_input_ends_without_a_content_length(adapt: ToASGI, serve: ASGIServer) -> None:
    """wsgi.input_terminated is true, so that the app may read a body without Content-Length to its end."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        assert environ.get("wsgi.input_terminated") is True
        return echo(environ, start_response)

    scope = http_scope("POST", headers=[(b"transfer-encoding", b"chunked")])
    assert serve(adapt(app), scope, b"one", b"two").finish().body == b"onetwo"


@clause("CONV-001")
def test_werkzeug_reads_a_body_without_a_content_length(adapt: ToASGI, serve: ASGIServer) -> None:
    """Werkzeug, and therefore Flask, gets the whole body of a chunked request."""
    wsgi = pytest.importorskip("werkzeug.wsgi")

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [wsgi.get_input_stream(environ).read()]

    scope = http_scope("POST", headers=[(b"transfer-encoding", b"chunked")])
    assert serve(adapt(app), scope, b"one", b"two").finish().body == b"onetwo"


@clause("ASGI-HTTP-038")
def test_the_app_is_called_when_the_request_comes(adapt: ToASGI, serve: ASGIServer) -> None:
    """If a body is announced, the adapter calls the app only after the first http.request."""
    called = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        called.set()
        return echo(environ, start_response)

    scope = http_scope("POST", headers=[(b"transfer-encoding", b"chunked")])
    connection = serve(adapt(app), scope, more_body=True)
    assert not called.wait(0.05)  # long enough for an adapter that calls the app too early
    connection.feed(b"one")
    assert connection.finish().body == b"one"


@clause("ASGI-HTTP-042", "ASGI-HTTP-043", "ASGI-CORE-032")
@pytest.mark.parametrize(
    ("events", "body"),
    [
        ([{}], b""),
        ([{"body": b"a", "more_body": True}, {"body": b"b"}], b"ab"),
        ([{"more_body": True}, {"body": b"b", "more_body": False}], b"b"),
        ([{"body": b"", "more_body": True}, {"body": b"", "more_body": True}, {"body": b"abc"}], b"abc"),
        ([{"body": b"ab", "more_body": True}, {"body": b"", "more_body": True}, {"body": b"c"}], b"abc"),
        ([{"body": b"a", "more_body": True}, {"more_body": False}], b"a"),
        ([{"body": b"a", "more_body": True, "foo": object()}, {"body": b"b", "more": 1}], b"ab"),
    ],
    ids=["nothing", "no-more-body", "no-body", "empty-first", "empty-between", "empty-last", "more-keys"],
)
def test_keys_of_a_request_may_be_missing_or_unknown(
    adapt: ToASGI, serve: ASGIServer, reader: WSGIApp, events: list[dict[str, Any]], body: bytes
) -> None:
    """A missing body is empty, a missing more_body is False, an empty block is no end, and unknown keys are ignored."""
    messages = [{"type": "http.request", **event} for event in events]
    connection = serve(with_messages(adapt(reader), *messages), http_scope("POST")).finish()
    assert connection.body == body


@clause("ASGI-HTTP-044", "CONV-014")
@pytest.mark.parametrize(
    "read",
    [
        lambda stream: stream.read(),
        lambda stream: stream.read(10),
        lambda stream: stream.readline(),
        lambda stream: stream.readlines(),
        list,
    ],
    ids=["read", "read-all", "readline", "readlines", "iter"],
)
@pytest.mark.parametrize("headers", [[(b"content-length", b"10")], [(b"transfer-encoding", b"chunked")]], ids=str)
def test_a_body_that_breaks_off_is_an_error(
    adapt: ToASGI, serve: ASGIServer, read: Callable[[Any], Any], headers: list[tuple[bytes, bytes]]
) -> None:
    """If the client leaves before its body ends, the app's read raises OSError, or the app is not called."""
    outcome: list[Any] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            outcome.append(read(environ["wsgi.input"]))
        except OSError as error:
            outcome.append(error)
        start_response("200 OK", [])
        return []

    messages = [{"type": "http.request", "body": b"one", "more_body": True}, {"type": "http.disconnect"}]
    serve(with_messages(adapt(app), *messages), http_scope("POST", headers=headers)).until_ended()
    assert all(isinstance(each, OSError) for each in outcome), outcome


@clause("ASGI-HTTP-045")
def test_nothing_is_received_behind_the_body(adapt: ToASGI, serve: ASGIServer) -> None:
    """A server that sends nothing after the body delays neither wsgi.input nor the response."""

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        stream = environ["wsgi.input"]
        start_response("200 OK", [])
        yield stream.read()
        yield stream.read()
        yield stream.readline()
        yield stream.read(10)
        yield b"end"

    messages = [{"type": "http.request", "body": block, "more_body": block != b"two"} for block in (b"one", b"two")]
    connection = serve(with_messages(adapt(app), *messages), http_scope("POST")).finish()
    assert connection.body == b"onetwoend"
    assert connection.complete


@clause("ASGI-HTTP-046")
def test_messages_have_one_receiver(adapt: ToASGI, serve: ASGIServer) -> None:
    """An app that reads while it answers gets every block, and no two calls of `receive` overlap."""

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"start"
        while block := environ["wsgi.input"].read(3):
            yield block

    connection = serve(adapt(app), http_scope("POST"), b"000", more_body=True)
    for number in range(1, 20):
        connection.feed(b"%03d" % number, more_body=number < 19)
    connection.finish()
    assert connection.body == b"start" + b"".join(b"%03d" % number for number in range(20))
    pending = 0
    for entry in connection.entries("receive", "received"):
        pending += 1 if entry.kind == "receive" else -1
        assert pending <= 1


@clause("ASGI-HTTP-046")
def test_a_block_of_the_body_is_not_lost_to_a_disconnect(adapt: ToASGI, serve: ASGIServer) -> None:
    """The app can read what arrived before the client left, even if the adapter already waits for the disconnect."""
    blocks: list[bytes] = []
    given = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"start"
        given.wait(0.1)  # long enough for an adapter that receives ahead to see the disconnect
        blocks.extend(iter(lambda: environ["wsgi.input"].read(3), b""))

    messages = [{"type": "http.request", "body": block, "more_body": block != b"two"} for block in (b"one", b"two")]
    adapter = with_messages(adapt(app), *messages, {"type": "http.disconnect"}, given=given)
    serve(adapter, http_scope("POST")).until_ended()
    assert blocks == [b"one", b"two"]


@clause("ASGI-HTTP-086")
def test_a_client_may_leave_before_its_request(adapt: ToASGI, serve: ASGIServer) -> None:
    """If http.disconnect is the only message, the call ends; it may send a response or nothing."""
    connection = serve(with_messages(adapt(echo), {"type": "http.disconnect"})).until_ended()
    assert isinstance(connection.error, Exception | None)
    assert {message["type"] for message in connection.sent} <= {"http.response.start", "http.response.body"}


@clause("ASGI-CORE-031")
@pytest.mark.parametrize(
    "message",
    [{"type": "bogus"}, {}, None, {"type": "http.request", "body": "text"}],
    ids=["unknown", "empty", "none", "text"],
)
@pytest.mark.parametrize("first", [True, False], ids=["first", "second"])
def test_an_invalid_event_is_an_error(adapt: ToASGI, serve: ASGIServer, message: Any, first: bool) -> None:
    """For an invalid message, the call raises an exception, and the message does not become part of a body."""
    messages = [message] if first else [{"type": "http.request", "body": b"one", "more_body": True}, message]
    connection = serve(with_messages(adapt(echo), *messages), http_scope("POST")).until_ended()
    assert isinstance(connection.error, Exception)
    assert not connection.complete


@clause("RFC9110-010")
def test_a_response_does_not_wait_for_a_body_that_waits_for_100_continue(adapt: ToASGI, serve: ASGIServer) -> None:
    """If the app does not read the body, a client that waits for 100 Continue gets the response without it."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("417 Expectation Failed", [])
        return [b"no"]

    headers = [(b"expect", b"100-continue"), (b"content-length", b"10")]
    connection = serve(adapt(app), http_scope("POST", headers=headers), more_body=True).finish()
    assert (connection.status, connection.body, connection.complete) == (417, b"no", True)
