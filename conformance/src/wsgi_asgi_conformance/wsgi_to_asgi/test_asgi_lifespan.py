import copy
import threading
from collections.abc import Iterable
from typing import Any

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import wsgi_response
from wsgi_asgi_conformance.asgi_server import ASGIConnection, ASGIServer, ToASGI
from wsgi_asgi_conformance.samples import http_scope
from wsgi_asgi_conformance.types import ASGIApp, Environ, Scope, StartResponse


def lifespan_scope(**keys: Any) -> Scope:
    """Return a lifespan scope with all optional keys."""
    return {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {"a": [1]}, **keys}


def start(serve: ASGIServer, adapter: ASGIApp, scope: Scope) -> ASGIConnection:
    """Start a lifespan, and return it when the adapter has answered the startup or refused the lifespan."""
    connection = serve(adapter, scope)
    connection.feed_message({"type": "lifespan.startup"})
    connection.until(lambda: connection.sent or connection.ended, "an answer to lifespan.startup")
    assert connection.sent or isinstance(connection.error, Exception)
    return connection


def start_or_skip(serve: ASGIServer, adapter: ASGIApp) -> ASGIConnection:
    """Return a lifespan that has started; skip the test if the adapter has none."""
    connection = start(serve, adapter, lifespan_scope())
    if not connection.sent:
        pytest.skip("the adapter has no lifespan")
    return connection


@clause("ASGI-LS-006", "ASGI-LS-007", "ASGI-LS-008", "ASGI-CORE-023")
@pytest.mark.parametrize(
    "scope",
    [lifespan_scope(), {"type": "lifespan"}, {"type": "lifespan", "asgi": {"version": "3.0"}}],
    ids=["whole", "bare", "without-spec-version"],
)
def test_a_lifespan_is_answered_or_refused(adapt: ToASGI, serve: ASGIServer, scope: dict[str, Any]) -> None:
    """The adapter completes the startup, or raises before it sends anything."""
    connection = start(serve, adapt(wsgi_response([b"one"])), scope)
    assert connection.sent in ([{"type": "lifespan.startup.complete"}], [])


@clause("ASGI-LS-018")
def test_startup_is_complete_when_it_was_asked_for(adapt: ToASGI, serve: ASGIServer) -> None:
    """The adapter sends lifespan.startup.complete only in answer to lifespan.startup."""
    connection = start_or_skip(serve, adapt(wsgi_response([b"one"])))
    kinds = [entry.kind for entry in connection.log]
    assert kinds.index("received") < kinds.index("send")
    assert connection.sent == [{"type": "lifespan.startup.complete"}]


@clause("ASGI-LS-019", "ASGI-LS-026")
def test_a_lifespan_lasts_until_shutdown(adapt: ToASGI, serve: ASGIServer) -> None:
    """The call waits for lifespan.shutdown, answers it, and returns."""
    connection = start_or_skip(serve, adapt(wsgi_response([b"one"]))).until_logged("receive", 2)
    assert not connection.ended
    connection.feed_message({"type": "lifespan.shutdown"})
    connection.finish()
    assert [message["type"] for message in connection.sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


@clause("ASGI-LS-026")
def test_threads_end_with_shutdown(adapt: ToASGI, serve: ASGIServer) -> None:
    """The threads that served requests are gone when shutdown is complete."""
    threads: list[threading.Thread] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        threads.append(threading.current_thread())
        start_response("200 OK", [])
        return [b"one"]

    adapter = adapt(app)
    lifespan = start_or_skip(serve, adapter)
    assert serve(adapter).finish().body == b"one"
    lifespan.feed_message({"type": "lifespan.shutdown"})
    lifespan.finish()
    assert [thread.is_alive() for thread in threads] == [False]


@clause("ASGI-LS-015")
def test_the_state_is_left_as_it_is(adapt: ToASGI, serve: ASGIServer) -> None:
    """Neither a lifespan nor a request adds anything to the state."""
    state: dict[str, Any] = {"a": [1]}
    before = copy.deepcopy(state)
    adapter = adapt(wsgi_response([b"one"]))
    lifespan = start(serve, adapter, lifespan_scope(state=state))
    assert state == before
    assert serve(adapter, http_scope(state=state)).finish().body == b"one"
    if not lifespan.ended:
        lifespan.feed_message({"type": "lifespan.shutdown"})
        lifespan.finish()
    assert state == before
