"""What `ASGIToWSGI.statistics` counts, while requests, responses and WebSockets come and go."""

import dataclasses
import threading
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from bridge import ASGIToWSGI
from bridge.asgi_to_wsgi.http.detaching import Detaching
from bridge.types import Receive, Scope, Send
from tests.asgi_to_wsgi.apps import Adapt
from tests.asgi_to_wsgi.http.detachable import Gate, block, body_of, connected, start, started, waiting
from tests.asgi_to_wsgi.websocket.clients import Client, echo
from tests.fakes import WSGIServer, in_thread
from tests.processes import wait_until


def numbers(adapter: ASGIToWSGI) -> dict[str, Any]:
    """Return the statistics that are neither 0 nor a limit."""
    values = dataclasses.asdict(adapter.statistics())
    return {name: value for name, value in values.items() if value and not name.startswith("max_")}


def test_an_adapter_at_rest_counts_nothing() -> None:
    """Before the first request there are only limits, and asking for them starts no loop."""
    before = threading.active_count()
    adapter = ASGIToWSGI(waiting(Gate()), detach="auto", max_detached=5, max_websockets=7)
    assert numbers(adapter) == {}
    statistics = adapter.statistics()
    assert (statistics.max_detached, statistics.max_websockets, statistics.max_threads) == (5, 7, None)
    assert ASGIToWSGI(waiting(Gate())).statistics().max_detached == 0
    assert threading.active_count() == before


def test_a_request_holds_a_thread(adapt: Adapt) -> None:
    """While the app prepares its response, the request and the server's thread count; then neither does."""
    gate = Gate()
    adapter = adapt(waiting(gate, started(), body_of(b"late")))
    server = WSGIServer(adapter)
    thread = threading.Thread(target=server.run)
    thread.start()
    assert gate.reached.wait(5)
    assert numbers(adapter) == {"requests": 1, "threads": 1}
    gate.open()
    thread.join(5)
    assert server.body == b"late"
    wait_until(lambda: numbers(adapter) == {})


def test_a_background_task_is_no_request(adapt: Adapt) -> None:
    """An app that runs on after its response does not count as a request, and holds no thread."""
    gate = Gate()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        await block(send, b"done")
        await gate.wait()

    adapter = adapt(app)
    in_thread(WSGIServer(adapter).run)
    assert numbers(adapter) == {"background": 1}
    gate.open()
    wait_until(lambda: numbers(adapter) == {})


def test_a_request_whose_client_has_left_is_no_request(adapt: Adapt) -> None:
    """Its app may run on, as a background task does."""
    gate = Gate()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        await block(send, b"part", True)
        await gate.wait()

    adapter = adapt(app)
    server = WSGIServer(adapter)

    def read_one_block() -> None:
        next(server.call())
        server.close()

    in_thread(read_one_block)
    wait_until(lambda: numbers(adapter) == {"background": 1})
    gate.open()
    wait_until(lambda: numbers(adapter) == {})


def test_a_detached_response_holds_no_thread(adapt: Adapt) -> None:
    """A detached response is a request until its client has everything; the total does not go down."""
    gate = Gate()
    adapter = adapt(waiting(gate, started(), body_of(b"late")), detach="always", detach_after=0.001, max_detached=3)
    with connected(adapter) as server:
        in_thread(server.run)
        assert numbers(adapter) == {"requests": 1, "detached": 1, "detached_total": 1}
        gate.open()
        assert server.read() == (200, b"late")
        server.client.close()
        wait_until(lambda: numbers(adapter) == {"detached_total": 1})


def test_a_response_that_could_not_leave_is_counted(adapt: Adapt) -> None:
    """Each such response adds one to the total, even after the server's thread is free again."""
    gate = Gate()
    gate.open()
    adapter = adapt(waiting(gate, started(), body_of(b"x" * 300_000)), detach="always")
    for _ in range(2):
        in_thread(WSGIServer(adapter).run)
    wait_until(lambda: numbers(adapter) == {"kept_total": 2})


def test_the_servers_threads_are_known_after_a_request(adapt: Adapt) -> None:
    """The first request shows the number of threads, which is one if the server is not multithreaded."""
    gate = Gate()
    gate.open()
    adapter = adapt(waiting(gate, started(), body_of()), detach="auto")
    with connected(adapter, **{"wsgi.multithread": False}) as server:
        in_thread(server.run)
    assert adapter.statistics().max_threads == 1
    assert Detaching(False, 0.05, 1).maybe_threads is None


@pytest.mark.parametrize(
    ("options", "carried", "expected"),
    [
        ({}, False, {"websockets": 1, "websockets_taken": 1}),
        ({}, True, {"websockets": 1, "websockets_carried": 1, "threads": 1}),
        ({"websocket": "hold"}, False, {"websockets": 1, "websockets_taken": 1, "threads": 1}),
    ],
    ids=["taken", "carried", "hold"],
)
def test_websockets_are_counted_by_what_they_hold(
    adapt: Adapt, options: dict[str, Any], carried: bool, expected: dict[str, int]
) -> None:
    """An open WebSocket is no request, and holds a thread only if it is carried, or with "hold"."""
    adapter = adapt(echo, **options)
    with Client(adapter, carried=carried) as client:
        client.open()
        wait_until(lambda: numbers(adapter) == expected)
    wait_until(lambda: numbers(adapter) == {})


def test_the_app_may_ask_on_its_own_loop(adapt: Adapt) -> None:
    """A health page of the app itself counts its own request."""
    found: list[dict[str, Any]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.lowlevel.checkpoint()
        found.append(numbers(adapter))
        await start(send)
        await block(send)

    adapter = adapt(app)
    in_thread(WSGIServer(adapter).run)
    assert found == [{"requests": 1, "threads": 1}]
