"""A request between its loop and its thread: clients that leave, cancellation, backpressure."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from bridge import ClientDisconnected, WSGIToASGI
from bridge.types import Environ, Message, StartResponse
from bridge.wsgi_to_asgi.http.environ import environ_template
from bridge.wsgi_to_asgi.http.exchange import HTTPExchange
from bridge.wsgi_to_asgi.http.hop import FINISHED, body_message_from_items
from bridge.wsgi_to_asgi.runner import WorkerThreads
from tests.fakes import ASGIServer, eventually, http_scope, request
from tests.wsgi_to_asgi.http.apps import OK, Blocks, answers, app_of, chunked, endless

# --- The client leaves --------------------------------------------------------------------------


@pytest.mark.parametrize("send_error", [None, OSError("gone")])
async def test_a_stream_stops_when_its_client_leaves(send_error: Exception | None) -> None:
    """Whether send() raises or not, iteration stops at the next block, and close() runs in the app's thread."""
    blocks = Blocks(endless())
    server = ASGIServer(app_of(blocks.app))
    with anyio.fail_after(5):
        async with server.running():
            await server.until_sent(3)
            server.disconnect(send_error)
    assert (blocks.closed, len(set(blocks.threads))) == (1, 1)
    assert not server.complete


async def test_a_server_may_change_the_messages_that_it_gets() -> None:
    """Bytes are counted as the app gave them, because Starlette's GZipMiddleware changes messages in place."""

    class Gzip(ASGIServer):
        async def _send(self, message: Message, /) -> None:
            await super()._send(dict(message))
            if "body" in message:
                message["body"] = b""

    server = Gzip(answers(*[bytes(64 * 1024)] * 40))
    with anyio.fail_after(5):
        await server.run()
    assert len(server.body) == 40 * 64 * 1024


async def test_a_block_that_comes_while_the_loop_looks_is_no_end() -> None:
    """Without the interpreter's lock, the app runs on while the loop looks."""

    class Outbox(deque[Any]):
        def __bool__(self) -> bool:
            some = len(self) > 0
            self.append(b"two")
            return some

    outbox = Outbox()
    message = body_message_from_items(bytes(100_000), outbox)
    assert (message["more_body"], list(outbox)) == (True, [b"two"])


async def test_a_thread_that_tells_while_the_loop_looks_is_heard() -> None:
    """A block that comes after the loop has found nothing, and before it sleeps, wakes it."""
    proceed = threading.Event()
    exchanges: list[HTTPExchange] = []
    looks = 0

    class Outbox(deque[Any]):
        def __bool__(self) -> bool:
            nonlocal looks
            some = len(self) > 0
            if not some and threading.get_ident() == here:
                looks += 1
                if looks == 2:  # the last one before it sleeps
                    proceed.set()
                    while not len(self):  # the app ends now
                        time.sleep(0.001)
                    while not exchanges[0]._told:
                        time.sleep(0.001)
            return some

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        exchange: HTTPExchange = environ["bridge.disconnected"]._exchange
        exchanges.append(exchange)
        outbox = Outbox()
        exchange.outbox = outbox
        call = start_response.__self__  # type: ignore[attr-defined]
        call._outbox = outbox
        exchange.tell()
        assert proceed.wait(5)
        start_response(OK, [])
        return []

    here = threading.get_ident()
    with anyio.fail_after(5):
        server = ASGIServer(app_of(app))
        await server.run()
    assert (looks, server.complete) == (2, True)


@pytest.mark.parametrize("asks", [True, False])
async def test_a_stream_that_is_always_ahead_is_watched(asks: bool) -> None:
    """A client that leaves is noticed although the next block is always ready; at once if the app asks."""
    wanted = threading.Semaphore(1)
    passed_on = 0
    receive_calls: list[int] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        nonlocal passed_on
        if asks:
            environ["bridge.disconnected"].is_set()
        start_response(OK, [])
        for _ in range(5):
            assert wanted.acquire(timeout=5)
            yield b"x"
            passed_on += 1

    class Behind(ASGIServer):
        async def _send(self, message: Message, /) -> None:
            await super()._send(message)
            await anyio.lowlevel.checkpoint()  # a turn for each task, because trio runs them in any order
            if message["type"] == "http.response.body":
                wanted.release()
            await eventually(lambda: passed_on >= min(len(self.sent), 5))
            receive_calls.append(self.receive_calls)

    server = Behind(app_of(app))
    with anyio.fail_after(5):
        await server.run()
    assert receive_calls[0 if asks else 3] == 2


async def test_a_blocked_stream_stops_when_its_client_leaves() -> None:
    """A thread that waits for room is woken although the server's send() never returned."""
    blocks = Blocks(endless())
    server = ASGIServer(app_of(blocks.app))
    with anyio.fail_after(5):
        async with server.running():
            server.hold_sends()
            await server.until_sent(1)
            server.disconnect()
    assert blocks.closed == 1


async def test_a_server_error_in_send_ends_the_request_and_is_raised() -> None:
    """What send() raises, other than OSError, is the server's own error: it is raised to the server after close()."""
    blocks = Blocks(endless())
    server = ASGIServer(app_of(blocks.app))
    server.send_error = ZeroDivisionError("in send")
    with anyio.fail_after(5), pytest.raises(ZeroDivisionError, match="in send"):
        await server.run()
    assert blocks.closed == 1


async def test_a_cancelled_request_frees_its_thread() -> None:
    """Cancelling the task is like a client that leaves: the call ends at once, the thread at its next block."""
    blocks = Blocks(endless())
    adapter = app_of(blocks.app, workers=1)
    server = ASGIServer(adapter)
    async with server.running_cancellable() as cancel:
        server.hold_sends()
        await server.until_sent(1)
        cancel()
    assert await anyio.to_thread.run_sync(blocks.done.wait, 5)
    assert blocks.closed == 1
    assert (await request(WSGIToASGI(Blocks([b"x"]).app))).body == b"x"


@pytest.mark.parametrize("early", [True, False])
async def test_what_an_app_raises_beside_a_cancellation_is_logged(
    caplog: pytest.LogCaptureFixture, early: bool
) -> None:
    """An app's error is logged if its task was cancelled, but not if the app only learned that its client left."""
    entered, proceed, raised = threading.Event(), threading.Event(), threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        entered.set()
        assert proceed.wait(5)
        try:
            if environ["PATH_INFO"] == "/told":
                raise ClientDisconnected
            raise ZeroDivisionError("unseen")
        finally:
            raised.set()

    for path in ("/told", "/"):
        for event in (entered, proceed, raised):
            event.clear()
        server = ASGIServer(app_of(app, workers=1), http_scope(path=path))
        async with server.running_cancellable() as cancel:
            assert await anyio.to_thread.run_sync(entered.wait, 5)
            if early:
                proceed.set()
                assert raised.wait(5)  # blocks the loop, which therefore is not told
            cancel()
        proceed.set()
        assert await anyio.to_thread.run_sync(raised.wait, 5)
    await eventually(lambda: "raised after its request was cancelled" in caplog.text)
    assert caplog.text.count("raised after") == 1
    assert "ZeroDivisionError: unseen" in caplog.text


async def test_what_an_app_raises_amid_a_cancellation_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """If the loop has looked for an error before the app raises, the thread logs the error itself."""
    entered, proceed = threading.Event(), threading.Event()

    class WatchedExchange(HTTPExchange):
        def _log_error(self) -> None:
            super()._log_error()
            if threading.get_ident() == here:
                proceed.set()
                while FINISHED not in self.outbox:
                    time.sleep(0.001)

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        entered.set()
        assert proceed.wait(5)
        raise ZeroDivisionError("unseen")

    here = threading.get_ident()
    workers = WorkerThreads(1)

    async def adapter(scope: Any, receive: Any, send: Any) -> None:
        await WatchedExchange(app, workers, environ_template(True, True), scope, receive, send).serve()

    server = ASGIServer(adapter)
    async with server.running_cancellable() as cancel:
        assert await anyio.to_thread.run_sync(entered.wait, 5)
        cancel()
    assert caplog.text.count("ZeroDivisionError: unseen") == 1


async def test_a_thread_that_sleeps_wakes_to_a_request_that_has_finished() -> None:
    """A thread that is woken at the end finds the request finished, because it would look again only seconds later."""
    sleeping, woken = threading.Event(), threading.Event()
    states: list[bool] = []

    class WatchedExchange(HTTPExchange):
        def wake_sleepers(self) -> None:
            super().wake_sleepers()
            states.append(self.finished)
            if sleeping.is_set() and not self.finished:  # the sleeper looks, and goes back to sleep
                time.sleep(0.05)

        def sleep_while(self, blocked: Callable[[], bool], timeout: float = 5) -> None:
            sleeping.set()
            super().sleep_while(blocked, timeout)
            woken.set()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        threading.Thread(target=environ["bridge.disconnected"].wait, daemon=True).start()
        assert sleeping.wait(5)
        raise ZeroDivisionError

    workers = WorkerThreads(1)

    async def adapter(scope: Any, receive: Any, send: Any) -> None:
        await WatchedExchange(app, workers, environ_template(True, True), scope, receive, send).serve()

    with pytest.raises(ZeroDivisionError):
        await ASGIServer(adapter).run()
    assert states[-1] is True
    assert await anyio.to_thread.run_sync(woken.wait, 3)


async def test_a_client_that_leaves_before_the_first_message_costs_no_thread() -> None:
    """If http.disconnect comes in place of the announced body, the app does not run."""
    calls: list[Environ] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        calls.append(environ)
        return []

    server = ASGIServer(app_of(app), chunked(), blocks=[])
    server.disconnect()
    await server.run()
    assert calls == []
    assert server.sent == []


async def test_a_client_that_leaves_while_its_request_waits_its_turn_costs_no_call() -> None:
    """Under overload, the app is not called for a client that has left."""
    entered, proceed = threading.Event(), threading.Event()
    calls: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        calls.append(environ["PATH_INFO"])
        entered.set()
        assert proceed.wait(5)
        start_response(OK, [])
        return []

    adapter = app_of(app, workers=1)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ASGIServer(adapter, http_scope(path="/held")).run)
            assert await anyio.to_thread.run_sync(entered.wait, 5)
            waiting = [ASGIServer(adapter, http_scope(path="/left")), ASGIServer(adapter, http_scope(path="/stays"))]
            for server in waiting:
                tasks.start_soon(server.run)
            await anyio.wait_all_tasks_blocked()
            waiting[0].disconnect()
            await anyio.wait_all_tasks_blocked()
            proceed.set()
    assert calls == ["/held", "/stays"]
    assert waiting[1].complete


async def test_a_client_that_expects_100_continue_waits_its_turn_for_it() -> None:
    """The first receive makes a server send 100 Continue, so it waits until a worker is free and the app reads."""
    entered, proceed = threading.Event(), threading.Event()
    received: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/held":
            entered.set()
            assert proceed.wait(5)
        start_response(OK, [])
        return []

    adapter = app_of(app, workers=1)
    scope = http_scope("POST", path="/waits", headers=[(b"expect", b"100-continue"), (b"content-length", b"3")])

    async def receive() -> Message:
        received.append("receive")
        return {"type": "http.request", "body": b"abc", "more_body": False}

    async def send(message: Message) -> None:
        pass

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ASGIServer(adapter, http_scope(path="/held")).run)
            assert await anyio.to_thread.run_sync(entered.wait, 5)
            tasks.start_soon(adapter, scope, receive, send)
            await anyio.wait_all_tasks_blocked()
            assert received == []
            proceed.set()


@pytest.mark.parametrize("at", ["first", "later"])
async def test_receive_may_say_by_an_error_that_the_client_has_left(at: str) -> None:
    """An OSError from receive() means the same as http.disconnect, and is not reported as an error."""
    called: list[bool] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        called.append(environ["bridge.disconnected"].wait(5))
        start_response(OK, [])
        return []

    async def receive() -> Message:
        if at == "first" or received:
            raise OSError("gone")
        received.append(True)
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        raise AssertionError(f"sent to nobody: {message!r}")

    received: list[bool] = []
    with anyio.fail_after(5):
        await app_of(app)(chunked(), receive, send)
    assert called == ([] if at == "first" else [True])


async def test_two_threads_that_write_at_once_both_go_on() -> None:
    """One message may make room for both threads, so both are woken."""
    block = b"x" * 300_000
    threads: list[threading.Thread] = []
    ended: list[bool] = []
    exchanges: list[HTTPExchange] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        exchanges.append(environ["bridge.disconnected"]._exchange)
        write = start_response(OK, [])
        write(b"small, so that all leaves as one")
        threads.extend(threading.Thread(target=write, args=(block,), daemon=True) for _ in range(2))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2)
            ended.append(not thread.is_alive())
        return []

    server = ASGIServer(app_of(app))
    server.hold_sends()
    with anyio.fail_after(10):
        async with server.running():
            await eventually(lambda: exchanges and len(exchanges[0]._sleepers) == 2)
            server.release_sends()
    assert ended == [True, True]
    assert [len(message["body"]) for message in server.sent[1:]] == [600_032, 0]


async def test_disconnected_tells_a_long_request() -> None:
    """`bridge.disconnected` is set for an app that asks before it has sent anything."""
    asked = threading.Event()
    told: list[bool] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        disconnected = environ["bridge.disconnected"]
        told.append(disconnected.is_set())
        told.append(disconnected.wait(0.01))
        asked.set()
        told.append(disconnected.wait(5))
        told.append(disconnected.is_set())
        start_response(OK, [])
        return []

    server = ASGIServer(app_of(app))
    with anyio.fail_after(5):
        async with server.running():
            assert await anyio.to_thread.run_sync(asked.wait, 5)
            server.disconnect()
    assert told == [False, False, True, True]


async def test_a_response_that_is_through_is_no_disconnect() -> None:
    """What receive() says after the response does not set `bridge.disconnected` for an app in close()."""
    told: list[bool] = []

    class Asking(Blocks):
        def close(self) -> None:
            told.append(self.environ["bridge.disconnected"].wait(0.05))
            super().close()

        def app(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            self.environ = environ
            return super().app(environ, start_response)

    blocks = Asking([b"x"])
    server = ASGIServer(app_of(blocks.app))
    async with server.running():
        await eventually(lambda: server.complete)
        server.feed_message({"type": "http.disconnect"})
    assert told == [False]


async def test_disconnected_ends_its_wait_with_the_request() -> None:
    """A thread that waits for the client to leave is woken when the request ends."""
    told: list[bool] = []
    threads: list[threading.Thread] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        waiting = threading.Event()

        def wait() -> None:
            waiting.set()
            told.append(environ["bridge.disconnected"].wait())
            told.append(environ["bridge.disconnected"].wait())

        threads.append(threading.Thread(target=wait, daemon=True))
        threads[0].start()
        waiting.wait(5)
        start_response(OK, [])
        return [b"x"]

    await request(app_of(app))
    await anyio.to_thread.run_sync(threads[0].join, 5)
    assert told == [False, False]


async def test_a_small_response_costs_no_second_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """A response that ends with its first block starts no second task: a task group costs as much as a request."""

    def refuse() -> None:
        raise AssertionError("made a task group")

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response(OK, [])
        return [b"hello"]

    adapter = app_of(app)
    monkeypatch.setattr(anyio, "create_task_group", refuse)
    assert (await request(adapter)).body == b"hello"


async def test_a_request_that_does_not_ask_is_not_watched() -> None:
    """If a response ends with its first block, receive() is called once for a body, and not at all without one."""
    app = answers(b"hello", headers=[("Content-Length", "5")])
    assert (await request(app)).receive_calls == 0
    assert (await request(app, chunked(), b"body")).receive_calls == 1


async def test_a_server_that_repeats_itself_is_not_asked_for_ever() -> None:
    """A receive() that repeats the end of the body is not called again and again."""
    proceed = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [])
        yield b"one"
        assert proceed.wait(5)
        yield b"two"

    server = ASGIServer(app_of(app))
    async with server.running():
        server.feed(b"")
        server.feed(b"")
        await eventually(lambda: server.receive_calls == 2)
        proceed.set()
    assert (server.body, server.receive_calls) == (b"onetwo", 2)


# --- Backpressure -------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "most"), [(1024 * 1024, 2), (16 * 1024, 18), (100, 2700)])
async def test_a_client_that_does_not_read_stops_the_app(size: int, most: int) -> None:
    """No more than 256 KiB and a block are on the way to a client that does not read."""
    count = 2 * most + 16
    blocks = Blocks(b"x" * size for _ in range(count))
    server = ASGIServer(app_of(blocks.app))
    with anyio.fail_after(20):
        async with server.running():
            server.hold_sends()
            await server.until_sent(1)
            await quiescence(lambda: blocks.taken)
            assert blocks.taken <= most
            server.release_sends()
    assert len(server.body) == size * count
    assert server.complete


async def quiescence(value: Callable[[], int]) -> None:
    """Wait until `value` has stopped changing, for a tenth of a second."""
    last = -1
    while (now := value()) != last:
        last = now
        await anyio.sleep(0.1)


# --- The whole ----------------------------------------------------------------------------------


async def test_many_requests_at_once_keep_apart() -> None:
    """Two hundred concurrent requests on a few threads each get their own answer."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [])
        body = environ["wsgi.input"].read()
        return iter([environ["PATH_INFO"].encode(), b" ", body])

    adapter = app_of(app, workers=4)
    servers = [
        ASGIServer(adapter, http_scope("POST", f"/{number}"), [b"body ", b"%d" % number]) for number in range(200)
    ]
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for server in servers:
                tasks.start_soon(server.run)
    assert [server.body for server in servers] == [b"/%d body %d" % (number, number) for number in range(200)]


async def test_a_thousand_abandoned_streams_leave_the_pool_whole() -> None:
    """Streams whose clients leave free their threads; four of them serve a thousand, and the next request."""
    streams: list[Blocks] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        streams.append(Blocks(endless()))
        return streams[-1].app(environ, start_response)

    adapter = app_of(app, workers=4)

    async def abandon() -> None:
        server = ASGIServer(adapter)
        async with server.running():
            await server.until_sent(2, timeout=30)
            server.disconnect()

    with anyio.fail_after(50):
        for _ in range(20):
            async with anyio.create_task_group() as tasks:
                for _ in range(50):
                    tasks.start_soon(abandon)
    assert [blocks.closed for blocks in streams] == [1] * 1000
