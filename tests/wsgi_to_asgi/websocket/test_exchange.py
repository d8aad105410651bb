"""A WSGI app's WebSockets. Each test serves one to an app that uses its socket or `wsgi.websocket`."""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterable
from typing import Any

import anyio
import pytest
import simple_websocket
import uvloop

import bridge.wsgi_to_asgi.lifespan
from bridge import WSGIToASGI
from bridge.types import Environ, StartResponse, WSGIApp
from bridge.wsgi_to_asgi.websocket import exchange as websocket_exchange
from tests.fakes import ASGIServer, ASGIWebSocket, eventually, http_scope, in_thread
from tests.wsgi_to_asgi.websocket.apps import (
    SIMPLE,
    WAYS,
    SocketServer,
    app_threads,
    by_object,
    echo,
    never,
    not_found,
    ok,
    on_socket,
    serve,
    settled,
    wait_for,
    write_raw,
)

MIB = 1024 * 1024


# --- Messages -------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
async def test_messages_pass_both_ways_as_they_are(way: Callable[[Any], WSGIApp]) -> None:
    """Text stays text and bytes stay bytes, whatever their length."""
    lengths = [0, 1, 125, 126, 65535, 65536, MIB]
    contents = ["äß☃"[: n % 4] * (n // 3) for n in lengths] + [b"\xff" * n for n in lengths]
    server = await serve(way(echo), *contents)
    assert server.sent[0]["type"] == "websocket.accept"
    assert server.contents == contents
    assert server.sent[-1]["type"] == "websocket.send"


@pytest.mark.parametrize("way", WAYS)
async def test_many_messages_keep_their_order(way: Callable[[Any], WSGIApp]) -> None:
    """No message overtakes another."""
    contents = [str(number) for number in range(2000)]
    assert (await serve(way(echo), *contents)).contents == contents


@pytest.mark.parametrize("way", WAYS)
async def test_what_comes_before_accept_waits(way: Callable[[Any], WSGIApp]) -> None:
    """Messages that a server delivers before accept are kept for the app."""
    proceed = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        assert proceed.wait(5)
        return way(echo)(environ, start_response)

    server = ASGIWebSocket(WSGIToASGI(app))
    async with server.running():
        server.feed_content("early")
        await anyio.wait_all_tasks_blocked()
        proceed.set()
        await server.until_sent(2)
        server.leave()
    assert server.contents == ["early"]


async def test_pings_are_answered_and_fragments_put_together() -> None:
    """A library's own pings get a pong, and a message in fragments is sent as one."""

    def talk(ws: simple_websocket.Server) -> None:
        ws.pong_received = False
        write_raw(ws, b"\x01\x01a" + b"\x00\x01b" + b"\x89\x02hi" + b"\x80\x01c")
        in_thread(lambda: wait_for(lambda: ws.pong_received))
        ws.send("pong")

    server = ASGIWebSocket(WSGIToASGI(on_socket(talk)))
    await server.run()
    assert server.contents == ["abc", "pong"]


# --- Waits that end -------------------------------------------------------------------------------


def blocks_in_receive(ws: Any) -> None:
    ws.receive()


def blocks_in_send(ws: Any) -> None:
    while True:
        ws.send(b"x" * 10_000)


def each_wait(test: Callable[..., Any]) -> Callable[..., Any]:
    """Run a test with each way to a WebSocket, and each call in which an app may wait."""
    by_talk: Callable[..., Any] = pytest.mark.parametrize("talk", [blocks_in_receive, blocks_in_send])(test)
    by_way: Callable[..., Any] = pytest.mark.parametrize("way", WAYS)(by_talk)
    return by_way


@each_wait
async def test_an_app_is_free_when_the_client_leaves(
    way: Callable[[Any], WSGIApp], talk: Callable[[Any], None]
) -> None:
    """Whatever the app blocks in, it is woken, even if the client no longer reads."""
    server = ASGIWebSocket(WSGIToASGI(way(talk)))
    async with server.running():
        await server.until_sent(1)
        server.hold_sends()
        await anyio.wait_all_tasks_blocked()
        server.leave()
        with anyio.fail_after(2):
            await server.finished.wait()
    assert server.sent[-1]["type"] in ("websocket.accept", "websocket.send")


async def test_an_app_that_looks_is_told_that_the_client_has_left() -> None:
    """`bridge.disconnected` is set although the app neither receives nor sends."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        ws = environ["wsgi.websocket"]
        ws.send("hello")
        assert environ["bridge.disconnected"].wait(5)
        assert ws.closed
        return ok(start_response)

    server = ASGIWebSocket(WSGIToASGI(app))
    async with server.running():
        await server.until_sent(2)
        server.leave()


@each_wait
async def test_an_app_is_free_when_send_says_that_the_client_has_left(
    way: Callable[[Any], WSGIApp], talk: Callable[[Any], None]
) -> None:
    """An OSError from `send` is the same as a disconnect (ASGI WebSocket spec 2.4)."""
    server = ASGIWebSocket(WSGIToASGI(way(talk)))
    server.send_error = OSError("gone")
    await server.run()


@each_wait
async def test_an_app_is_free_when_its_task_is_cancelled(
    way: Callable[[Any], WSGIApp], talk: Callable[[Any], None]
) -> None:
    """Neither the server nor the app's thread waits once the task is cancelled."""
    server = ASGIWebSocket(WSGIToASGI(way(talk)))
    with anyio.CancelScope() as scope:
        async with server.running():
            await server.until_sent(1)
            server.hold_sends()
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    await eventually(lambda: not app_threads())


@pytest.mark.parametrize("way", SIMPLE)
async def test_a_cancelled_app_is_told_that_the_service_restarts(way: Callable[[Any], WSGIApp]) -> None:
    """The app gets a close frame with 1012, if there is room for it."""
    codes: list[int] = []

    def talk(ws: simple_websocket.Server) -> None:
        try:
            ws.receive()
        except simple_websocket.ConnectionClosed as error:
            codes.append(error.reason)

    server = ASGIWebSocket(WSGIToASGI(way(talk)))
    async with server.running_cancellable() as cancel:
        await server.until_sent(1)
        cancel()
    await eventually(lambda: codes)
    assert codes == [1012]


async def test_an_app_that_goes_on_is_left_to_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The server does not wait for it, but it counts until it ends; what it raises is logged."""
    monkeypatch.setattr(websocket_exchange, "_EXIT_TIMEOUT", 0.05)
    proceed = threading.Event()

    def talk(ws: simple_websocket.Server) -> None:
        assert proceed.wait(5)
        raise ValueError("oops")

    adapter = WSGIToASGI(on_socket(talk), max_websockets=1)
    server = ASGIWebSocket(adapter)
    with caplog.at_level("INFO", "bridge"):
        async with server.running():
            await server.until_sent(1)
            server.leave()
        assert "its thread is left running" in caplog.text
        refused = ASGIWebSocket(adapter)
        await refused.run()
        assert refused.sent[0]["status"] == 503
        assert (b"retry-after", b"5") in refused.sent[0]["headers"]
        assert (b"content-length", b"%d" % len(refused.sent[1]["body"])) in refused.sent[0]["headers"]
        proceed.set()
        await eventually(lambda: not app_threads())
    assert "oops" in caplog.text


@pytest.mark.parametrize("code", [1000, 1006])
async def test_an_app_that_only_sends_is_cut_off(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """It may go on for a while; then its socket is closed, however fast it sends."""
    monkeypatch.setattr(websocket_exchange, "_EXIT_TIMEOUT", 0.2)

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        ws = SocketServer(environ)
        while True:
            write_raw(ws, b"\x82\x00" * 100)

    server = ASGIWebSocket(WSGIToASGI(app))
    async with server.running():
        await server.until_sent(10)
        server.leave(code)
        with anyio.fail_after(2):
            await server.finished.wait()
    await eventually(lambda: not app_threads())


async def test_too_many_websockets_are_refused() -> None:
    """Beyond `max_websockets` the next one is refused at once; when one has ended, there is room again."""
    adapter = WSGIToASGI(on_socket(echo), max_websockets=1)
    first, second = ASGIWebSocket(adapter), ASGIWebSocket(adapter)
    async with first.running():
        await first.until_sent(1)
        await second.run()
        assert second.sent[0]["status"] == 503
        first.leave()
    third = ASGIWebSocket(adapter)
    async with third.running():
        await third.until_sent(1)
        assert third.sent[0]["type"] == "websocket.accept"
        third.leave()


async def test_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system cannot start a thread, the WebSocket is refused as one too many."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    adapter = WSGIToASGI(on_socket(echo), max_websockets=1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        server = ASGIWebSocket(adapter)
        await server.run()
    assert server.sent[0]["status"] == 503
    assert (await serve(on_socket(echo), "a")).contents == ["a"]


async def test_shutdown_beside_a_websocket_that_starts_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shutdown waits for a thread that is about to start as for one that runs."""
    start = threading.Thread.start
    adapter = WSGIToASGI(by_object(echo))
    server = ASGIWebSocket(adapter)
    errors: list[BaseException] = []

    def join() -> None:
        try:
            adapter._websockets.get().join(5)
        except BaseException as error:
            errors.append(error)

    joiner = threading.Thread(target=join)

    def start_beside_a_join(thread: threading.Thread) -> None:
        monkeypatch.undo()
        joiner.start()
        joiner.join(0.1)  # either fails at once, or sleeps until the thread has started
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_beside_a_join)
    async with server.running():
        server.feed_content("a")
        await server.until_sent(2)
        assert errors == []
        assert joiner.is_alive()
        server.leave()
    await eventually(lambda: not joiner.is_alive())
    assert errors == []


@each_wait
async def test_shutdown_closes_websockets(way: Callable[[Any], WSGIApp], talk: Callable[[Any], None]) -> None:
    """At lifespan shutdown both sides get 1012, and no thread is left when it is complete."""
    adapter = WSGIToASGI(way(talk))
    lifespan = ASGIServer(adapter, {"type": "lifespan"}, blocks=[])
    server = ASGIWebSocket(adapter)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lifespan.run)
        tasks.start_soon(server.run)
        lifespan.feed_message({"type": "lifespan.startup"})
        await server.until_sent(1)
        lifespan.feed_message({"type": "lifespan.shutdown"})
        await lifespan.until_sent(2)
        assert not app_threads()
    assert server.sent[-1] == {"type": "websocket.close", "code": 1012}


async def test_shutdown_does_not_wait_for_ever_for_a_websocket(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An app that goes on after the end is left behind, and the log says so."""
    monkeypatch.setattr(bridge.wsgi_to_asgi.lifespan, "_SHUTDOWN_TIMEOUT", 0.05)
    proceed = threading.Event()

    def talk(ws: simple_websocket.Server) -> None:
        assert proceed.wait(5)

    adapter = WSGIToASGI(on_socket(talk))
    server, lifespan = ASGIWebSocket(adapter), ASGIServer(adapter, {"type": "lifespan"}, blocks=[])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.run)
        await server.until_sent(1)
        lifespan.feed_message({"type": "lifespan.startup"})
        lifespan.feed_message({"type": "lifespan.shutdown"})
        with anyio.fail_after(4):
            await lifespan.run()
        assert "1 WebSockets still ran" in caplog.text
        proceed.set()


async def test_shutdown_refuses_who_still_waits() -> None:
    """Shutdown does not wait for an app that has yet to answer; the client gets 403."""
    proceed = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        assert environ["bridge.disconnected"].wait(5)
        return ok(start_response)

    adapter = WSGIToASGI(app)
    lifespan = ASGIServer(adapter, {"type": "lifespan"}, blocks=[])
    server = ASGIWebSocket(adapter)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lifespan.run)
        tasks.start_soon(server.run)
        lifespan.feed_message({"type": "lifespan.startup"})
        await eventually(app_threads)
        lifespan.feed_message({"type": "lifespan.shutdown"})
    proceed.set()
    assert server.sent == [{"type": "websocket.close", "code": 1000}]


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@each_wait
def test_a_loop_that_is_closed_frees_the_threads(
    factory: Callable[[], asyncio.AbstractEventLoop], way: Callable[[Any], WSGIApp], talk: Callable[[Any], None]
) -> None:
    """Threads are woken even if the loop closes without cancelling its tasks, which asyncio warns of."""
    loop = factory()

    async def begin() -> ASGIWebSocket:
        server = ASGIWebSocket(WSGIToASGI(way(talk)))
        server.task = asyncio.ensure_future(server.run())  # type: ignore[attr-defined]  # else it is dropped too soon
        server.task._log_destroy_pending = False  # type: ignore[attr-defined]
        await server.until_sent(1)
        server.hold_sends()
        return server

    server = loop.run_until_complete(begin())
    loop.close()
    wait_for(lambda: not app_threads())
    assert not server.finished.is_set()


# --- Backpressure ---------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
async def test_a_slow_client_slows_the_app(way: Callable[[Any], WSGIApp]) -> None:
    """Only what the sockets' buffers hold, and a little more, is on the way."""
    sent: list[int] = []

    def talk(ws: Any) -> None:
        for _ in range(5000):
            ws.send(b"x" * 1000)
            sent.append(1000)

    server = ASGIWebSocket(WSGIToASGI(way(talk)))
    async with server.running():
        await server.until_sent(1)
        server.hold_sends()
        await eventually(lambda: settled(lambda: len(sent)))
        assert sum(sent) - 1000 * len(server.contents) < MIB
        server.release_sends()
    assert len(server.contents) == 5000


@pytest.mark.parametrize("way", WAYS[1:])  # on a socket, simple-websocket never stops reading
async def test_a_slow_app_slows_the_client(way: Callable[[Any], WSGIApp]) -> None:
    """The server is asked for only one message more than may be on the way."""
    proceed = threading.Event()

    def talk(ws: Any) -> None:
        ws.send("hello")
        assert proceed.wait(5)
        echo(ws)

    server = ASGIWebSocket(WSGIToASGI(way(talk)))
    async with server.running():
        await server.until_sent(2)
        server.feed_content(*[b"x" * 10_000] * 200)
        await eventually(lambda: settled(lambda: server.receive_calls))
        assert server.receive_calls * 10_000 < MIB
        proceed.set()
        await server.until_sent(202)
        server.leave()


# --- What the app finds ---------------------------------------------------------------------------

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")


async def test_the_context_is_carried_over() -> None:
    """The app sees the context variables of the server's task, and the scope."""
    seen: list[object] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.extend([variable.get(), environ["asgi.scope"], threading.current_thread().daemon])
        return not_found(environ, start_response)

    server = ASGIWebSocket(WSGIToASGI(app))
    variable.set("set")
    await server.run()
    assert seen == ["set", server.scope, True]


async def test_close_of_the_iterable_is_called_in_the_apps_thread() -> None:
    """close() is called once, whatever became of the response."""
    threads: list[threading.Thread] = []

    class Response(list[bytes]):
        def close(self) -> None:
            threads.append(threading.current_thread())

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.websocket"].send("hello")
        return Response(ok(start_response))

    server = ASGIWebSocket(WSGIToASGI(app))
    await server.run()
    assert [thread.name for thread in threads] == ["WSGIToASGI WebSocket"]


async def test_http_goes_on_beside_websockets() -> None:
    """A WebSocket occupies none of the workers."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return (by_object(echo) if "wsgi.websocket" in environ else not_found)(environ, start_response)

    adapter = WSGIToASGI(app, workers=1)
    sockets = [ASGIWebSocket(adapter) for _ in range(5)]
    async with anyio.create_task_group() as tasks:
        for server in sockets:
            tasks.start_soon(server.run)
            server.feed_content("a")
            await server.until_sent(2)
        http = ASGIServer(adapter, http_scope())
        with anyio.fail_after(2):
            await http.run()
        assert http.status == 404
        for server in sockets:
            server.leave()


async def test_a_limit_of_none_refuses_all() -> None:
    """max_websockets=0 refuses every WebSocket, in both directions."""
    server = ASGIWebSocket(WSGIToASGI(never, max_websockets=0))
    await server.run()
    assert server.sent[0]["status"] == 503
