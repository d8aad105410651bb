"""A request between its thread and its loop: apps that misbehave, servers that close, backpressure."""

import asyncio
import gc
import logging
import threading
import time
import types
import weakref
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from bridge import AppProtocolError, ASGIToWSGI, ClientDisconnected
from bridge.asgi_to_wsgi.http import body as body_module
from bridge.asgi_to_wsgi.http import call as call_module
from bridge.asgi_to_wsgi.http import exchange as http_module
from bridge.runtime import running_loop
from bridge.types import Environ, Message, Receive, Scope, Send
from tests.asgi_to_wsgi.apps import Adapt
from tests.asgi_to_wsgi.http.apps import DISCONNECTS, Recorder, answers, body, start
from tests.fakes import WSGIServer, http_environ, http_scope, in_thread, respond
from tests.processes import wait_until
from tests.references import is_freed

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
    """The iterator yields what was sent, raises the app's exception, and is then exhausted."""
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
    """SystemExit and the like end only the request, not the loop or the server's thread."""
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
    """An app that fails while another of its tasks waits in receive() has its error raised, every time."""

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
    """An app that has not yet heard of close() can neither send nor receive (ASGI HTTP spec, Disconnected Client)."""
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
    """receive() waits while the response is open, and returns http.disconnect once it is closed."""
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
    """A task that waits for the disconnect is woken when the response ends."""
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
    """An app's ClientDisconnected is not logged; any other error it raises is."""

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
    """If the server shows the client's connection, the thread stops waiting and the app is told."""
    monkeypatch.setattr(call_module, "CLIENT_CHECK", 0.02)
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
    """If the server does not show the connection, the thread looks for it once, then sleeps until it is woken."""
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
    """The server gets its own exception back, and the app is told that the client has left."""
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
    """At most 256 KiB and a block wait for a server that does not iterate."""
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
        assert app.sent <= 2 * most + 2  # twice what may wait
        server.blocks.extend(blocks)
        server.close()

    in_thread(run, 20)
    assert len(server.body) == size * count


async def test_a_send_that_finds_room_does_not_forget_one_that_waits() -> None:
    """A send between the thread's taking a block and its waking the waiters leaves none of them waiting."""

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
    exchange = http_module.HTTPExchange(app, loop_thread, http_scope())
    with anyio.fail_after(2):
        await exchange.run()
    assert list(exchange.outbox) == [bytes(300_000), b"ping", b"", None]


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
    """A thousand streams that are closed at once end, and leave nothing on the loop."""
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
