"""How long a response may hold its WSGI thread."""

import http.client
import math
import threading
import time
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from bridge import ClientDisconnected
from bridge.asgi_to_wsgi.http import leaving
from bridge.asgi_to_wsgi.http import patience as patience_module
from bridge.asgi_to_wsgi.http.patience import Patience
from bridge.types import Receive, Scope, Send
from tests.asgi_to_wsgi.apps import Adapt
from tests.asgi_to_wsgi.http.detachable import Gate, block, body_of, connected, start, started, waiting
from tests.fakes import WSGIServer, in_thread
from tests.processes import wait_until

AFTER = 3600.0


def exchange(path: str = "/", method: str = "GET", is_event_stream: bool = False) -> Any:
    response = SimpleNamespace(is_event_stream=is_event_stream)
    return SimpleNamespace(method=method, path=path, begun=0.0, may_detach=False, response=response)


def waited(patience: Patience, seconds: float, *args: Any, **keys: Any) -> Any:
    """Have a response leave that began `seconds` ago, and return it."""
    left = exchange(*args, **keys)
    left.begun = time.monotonic() - seconds
    patience.left(left)
    return left


def test_a_request_like_one_that_waits_leaves_at_once() -> None:
    """Once the other has waited for `detach_after`, this one need not wait first."""
    patience = Patience(AFTER)
    assert not patience.is_of_waiting_kind(exchange())
    waited(patience, AFTER / 2)
    assert not patience.is_of_waiting_kind(exchange())
    patience = Patience(AFTER)
    waited(patience, AFTER * 2)
    waited(patience, AFTER / 2)
    assert patience.is_of_waiting_kind(exchange())
    assert not patience.is_of_waiting_kind(exchange("/other"))
    assert not patience.is_of_waiting_kind(exchange(method="POST"))


def test_the_answer_of_a_response_that_left_says_whether_the_next_one_does() -> None:
    """A kind whose answer took long is remembered, and one with a quick answer is forgotten, unless it is a stream."""
    patience = Patience(AFTER)
    patience.answered(waited(patience, AFTER * 2))
    assert patience.is_of_waiting_kind(exchange())
    patience.answered(waited(patience, AFTER / 2))
    assert not patience.is_of_waiting_kind(exchange())
    waited(patience, AFTER * 2)
    patience.answered(waited(patience, AFTER / 2, is_event_stream=True))
    assert patience.is_of_waiting_kind(exchange())


def test_a_response_that_has_just_left_is_no_reason_for_the_next_one() -> None:
    """If nobody has noted when its call began, its wait begins as it leaves."""
    patience = Patience(AFTER)
    patience.left(exchange())
    assert not patience.is_of_waiting_kind(exchange())


def test_a_call_that_began_earlier_holds_its_thread_for_less_time() -> None:
    """The time to read the request's body counts, too."""
    patience = Patience(AFTER)
    patience.threads = 2
    held = exchange()
    held.begun = time.monotonic() - AFTER / 2
    assert 0 < patience.hold(held) <= AFTER / 2
    held.begun = time.monotonic() - 2 * AFTER
    assert patience.hold(held) == 0.0


def test_the_last_call_hurries_only_those_that_may_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks neither itself nor a call that must keep its thread."""
    patience = Patience(AFTER)
    patience.threads = 3
    asked: list[object] = []
    monkeypatch.setattr(patience, "ask", lambda exchange, hurried: asked.append(exchange))
    calls = [exchange() for _ in range(3)]
    calls[1].may_detach = calls[2].may_detach = True
    barrier = threading.Barrier(3)

    def hold(call: Any) -> None:
        barrier.wait(5)  # so that the threads' numbers differ
        with order:
            patience.hold(call)
            patience.let_go(exchange())  # of another call, which does not hold this thread

    order = threading.Lock()
    threads = [threading.Thread(target=hold, args=(call,)) for call in calls[:2]]
    for thread in threads:
        thread.start()
    hold(calls[2])
    for thread in threads:
        thread.join(5)
    assert len(patience._holding) == 3
    asked.clear()
    patience.hold(calls[2])
    assert asked == [calls[1]]


def test_requests_differ_by_their_paths_but_not_by_what_is_numbered() -> None:
    """A part of the path that has a digit counts as a number or an identifier."""
    patience = Patience(AFTER)
    waited(patience, AFTER * 2, "/users/17/reports/9c2f")
    assert patience.is_of_waiting_kind(exchange("/users/205/reports/a7"))
    assert not patience.is_of_waiting_kind(exchange("/users/205/settings"))
    assert not patience.is_of_waiting_kind(exchange("/users/me/reports/a7"))


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients choose the paths, and could fill the memory with them."""
    monkeypatch.setattr(patience_module, "_MOST_KINDS", 3)
    patience = Patience(AFTER)
    for name in "abcdefgh":
        waited(patience, 1, "/" + name * 1000)
    assert len(patience.waiting_since) <= 3
    assert all(len(kind) < 300 for kind in patience.waiting_since)


def test_looks_in_vain_become_rarer() -> None:
    """While looks find only apps that compute or have answered, the wait doubles; a response that leaves resets it."""
    patience = Patience(AFTER)
    shorts = [patience.short]
    asked: Any = exchange()
    for leaves in (False, False, True):
        asked.consider_leaving = lambda for_thread, leaves=leaves: leaves
        asked.begun = time.monotonic()
        patience._consider(asked, True, time.monotonic() + 60)  # asked in the future, so that it does not come late
        shorts.append(patience.short)
    patience._consider(asked, True, time.monotonic() - 60)  # late
    shorts.append(patience.short)
    first = shorts[0]
    assert shorts == [first, 2 * first, 4 * first, first, 2 * first]


def test_a_request_leaves_at_once_after_one_that_waited(adapt: Adapt) -> None:
    """It does so even if its app answers before anybody could look."""
    gate = Gate()
    adapter = adapt(waiting(gate, started(), body_of(b"late")), detach="always", detach_after=0.05)
    with connected(adapter) as first, connected(adapter) as second:
        in_thread(first.run)
        gate.open()
        assert first.read() == (200, b"late")
        in_thread(second.run)
        assert second.has_left
        assert second.read() == (200, b"late")


def test_a_request_whose_body_is_unread_leaves_later_after_one_that_waited(adapt: Adapt) -> None:
    """It cannot leave at once, but once the app has read the body."""
    gate = Gate()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["more_body"]:
            pass
        await waiting(gate, started(), body_of(b"late"))(scope, receive, send)

    adapter = adapt(app, detach="always", detach_after=0.001)
    with connected(adapter, "POST", b"x" * 100_000) as first, connected(adapter, "POST", b"x" * 100_000) as second:
        for server in (first, second):
            in_thread(server.run)
            assert server.has_left
        gate.open()
        assert first.read() == second.read() == (200, b"late")


def test_a_client_that_leaves_a_response_that_may_leave_is_noticed(
    adapt: Adapt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread looks for the client while it waits for the time to leave, too."""
    monkeypatch.setattr(leaving, "CLIENT_CHECK", 0.01)
    told, reached = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        reached.set()
        await receive()
        told.set()

    with connected(adapt(app, detach="always", detach_after=AFTER)) as server:

        def run() -> None:
            with pytest.raises(ClientDisconnected):
                server.run()

        call = threading.Thread(target=run)
        call.start()
        assert reached.wait(5)
        server.client.close()
        assert told.wait(5)
        call.join(5)
        assert not call.is_alive()


def test_an_event_stream_that_left_at_once_has_its_head_at_once(adapt: Adapt) -> None:
    """The client does not wait for the first event."""
    gate = Gate()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, (b"content-type", b"text/event-stream"))
        await gate.wait()
        await block(send, b"data: 1\n\n")

    adapter = adapt(app, detach="always", detach_after=3600)
    with connected(adapter) as first, connected(adapter) as second:
        in_thread(first.run)
        adapter._detaching.get().patience.waiting_since["GET /"] -= 7200  # type: ignore[union-attr]
        in_thread(second.run)
        assert second.has_left
        response = http.client.HTTPResponse(second.client)
        response.begin()
        gate.open()
        assert response.read() == b"data: 1\n\n"


def test_an_app_in_a_thread_of_a_pool_keeps_its_wsgi_thread(adapt: Adapt) -> None:
    """It may compute, as FastAPI's `def` endpoints do, so it leaves only after `detach_after`."""
    entered, proceed = threading.Event(), threading.Event()

    def endpoint() -> None:
        entered.set()
        proceed.wait(10)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.to_thread.run_sync(endpoint)
        await start(send)
        await block(send, b"done")

    adapter = adapt(app, detach="always", detach_after=3600)
    patience = adapter._detaching.get().patience  # type: ignore[union-attr]
    asked: list[None] = []
    ask = patience.ask

    def ask_and_note(exchange: Any, hurried: bool) -> None:
        ask(exchange, hurried)
        asked.append(None)

    patience.ask = ask_and_note  # type: ignore[method-assign]
    with connected(adapter, **{"wsgi.multithread": False}) as server:
        running = threading.Thread(target=server.run)
        running.start()
        assert entered.wait(5)
        wait_until(lambda: len(asked) > 5)
        assert not server.starts
        proceed.set()
        running.join(5)
        assert server.status == "200 OK"
    patience.ask = ask  # type: ignore[method-assign]
    patience.after = 0.001
    entered.clear()
    proceed.clear()
    with connected(adapter) as server:
        in_thread(server.run)
        assert server.has_left
        proceed.set()
        assert server.read() == (200, b"done")


def test_a_newcomer_hurries_those_who_wait(adapt: Adapt, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the last thread is taken, a call that waits leaves long before `detach_after`."""
    monkeypatch.setattr(patience_module, "_LATE", math.inf)  # otherwise a busy machine would take its time
    gate = Gate()
    app = waiting(gate, started(), body_of(b"late"))
    adapter = adapt(app, detach="always", detach_after=3600)
    adapter._detaching.get().patience.threads = 2  # type: ignore[union-attr]
    newcomers: list[threading.Thread] = []
    with connected(adapter) as first:
        running = threading.Thread(target=first.run)
        running.start()
        assert gate.reached.wait(5)

        def newcomer_has_hurried_it() -> bool:
            newcomer = WSGIServer(adapter)
            newcomers.append(threading.Thread(target=newcomer.run))
            newcomers[-1].start()
            running.join(0.01)
            return not running.is_alive()

        wait_until(newcomer_has_hurried_it)
        assert first.has_left
        gate.open()
        assert first.read() == (200, b"late")
    for newcomer in newcomers:
        newcomer.join(5)


def test_a_stream_that_is_held_occupies_its_thread_to_its_end(adapt: Adapt, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then, other requests have one thread less."""
    monkeypatch.setattr(patience_module, "_LATE", math.inf)
    gate = Gate()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/held":
            await start(send)
            await block(send, b"one", True)
        await gate.wait()
        if scope["path"] != "/held":
            await start(send)
        await block(send, b"two")

    adapter = adapt(app, detach="always", detach_after=3600)
    patience = adapter._detaching.get().patience  # type: ignore[union-attr]
    patience.threads = 2
    held = WSGIServer(adapter)
    held.environ["PATH_INFO"] = "/held"
    proceed = threading.Event()

    def hold() -> None:
        blocks = held.call()
        assert next(blocks) == b"one"
        proceed.wait(10)
        assert list(blocks) == [b"two"]
        held.close()

    holding = threading.Thread(target=hold)
    holding.start()
    wait_until(lambda: held.starts)
    with connected(adapter) as waits:
        in_thread(waits.run)
        assert waits.has_left
        gate.open()
        proceed.set()
        assert waits.read() == (200, b"two")
    holding.join(5)
    assert not patience._holding
