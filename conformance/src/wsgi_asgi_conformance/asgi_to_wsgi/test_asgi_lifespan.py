import logging
import os
import select
import signal
from collections.abc import Callable

import anyio
import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.asgi_to_wsgi.recording import (
    START,
    LifespanApp,
    Recording,
    close,
    complete_startup,
    is_refused,
)
from wsgi_asgi_conformance.types import Message, Receive, Scope, Send
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIServer


def in_child(check: Callable[[], bool], deadline: float) -> bool:
    """Return what `check` returns in a fork of this process, or False if it takes too long."""
    read_end, write_end = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.write(write_end, b"1" if check() else b"0")
        finally:
            os._exit(0)
    os.close(write_end)
    try:
        ready, _, _ = select.select([read_end], [], [], deadline)
        return bool(ready) and os.read(read_end, 1) == b"1"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(read_end)


# Which loop


@clause("ASGI-LS-001", "ASGI-LS-002", "ASGI-LS-016")
def test_a_lifespan_runs_once_on_the_loop_of_the_requests(adapt: ToWSGI, serve: WSGIServer) -> None:
    """Five first requests at once see one lifespan, started before them, in the thread that they run in."""
    app = LifespanApp()
    adapter = adapt(app)
    requests = [serve(adapter) for _ in range(5)]
    assert [request.finish().body for request in requests] == [b"done"] * 5
    serve(adapter).finish()
    assert app.events == ["lifespan", "lifespan.startup", *["http"] * 6]
    assert len(set(app.threads)) == 1


@clause("ASGI-LS-002", "ASGI-LS-003")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("served", [False, True], ids=["new", "in use"])
def test_an_adapter_may_be_made_before_a_fork(adapt: ToWSGI, serve: WSGIServer, served: bool) -> None:
    """A child serves on a loop and with a lifespan of its own, whether or not its parent has served."""
    app = LifespanApp()
    adapter = adapt(app)
    if served:
        serve(adapter).finish()
    before = list(app.events)

    def check() -> bool:
        assert serve(adapter).finish().body == b"done"
        return app.events == [*before, *before] if served else app.events[-1] == "http"

    assert in_child(check, serve.deadline)


# Scope and support


@clause("ASGI-LS-004")
def test_the_scope_is_a_lifespans(adapt: ToWSGI, serve: WSGIServer) -> None:
    """The scope of a lifespan has a type, the versions and perhaps a state, and no key of a request."""
    app = LifespanApp()
    serve(adapt(app)).finish()
    app.skip_without_lifespan()
    scope = app.scopes[0]
    assert scope["asgi"]["version"] == "3.0"
    assert scope["asgi"].get("spec_version", "1.0") in ("1.0", "2.0")
    assert not scope.keys() & app.scopes[1].keys() - {"type", "asgi", "state", "extensions"}


@clause("ASGI-LS-005", "ASGI-LS-009")
@pytest.mark.parametrize("receives", [False, True], ids=["at once", "at startup"])
@pytest.mark.parametrize("raises", [True, False], ids=["raises", "returns"])
def test_an_app_may_not_support_it(
    adapt: ToWSGI, serve: WSGIServer, caplog: pytest.LogCaptureFixture, receives: bool, raises: bool
) -> None:
    """If an app raises or returns without an answer, the adapter serves it, and sends it no more lifespan messages."""
    events: list[str] = []
    inner = Recording()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        events.append(scope["type"])
        if scope["type"] == "http":
            await inner(scope, receive, send)
            return
        if receives:
            events.append((await receive())["type"])
        if raises:
            raise ValueError("no lifespan here")

    adapter = adapt(app)
    assert [serve(adapter).finish().body for _ in range(2)] == [b"done"] * 2
    if hasattr(adapter, "close"):
        close(adapter, serve.deadline)
    lifespan = ["lifespan", "lifespan.startup"] if receives else ["lifespan"]
    assert events in ([*lifespan, "http", "http"], ["http", "http"])
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


# Startup


@clause("ASGI-LS-016", "ASGI-LS-017")
def test_requests_wait_for_the_startup(adapt: ToWSGI, serve: WSGIServer) -> None:
    """No request runs before the app has completed its startup, and then all do."""

    async def startup(scope: Scope, send: Send) -> None:
        await anyio.sleep(0.02)  # enough time for an adapter that does not wait
        app.events.append("complete")
        await complete_startup(scope, send)

    app = LifespanApp(startup)
    adapter = adapt(app)
    requests = [serve(adapter) for _ in range(3)]
    assert [request.finish().body for request in requests] == [b"done"] * 3
    app.skip_without_lifespan()
    assert app.events == ["lifespan", "lifespan.startup", "complete", *["http"] * 3]


@clause("ASGI-LS-020", "ASGI-LS-021")
@pytest.mark.parametrize("message", ["no database", None])
def test_a_failed_startup_refuses_requests(
    adapt: ToWSGI, serve: WSGIServer, caplog: pytest.LogCaptureFixture, message: str | None
) -> None:
    """Requests fail with the app's message, if there is one, and do not reach the app."""

    async def startup(scope: Scope, send: Send) -> None:
        failed = {"type": "lifespan.startup.failed"}
        await send(failed if message is None else {**failed, "message": message})

    app = LifespanApp(startup)
    adapter = adapt(app)
    requests = [serve(adapter).until_ended() for _ in range(2)]
    app.skip_without_lifespan()
    assert [is_refused(request) for request in requests] == [True, True]
    assert "http" not in app.events
    said = f"{caplog.text} {requests[0].error}"
    assert message is None or message in said
    assert not isinstance(requests[0].error, KeyError)


# Invalid messages


@clause("ASGI-LS-027")
@pytest.mark.parametrize(
    "invalid",
    [
        [START],
        [{"type": "lifespan.shutdown.complete"}],
        [{"type": "lifespan.started"}],
        [{"type": "lifespan.startup"}],
        [{"type": "lifespan.startup.complete"}, {"type": "lifespan.startup.complete"}],
        [{"type": "lifespan.startup.complete"}, {"type": "lifespan.startup.failed"}],
    ],
    ids=["http", "shutdown at startup", "unknown", "the server's own", "complete twice", "failed after complete"],
)
def test_an_invalid_message_is_refused(adapt: ToWSGI, serve: WSGIServer, invalid: list[Message]) -> None:
    """send() raises, and the lifespan continues as if the message had not been sent."""
    errors: list[Exception] = []
    *valid, wrong = invalid

    async def startup(scope: Scope, send: Send) -> None:
        for message in valid:
            await send(message)
        try:
            await send(wrong)
        except Exception as error:
            errors.append(error)
        if not valid:
            await complete_startup(scope, send)

    app = LifespanApp(startup)
    request = serve(adapt(app)).finish()
    app.skip_without_lifespan()
    assert request.body == b"done"
    assert len(errors) == 1
