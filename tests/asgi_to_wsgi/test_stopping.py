"""What happens to requests and startups once the loop is told to end."""

import logging
import threading

import anyio
import pytest

from bridge import AdapterClosed
from bridge.asgi_to_wsgi import loop as loop_module
from bridge.types import Receive, Scope, Send
from tests.asgi_to_wsgi.apps import Adapt, Requester, Streams
from tests.fakes import http_environ, in_thread, respond
from tests.processes import run_script, wait_until


@pytest.mark.parametrize(
    ("path", "end"),
    [("/events", "http.disconnect"), ("/events/mute", "http.disconnect"), ("/events/sends", "send raised")],
)
def test_close_ends_event_streams_at_once(adapt: Adapt, caplog: pytest.LogCaptureFixture, path: str, end: str) -> None:
    """The app is told that its client left, the server gets a clean end, and shutdown_timeout is not used up."""
    app = Streams()
    adapter = adapt(app, lifespan="on", shutdown_timeout=60.0)
    stream = Requester(adapter, http_environ("GET", path))
    assert app.begun.acquire(timeout=5)
    in_thread(adapter.close)
    assert isinstance(stream.join(), bytes)
    assert app.ended == [end, "lifespan"]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_close_streams_ends_event_streams_only(adapt: Adapt) -> None:
    """A stream of another kind goes on, and the next event stream is served."""
    app = Streams()
    adapter = adapt(app)
    adapter.close_streams()  # before there is a loop: nothing
    for _ in range(2):
        streams = [Requester(adapter, http_environ("GET", path)) for path in ("/events", "/")]
        assert app.begun.acquire(timeout=5)
        assert app.begun.acquire(timeout=5)
        adapter.close_streams()
        assert streams[0].join() == b"begun"
        app.proceed.set()
        assert streams[1].join() == b"begun, done"
        app.proceed.clear()
    wait_until(lambda: app.ended == ["http.disconnect"] * 2)


def test_an_event_stream_that_begins_too_late_ends_at_once(adapt: Adapt) -> None:
    """A stream that opens while the loop is about to end gets its headers and its end."""
    app = Streams()
    adapter = adapt(app, shutdown_timeout=60.0)
    adapter.start()
    adapter.close(wait=False)
    wait_until(lambda: adapter._private_loop.get().get().stopping)
    assert respond(adapter, http_environ("GET", "/events")).body == b""
    in_thread(adapter.close)


def test_close_gives_other_streams_their_time(adapt: Adapt) -> None:
    """close(wait=False) returns at once; streams go on, requests are served, and then the app shuts down."""
    app = Streams()
    adapter = adapt(app, lifespan="on", shutdown_timeout=60.0)
    stream = Requester(adapter)
    assert app.begun.acquire(timeout=5)
    in_thread(lambda: adapter.close(wait=False))
    late = Requester(adapter)
    assert app.begun.acquire(timeout=5)
    app.proceed.set()
    assert [stream.join(), late.join()] == [b"begun, done"] * 2
    assert app.ended == []
    in_thread(adapter.close)
    assert app.ended == ["lifespan"]
    with pytest.raises(AdapterClosed):
        respond(adapter)


def test_a_stream_that_outlives_its_grace_is_cut(adapt: Adapt) -> None:
    """After shutdown_timeout the stream's task is cancelled and the server's call raises, without another close()."""
    app = Streams()
    adapter = adapt(app, lifespan="on", shutdown_timeout=0.05)
    stream = Requester(adapter)
    assert app.begun.acquire(timeout=5)
    adapter.close(wait=False)
    assert isinstance(stream.join(), AdapterClosed)
    wait_until(lambda: app.ended == ["cancelled", "lifespan"])
    with pytest.raises(AdapterClosed):
        respond(adapter)


def test_start_opens_what_was_told_to_close(adapt: Adapt) -> None:
    """start() after close(wait=False) waits for the end, and opens the adapter again."""
    app = Streams()
    app.proceed.set()
    adapter = adapt(app, lifespan="on", shutdown_timeout=60.0)
    adapter.start()
    adapter.close(wait=False)
    in_thread(adapter.start)
    assert app.ended == ["lifespan"]
    assert respond(adapter).body == b"begun, done"


def test_patience_bounds_grace_and_shutdown(adapt: Adapt, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that must end soon cuts streams after half of that time, and the app's shutdown after all of it."""
    monkeypatch.setattr(loop_module, "UNWIND_TIMEOUT", 0.02)

    class Hangs(Streams):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                self.ended.append("shutting down")
                await anyio.sleep(60)
            await super().__call__(scope, receive, send)

    app = Hangs()
    adapter = adapt(app, lifespan="on", shutdown_timeout=60.0)
    stream = Requester(adapter)
    assert app.begun.acquire(timeout=5)
    loop_thread = adapter._private_loop.get().get()
    adapter._private_loop.get().begin_to_stop(0.3)
    adapter._private_loop.get().begin_to_stop(60)  # does not extend the first limit
    assert isinstance(stream.join(), AdapterClosed)
    wait_until(lambda: loop_thread.ended, timeout=5)
    assert app.ended == ["cancelled", "shutting down"]
    in_thread(adapter.close)


def test_a_startup_ends_with_the_grace(adapt: Adapt) -> None:
    """When the grace ends during a startup, requests that wait for it get an error, and the loop ends."""
    entered = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        entered.set()
        await anyio.sleep(60)

    adapter = adapt(app, lifespan="on", shutdown_timeout=0.05)
    request = Requester(adapter)
    assert entered.wait(5)
    adapter.close(wait=False)
    assert isinstance(request.join(), AdapterClosed)


def test_a_signal_may_tell_what_it_interrupts() -> None:
    """close(wait=False) in a signal handler does not hang, even in the thread that starts the app."""
    output = run_script(
        """
import anyio, signal, threading
from bridge import AdapterClosed, ASGIToWSGI
from tests.fakes import WSGIServer

def signalled():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        said.append("shutdown")
        await send({"type": "lifespan.shutdown.complete"})
        return
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"x", "more_body": True})
    signalled()
    await receive()
    said.append((await receive())["type"])

said = []
adapter = ASGIToWSGI(app)
signal.signal(signal.SIGUSR1, lambda *arguments: adapter.close(wait=False))
server = WSGIServer(adapter)
server.run()
adapter.close()
print(server.body, *said)
"""
    )
    assert output == "b'x' http.disconnect shutdown\n"


def test_the_interpreters_exit_ends_event_streams_cleanly() -> None:
    """At the interpreter's exit an event stream gets a clean end, and the exit's grace is not used up."""
    output = run_script(
        """
import threading, time
from bridge import ASGIToWSGI
from bridge.asgi_to_wsgi import runner
from tests.fakes import WSGIServer
from tests.asgi_to_wsgi.apps import Streams
from tests.fakes import http_environ

app = Streams()
server = WSGIServer(ASGIToWSGI(app), http_environ("GET", "/events"))
def run():
    server.run()
    print(server.body, app.ended)
threading.Thread(target=run).start()
app.begun.acquire()
"""
    )
    assert output.startswith("b'begun' ")
