"""What happens to a request body that the app does not read."""

import errno
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import bridge.wsgi_to_asgi.http.body
import bridge.wsgi_to_asgi.http.exchange
from bridge import ClientDisconnected
from bridge.runtime import running_loop
from bridge.types import Environ, StartResponse
from bridge.wsgi_to_asgi.http.body import RequestBody
from bridge.wsgi_to_asgi.http.hop import Exchange
from bridge.wsgi_to_asgi.http.streams import Spool
from tests.fakes import ASGIServer, eventually, http_scope
from tests.wsgi_to_asgi.http.apps import OK, Blocks, app_of, chunked, endless


async def test_an_unread_body_is_not_piled_up() -> None:
    """While a response streams, at most 1 MiB of an unread body is received, and nothing is lost."""
    proceed = threading.Event()
    results: list[bytes] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        assert not environ["bridge.disconnected"].is_set()  # starts watching the connection early
        start_response(OK, [])
        yield b"one"
        assert proceed.wait(5)
        results.append(environ["wsgi.input"].read())
        yield b"two"

    server = ASGIServer(app_of(app), blocks=[bytes(100_000)] * 40)
    async with server.running():
        await server.until_sent(2)
        await eventually(lambda: server.receive_calls >= 11)
        await anyio.wait_all_tasks_blocked()
        assert server.receive_calls == 11
        proceed.set()
    assert results == [bytes(4_000_000)]


async def test_a_client_that_leaves_behind_an_unread_body_is_noticed() -> None:
    """A stream ends when its client leaves, although nobody reads the request body."""
    blocks = Blocks(endless())
    server = ASGIServer(app_of(blocks.app), blocks=[])
    for _ in range(10):
        server.feed(bytes(100_000), more_body=True)
    with anyio.fail_after(5):
        async with server.running():
            await eventually(lambda: server.receive_calls > 10)
            server.disconnect()
    assert blocks.closed == 1


@pytest.mark.parametrize("sends", [True, False])
async def test_a_body_left_unread_for_long_goes_to_disk(monkeypatch: pytest.MonkeyPatch, sends: bool) -> None:
    """A large unread body is spooled, so that none of it is lost and a client that leaves is noticed."""
    monkeypatch.setattr(bridge.wsgi_to_asgi.http.body, "_PATIENCE", 0.05)
    proceed = threading.Event()
    results: list[Any] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [])
        if sends:
            yield b"one"
        results.append(environ["bridge.disconnected"].is_set())
        assert proceed.wait(5)
        results.append(sum(len(block) for block in iter(lambda: environ["wsgi.input"].read(70_000), b"")))
        results.append(environ["bridge.disconnected"].wait(5))

    server = ASGIServer(app_of(app), blocks=[bytes(100_000)] * 40)
    with anyio.fail_after(10):
        async with server.running():
            await eventually(lambda: server.receive_calls > 40)
            proceed.set()
            await eventually(lambda: len(results) == 2)
            server.disconnect()
    assert results == [False, 4_000_000, True]


async def read_after_cancellation(*blocks: bytes) -> list[Any]:
    """Cancel a request whose body has arrived; return how much of it the app then reads, and how two reads end."""
    results: list[Any] = []
    cancelled = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        stream = environ["wsgi.input"]
        results.append(len(stream.read(1)))
        environ["bridge.disconnected"].is_set()  # starts watching the connection
        assert cancelled.wait(5)
        for _ in range(2):
            try:
                while block := stream.read(10_000):
                    results[0] += len(block)
                results.append("end")
            except ClientDisconnected:
                results.append("cut")
        return []

    server = ASGIServer(app_of(app, workers=1), chunked(), blocks=list(blocks))
    async with server.running_cancellable() as cancel:
        await eventually(lambda: server.receive_calls > len(blocks))
        cancel()
    cancelled.set()
    await eventually(lambda: len(results) == 3)
    return results


async def test_a_body_on_disk_is_cut_with_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a cancelled request drops the spooled rest of its body, a read does not take that for the body's end."""
    monkeypatch.setattr(bridge.wsgi_to_asgi.http.body, "_PATIENCE", 0.05)
    results = await read_after_cancellation(*[bytes(100_000)] * 40)
    assert results[1:] == ["cut", "cut"]
    assert 0 < results[0] < 4_000_000


async def test_a_body_in_memory_outlives_its_request() -> None:
    """A body that has arrived whole can be read to its end after the request."""
    assert await read_after_cancellation(*[bytes(1000)] * 40) == [40_000, "end", "end"]


@pytest.fixture
def spools(monkeypatch: pytest.MonkeyPatch) -> list[Spool]:
    """Return a list to which every new spool is added."""
    spools: list[Spool] = []

    class Noted(Spool):
        def __init__(self) -> None:
            super().__init__()
            spools.append(self)

    monkeypatch.setattr(bridge.wsgi_to_asgi.http.body, "Spool", Noted)
    return spools


class Request(Exchange):
    """An exchange whose body has arrived whole, unless the test sets `read_on` and `sleep_while`."""

    def read_on(self) -> None:
        raise AssertionError("asked for more")

    def sleep_while(self, blocked: Callable[[], bool], timeout: float = math.inf) -> None:
        raise AssertionError("slept")


@pytest.mark.parametrize("more_body", [False, True])
def test_a_block_that_an_interrupted_read_lost_is_an_error(more_body: bool) -> None:
    """An app that reads again after a watchdog's exception does not wait for that block for ever."""
    body = RequestBody(lambda: anyio.Event())
    body.put({"body": b"lost", "more_body": more_body})
    assert body._maybe_take() == b"lost"  # an exception lands here, before the block is counted
    with pytest.raises(ClientDisconnected, match="a part of the request body was lost"):
        body.next_block(Request())


@pytest.mark.parametrize("end", ["gone", "complete", "finished"])
def test_what_came_before_the_end_is_read_before_it(end: str) -> None:
    """A last block that comes while the reader looks is read, because the reader looks for the end first."""
    body, connection = RequestBody(lambda: anyio.Event()), Request()

    class Blocks(deque[bytes]):
        def __bool__(self) -> bool:
            empty = not len(self)
            if empty and not body.ended:
                body.put({"body": b"last"})
                setattr(connection, end, True)
            return not empty

    body._blocks = Blocks()
    connection.sleep_while = lambda blocked, timeout=0.0: None  # type: ignore[method-assign]
    connection.read_on = lambda: None  # type: ignore[method-assign]
    assert [body.next_block(connection), body.next_block(connection)] == [b"last", b""]


async def test_no_more_than_a_limit_goes_to_disk(monkeypatch: pytest.MonkeyPatch, spools: list[Spool]) -> None:
    """Beyond the limit the client waits; once the app has read it all, blocks wait in memory again."""
    monkeypatch.setattr(bridge.wsgi_to_asgi.http.body, "_PATIENCE", 0.05)
    monkeypatch.setattr(bridge.wsgi_to_asgi.http.body, "_DISK_LIMIT", 1_000_000)
    proceed = threading.Semaphore(0)
    read: list[int] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [])
        yield b"one"
        for size in (2_100_000, 100_000, -1):
            assert proceed.acquire(timeout=5)
            read.append(len(environ["wsgi.input"].read(size)))

    server = ASGIServer(app_of(app), chunked(), blocks=[])
    for _ in range(60):
        server.feed(bytes(100_000), more_body=True)
    with anyio.fail_after(20):
        async with server.running():
            # 11 in memory and 10 on disk, and no more, however long the app waits.
            await eventually(lambda: server.receive_calls == 21)
            await anyio.sleep(0.2)
            assert (server.receive_calls, spools[0].size) == (21, 1_000_000)
            proceed.release()
            await eventually(lambda: read == [2_100_000])
            assert spools[0].closed
            proceed.release()
            # Memory has the same limit and the app the same time as before.
            await eventually(lambda: len(spools) == 2)
            await eventually(lambda: server.receive_calls == 21 + 1 + 11 + 10)
            server.feed(b"")
            proceed.release()
    assert read == [2_100_000, 100_000, 3_800_000]
    assert server.complete
    assert all(spool.closed for spool in spools)


async def test_a_reader_that_keeps_up_has_no_body_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a pause, and once the spooled part is read, backpressure works as before."""
    monkeypatch.setattr(bridge.wsgi_to_asgi.http.body, "_PATIENCE", 0.05)
    body = RequestBody(running_loop().event)
    connection = Request()
    for _ in range(11):
        body.put({"body": bytes(100_000), "more_body": True})
    full = [body.full]
    await body.wait_for_room(lambda: True)
    body.put({"body": b"on disk", "more_body": True})
    full.append(body.full)
    assert [len(body.next_block(connection)) for _ in range(12)] == [100_000] * 11 + [7]
    for _ in range(11):
        full.append(body.full)
        body.put({"body": bytes(100_000), "more_body": True})
    assert [*full, body.full] == [True, *[False] * 12, True]
    assert body._spool is None


async def test_nothing_is_spooled_for_a_request_that_has_no_thread(
    monkeypatch: pytest.MonkeyPatch, spools: list[Spool]
) -> None:
    """The client waits for a worker anyway, and its leaving is noticed while at most 1 MiB is unread."""
    monkeypatch.setattr(bridge.wsgi_to_asgi.http.body, "_PATIENCE", 0.02)
    entered, proceed, reading = threading.Event(), threading.Event(), threading.Event()
    results: list[Any] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/held":
            entered.set()
            assert proceed.wait(5)
        else:
            assert reading.wait(5)
            results.append(len(environ["wsgi.input"].read()))
        start_response(OK, [])
        return []

    adapter = app_of(app, workers=1)
    server = ASGIServer(adapter, chunked(), blocks=[bytes(100_000)] * 30)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ASGIServer(adapter, http_scope(path="/held")).run)
            assert await anyio.to_thread.run_sync(entered.wait, 5)
            tasks.start_soon(server.run)
            await eventually(lambda: server.receive_calls == 11)
            await anyio.sleep(0.2)
            assert (server.receive_calls, spools) == (11, [])
            proceed.set()
            await eventually(lambda: spools)  # now it has one, and does not read
            reading.set()
    assert results == [3_000_000]


@pytest.mark.parametrize("at", ["put", "__init__"])
async def test_a_disk_that_is_full_is_no_client_that_left(monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """An OSError of the spool file reaches the server."""

    class FullDisk(Spool):
        pass

    def fail(*args: object) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    setattr(FullDisk, at, fail)

    monkeypatch.setattr(bridge.wsgi_to_asgi.http.body, "_PATIENCE", 0.02)
    monkeypatch.setattr(bridge.wsgi_to_asgi.http.body, "Spool", FullDisk)
    blocks = Blocks(endless())
    server = ASGIServer(app_of(blocks.app), blocks=[bytes(100_000)] * 20)
    with anyio.fail_after(5), pytest.raises(OSError, match="No space left"):
        await server.run()
    assert blocks.closed == 1
