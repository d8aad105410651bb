"""Responses that leave their WSGI thread, on a connection that the test has opened in place of a server."""

import contextlib
import gc
import http.client
import os
import socket
import threading
import weakref
from pathlib import Path
from typing import Any

import anyio.lowlevel
import pytest

from bridge.asgi_to_wsgi.http import client, detached
from bridge.asgi_to_wsgi.http.exchange import HTTPExchange
from bridge.errors import AdapterClosed
from bridge.sansio.http1 import ResponseWriter
from bridge.types import Message, Receive, Scope, Send
from tests.asgi_to_wsgi.apps import Adapt
from tests.asgi_to_wsgi.http.detachable import (
    Gate,
    NotedPlace,
    block,
    body_of,
    connected,
    detached_responses,
    start,
    started,
    waiting,
)
from tests.fakes import http_scope, in_thread
from tests.processes import wait_until
from tests.references import is_freed
from tests.sockets import read_all

ALWAYS: dict[str, Any] = {"detach": "always", "detach_after": 0.001}


def test_an_app_that_waits_leaves_its_thread(adapt: Adapt) -> None:
    """The call returns while the app still waits, and the client gets the response from the loop."""
    gate = Gate()
    adapter = adapt(waiting(gate, started(), body_of(b"late")), detach="always", detach_after=0.001)
    with connected(adapter) as server:
        in_thread(server.run)
        assert server.has_left
        gate.open()
        assert server.read() == (200, b"late")


def test_nothing_leaves_by_default(adapt: Adapt) -> None:
    """Without the option, a response holds its thread to its end."""
    gate = Gate()
    adapter = adapt(waiting(gate, started(), body_of(b"late")))
    with connected(adapter) as server:
        running = threading.Thread(target=server.run)
        running.start()
        assert gate.reached.wait(5)
        assert not server.starts
        gate.open()
        running.join(5)
        assert (server.status, server.body) == ("200 OK", b"late")


def test_a_short_response_keeps_its_thread(adapt: Adapt) -> None:
    """The server sends a response that comes within `detach_after`, and keeps its connection."""
    gate = Gate()
    gate.open()
    adapter = adapt(waiting(gate, started(), body_of(b"soon")), detach="always", detach_after=60)
    with connected(adapter) as server:
        in_thread(server.run)
        assert (server.status, server.body) == ("200 OK", b"soon")


def test_an_app_that_computes_keeps_its_thread(adapt: Adapt) -> None:
    """A task that is about to run does not wait for anything, so detaching it would gain nothing."""
    rounds = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for number in range(300):
            rounds.append(number)
            await anyio.lowlevel.cancel_shielded_checkpoint()
        await start(send)
        await block(send, b"done")

    with connected(adapt(app, detach="always", detach_after=0)) as server:
        in_thread(server.run)
        assert (server.status, server.body, len(rounds)) == ("200 OK", b"done", 300)


def test_an_event_stream_leaves_with_its_head(adapt: Adapt) -> None:
    """The client gets the head of an event stream before the first event, and no thread is held."""
    gate = Gate()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, (b"content-type", b"text/event-stream"))
        await gate.wait()
        await block(send, b"data: 1\n\n")

    with connected(adapt(app, detach="always", detach_after=60)) as server:
        in_thread(server.run)
        assert server.has_left
        response = http.client.HTTPResponse(server.client)
        response.begin()
        assert response.headers["Content-Type"] == "text/event-stream"
        gate.open()
        assert response.read() == b"data: 1\n\n"


def test_a_stream_leaves_at_its_first_block(adapt: Adapt) -> None:
    """A stream that does not end at once leaves, and none of its bytes is lost or sent twice."""
    gate = Gate()
    exchanges: list[HTTPExchange] = []

    async def app(scope: Scope, receive: Receive, send: Any) -> None:
        exchanges.append(send.__self__)
        await start(send)
        await block(send, b"one", True)
        await gate.wait()
        await block(send, b"two", True)
        await block(send)

    with connected(adapt(app, detach="always", detach_after=60)) as server:
        in_thread(server.run)
        assert server.has_left
        gate.open()
        assert server.read() == (200, b"onetwo")
    wait_until(lambda: exchanges[0].taken == 6)  # the loop counts after it has written


def test_a_large_body_leaves(adapt: Adapt) -> None:
    """A body that a slow client would take long to read does not hold a thread."""
    gate = Gate()
    gate.open()
    body = bytes(range(256)) * 20_000
    adapter = adapt(waiting(gate, started(), body_of(body)), detach="always", detach_after=60)
    with connected(adapter) as server:
        in_thread(server.run)
        assert server.has_left
        assert server.read() == (200, body)


@pytest.mark.parametrize("protocol", ["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize(
    ("method", "messages", "expected"),
    [
        ("GET", (started(), body_of(b"one", True), body_of(b"two")), (200, b"onetwo")),
        ("GET", (started((b"content-length", b"6")), body_of(b"one", True), body_of(b"two")), (200, b"onetwo")),
        ("GET", (started((b"content-length", b"3")), body_of(b"too long")), (200, b"too")),
        ("GET", (started(), body_of()), (200, b"")),
        ("HEAD", (started(), body_of(b"unseen")), (200, b"")),
        ("GET", (started(status=204), body_of()), (204, b"")),
        ("GET", (started(status=304), body_of()), (304, b"")),
        ("GET", (started((b"x-accel-redirect", b"/f"), (b"content-length", b"9")), body_of()), (200, b"")),
    ],
)
def test_a_detached_response_has_the_framing_that_fits(
    adapt: Adapt, protocol: str, method: str, messages: tuple[Message, ...], expected: tuple[int, bytes]
) -> None:
    """Clients of HTTP/1.1 and 1.0 read what the app sent, with and without a body or a length."""
    gate = Gate()
    adapter = adapt(waiting(gate, *messages), detach="always", detach_after=0.001)
    with connected(adapter, method, SERVER_PROTOCOL=protocol) as server:
        in_thread(server.run)
        assert server.has_left
        gate.open()
        assert server.read() == expected
        assert server.client.recv(1) == b""


@pytest.mark.parametrize("raises", [False, True])
def test_a_response_to_head_has_no_body_whatever_the_app_makes_of_its_scope(adapt: Adapt, raises: bool) -> None:
    """The adapter remembers the method and the path itself, also to recognise later requests of the same kind."""
    gate = Gate()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope.update(method="GET", http_version="1.0", path="/elsewhere")  # as middleware for HEAD does
        await gate.wait()
        if raises:
            raise ZeroDivisionError
        await start(send, (b"content-length", b"4"))
        await block(send, b"late")

    adapter = adapt(app, **ALWAYS)
    with connected(adapter, "HEAD") as server:
        in_thread(server.run)
        assert server.has_left
        assert adapter._detaching.get().patience.waiting_since.keys() == {"HEAD /"}  # type: ignore[union-attr]
        gate.open()
        head = read_all(server.client)
    assert head.endswith(b"Connection: close\r\n\r\n")


def test_the_framing_is_that_of_the_request_whatever_the_app_makes_of_its_scope(adapt: Adapt) -> None:
    """A client of HTTP/1.1 gets chunks."""
    gate = Gate()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["http_version"] = "1.0"
        await waiting(gate, started(), body_of(b"late"))(scope, receive, send)

    with connected(adapt(app, **ALWAYS)) as server:
        in_thread(server.run)
        gate.open()
        assert read_all(server.client).endswith(b"4\r\nlate\r\n0\r\n\r\n")


def test_early_hints_leave_too(adapt: Adapt) -> None:
    """A detached response sends its 103 itself (RFC 8297)."""
    gate = Gate()
    hint: Message = {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]}
    adapter = adapt(waiting(gate, hint, started(), body_of(b"late")), detach="always", detach_after=0.001)
    with connected(adapter, **{"wsgi.early_hints": lambda headers: None}) as server:
        in_thread(server.run)
        gate.open()
        with server.client.makefile("rb") as stream:
            received = stream.read()
        assert received.startswith(
            b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\n"
        )


def test_an_error_before_the_answer_is_a_500(adapt: Adapt, caplog: pytest.LogCaptureFixture) -> None:
    """The adapter answers in place of the server, and logs the app's error with the request."""
    gate = Gate()
    adapter = adapt(waiting(gate, started(), error=ZeroDivisionError()), detach="always", detach_after=0.001)
    with connected(adapter) as server:
        in_thread(server.run)
        gate.open()
        assert server.read() == (500, b"Internal Server Error\n")
    assert "GET /: the ASGI app raised before it answered" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_an_error_in_mid_response_cuts_it(adapt: Adapt, caplog: pytest.LogCaptureFixture) -> None:
    """A chunked response lacks its last chunk, so the client can tell."""
    gate = Gate()
    messages = (started(), body_of(b"part", True))
    adapter = adapt(waiting(gate, *messages, error=ZeroDivisionError()), detach="always", detach_after=0.001)
    with connected(adapter) as server:
        in_thread(server.run)
        gate.open()
        with pytest.raises(http.client.IncompleteRead):
            server.read()
    assert "GET /: the ASGI app raised in mid-response (200)" in caplog.text


def test_an_error_in_a_response_that_ends_by_the_close_is_a_reset(adapt: Adapt) -> None:
    """A client of HTTP/1.0 would take an ordinary close for the end of the body."""
    gate = Gate()
    messages = (started(), body_of(b"part", True))
    adapter = adapt(waiting(gate, *messages, error=ZeroDivisionError()), detach="always", detach_after=0.001)
    with connected(adapter, SERVER_PROTOCOL="HTTP/1.0") as server:
        in_thread(server.run)
        gate.open()
        with pytest.raises(ConnectionResetError):
            server.read()


@pytest.mark.parametrize("leave", ["close", "half-close"])
def test_the_app_is_told_at_once_that_the_client_left(adapt: Adapt, leave: str) -> None:
    """A client that closes, or only ends its side, has left: the app receives http.disconnect."""
    received: list[Message] = []
    told = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        received.append(await receive())
        told.set()

    with connected(adapt(app, detach="always", detach_after=0.001)) as server:
        in_thread(server.run)
        assert server.has_left
        if leave == "close":
            server.client.close()
        else:
            server.client.shutdown(socket.SHUT_WR)
        assert told.wait(5)
    assert received == [{"type": "http.disconnect"}]


def test_an_app_that_streams_is_stopped_when_its_client_leaves(adapt: Adapt) -> None:
    """`send` raises OSError after a client that did not read has closed (ASGI HTTP spec 2.4)."""
    errors: list[BaseException] = []
    full, told = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        try:
            for number in range(10_000):
                full.set() if number == 100 else None
                await block(send, b"x" * 65536, True)
        except OSError as error:
            errors.append(error)
        told.set()

    with connected(adapt(app, detach="always", detach_after=60)) as server:
        in_thread(server.run)
        assert server.has_left
        server.client.recv(1)
        server.client.close()
        assert told.wait(5)
    assert len(errors) == 1


def test_a_client_that_reads_nothing_is_given_up(adapt: Adapt, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a stall the app is told that its client has left, and until then little waits in memory."""
    monkeypatch.setattr(client, "STALL_TIMEOUT", 0.05)
    sent: list[int] = []
    told = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        with contextlib.suppress(OSError):
            while True:
                await block(send, b"x" * 65536, True)
                sent.append(65536)
        told.set()

    with connected(adapt(app, detach="always", detach_after=60)) as server:
        in_thread(server.run)
        assert told.wait(10)
    assert sum(sent) < 30_000_000  # what the system's buffers hold, and some blocks


def test_a_slow_reader_gets_the_whole_body(adapt: Adapt, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time limit for a client that does not hang up starts only once it has everything."""
    monkeypatch.setattr(client, "_LINGER", 0.01)
    gate = Gate()
    gate.open()
    body = b"x" * 20_000_000  # more than the system's buffers hold
    adapter = adapt(waiting(gate, started(), body_of(body)), detach="always", detach_after=60)
    with connected(adapter) as server:
        in_thread(server.run)
        received = 0
        while part := server.client.recv(65536):
            received += len(part)
            if received < 1_000_000:
                threading.Event().wait(0.005)  # this is a slow client
        assert received > len(body)


def test_close_waits_for_a_detached_response(adapt: Adapt) -> None:
    """`close()` waits up to `shutdown_timeout` for it, and a response that ends by then is whole."""
    gate = Gate()
    adapter = adapt(waiting(gate, started(), body_of(b"late")), detach="always", detach_after=0.001)
    with connected(adapter) as server:
        in_thread(server.run)
        closing = threading.Thread(target=adapter.close)
        closing.start()
        gate.open()
        assert server.read() == (200, b"late")
        server.client.close()
        closing.join(5)
        assert not closing.is_alive()


def test_a_response_that_outlasts_close_is_a_500(adapt: Adapt, caplog: pytest.LogCaptureFixture) -> None:
    """A client whose response is cancelled at the end of the loop gets a 500; the log does not say that it had left."""
    adapter = adapt(waiting(Gate(), started(), body_of()), detach="always", detach_after=0.001, shutdown_timeout=0.05)
    with connected(adapter) as server:
        in_thread(server.run)
        in_thread(adapter.close)
        assert server.read() == (500, b"Internal Server Error\n")
    assert "client had left" not in caplog.text
    assert "the ASGI app raised" not in caplog.text


def test_close_ends_event_streams_cleanly(adapt: Adapt) -> None:
    """A detached event stream ends at once at `close()`, with its last chunk."""
    gate = Gate()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, (b"content-type", b"text/event-stream"))
        await block(send, b"data: 1\n\n", True)
        await receive()
        await receive()

    adapter = adapt(app, detach="always", detach_after=60)
    with connected(adapter) as server:
        in_thread(server.run)
        closing = threading.Thread(target=adapter.close)
        closing.start()
        assert server.read() == (200, b"data: 1\n\n")
        server.client.close()
        closing.join(5)
        assert not closing.is_alive()
    gate.open()


def test_a_detached_response_is_freed_without_the_garbage_collector(adapt: Adapt) -> None:
    """A reference cycle would keep it and its request until the collector runs, and thousands of them slow it down."""
    gate = Gate()
    references: list[weakref.ref[HTTPExchange]] = []

    async def app(scope: Scope, receive: Receive, send: Any) -> None:
        references.append(weakref.ref(send.__self__))
        await gate.wait()
        await start(send)
        await block(send, b"late")

    adapter = adapt(app, detach="always", detach_after=0.001)
    gc.collect()
    gc.disable()
    try:
        with connected(adapter) as server:
            in_thread(server.run)
            gate.open()
            assert server.read() == (200, b"late")
        wait_until(lambda: is_freed(references[0]))
    finally:
        gc.enable()


def test_a_response_that_failed_is_not_answered(adapt: Adapt) -> None:
    """If the loop reaches it later, it does not touch the connection, whose descriptor may be another one's by then."""
    ended: list[str] = []
    ours, client = socket.socketpair()
    adapter = adapt(waiting(Gate()))
    adapter.start()
    loop_thread = adapter._private_loop.get().get()
    exchange = HTTPExchange(adapter.app, loop_thread, http_scope())
    exchange.outbox.extend([b"unseen", None])
    response = detached.DetachedResponse(exchange, ours, ResponseWriter("GET", "1.1"), NotedPlace(exchange, ended))
    with client:
        for _ in range(2):
            response.fail(AdapterClosed("the loop has ended"))
        in_thread(lambda: loop_thread.submit(response))
        wait_until(lambda: not adapter.statistics().detached)
        with client.makefile("rb") as stream:
            received = stream.read()
    assert received.startswith(b"HTTP/1.1 500 ")
    assert received.endswith(b"\r\n\r\nInternal Server Error\n")
    assert ended == ["released", "500 Internal Server Error 22 False"]


def test_an_exchange_that_fails_away_from_its_loop_does_not_touch_what_is_detached(adapt: Adapt) -> None:
    """The object that answers belongs to the loop's thread, and fails there by itself."""
    adapter = adapt(waiting(Gate()))
    adapter.start()
    loop_thread = adapter._private_loop.get().get()
    exchange = HTTPExchange(adapter.app, loop_thread, http_scope())
    woken: list[int] = []
    exchange.detached = True
    exchange.wake = lambda: woken.append(threading.get_ident())
    error = AdapterClosed("the loop has ended")
    exchange.fail(error)
    assert (list(exchange.outbox), woken) == ([error], [])
    loop_thread.loop.call_soon(exchange.fail, error)
    loop_thread.loop.call_soon(exchange.fail, ZeroDivisionError("of a task factory"))
    wait_until(lambda: woken)
    assert len(woken) == 1
    assert woken != [threading.get_ident()]


def test_close_streams_ends_a_detached_event_stream(adapt: Adapt) -> None:
    """The stream's client sees a clean end, and detached responses of other kinds go on."""
    gate = Gate()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["query_string"]:
            await start(send, (b"content-type", b"text/event-stream"))
            await block(send, b"data: 1\n\n", True)
            await receive()
            await receive()
        else:
            await waiting(gate, started(), body_of(b"late"))(scope, receive, send)

    adapter = adapt(app, **ALWAYS)
    with connected(adapter) as slow, connected(adapter, QUERY_STRING="events") as events:
        in_thread(slow.run)
        in_thread(events.run)
        wait_until(lambda: b"data: 1" in events.client.recv(1000, socket.MSG_PEEK), what="the stream's beginning")
        adapter.close_streams()
        assert events.read() == (200, b"data: 1\n\n")
        gate.open()
        assert slow.read() == (200, b"late")


def test_the_interpreters_exit_waits_for_what_a_client_has_yet_to_get(adapt: Adapt) -> None:
    """It waits neither for an event stream, nor for a client that has everything and does not hang up."""
    gate = Gate()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["query_string"]:
            await start(send, (b"content-type", b"text/event-stream"))
            await Gate().wait()
        await waiting(gate, started(), body_of(b"late"))(scope, receive, send)

    adapter = adapt(app, shutdown_timeout=0.05, **ALWAYS)
    with connected(adapter) as slow, connected(adapter, QUERY_STRING="events") as events:
        in_thread(slow.run)
        (late,) = detached_responses(adapter)
        in_thread(events.run)
        (stream,) = set(detached_responses(adapter)) - {late}
        assert late.is_to_finish
        wait_until(lambda: not stream.is_to_finish, what="the stream's head")
        gate.open()
        wait_until(lambda: not late.is_to_finish, what="the end of the response")
        assert adapter.statistics().detached == 2
        assert slow.read() == (200, b"late")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not list descriptors")
def test_the_end_gives_back_places_and_descriptors(adapt: Adapt) -> None:
    """After `close()`, all kinds of responses have freed theirs: whole, cut, streams, and those whose client left."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["query_string"] == b"events":
            await start(send, (b"content-type", b"text/event-stream"))
        elif scope["query_string"] == b"part":
            await start(send)
            await block(send, b"part", True)
        await Gate().wait()

    adapter = adapt(app, shutdown_timeout=0.05, max_detached=4, **ALWAYS)
    adapter.start()
    before = len(os.listdir("/proc/self/fd"))
    with contextlib.ExitStack() as servers:
        for query in ("events", "part", "", "left"):
            server = servers.enter_context(connected(adapter, QUERY_STRING=query))
            in_thread(server.run)
            if query == "left":
                server.client.close()
        assert adapter.statistics().detached_total == 4
        in_thread(adapter.close)
    wait_until(lambda: len(os.listdir("/proc/self/fd")) < before)  # the loop's own are closed, too
    assert not adapter._detaching.get()._taken  # type: ignore[union-attr]
