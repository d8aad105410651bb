import logging
import subprocess
import sys
import threading

import anyio
import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.adapters import adapter_name
from wsgi_asgi_conformance.asgi_to_wsgi.recording import (
    END,
    START,
    LifespanApp,
    close,
    close_of,
    complete_shutdown,
    complete_startup,
    until_set,
)
from wsgi_asgi_conformance.processes import child_environ
from wsgi_asgi_conformance.types import Scope, Send
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIServer


@clause("ASGI-LS-023")
def test_the_shutdown_comes_after_the_requests(adapt: ToWSGI, serve: WSGIServer) -> None:
    """On close(), a request in flight ends first; then the app gets lifespan.shutdown, once."""
    in_flight, go_on = threading.Event(), threading.Event()

    async def answer(scope: Scope, send: Send) -> None:
        in_flight.set()
        await until_set(go_on, serve.deadline)
        await anyio.sleep(0.02)  # enough time for an adapter that does not wait
        app.events.append("answer")
        await send(START)
        await send({**END, "body": b"late"})

    app = LifespanApp()
    app.answer = answer
    adapter = adapt(app)
    request = serve(adapter).until(in_flight.is_set, "the request")
    app.skip_without_lifespan()
    closing = threading.Thread(target=close_of(adapter), daemon=True)
    closing.start()
    go_on.set()
    assert request.finish().body == b"late"
    closing.join(serve.deadline)
    close(adapter, serve.deadline)
    assert app.events == ["lifespan", "lifespan.startup", "http", "answer", "lifespan.shutdown"]


@clause("ASGI-LS-023")
def test_there_is_no_shutdown_after_a_failed_startup(adapt: ToWSGI, serve: WSGIServer) -> None:
    """An app that failed to start is not shut down."""

    async def startup(scope: Scope, send: Send) -> None:
        await send({"type": "lifespan.startup.failed"})

    app = LifespanApp(startup)
    adapter = adapt(app)
    serve(adapter).until_ended()
    app.skip_without_lifespan()
    close(adapter, serve.deadline)
    assert app.events == ["lifespan", "lifespan.startup"]


@clause("ASGI-LS-024")
def test_close_waits_for_the_shutdown(adapt: ToWSGI, serve: WSGIServer) -> None:
    """close() returns after the app has shut down, and by then the loop's thread has ended."""

    async def shutdown(scope: Scope, send: Send) -> None:
        await anyio.sleep(0.05)
        app.events.append("complete")
        await complete_shutdown(scope, send)

    app = LifespanApp(shutdown=shutdown)
    adapter = adapt(app)
    serve(adapter).finish()
    app.skip_without_lifespan()
    close(adapter, serve.deadline)
    assert app.events[-2:] == ["lifespan.shutdown", "complete"]
    assert not app.threads[0].is_alive()


@clause("ASGI-LS-025")
@pytest.mark.parametrize("message", ["disk is full", None])
def test_a_failed_shutdown_is_logged(
    adapt: ToWSGI, serve: WSGIServer, caplog: pytest.LogCaptureFixture, message: str | None
) -> None:
    """close() returns nevertheless, and the log has the app's message, if there is one."""

    async def shutdown(scope: Scope, send: Send) -> None:
        failed = {"type": "lifespan.shutdown.failed"}
        await send(failed if message is None else {**failed, "message": message})

    app = LifespanApp(shutdown=shutdown)
    adapter = adapt(app)
    serve(adapter).finish()
    app.skip_without_lifespan()
    close(adapter, serve.deadline)
    assert app.events[-1] == "lifespan.shutdown"
    assert [record.levelno for record in caplog.records if record.levelno >= logging.WARNING]
    assert message is None or message in caplog.text


@clause("ASGI-LS-028")
@pytest.mark.parametrize("when", ["serving", "shutdown"])
def test_an_error_after_the_startup_breaks_nothing(adapt: ToWSGI, serve: WSGIServer, when: str) -> None:
    """After the lifespan has raised, requests in flight and new ones are served, and close() returns."""
    raised, go_on = threading.Event(), threading.Event()

    async def fail(scope: Scope, send: Send) -> None:
        if when == "serving":
            await complete_startup(scope, send)
        raised.set()
        raise ValueError("later")

    async def answer(scope: Scope, send: Send) -> None:
        await until_set(go_on, serve.deadline)
        await send(START)
        await send({**END, "body": b"done"})

    app = LifespanApp(fail) if when == "serving" else LifespanApp(shutdown=fail)
    app.answer = answer
    adapter = adapt(app)
    request = serve(adapter).until(lambda: "http" in app.events, "the request")
    app.skip_without_lifespan()
    assert raised.is_set() == (when == "serving")
    go_on.set()
    assert [request.finish().body, serve(adapter).finish().body] == [b"done", b"done"]
    close(adapter, serve.deadline)
    assert raised.is_set()


# How it ends


@clause("ASGI-LS-029")
def test_close_may_be_called_again(adapt: ToWSGI, serve: WSGIServer) -> None:
    """A second close() raises nothing."""
    app = LifespanApp()
    adapter = adapt(app)
    serve(adapter).finish()
    assert hasattr(adapter, "close")
    for _ in range(2):
        close(adapter, serve.deadline)
    assert app.events == ["lifespan", "lifespan.startup", "http", "lifespan.shutdown"]


@clause("ASGI-LS-029")
def test_close_may_be_called_without_a_request(adapt: ToWSGI, serve: WSGIServer) -> None:
    """close() returns at once for an adapter that has never served anything."""
    app = LifespanApp()
    close(adapt(app), serve.deadline)
    assert app.events in ([], ["lifespan", "lifespan.startup", "lifespan.shutdown"])


@clause("ASGI-LS-029")
def test_the_interpreters_exit_shuts_the_app_down(pytestconfig: pytest.Config, serve: WSGIServer) -> None:
    """If the process simply ends, the app shuts down, and the process does end."""
    script = """
import importlib, sys
from wsgi_asgi_conformance.asgi_to_wsgi.recording import LifespanApp
from wsgi_asgi_conformance.samples import http_environ

async def shutdown(scope, send):
    print("shutdown", flush=True)
    await send({"type": "lifespan.shutdown.complete"})

module, _, name = sys.argv[1].partition(":")
adapter = getattr(importlib.import_module(module), name)(LifespanApp(shutdown=shutdown))
print(b"".join(adapter(http_environ(), lambda *args: None)).decode(), flush=True)
"""
    result = subprocess.run(
        [sys.executable, "-c", script, adapter_name(pytestconfig, "asgi_to_wsgi")],
        capture_output=True,
        text=True,
        timeout=serve.deadline + 5,  # an interpreter takes time to start
        env=child_environ(),
    )
    assert (result.returncode, result.stdout) == (0, "done\nshutdown\n"), result.stderr
