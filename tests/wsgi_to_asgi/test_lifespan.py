import threading
from collections.abc import Iterable

import anyio
import pytest

import bridge.wsgi_to_asgi.lifespan
from bridge import ServerProtocolError, WSGIToASGI
from bridge.types import Environ, StartResponse
from tests.fakes import ASGIServer, eventually, http_scope, request


def hello(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"hello"]


def lifespan(adapter: WSGIToASGI) -> ASGIServer:
    return ASGIServer(adapter, {"type": "lifespan"}, blocks=[])


async def test_startup_and_shutdown_are_answered_in_turn() -> None:
    """Each message gets its answer, and the call lasts until shutdown (ASGI lifespan spec)."""
    server = lifespan(WSGIToASGI(hello))
    async with server.running():
        await anyio.wait_all_tasks_blocked()
        assert server.sent == []
        server.feed_message({"type": "lifespan.startup"})
        await server.until_sent(1)
        await anyio.wait_all_tasks_blocked()
        assert not server.finished.is_set()
        server.feed_message({"type": "lifespan.shutdown"})
    assert [message["type"] for message in server.sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


@pytest.mark.parametrize("count", [0, 1])
async def test_another_message_is_the_servers_error(count: int) -> None:
    """A message other than startup, or shutdown after it, raises."""
    server = lifespan(WSGIToASGI(hello))
    for message in [{"type": "lifespan.startup"}] * count + [{"type": "lifespan.bogus"}]:
        server.feed_message(message)
    with pytest.raises(ServerProtocolError, match="bogus"):
        await server.run()


class Held:
    """An app whose requests run until `proceed` is set."""

    def __init__(self) -> None:
        self.running, self.proceed = threading.Event(), threading.Event()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        self.running.set()
        assert self.proceed.wait(5)
        return hello(environ, start_response)


async def test_shutdown_waits_for_requests_and_ends_the_threads() -> None:
    """A request in flight ends first; then no worker thread is left; a later request gets a new one."""
    app = Held()
    adapter = WSGIToASGI(app)
    before = set(threading.enumerate())
    server, in_flight = lifespan(adapter), ASGIServer(adapter)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.run)
        tasks.start_soon(in_flight.run)
        server.feed_message({"type": "lifespan.startup"})
        await eventually(app.running.is_set)
        server.feed_message({"type": "lifespan.shutdown"})
        await anyio.wait_all_tasks_blocked()
        assert len(server.sent) == 1
        app.proceed.set()
    assert in_flight.body == b"hello"
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("WSGIToASGI")]
    assert (await request(adapter)).body == b"hello"


async def test_shutdown_does_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A request that does not end is abandoned, and the log says so."""
    monkeypatch.setattr(bridge.wsgi_to_asgi.lifespan, "_SHUTDOWN_TIMEOUT", 0.05)
    app = Held()
    adapter = WSGIToASGI(app)
    server, in_flight = lifespan(adapter), ASGIServer(adapter, http_scope())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(in_flight.run)
        await eventually(app.running.is_set)
        server.feed_message({"type": "lifespan.startup"})
        server.feed_message({"type": "lifespan.shutdown"})
        await server.run()
        assert "were abandoned" in caplog.text
        app.proceed.set()
    assert in_flight.body == b"hello"


async def test_shutdown_that_is_cancelled_waits_for_nothing() -> None:
    """A server that cancels the shutdown gets its task back while the request is still in flight."""
    app = Held()
    adapter = WSGIToASGI(app)
    server, in_flight = lifespan(adapter), ASGIServer(adapter)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(in_flight.run)
        await eventually(app.running.is_set)
        async with anyio.create_task_group() as shutdown:
            shutdown.start_soon(server.run)
            server.feed_message({"type": "lifespan.startup"})
            server.feed_message({"type": "lifespan.shutdown"})
            await server.until_sent(1)
            await anyio.wait_all_tasks_blocked()
            shutdown.cancel_scope.cancel()
        assert not in_flight.finished.is_set()
        app.proceed.set()
    assert in_flight.body == b"hello"
