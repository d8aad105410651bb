import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import anyio
import pytest

from bridge.types import Environ, Receive, Scope, Send, StartResponse
from tests.fakes import http_environ, http_scope
from wsgi_asgi_conformance.apps import Blocks, asgi_response, http_app, wsgi_response
from wsgi_asgi_conformance.asgi_server import ASGIServer
from wsgi_asgi_conformance.exchange import Hang
from wsgi_asgi_conformance.loops import Loops
from wsgi_asgi_conformance.wsgi_server import WSGIServer


@pytest.fixture(scope="module")
def loops() -> Loops:
    """The loops of the fake ASGI servers, which daemon threads run."""
    return Loops()


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each library that the fake ASGI server runs on."""
    return str(request.param)


@pytest.fixture
def asgi(loops: Loops, backend: str) -> Iterator[ASGIServer]:
    server = ASGIServer(loops, backend, deadline=5)
    yield server
    server.close()


@pytest.fixture
def wsgi() -> Iterator[WSGIServer]:
    server = WSGIServer(deadline=5)
    yield server
    server.close()


# The ASGI server


def test_an_asgi_response_is_recorded(asgi: ASGIServer) -> None:
    """The log has each message, with the loop's thread, and then the end of the call."""
    connection = asgi(asgi_response(b"one", b"two", status=201, headers=[(b"a", b"b")])).finish()
    assert (connection.status, connection.headers, connection.body) == (201, [(b"a", b"b")], b"onetwo")
    assert connection.complete
    assert [entry.kind for entry in connection.log] == ["call", *["send", "sent"] * 4, "ended"]
    (thread,) = {entry.thread for entry in connection.log}
    assert thread != threading.get_ident()


def test_an_asgi_request_is_given_in_its_blocks(asgi: ASGIServer) -> None:
    """The app receives the request's blocks, then what is fed later, and http.disconnect after the response."""
    received: list[Any] = []

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        received.extend([await receive(), await receive(), await receive()])
        await asgi_response()(scope, receive, send)
        received.append(await receive())

    connection = asgi(app, http_scope("POST"), b"one", b"two", more_body=True)
    connection.until_logged("receive", 3)
    assert len(connection.values("received")) == 2
    connection.feed(b"three")
    connection.finish()
    assert [(message["body"], message["more_body"]) for message in received[:3]] == [
        (b"one", True),
        (b"two", True),
        (b"three", False),
    ]
    assert received[3:] == [{"type": "http.disconnect"}]


def test_a_request_has_an_empty_body_by_default(asgi: ASGIServer) -> None:
    """A request without blocks is one whole message."""
    received: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        received.append(await receive())

    asgi(app).finish()
    assert received == [{"type": "http.request", "body": b"", "more_body": False}]


@pytest.mark.parametrize("send_error", [None, OSError("gone")])
def test_an_asgi_client_leaves(asgi: ASGIServer, send_error: Exception | None) -> None:
    """receive() returns http.disconnect, and send() does nothing, or raises the given error."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        await asgi_response(b"one")(scope, receive, send)

    connection = asgi(app).until_logged("receive", 2)
    assert not connection.ended
    connection.disconnect(send_error)
    assert connection.until_ended().error is send_error
    assert len(connection.values("send", since="disconnect")) == (3 if send_error is None else 1)


def test_an_asgi_client_does_not_read(asgi: ASGIServer) -> None:
    """After a number of messages, send() waits until release(): from the start, or from a call of hold() on."""
    go_on = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asgi_response(b"one")(scope, receive, send)
        while not go_on.is_set():
            await anyio.sleep(0.001)
        await send({"type": "late"})

    connection = asgi(app, hold_after=1).until_logged("send", 2)
    assert len(connection.values("sent")) == 1
    connection.release()
    connection.until_logged("sent", 3)
    connection.hold()
    go_on.set()
    connection.until_logged("send", 4)
    assert len(connection.values("sent")) == 3
    connection.release()
    connection.finish()


def test_an_asgi_task_is_cancelled(asgi: ASGIServer, backend: str) -> None:
    """The app sees the backend's own cancellation, which the test can read like any error."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await receive()

    connection = asgi(app).until_logged("receive", 2)
    connection.cancel()
    assert type(connection.until_ended().error).__name__ == {"asyncio": "CancelledError", "trio": "Cancelled"}[backend]
    with pytest.raises(AssertionError, match="Cancelled"):
        connection.finish()


def test_other_scopes_are_fed_by_the_test(asgi: ASGIServer) -> None:
    """A lifespan and a WebSocket receive what the test feeds, and a WebSocket hears that its client has left."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while not (await receive())["type"].endswith(("shutdown", "disconnect")):
            pass

    lifespan = asgi(app, {"type": "lifespan"})
    lifespan.feed_message({"type": "lifespan.startup"})
    lifespan.feed_message({"type": "lifespan.shutdown"})
    lifespan.finish()
    websocket = asgi(app, {"type": "websocket"})
    websocket.feed_message({"type": "websocket.connect"})
    websocket.disconnect()
    assert [message["type"] for message in websocket.finish().values("received")][-1] == "websocket.disconnect"


def test_an_asgi_app_that_blocks_the_loop_is_left_with_it(loops: Loops, backend: str) -> None:
    """The wait ends at the deadline, and the next connection gets a new loop."""
    go_on = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        go_on.wait()

    server = ASGIServer(loops, backend, deadline=0.05)
    connection = server(app)
    try:
        with pytest.raises(Hang, match=r"waited 0\.05 s for the end of the call; last: call"):
            connection.finish()
        server.close()
        assert loops.get(backend) is not connection.loop
        ASGIServer(loops, backend, deadline=5)(asgi_response()).finish()
    finally:
        go_on.set()


@pytest.mark.parametrize("strict", [True, False])
def test_a_call_that_outlives_its_client_fails_the_test(loops: Loops, backend: str, strict: bool) -> None:
    """If a call outlives its test, the test fails, except for other adapters."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep_forever()

    server = ASGIServer(loops, backend, deadline=0.05, strict=strict)
    connection = server(app).until_logged("call")
    if strict:
        with pytest.raises(Hang, match="without a client"):
            server.close()
    else:
        server.close()
    connection.deadline = 5
    assert connection.until_ended().error is not None  # it was cancelled then


def test_a_wait_for_what_cannot_come_ends_with_the_call(asgi: ASGIServer) -> None:
    """If the call ends before the expected messages, the test fails at once."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("no answer")

    with pytest.raises(AssertionError, match=r"expected 'send' 1 times, got 0.*no answer") as failed:
        asgi(app).until_logged("send")
    assert failed.type is AssertionError  # and not Hang
    with pytest.raises(ValueError, match="no answer"):
        asgi(app).finish()


# The WSGI server


def test_a_wsgi_response_is_recorded(wsgi: WSGIServer) -> None:
    """The log has each call, with the request's thread, and the iterable is closed."""
    blocks = Blocks([b"one", b"two"])
    request = wsgi(wsgi_response(blocks, "201 Created", [("A", "b")])).finish()
    assert (request.status, request.headers, request.body) == ("201 Created", [("A", "b")], b"onetwo")
    kinds = ["call", "start_response", "return", "block", "block", "exhausted", "close", "closed", "ended"]
    assert [entry.kind for entry in request.log] == kinds
    assert request.values("return") == [blocks]
    (thread,) = {entry.thread for entry in request.log}
    assert thread == blocks.close_thread != threading.get_ident()


def reading(*reads: tuple[str, int]) -> tuple[list[Any], Callable[[Environ, StartResponse], Iterable[bytes]]]:
    """Return an app that reads its body with these methods and sizes, and the list of what they return."""
    returned: list[Any] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        for name, size in reads:
            returned.append(getattr(environ["wsgi.input"], name)(size))
        return wsgi_response([])(environ, start_response)

    return returned, app


def test_a_wsgi_body_is_read_as_from_a_file(wsgi: WSGIServer) -> None:
    """The methods of wsgi.input work as on a file that ends at CONTENT_LENGTH, and each read is logged."""
    returned, app = reading(("read", 2), ("readline", -1), ("readline", 2), ("readlines", -1), ("read", 1))
    request = wsgi(app, http_environ("POST", "/", b"one\ntwo\nthree\nfour")).finish()
    assert returned == [b"on", b"e\n", b"tw", [b"o\n", b"three\n", b"four"], b""]
    assert request.values("read")[:2] == [("read", 2), ("readline", -1)]
    assert request.values("was read")[:3] == [b"on", b"e\n", b"tw"]
    assert request.input.overreads == [-1, 1]


def test_a_wsgi_body_waits_to_be_fed(wsgi: WSGIServer) -> None:
    """A read waits for as much as it asks for."""
    returned, app = reading(("read", 2), ("read", 3))
    request = wsgi(app, http_environ("POST", CONTENT_LENGTH="5"), b"one", more_body=True)
    request.until_logged("read", 2)
    assert request.values("was read") == [b"on"]
    request.feed(b"two")
    request.finish()
    assert returned == [b"on", b"etw"]
    assert request.input.overreads == []


def test_a_wsgi_body_ends_with_content_length(wsgi: WSGIServer) -> None:
    """The app never gets bytes beyond it, and a read that asks for them is noted."""
    returned, app = reading(("read", 4), ("read", 1))
    request = wsgi(app, http_environ("POST", CONTENT_LENGTH="3"), b"one, and the next request").finish()
    assert returned == [b"one", b""]
    assert request.input.overreads == [4, 1]


def test_a_wsgi_body_without_a_length_may_end_by_itself(wsgi: WSGIServer) -> None:
    """With wsgi.input_terminated, a read may ask for more than there is."""
    returned, app = reading(("read", 100), ("read", 100))
    environ = http_environ("POST", **{"wsgi.input_terminated": True})
    request = wsgi(app, environ, b"one").finish()
    assert returned == [b"one", b""]
    assert request.input.overreads == []


@pytest.mark.parametrize("read_error", [None, ConnectionResetError("gone")])
def test_a_wsgi_client_leaves_in_its_body(wsgi: WSGIServer, read_error: Exception | None) -> None:
    """A read that waits returns less than it asked for, or raises the given error."""
    returned, app = reading(("read", 5))
    request = wsgi(app, http_environ("POST", CONTENT_LENGTH="5"), b"one", more_body=True)
    request.until_logged("read").disconnect(read_error)
    assert request.until_ended().error is read_error
    assert returned == ([b"one"] if read_error is None else [])


def test_a_wsgi_client_leaves_in_the_response(wsgi: WSGIServer) -> None:
    """The server closes the iterable instead of asking for another block."""
    blocks = Blocks(b"x" for _ in range(100))
    request = wsgi(wsgi_response(blocks), hold_after=2).until_logged("block", 2)
    assert not request.ended
    request.disconnect()
    request.finish()
    assert (blocks.closed, request.blocks) == (1, [b"x"] * 2)
    assert "exhausted" not in [entry.kind for entry in request.log]


def test_a_wsgi_client_reads_on(wsgi: WSGIServer) -> None:
    """After release(), a server that was held continues to the end."""
    request = wsgi(wsgi_response([b"1", b"2", b"3"]), hold_after=0).until_logged("return")
    assert request.blocks == []
    request.release()
    assert request.finish().body == b"123"


def test_start_response_does_as_pep_3333_says(wsgi: WSGIServer) -> None:
    """A second call needs exc_info. It replaces the headers, or raises the error once they were sent."""

    def twice(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        start_response("200 OK", [])
        return []

    def replaced(environ: Environ, start_response: StartResponse, early: bytes = b"") -> Iterable[bytes]:
        write = start_response("200 OK", [])
        write(early)
        error = ValueError("too late")
        start_response("500 Error", [], (ValueError, error, None))  # type: ignore[arg-type]  # no traceback
        return [b"sorry"]

    assert isinstance(wsgi(twice).until_ended().error, AssertionError)
    assert wsgi(replaced).finish().status == "500 Error"
    with pytest.raises(ValueError, match="too late"):
        wsgi(lambda environ, start_response: replaced(environ, start_response, b"\0")).finish()


def test_a_block_before_start_response_is_an_error(wsgi: WSGIServer) -> None:
    """Without start_response, the server has no headers to send."""
    request = wsgi(lambda environ, start_response: [b"", b"one"]).until_ended()
    assert isinstance(request.error, AssertionError)
    assert request.blocks == [b"", b"one"]


def test_a_wsgi_app_that_hangs_is_left_in_its_thread() -> None:
    """A wait ends at the deadline, as does the test."""
    go_on = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        go_on.wait()
        return []

    server = WSGIServer(deadline=0.05)
    request = server(app)
    try:
        with pytest.raises(Hang, match="the end of the call"):
            request.finish()
        server.close()  # which knows, and does not wait again
        assert not request.ended
    finally:
        go_on.set()


@pytest.mark.parametrize("blocks", [["text"], [bytearray(b"one")]], ids=["str", "bytearray"])
def test_a_body_is_of_bytes(wsgi: WSGIServer, blocks: list[Any]) -> None:
    """If a block is not bytes, the test that reads the body fails."""
    request = wsgi(wsgi_response(blocks)).until_ended()
    with pytest.raises(AssertionError, match="not bytes"):
        assert request.body
