import asyncio
import contextvars
import gc
import io
import logging
import threading
import time
import types
import weakref
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import starlette.responses
from starlette.middleware.base import BaseHTTPMiddleware

from bridge import AppProtocolError, ASGIToWSGI, ClientDisconnected, ServerProtocolError
from bridge.asgi_to_wsgi.http import body as body_module
from bridge.asgi_to_wsgi.http import call as call_module
from bridge.asgi_to_wsgi.http import exchange as http_module
from bridge.runtime import running_loop
from bridge.types import ASGIApp, Environ, Message, Receive, Scope, Send
from tests.fakes import WSGIServer, http_environ, in_thread, respond
from tests.processes import wait_until
from tests.references import is_freed

Adapt = Callable[..., ASGIToWSGI]


def start(status: Any = 200, *headers: tuple[bytes, bytes], **keys: Any) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers), **keys}


def body(block: Any = b"", more_body: bool = False) -> Message:
    return {"type": "http.response.body", "body": block, "more_body": more_body}


def answers(*messages: Any) -> ASGIApp:
    """Return an app that sends `messages`; what is an exception it raises, and what is an Event it waits for."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            if isinstance(message, BaseException):
                raise message
            if isinstance(message, threading.Event):
                await until(message)
            else:
                await send(message)

    return app


async def until(event: threading.Event, timeout: float = 5) -> None:
    """Wait on the loop for an event that a thread sets."""
    with anyio.fail_after(timeout):
        while not event.is_set():
            await anyio.sleep(0.001)


class Recorder:
    """An app that notes what becomes of it: what it receives, what its sends raise, and when it is done."""

    def __init__(self, *messages: Message, endless: bool = False) -> None:
        self.messages = messages
        self.endless = endless
        self.received: list[Message] = []
        self.error: BaseException | None = None
        self.sent = 0
        self.done = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            for message in self.messages:
                await send(message)
                self.sent += 1
            while self.endless:
                await send(body(b"x" * 1000, True))
                self.sent += 1
        except BaseException as error:
            self.error = error
            raise
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(5):
                self.received += [await receive(), await receive()]
            self.done.set()


DISCONNECTS = [{"type": "http.disconnect"}] * 2

# --- The response -------------------------------------------------------------------------------


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
    """Status alone will do: headers and body have defaults (ASGI HTTP spec)."""
    server = respond(adapt(answers(*messages)))
    assert (server.status, server.headers, server.body) == ("200 OK", [], b"")


def test_each_block_arrives_before_the_next_is_sent(adapt: Adapt) -> None:
    """The app waits, before its second block, for the server to have had the first one."""
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
    """Background work after the last body message does not hold the WSGI thread; close() waits for it."""
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
    """HEAD, 204 and 304 lose what the app gave as a body, and a 204 its Content-Length too."""
    app = answers(start(status, (b"content-length", b"1234")), body(b"abc", True), body(b"def"))
    server = respond(adapt(app), http_environ(method))
    assert (server.headers, server.body) == ([] if status == 204 else [("content-length", "1234")], b"")


@pytest.mark.parametrize("first", [[], [body(b"", True)]], ids=["one message", "two messages"])
def test_a_body_that_a_proxy_sends_has_no_length(adapt: Adapt, first: list[Message]) -> None:
    """An app that leaves its file to nginx (X-Accel-Redirect) gives the file's length, and an empty body."""
    headers = [(b"x-accel-redirect", b"/files/a"), (b"content-length", b"1234")]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in (start(200, *headers), *first):
            await send(message)
        await anyio.sleep(0.02)  # in which an adapter that does not wait for the end would begin the response
        await send(body())

    server = respond(adapt(app))
    assert (server.headers, server.body) == ([("x-accel-redirect", "/files/a")], b"")


def test_a_body_that_no_proxy_sends_has_its_length(adapt: Adapt) -> None:
    """What the app sends itself after all is passed on with its length."""
    headers = [(b"x-accel-redirect", b"/files/a"), (b"content-length", b"3")]
    server = respond(adapt(answers(start(200, *headers), body(b"", True), body(b"abc"))))
    assert server.headers == [("x-accel-redirect", "/files/a"), ("content-length", "3")]
    assert server.body == b"abc"


@pytest.mark.parametrize(
    ("blocks", "headers", "length"),
    [
        ([b"hello"], [], "5"),
        ([b"hello"], [(b"content-length", b"5")], "5"),
        ([b""], [], None),  # for all we know GET has a body
        ([b"hel", b"lo"], [], None),
    ],
)
def test_a_response_to_head_tells_the_length_of_what_it_leaves_out(
    adapt: Adapt, blocks: list[bytes], headers: Any, length: str | None
) -> None:
    """Of an empty body without a length, wsgiref and gevent would say that it has none."""
    messages = [body(block, more) for block, more in zip(blocks, [*[True] * (len(blocks) - 1), False], strict=True)]
    server = respond(adapt(answers(start(200, *headers), *messages)), http_environ("HEAD"))
    assert server.body == b""
    assert [value for name, value in server.headers if name.lower() == "content-length"] == ([length] if length else [])


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_response_that_has_all_of_its_body_is_complete(adapt: Adapt, method: str) -> None:
    """A stream that goes on beyond what its client can get frees the thread, and its app is stopped."""
    app = Recorder(start(200, (b"content-length", b"1500")), endless=True)
    server = respond(adapt(app), http_environ(method))
    assert len(server.body) == (0 if method == "HEAD" else 1500)
    assert app.done.wait(5)
    assert isinstance(app.error, ClientDisconnected)
    assert app.received == DISCONNECTS


def test_an_app_may_end_a_response_that_is_complete_by_its_length(adapt: Adapt) -> None:
    """The empty last message of a stream that has its Content-Length by then is no surplus."""
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
    """An app that waits for its client to leave, while that has all it can get, hears http.disconnect."""
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
    """send() raises for a status that is no int from 200 to 999."""
    with pytest.raises(AppProtocolError, match="status"):
        respond(adapt(answers(start(status), body())))


def test_an_app_may_recover_from_a_refused_message(adapt: Adapt) -> None:
    """A message that is refused changes nothing: the app can answer properly after it."""

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
    """What is sent after the response is complete goes nowhere, and receive() says http.disconnect."""
    app = Recorder(start(), body(b"hello"), body(b"more"), start(500), {"type": "bogus"})
    assert respond(adapt(app)).body == b"hello"
    assert app.done.wait(5)
    assert (app.error, app.received) == (None, DISCONNECTS)


def test_trailers_are_taken_and_dropped(adapt: Adapt) -> None:
    """WSGI cannot send trailers: they are not offered, and an app that sends them all the same is not left waiting."""
    trailers = {"type": "http.response.trailers", "headers": [(b"x-t", b"1")]}
    app = answers(start(trailers=True), body(b"hello"), {**trailers, "more_trailers": True}, trailers)
    server = respond(adapt(app))
    assert (server.headers, server.body) == ([], b"hello")


# --- Apps that misbehave ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "messages",
    [[], [start()], [start(), body(b"x", True)], [start(trailers=True), body(b"x")]],
    ids=["nothing", "start only", "no end", "no trailers"],
)
def test_an_app_that_returns_too_early_is_an_error(adapt: Adapt, messages: list[Message]) -> None:
    """An app that ends without a whole response is an error that says so, never a hang."""
    server = WSGIServer(adapt(answers(*messages)))
    with pytest.raises(AppProtocolError, match="without a whole response"):
        in_thread(server.run)


@pytest.mark.parametrize("messages", [[], [start()]], ids=["at once", "after the start"])
def test_an_error_before_any_byte_reaches_the_server(adapt: Adapt, messages: list[Message]) -> None:
    """The app's own exception is raised from the call, before start_response, so that the server answers 500."""
    server = WSGIServer(adapt(answers(*messages, ZeroDivisionError("the app's"))))
    with pytest.raises(ZeroDivisionError, match="the app's"):
        in_thread(server.call)
    assert server.starts == []


def test_an_error_in_mid_body_cuts_the_response(adapt: Adapt) -> None:
    """The iterator raises the app's exception behind what was sent, and is over then."""
    seen = threading.Event()
    server = WSGIServer(adapt(answers(start(), body(b"partial", True), seen, ZeroDivisionError("mid"))))

    def run() -> None:
        blocks = server.call()
        assert next(blocks) == b"partial"
        seen.set()
        with pytest.raises(ZeroDivisionError, match="mid"):
            next(blocks)
        assert list(blocks) == []
        server.close()

    in_thread(run)


@pytest.mark.parametrize("error", [ZeroDivisionError("too late"), SystemExit("too late")], ids=repr)
def test_an_error_after_the_response_is_logged(
    adapt: Adapt, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    """The response stands, and the log has the traceback."""
    adapter = adapt(answers(start(), body(b"hello"), error))
    assert respond(adapter).body == b"hello"
    adapter.close()
    assert "GET /: the ASGI app raised after it had answered with 200" in caplog.text
    assert f"{type(error).__name__}: too late" in caplog.text


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_an_exception_that_would_stop_the_loop_is_an_error_of_the_request(adapt: Adapt, error: BaseException) -> None:
    """SystemExit and its like end the request, and neither the loop nor the server's thread."""
    fine = answers(start(), body(b"fine"))
    failing = answers(error)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (fine if scope["path"] == "/fine" else failing)(scope, receive, send)

    adapter = adapt(app)
    with pytest.raises(AppProtocolError, match=type(error).__name__):
        respond(adapter)
    assert respond(adapter, http_environ("GET", "/fine")).body == b"fine"


def test_a_cancelled_app_is_an_error_of_the_request() -> None:
    """An app that ends by CancelledError is an error that says so, never a hang."""
    adapter = ASGIToWSGI(answers(start(), asyncio.CancelledError()), lifespan="off")
    with adapter, pytest.raises(AppProtocolError, match="Cancelled"):
        respond(adapter)


def test_an_error_is_not_lost_while_another_task_receives(adapt: Adapt) -> None:
    """An app that fails while a task of its own waits in receive() is answered with its error, each time."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def listen() -> None:
            await receive()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            tasks.start_soon(listen)
            await anyio.lowlevel.checkpoint()
            raise ZeroDivisionError

    adapter = adapt(app)
    for _ in range(20):
        with pytest.raises((ZeroDivisionError, ExceptionGroup)):
            respond(adapter)


# --- The server closes, the client leaves -------------------------------------------------------


@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_close_reaches_the_app(adapt: Adapt, caplog: pytest.LogCaptureFixture, blocks: int) -> None:
    """close() at any point: send() raises ClientDisconnected, receive() gives http.disconnect, nothing is logged."""
    app = Recorder(start(), body(b"one", True), endless=True)
    server = WSGIServer(adapt(app))

    def run() -> None:
        iterator = server.call()
        for _ in range(blocks):
            next(iterator)
        server.close()
        server.close()
        assert list(iterator) == []

    in_thread(run)
    assert app.done.wait(5)
    assert isinstance(app.error, ClientDisconnected)
    assert isinstance(app.error, OSError)
    assert app.received == DISCONNECTS
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_nothing_is_sent_once_close_has_returned(adapt: Adapt, caplog: pytest.LogCaptureFixture) -> None:
    """Nor received, by an app that the loop has yet to let hear of it (ASGI HTTP spec, Disconnected Client)."""
    streaming, closed, done = threading.Event(), threading.Event(), threading.Event()
    errors: list[Exception] = []
    received: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"one", True))
        streaming.set()
        closed.wait(5)  # keeps the loop from running anything else
        try:
            await send(body(b"two", True))
        except OSError as error:
            errors.append(error)
        received.append(await receive())
        done.set()

    server = WSGIServer(adapt(app))

    def run() -> None:
        next(server.call())
        assert streaming.wait(5)
        server.close()
        closed.set()

    in_thread(run)
    assert done.wait(5)
    assert [type(error) for error in errors] == [ClientDisconnected]
    assert received == DISCONNECTS[:1]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_response_that_is_dropped_unclosed_is_closed(adapt: Adapt) -> None:
    """A server that forgets close() does not leave the app waiting."""
    app = Recorder(start(), body(b"one", True), endless=True)
    server = WSGIServer(adapt(app))

    def run() -> None:
        next(server.call())
        server.iterable = ()

    in_thread(run)
    gc.collect()
    assert app.done.wait(5)


def test_close_wakes_a_waiting_receive(adapt: Adapt) -> None:
    """receive() blocks while the response is open, and gives http.disconnect once it is closed."""
    waiting = threading.Event()
    received: list[Message] = []
    done = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        await send(start())
        await send(body(b"one", True))
        with anyio.move_on_after(0.05):
            received.append(await receive())
        waiting.set()
        received.append(await receive())
        done.set()

    server = WSGIServer(adapt(app))

    def run() -> None:
        next(server.call())
        assert waiting.wait(5)
        assert received == []
        server.close()

    in_thread(run)
    assert done.wait(5)
    assert received == DISCONNECTS[:1]


def test_the_end_of_the_response_wakes_a_waiting_receive(adapt: Adapt) -> None:
    """A task that listens for the disconnect hears of the end of its response."""
    received: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

        async def listen() -> None:
            received.append(await receive())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            tasks.start_soon(listen)
            await anyio.sleep(0.01)
            await send(start())
            await send(body(b"x"))

    adapter = adapt(app)
    assert respond(adapter).body == b"x"
    adapter.close()
    assert received == DISCONNECTS


def test_an_error_for_want_of_a_client_is_not_logged(adapt: Adapt, caplog: pytest.LogCaptureFixture) -> None:
    """What an app raises because of ClientDisconnected is no error; what it raises besides is."""

    def run(server: WSGIServer) -> None:
        next(server.call())
        server.close()

    async def wraps(scope: Scope, receive: Receive, send: Send) -> None:
        async with anyio.create_task_group():
            await Recorder(start(), body(b"one", True), endless=True)(scope, receive, send)

    adapter = adapt(wraps)
    in_thread(lambda: run(WSGIServer(adapter)))
    adapter.close()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []

    seen = threading.Event()
    adapter = adapt(answers(start(), body(b"one", True), seen, ZeroDivisionError("besides")))
    in_thread(lambda: run(WSGIServer(adapter)))
    seen.set()
    adapter.close()
    assert "GET /: the ASGI app raised after its client had left in mid-response (200)" in caplog.text


def test_a_client_that_leaves_an_idle_stream_is_noticed(adapt: Adapt, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the server lets the client's connection be seen, the thread ends its wait and the app is told."""
    monkeypatch.setattr(call_module, "_CLIENT_CHECK", 0.02)
    received: list[Message] = []
    done = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(start())
        await send(body(b"one", True))
        received.append(await receive())
        done.set()

    left = threading.Event()
    server = WSGIServer(adapt(app), http_environ(**{"waitress.client_disconnected": left.is_set}))

    def run() -> None:
        blocks = server.call()
        assert next(blocks) == b"one"
        left.set()
        with pytest.raises(ClientDisconnected):
            next(blocks)
        server.close()

    in_thread(run)
    assert done.wait(5)
    assert received == DISCONNECTS[:1]


def test_a_client_is_looked_for_by_a_thread_that_waits_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, where it is not in sight, and from then on the thread sleeps until it is woken."""
    looks: list[Environ] = []
    monkeypatch.setattr(call_module, "maybe_client_check", looks.append)
    timeouts: list[float] = []
    acquired = iter([True, False, True, True])

    class Lock:
        def acquire(self, timeout: float) -> bool:
            timeouts.append(timeout)
            return next(acquired)

    exchange: Any = types.SimpleNamespace(lock=Lock(), loop=types.SimpleNamespace(runs_here=bool))
    environ = http_environ()
    call = call_module.WSGICall(exchange, environ, body_module.RequestBody(environ))
    call._sleep()
    assert (looks, timeouts) == ([], [1])
    call._sleep()
    call._sleep()
    assert (looks, timeouts) == ([environ], [1, 1, -1, -1])


def test_start_response_that_raises_reaches_the_server_and_the_app(adapt: Adapt) -> None:
    """A server that refuses the headers has its own exception back, and the app is told that nobody listens."""
    app = Recorder(start(), body(b"one", True), endless=True)
    adapter = adapt(app)

    def refuse(*arguments: Any) -> Any:
        raise ZeroDivisionError("the server's")

    with pytest.raises(ZeroDivisionError, match="the server's"):
        in_thread(lambda: adapter(http_environ(), refuse))
    assert app.done.wait(5)
    assert app.received == DISCONNECTS


# --- Backpressure -------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "most"), [(1024 * 1024, 2), (16 * 1024, 18), (100, 2700)])
def test_a_server_that_does_not_read_stops_the_app(adapt: Adapt, size: int, most: int) -> None:
    """No more than 256 KiB and a block wait for a server that does not ask."""
    count = 4 * most + 12
    app = Recorder(start(), *[body(b"x" * size, True)] * count, body())
    server = WSGIServer(adapt(app))

    def run() -> None:
        blocks = server.call()
        server.blocks.append(next(blocks))
        last = -1
        while last != app.sent:
            last = app.sent
            time.sleep(0.1)
        assert app.sent <= 2 * most + 2  # what was taken, and as much again
        server.blocks.extend(blocks)
        server.close()

    in_thread(run, 20)
    assert len(server.body) == size * count


async def test_a_send_that_finds_room_does_not_forget_one_that_waits() -> None:
    """Between the thread's taking a block and its look at who waits for that, another send may come."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def wait_for_room() -> None:
            await send(body(bytes(300_000), True))

        await send(start())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_for_room)
            await anyio.wait_all_tasks_blocked()
            exchange.taken += 300_000
            await send(body(b"ping", True))
            if exchange.full:
                exchange.make_room()
        await send(body())

    loop_thread: Any = types.SimpleNamespace(loop=running_loop(), stopping=False)
    exchange = http_module.HTTPExchange(app, loop_thread, {"method": "GET", "extensions": {}})
    with anyio.fail_after(2):
        await exchange.run()
    assert list(exchange.outbox) == [bytes(300_000), b"ping", b"", None]


# --- The request body ---------------------------------------------------------------------------


class Input:
    """A `wsgi.input` that gives `blocks`, one a read and no more than asked for; then nothing, or an error."""

    def __init__(self, *blocks: bytes, error: Exception | None = None, strict: bool = False) -> None:
        self._data = io.BytesIO(b"".join(blocks))
        self._error = error
        self._strict = strict
        self.reads: list[int] = []
        self.threads: set[int] = set()

    def read(self, size: int) -> bytes:
        self.reads.append(size)
        self.threads.add(threading.get_ident())
        block = self._data.read(size)
        if not block and self._error is not None:
            raise self._error
        assert block or not self._strict, "read beyond the end"
        return block

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"wsgi.input.{name} was asked for")


def reads(results: list[Any], seen: list[Scope] | None = None) -> ASGIApp:
    """Return an app that reads its body to the end, and says how long it was."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if seen is not None:
            seen.append(scope)
        while True:
            message = await receive()
            results.append(message)
            if not message.get("more_body"):
                break
        await send(start())
        await send(body(b"%d" % sum(len(message.get("body", b"")) for message in results)))

    return app


@pytest.mark.parametrize("size", [0, 1, 1000, 64 * 1024, 64 * 1024 + 1, 300_000, 2_000_000])
def test_a_body_is_read_to_its_length_and_not_beyond(adapt: Adapt, size: int) -> None:
    """The messages make up the body, the last one and no other says so, and each is bounded.

    One message is all of a small body; else the last one is empty, which Sanic waits for.
    """
    results: list[Any] = []
    stream = Input(bytes(size), strict=True)
    environ = http_environ("POST", CONTENT_LENGTH=str(size), **{"wsgi.input": stream})
    server = respond(adapt(reads(results)), environ)
    assert server.body == b"%d" % size
    assert [message["more_body"] for message in results] == [True] * (len(results) - 1) + [False]
    assert max(len(message["body"]) for message in results) <= 512 * 1024
    assert len(results) == 1 if size <= 64 * 1024 else results[-1]["body"] == b""
    assert stream.threads <= server.threads


@pytest.mark.parametrize(("sizes", "expected"), [([3], [3]), ([1, 2], [1, 2, 0])])
def test_a_body_that_is_asked_for_is_one_message_or_ends_with_an_empty_one(
    adapt: Adapt, sizes: list[int], expected: list[int]
) -> None:
    """A body that comes at once is one message, though the client has waited for the app to ask."""

    class InPackets(Input):
        def read(self, size: int) -> bytes:
            return super().read(min(size, packets.pop(0)))

    packets = list(sizes)
    results: list[Any] = []
    stream = InPackets(b"abc", strict=True)
    environ = http_environ("POST", HTTP_EXPECT="100-continue", CONTENT_LENGTH="3", **{"wsgi.input": stream})
    assert respond(adapt(reads(results)), environ).body == b"3"
    assert [len(message["body"]) for message in results] == expected
    assert [message["more_body"] for message in results] == [True] * (len(expected) - 1) + [False]


def test_blocks_grow_while_they_come_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block costs a hop; but where a client is slow, the app gets what has come, and soon."""
    now = 0.0

    class Slow(Input):
        def read(self, size: int) -> bytes:
            nonlocal now
            now += 0.01 if len(self.reads) == 5 else 0.001
            return super().read(size)

    monkeypatch.setattr(body_module, "time", types.SimpleNamespace(monotonic=lambda: now))
    stream = Slow(bytes(4 * 1024 * 1024))
    request_body = body_module.RequestBody({"CONTENT_LENGTH": str(4 * 1024 * 1024), "wsgi.input": stream})
    while request_body.read()[1]:
        pass
    assert [size // 1024 for size in stream.reads[:8]] == [64, 128, 256, 512, 512, 512, 64, 128]


@pytest.mark.parametrize("length", [None, ""])
def test_without_a_length_there_is_no_body(adapt: Adapt, length: str | None) -> None:
    """No CONTENT_LENGTH and no wsgi.input_terminated: the stream is not touched."""
    results: list[Any] = []
    stream = Input(b"not ours")
    assert respond(adapt(reads(results)), http_environ(CONTENT_LENGTH=length, **{"wsgi.input": stream})).body == b"0"
    assert results == [{"type": "http.request", "body": b"", "more_body": False}]
    assert stream.reads == []


@pytest.mark.parametrize("headers", [{}, {"HTTP_TRANSFER_ENCODING": "chunked"}])
@pytest.mark.parametrize("size", [0, 3, 200_000])
def test_a_stream_that_knows_its_end_is_read_to_it(adapt: Adapt, headers: dict[str, str], size: int) -> None:
    """With wsgi.input_terminated a body without CONTENT_LENGTH is read until it ends."""
    results: list[Any] = []
    keys: dict[str, Any] = {"wsgi.input": Input(bytes(size)), "wsgi.input_terminated": True, **headers}
    assert respond(adapt(reads(results)), http_environ("POST", **keys)).body == b"%d" % size


@pytest.mark.parametrize("length", [3, 0])
def test_a_length_may_be_an_int(adapt: Adapt, length: int) -> None:
    """Middleware and test clients set an int where PEP 3333 has a str: it bounds the body, and 0 does too."""
    results: list[Any] = []
    keys: dict[str, Any] = {
        "CONTENT_LENGTH": length,
        "wsgi.input": Input(b"one and more"),
        "wsgi.input_terminated": True,
    }
    assert respond(adapt(reads(results)), http_environ("POST", **keys)).body == b"%d" % length


def test_a_body_is_read_when_the_app_asks(adapt: Adapt) -> None:
    """A large body, and one whose client expects 100 Continue, is not read for an app that does not want it."""
    for length, headers in ((100_000, dict[str, str]()), (10, {"HTTP_EXPECT": "100-continue"})):
        stream = Input(bytes(length))
        keys: dict[str, Any] = {"CONTENT_LENGTH": str(length), "wsgi.input": stream, **headers}
        assert respond(adapt(answers(start(), body(b"no"))), http_environ("POST", **keys)).body == b"no"
        assert stream.reads == []
        assert respond(adapt(reads([])), http_environ("POST", **keys)).body == b"%d" % length


@pytest.mark.parametrize("length", [100, 200_000])
@pytest.mark.parametrize("error", [None, OSError("reset"), ValueError("bad chunk")])
def test_an_aborted_upload_is_a_disconnect_once(adapt: Adapt, length: int, error: Exception | None) -> None:
    """A body that ends early: http.disconnect for the app, one look at the stream, and the error for the server."""
    done = threading.Event()
    received: list[Message] = []
    sent: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "http.request":
            received.append(message)
        received.append(await receive())
        try:
            await send(start())
        except OSError as disconnected:
            sent.append(disconnected)
        done.set()

    stream = Input(b"x" * 50, error=error)
    environ = http_environ("POST", CONTENT_LENGTH=str(length), **{"wsgi.input": stream})
    with pytest.raises(type(error or ClientDisconnected())):
        respond(adapt(app), environ)
    assert done.wait(5)
    assert received[-1] == {"type": "http.disconnect"}
    assert all(message["body"] == b"x" * 50 and message["more_body"] for message in received[:-1])
    assert len(sent) == 1
    assert len(stream.reads) == 2


def test_a_cancelled_receive_loses_nothing(adapt: Adapt) -> None:
    """A receive() that is given up while the stream is read leaves the block for the next one."""
    reading, proceed = threading.Event(), threading.Event()

    class Slow(Input):
        def read(self, size: int) -> bytes:
            reading.set()
            assert proceed.wait(5)
            return super().read(size)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def listen() -> None:
            await receive()

        with anyio.CancelScope() as cancelled:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listen)
                await until(reading)
                cancelled.cancel()
        assert cancelled.cancelled_caught
        proceed.set()
        results: list[Any] = []
        await reads(results)(scope, receive, send)

    environ = http_environ("POST", CONTENT_LENGTH="100000", **{"wsgi.input": Slow(bytes(100_000))})
    assert respond(adapt(app), environ).body == b"100000"


def test_a_receive_that_is_given_up_leaves_nothing(adapt: Adapt) -> None:
    """Asking again and again whether the client is there does not pile up what waits for the answer."""
    waiters: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for _ in range(100):
            with anyio.CancelScope() as given_up:
                given_up.cancel()
                await receive()
        exchange: Any = receive.__self__  # type: ignore[attr-defined]
        waiters.append(len(exchange._waiters))
        await answers(start(), body(b"x"))(scope, receive, send)

    assert respond(adapt(app)).body == b"x"
    assert waiters == [0]


def test_a_slow_body_does_not_stop_the_loop(adapt: Adapt) -> None:
    """While one request's stream blocks its thread, the loop serves another."""
    reading, proceed = threading.Event(), threading.Event()

    class Slow(Input):
        def read(self, size: int) -> bytes:
            reading.set()
            assert proceed.wait(5)
            return super().read(size)

    results: list[Any] = []
    adapter = adapt(reads(results))
    environ = http_environ("POST", CONTENT_LENGTH="100000", **{"wsgi.input": Slow(bytes(100_000))})
    slow = WSGIServer(adapter, environ)
    thread = threading.Thread(target=slow.run, daemon=True)
    thread.start()
    assert reading.wait(5)
    assert respond(adapt(answers(start(), body(b"quick")))).body == b"quick"
    proceed.set()
    thread.join(5)
    assert slow.body == b"100000"


def test_an_echo_streams_both_ways(adapt: Adapt) -> None:
    """An app that sends what it receives answers as the body comes."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        more_body = True
        while more_body:
            message = await receive()
            more_body = message["more_body"]
            await send(body(message["body"], more_body))

    data = bytes(range(256)) * 2000
    assert respond(adapt(app), http_environ("POST", "/", data)).body == data


# --- The scope ----------------------------------------------------------------------------------


def scope_of(adapt: Adapt, **environ: Any) -> Scope:
    seen: list[Scope] = []
    respond(adapt(reads([], seen)), http_environ(**environ))
    return seen[0]


def test_the_scope_has_what_asgi_wants(adapt: Adapt) -> None:
    """The http scope is a dict of its own, says what is true, and has the environ."""
    scope = scope_of(adapt)
    assert type(scope) is dict
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.3"}
    assert scope["wsgi_environ"]["PATH_INFO"] == "/"
    assert scope["extensions"] == {}
    assert "state" not in scope


def test_a_content_length_that_is_no_number_is_answered_400(adapt: Adapt) -> None:
    """A request that makes no sense is refused in plain words, and the app does not run."""
    server = respond(adapt(answers(ZeroDivisionError())), http_environ("POST", CONTENT_LENGTH="+5"))
    assert server.status == "400 Bad Request"
    assert b"Content-Length" in server.body


def test_the_callers_context_is_the_apps(adapt: Adapt) -> None:
    """Context variables of the WSGI side are seen by the app, and what it sets stays with it."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(variable.get())
        variable.set("the app's")
        await answers(start(), body())(scope, receive, send)

    adapter = adapt(app)

    def run() -> None:
        variable.set("the caller's")
        WSGIServer(adapter).run()
        seen.append(variable.get())

    in_thread(run)
    assert seen == ["the caller's", "the caller's"]


def test_early_hints_go_through_the_servers_callable(adapt: Adapt) -> None:
    """http.response.early_hint is offered where the environ has wsgi.early_hints, which gets the links."""
    hints: list[Any] = []
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload", b"</b.js>"]})
        with pytest.raises(AppProtocolError):
            await send({"type": "http.response.early_hint", "links": [b"a\r\nb"]})
        await answers(start(), body(b"x"))(scope, receive, send)

    assert respond(adapt(app), http_environ(**{"wsgi.early_hints": hints.append})).body == b"x"
    assert hints == [[("Link", "</a.css>; rel=preload"), ("Link", "</b.js>")]]
    assert "http.response.early_hint" in seen[0]["extensions"]


def test_links_that_are_none_are_the_apps_error(adapt: Adapt) -> None:
    """The links of http.response.early_hint are an iterable of bytes (docs/extensions, Early Hints)."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.early_hint", "links": 5})

    with pytest.raises(AppProtocolError, match="'links' must be an iterable of bytes, got int"):
        respond(adapt(app), http_environ(**{"wsgi.early_hints": list}))


@pytest.mark.parametrize("block", ["text", 5, None])
def test_an_input_that_reads_no_bytes_is_the_servers_error(adapt: Adapt, block: Any) -> None:
    """wsgi.input is a stream of bytes (PEP 3333, Input and Error Streams)."""

    class Input:
        def read(self, size: int) -> Any:
            return block

    with pytest.raises(ServerProtocolError, match=f"read.. must return bytes, got {type(block).__name__}"):
        respond(adapt(reads([])), http_environ("POST", "/", b"body", **{"wsgi.input": Input()}))


def test_a_body_that_was_read_before_is_told_from_nothing_else(adapt: Adapt) -> None:
    """The error says how much came, of how much, and that middleware may have read it."""
    environ = http_environ("POST", "/", b"some data")
    assert environ["wsgi.input"].read() == b"some data"
    text = "after 0 of 9 bytes: the client left, or the body was read before"
    with pytest.raises(ClientDisconnected, match=text):
        respond(adapt(reads([])), environ)
    with pytest.raises(ClientDisconnected, match="after 4 of 9 bytes"):
        respond(adapt(reads([])), http_environ("POST", "/", b"some", CONTENT_LENGTH="9"))


def test_an_environ_without_input_is_the_servers_error(adapt: Adapt) -> None:
    """It must be there (PEP 3333, environ Variables)."""
    with pytest.raises(ServerProtocolError, match=r"no wsgi\.input"):
        respond(adapt(reads([])), http_environ("POST", "/", b"body", **{"wsgi.input": None}))


def test_early_hints_in_mid_body_go_nowhere(adapt: Adapt) -> None:
    """By then the server has sent its headers, and a 103 would be bytes of the body."""
    hints: list[Any] = []
    hint = {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]}
    app = answers(start(), body(b"one", True), hint, body(b"two"))
    assert respond(adapt(app), http_environ(**{"wsgi.early_hints": hints.append})).body == b"onetwo"
    assert hints == []


def test_early_hints_that_were_not_offered_are_refused(adapt: Adapt) -> None:
    """Without wsgi.early_hints send() raises for them, and the app can answer all the same."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(AppProtocolError, match="early_hint"):
            await send({"type": "http.response.early_hint", "links": [b"</a.css>"]})
        await answers(start(), body(b"x"))(scope, receive, send)

    assert respond(adapt(app)).body == b"x"


# --- Files --------------------------------------------------------------------------------------


class FileWrapper:
    """A server's own `wsgi.file_wrapper`."""

    def __init__(self, file: Any, block_size: int) -> None:
        self.file = file
        self.close = file.close

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.file.read(2), b"")


@pytest.mark.parametrize("wrapper", [None, FileWrapper])
@pytest.mark.parametrize("length", [None, b"6", b"4"])
def test_a_file_is_sent_by_path(adapt: Adapt, tmp_path: Path, wrapper: Any, length: bytes | None) -> None:
    """pathsend gives the server's own file wrapper the file, whole; without one, or cut short, it is read here."""
    path = tmp_path / "file"
    path.write_bytes(b"abcdef")
    headers = [] if length is None else [(b"content-length", length)]
    app = answers(start(200, *headers), {"type": "http.response.pathsend", "path": str(path)})
    server = respond(adapt(app, pathsend=True), http_environ(**{"wsgi.file_wrapper": wrapper}))
    assert server.body == (b"abcd" if length == b"4" else b"abcdef")
    assert isinstance(server.iterable, FileWrapper) == (wrapper is not None and length != b"4")
    assert server.iterable.file.closed  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("path", "error"), [("relative", AppProtocolError), (b"/bytes", AppProtocolError), ("/nowhere", FileNotFoundError)]
)
def test_a_path_that_leads_nowhere_raises_into_the_app(adapt: Adapt, path: Any, error: type[Exception]) -> None:
    """send() raises for a path that is not absolute, not a str, or not there."""
    with pytest.raises(error):
        respond(adapt(answers(start(), {"type": "http.response.pathsend", "path": path}), pathsend=True))


def test_a_file_for_head_or_shorter_than_promised_is_not_sent(adapt: Adapt, tmp_path: Path) -> None:
    """HEAD has no body, and a file below its Content-Length is the app's error."""
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    message = {"type": "http.response.pathsend", "path": str(path)}
    assert respond(adapt(answers(start(), message), pathsend=True), http_environ("HEAD")).body == b""
    with pytest.raises(AppProtocolError, match="Content-Length"):
        respond(adapt(answers(start(200, (b"content-length", b"4")), message), pathsend=True))


def test_a_file_nobody_takes_is_closed(adapt: Adapt, tmp_path: Path) -> None:
    """A server that refuses the headers of a file response leaves no open file behind."""
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    adapter = adapt(answers(start(), {"type": "http.response.pathsend", "path": str(path)}), pathsend=True)

    def refuse(*arguments: Any) -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        in_thread(lambda: adapter(http_environ(), refuse))
    gc.collect()  # a file left open would be a ResourceWarning, which is an error


# --- The whole ----------------------------------------------------------------------------------


def test_many_threads_share_the_loop(adapt: Adapt) -> None:
    """Fifty threads with twenty requests each get their own answers, from one thread's loop."""
    loops: set[int] = set()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        loops.add(threading.get_ident())
        message = await receive()
        await anyio.lowlevel.checkpoint()
        await send(start())
        await send(body(scope["path"].encode(), True))
        await send(body(message["body"]))

    adapter = adapt(app)
    wrong: list[bytes] = []

    def run(number: int) -> None:
        for turn in range(20):
            data = b"%d/%d" % (number, turn)
            server = WSGIServer(adapter, http_environ("POST", f"/{number}/{turn}", data))
            server.run()
            if server.body != b"/" + data + data:
                wrong.append(server.body)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert wrong == []
    assert len(loops) == 1


def test_nothing_of_a_request_is_left(adapt: Adapt) -> None:
    """After a request no reference to its scope remains, so that none waits for the garbage collector."""

    class Token:
        pass

    references: list[weakref.ref[Token]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        token = Token()
        scope["test.token"] = token
        references.append(weakref.ref(token))
        await answers(start(), body(b"x"))(scope, receive, send)

    adapter = adapt(app)
    gc.disable()
    try:
        respond(adapter)
        wait_until(lambda: is_freed(references[0]))  # the loop is about to drop its task
    finally:
        gc.enable()


def test_the_app_may_be_abandoned_a_thousand_times(adapt: Adapt) -> None:
    """A thousand streams that are closed at once end in the app, and leave nothing on the loop."""
    count = 0
    lock = threading.Lock()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal count
        try:
            await Recorder(start(), endless=True)(scope, receive, send)
        finally:
            with lock:
                count += 1

    adapter = adapt(app)

    def run() -> None:
        for _ in range(100):
            server = WSGIServer(adapter)
            next(server.call())
            server.close()

    threads = [threading.Thread(target=run, daemon=True) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    adapter.close()
    assert count == 1000


# --- Middleware that knows no extensions ----------------------------------------------------------


class Compress:
    """Middleware that holds the start until the body has come, as brotli_asgi does; what else comes is lost."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        held: list[Message] = []

        async def compressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                held.append(message)
            elif message["type"] == "http.response.body":
                while held:
                    await send(held.pop())
                await send({**message, "body": message["body"].swapcase()})

        await self._app(scope, receive, compressed)


def with_base_http_middleware(app: ASGIApp) -> ASGIApp:
    async def change(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        blocks = [block.swapcase() async for block in response.body_iterator]
        return starlette.responses.Response(b"".join(blocks), headers=dict(response.headers))

    return BaseHTTPMiddleware(app, dispatch=change)


@pytest.mark.parametrize("middleware", [Compress, with_base_http_middleware])
def test_middleware_that_knows_no_extensions_gets_a_files_blocks(adapt: Adapt, tmp_path: Path, middleware: Any) -> None:
    """Starlette's FileResponse goes by path wherever that is offered, so it is only if the app's user says so."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    app = middleware(starlette.responses.FileResponse(path))
    environ = http_environ(**{"wsgi.early_hints": lambda headers: None, "wsgi.file_wrapper": FileWrapper})
    assert respond(adapt(app), environ).body == b"CONTENT"


def test_a_path_that_was_not_asked_for_is_refused(adapt: Adapt, tmp_path: Path) -> None:
    """The error names the option, and the app can answer all the same."""
    path = tmp_path / "file"
    path.write_bytes(b"content")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        with pytest.raises(AppProtocolError, match=r"pathsend is not in .*: ASGIToWSGI\(pathsend=True\) offers it"):
            await send({"type": "http.response.pathsend", "path": str(path)})
        await send(body(b"x"))

    assert respond(adapt(app)).body == b"x"
