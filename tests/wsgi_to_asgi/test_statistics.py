"""What `WSGIToASGI.statistics` counts, while requests and WebSockets come and go."""

import dataclasses
import threading
from collections.abc import Iterable
from typing import Any

import anyio

from bridge import WSGIToASGI
from bridge.types import Environ, StartResponse
from tests.fakes import ASGIServer, ASGIWebSocket, eventually


def numbers(adapter: WSGIToASGI) -> dict[str, Any]:
    """Return the statistics that are neither 0 nor a limit."""
    values = dataclasses.asdict(adapter.statistics())
    return {name: value for name, value in values.items() if value and not name.startswith("max_")}


def test_an_adapter_at_rest_counts_nothing() -> None:
    """Before the first request there are only limits, and asking for them starts no thread."""
    before = threading.active_count()
    adapter = WSGIToASGI(lambda environ, start_response: [], workers=3, max_websockets=7)
    assert numbers(adapter) == {}
    assert (adapter.statistics().max_threads, adapter.statistics().max_websockets) == (3, 7)
    assert threading.active_count() == before


async def test_requests_run_or_wait() -> None:
    """As many requests run as there are workers, and the others wait; at the end none is left."""
    gate = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        assert gate.wait(10)
        start_response("200 OK", [])
        return [b"done"]

    adapter = WSGIToASGI(app, workers=2)
    async with anyio.create_task_group() as tasks:
        try:
            for _ in range(5):
                tasks.start_soon(ASGIServer(adapter).run)
            await eventually(lambda: numbers(adapter) == {"requests": 5, "threads": 2, "waiting": 3})
        finally:
            gate.set()
    await eventually(lambda: numbers(adapter) == {})


async def test_a_websocket_is_no_request() -> None:
    """A WebSocket has a thread of its own, which is not one of the workers."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.websocket"].receive()
        start_response("200 OK", [])
        return []

    adapter = WSGIToASGI(app)
    server = ASGIWebSocket(adapter)
    async with server.running():
        await eventually(lambda: numbers(adapter) == {"websockets": 1})
        server.leave()
    await eventually(lambda: numbers(adapter) == {})
