"""Which responses may leave their WSGI thread, and how many."""

import logging
import math
import resource
import socket
import threading
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from bridge import ASGIToWSGI
from bridge.asgi_to_wsgi import sockets
from bridge.asgi_to_wsgi.http import detaching, patience
from bridge.asgi_to_wsgi.http.detaching import Detaching
from bridge.asgi_to_wsgi.http.exchange import HTTPExchange
from bridge.asgi_to_wsgi.http.patience import Patience
from bridge.asgi_to_wsgi.http.place import Place
from bridge.types import Receive, Scope, Send
from tests.asgi_to_wsgi.apps import Adapt
from tests.asgi_to_wsgi.http.detachable import Gate, body_of, connected, started, waiting
from tests.fakes import WSGIServer, http_scope, in_thread
from tests.processes import wait_until


def test_max_detached_bounds_those_that_leave(adapt: Adapt) -> None:
    """Above the limit a response holds its thread, until another response has ended."""
    gate = Gate()
    adapter = adapt(waiting(gate, started(), body_of(b"late")), detach="always", detach_after=0.001, max_detached=1)
    with connected(adapter) as first, connected(adapter) as second:
        in_thread(first.run)
        assert first.has_left
        running = threading.Thread(target=second.run)
        running.start()
        gate.open()
        running.join(5)
        assert (second.status, second.body) == ("200 OK", b"late")
        assert first.read() == (200, b"late")
        with connected(adapter) as third:
            wait_until(lambda: not adapter.statistics().detached)
            in_thread(third.run)
            assert third.has_left


def test_a_place_is_free_once_nothing_refers_to_it(adapt: Adapt) -> None:
    """A thread that is interrupted between taking a place and using it does not lose the place."""
    taken: set[int] = set()
    adapter = adapt(waiting(Gate()))
    adapter.start()
    exchange = HTTPExchange(adapter.app, adapter._private_loop.get().get(), http_scope())
    first, second = Place(taken, Patience(0.05), exchange), Place(taken, Patience(0.05), exchange)
    assert len(taken) == 2
    first.free()
    first.free()
    assert len(taken) == 1
    del second
    assert not taken


def test_scarce_descriptors_keep_responses_in_their_threads(adapt: Adapt, caplog: pytest.LogCaptureFixture) -> None:
    """No response leaves if the server and the app would run out of descriptors; the log says so once."""
    gate = Gate()
    gate.open()
    adapter = adapt(waiting(gate, started(), body_of(b"x" * 300_000)), detach="always")
    adapter._detaching.get()._descriptors = 3  # type: ignore[union-attr]
    for _ in range(2):
        with connected(adapter) as server:
            in_thread(server.run)
            assert server.status == "200 OK"
    assert caplog.text.count("descriptors are open") == 1


def test_middleware_keeps_responses_in_their_threads(adapt: Adapt, caplog: pytest.LogCaptureFixture) -> None:
    """With "auto", a response leaves only if start_response is the server's own: middleware's headers would be lost."""
    caplog.set_level(logging.DEBUG, "bridge")
    gate = Gate()
    gate.open()
    adapter = adapt(waiting(gate, started(), body_of(b"x" * 300_000)), detach="auto")
    with connected(adapter) as server:
        in_thread(server.run)
        assert server.status == "200 OK"
    assert "start_response of its own" in caplog.text


def test_a_body_that_is_not_read_keeps_the_response_in_its_thread(adapt: Adapt) -> None:
    """Only the WSGI thread can read wsgi.input, so it stays while there is something to read."""
    gate = Gate()
    gate.open()
    adapter = adapt(waiting(gate, started(), body_of(b"x" * 300_000)), detach="always", detach_after=0)
    with connected(adapter, "POST", b"y" * 100_000) as server:
        in_thread(server.run)
        assert server.status == "200 OK"


def test_a_connection_that_cannot_be_taken_keeps_the_thread(adapt: Adapt) -> None:
    """On an unknown server, the option changes nothing."""
    gate = Gate()
    gate.open()
    server = WSGIServer(adapt(waiting(gate, started(), body_of(b"x" * 300_000)), detach="always", detach_after=0))
    in_thread(server.run)
    assert server.status == "200 OK"


class Channel:
    """A waitress channel that has yet to send an earlier response."""

    total_outbufs_len = 5
    connected = True
    outbuf_lock = threading.Condition()
    adj = SimpleNamespace(channel_request_lookahead=0, threads=4)

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock

    def client_disconnected(self) -> bool:
        return False


def raise_aborted(*args: object) -> None:
    raise ConnectionAbortedError("it was closed")


@pytest.mark.parametrize(
    ("soft", "allowed"), [(256, 192), (1024, 768), (65_536, 64_536), (resource.RLIM_INFINITY, math.inf)]
)
def test_descriptors_are_left_to_the_server_and_the_app(
    monkeypatch: pytest.MonkeyPatch, soft: int, allowed: float
) -> None:
    """A quarter of the limit is theirs, but at most 1,000."""
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (soft, resource.RLIM_INFINITY))
    assert Detaching(False, 0.05, 10)._descriptors == allowed


@pytest.mark.parametrize("obstacle", ["unsent", "greenlets", "FastCGI", "pipelined", "closed"])
def test_an_obstacle_keeps_the_response_in_its_thread(
    adapt: Adapt, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, obstacle: str
) -> None:
    """The bytes of a detached response would be unreadable, in the wrong place, or in place of a later answer."""
    caplog.set_level(logging.DEBUG, "bridge")
    gate = Gate()
    gate.open()
    adapter = adapt(waiting(gate, started(), body_of(b"x" * 300_000)), detach="always", detach_after=0)
    with connected(adapter) as server:
        if obstacle == "unsent":
            channel = Channel(server.environ.pop("gunicorn.socket"))
            server.environ["waitress.client_disconnected"] = channel.client_disconnected
        elif obstacle == "greenlets":
            monkeypatch.setattr(sockets, "maybe_patched_by", lambda: "gevent")
        elif obstacle == "FastCGI":
            monkeypatch.setattr(detaching, "may_answer_by_itself", lambda environ, start_response: False)
        elif obstacle == "pipelined":
            monkeypatch.setattr(detaching, "has_next_request", lambda environ, start_response: True)
        else:
            monkeypatch.setattr(detaching, "steal", raise_aborted)
        in_thread(server.run)
        assert server.status == "200 OK"
    reasons = {"unsent": "an earlier response", "pipelined": "the next request", "closed": "taken: it was closed"}
    assert reasons.get(obstacle, "the server's connection cannot be taken") in caplog.text
    assert "descriptors are open" not in caplog.text


def test_a_request_before_the_close_is_the_last_one(adapt: Adapt, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server would not answer what is pipelined behind it, so the response may leave."""
    ended: list[Any] = []
    monkeypatch.setattr(detaching, "has_next_request", lambda environ, start_response: True)
    monkeypatch.setattr(detaching, "end_connection", ended.append)
    gate = Gate()
    adapter = adapt(waiting(gate, started(), body_of(b"late")), detach="always", detach_after=0)
    with connected(adapter, HTTP_CONNECTION="Close") as server:
        in_thread(server.run)
        assert server.has_left
        assert ended == [server.start_response]
        gate.open()
        assert server.read() == (200, b"late")


def test_a_busy_server_detaches_sooner(adapt: Adapt, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no other thread is free, a response leaves long before `detach_after`, and its quick answer is learnt from."""
    monkeypatch.setattr(patience, "_LATE", math.inf)  # otherwise a busy machine would take its time
    gate = Gate()
    adapter = adapt(waiting(gate, started(), body_of(b"late")), detach="always", detach_after=3600)
    with connected(adapter, **{"wsgi.multithread": False}) as server:
        in_thread(server.run)
        assert server.has_left
        waiting_since = adapter._detaching.get().patience.waiting_since  # type: ignore[union-attr]
        assert waiting_since.keys() == {"GET /"}
        gate.open()
        assert server.read() == (200, b"late")
        assert not waiting_since


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"detach": "on"}, ValueError, "detach must be 'off' or 'auto' or 'always'"),
        ({"detach": True}, TypeError, "detach must be"),
        ({"detach_after": -1}, ValueError, "detach_after must be at least 0"),
        ({"detach_after": "soon"}, TypeError, "detach_after must be a number of seconds"),
        ({"max_detached": -1}, ValueError, "max_detached must be at least 0"),
    ],
)
def test_options_of_detaching_are_checked(options: dict[str, Any], error: type[Exception], words: str) -> None:
    """A value that makes no sense is refused at once, with the option's name."""
    with pytest.raises(error, match=words):
        ASGIToWSGI(waiting(Gate()), **options)


def test_a_response_that_leaves_forgets_what_serves_the_call_alone(adapt: Adapt) -> None:
    """The server's objects are not held as long as the app waits, and nothing is left to read or to write to them."""
    gate = Gate()
    scopes: list[Scope] = []
    app = waiting(gate, started(), body_of(b"late"))

    async def recording(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await app(scope, receive, send)

    with connected(adapt(recording, detach="always"), **{"wsgi.early_hints": len}) as server:
        in_thread(server.run)
        assert server.has_left
        environ = scopes[0]["wsgi_environ"]
        assert (environ["gunicorn.socket"], environ["wsgi.early_hints"]) == (None, None)
        assert environ["wsgi.input"].read() == b""
        assert server.environ["gunicorn.socket"] is server.connection
        gate.open()
        assert server.read() == (200, b"late")


def test_a_response_may_leave_although_the_app_has_replaced_its_environ(adapt: Adapt) -> None:
    """What the app puts into its scope is not touched."""
    gate = Gate()
    app = waiting(gate, started(), body_of(b"late"))

    async def replacing(scope: Scope, receive: Receive, send: Send) -> None:
        scope["wsgi_environ"] = MappingProxyType({"wsgi.input": None})
        await app(scope, receive, send)

    with connected(adapt(replacing, detach="always", detach_after=0.001)) as server:
        in_thread(server.run)
        assert server.has_left
        gate.open()
        assert server.read() == (200, b"late")
