import asyncio
import logging
import threading
import time
from typing import Any

import anyio
import pytest

from bridge import AdapterClosed, ASGIToWSGI, StartupFailed
from bridge.types import Receive, Scope, Send
from tests.asgi_to_wsgi.apps import Adapt
from tests.fakes import in_thread, respond
from tests.processes import wait_until

COMPLETE = {"type": "lifespan.startup.complete"}
STOPPED = {"type": "lifespan.shutdown.complete"}


class App:
    """An app with a lifespan. `startup` and `shutdown` hold the messages that it sends, or exceptions to raise."""

    def __init__(self, startup: tuple[Any, ...] = (COMPLETE,), shutdown: tuple[Any, ...] = (STOPPED,)) -> None:
        self.startup = startup
        self.shutdown = shutdown
        self.events: list[str] = []
        self.scopes: list[Scope] = []
        self.threads: set[int] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        self.threads.add(threading.get_ident())
        if scope["type"] == "lifespan":
            await self.lifespan(scope, receive, send)
            return
        self.events.append("request")
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"hello"})

    async def lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        for messages in (self.startup, self.shutdown):
            self.events.append((await receive())["type"])
            for message in messages:
                if isinstance(message, BaseException):
                    raise message
                if isinstance(message, float):
                    await anyio.sleep(message)
                elif callable(message):
                    message(scope)
                else:
                    await send(message)


def test_the_lifespan_is_around_the_requests(adapt: Adapt) -> None:
    """startup comes before the first request, shutdown with close(), all on one thread's loop."""
    app = App()
    adapter = adapt(app, lifespan="auto")
    assert app.events == []
    respond(adapter)
    respond(adapter)
    adapter.close()
    adapter.close()
    assert app.events == ["lifespan.startup", "request", "request", "lifespan.shutdown"]
    assert app.scopes[0]["asgi"] == {"version": "3.0", "spec_version": "2.0"}
    assert len(app.threads) == 1


def test_state_is_copied_into_each_request(adapt: Adapt) -> None:
    """What startup puts into the state is in each request's own shallow copy (ASGI lifespan spec, State)."""
    shared: list[int] = []
    app = App(startup=(lambda scope: scope["state"].update(db=shared), COMPLETE))
    adapter = adapt(app, lifespan="on")
    respond(adapter)
    app.scopes[-1]["state"]["mine"] = 1
    respond(adapter)
    assert app.scopes[0]["state"] == {"db": shared}
    assert app.scopes[-1]["state"] == {"db": shared}
    assert app.scopes[-1]["state"]["db"] is shared


def test_requests_wait_for_startup(adapt: Adapt) -> None:
    """Concurrent first requests are all held until startup is complete, which happens once."""
    app = App(startup=(0.1, COMPLETE))
    adapter = adapt(app, lifespan="auto")
    threads = [threading.Thread(target=respond, args=(adapter,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert app.events == ["lifespan.startup"] + ["request"] * 5


@pytest.mark.parametrize("startup", [(ZeroDivisionError(),), ()], ids=["raises", "returns"])
def test_an_app_without_lifespan_is_served(adapt: Adapt, caplog: pytest.LogCaptureFixture, startup: Any) -> None:
    """With "auto", an app that raises or returns at its lifespan is served without one; with "on" it is not."""

    class Without(App):
        async def lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
            if startup:
                raise startup[0]

    app = Without()
    adapter = adapt(app, lifespan="auto")
    assert respond(adapter).body == b"hello"
    assert "state" not in app.scopes[-1]
    adapter.close()
    assert app.events == ["request"]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    with pytest.raises(StartupFailed):
        respond(adapt(Without(), lifespan="on"))


def test_lifespan_may_be_off(adapt: Adapt) -> None:
    """With "off" the app never sees a lifespan scope."""
    app = App()
    respond(adapt(app, lifespan="off"))
    assert [scope["type"] for scope in app.scopes] == ["http"]


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_a_failed_startup_is_the_requests_error_and_is_tried_again(adapt: Adapt, mode: str) -> None:
    """startup.failed is an error with its message; the next request starts anew."""
    app = App(startup=({"type": "lifespan.startup.failed", "message": "no database"},))
    adapter = adapt(app, lifespan=mode)
    for _ in range(2):
        with pytest.raises(StartupFailed, match="no database"):
            respond(adapter)
    app.startup = ({"type": "lifespan.startup.failed"},)
    with pytest.raises(StartupFailed):
        respond(adapter)
    app.startup = (COMPLETE,)
    assert respond(adapter).body == b"hello"
    assert app.events == ["lifespan.startup"] * 4 + ["request"]


class CountingLock:
    """A private loop's lock that counts the threads that have reached it."""

    def __init__(self) -> None:
        self.arrivals = 0
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self.arrivals += 1
        self._lock.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self._lock.release()


def test_those_who_wait_for_a_failing_startup_share_its_failure(adapt: Adapt) -> None:
    """Eight requests that come together fail after one startup; the next one tries again."""
    entered, proceed = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        startups.append((await receive())["type"])
        entered.set()
        while not proceed.is_set():
            await anyio.sleep(0.001)
        raise ZeroDivisionError("no database")

    def request() -> None:
        try:
            respond(adapter)
        except StartupFailed as error:
            errors.append(error)

    startups: list[str] = []
    errors: list[StartupFailed] = []
    adapter = adapt(app, lifespan="on")
    adapter._private_loop.get()._lock = lock = CountingLock()  # type: ignore[assignment]
    threads = [threading.Thread(target=request) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert entered.wait(5)
    wait_until(lambda: lock.arrivals == 8)
    proceed.set()
    for thread in threads:
        thread.join(5)
    assert len(startups) == 1
    assert len(errors) == 8
    assert len({id(error) for error in errors}) == 8  # each thread has an exception of its own, with its traceback
    assert len({str(error) for error in errors}) == 1
    request()
    assert len(startups) == 2


@pytest.mark.parametrize("mode", ["auto", "on"])
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()], ids=repr)
def test_an_exit_in_a_startup_is_a_failed_startup(adapt: Adapt, mode: str, error: BaseException) -> None:
    """sys.exit() and the like reach the server as StartupFailed, with their cause; the next request tries again."""
    app = App(startup=(error,))
    adapter = adapt(app, lifespan=mode)
    for _ in range(2):
        with pytest.raises(StartupFailed) as caught:
            respond(adapter)
        assert caught.value.__cause__ is error
    app.startup = (COMPLETE,)
    assert respond(adapter).body == b"hello"


def test_an_exit_in_a_task_of_a_startup_is_a_failed_startup() -> None:
    """sys.exit() in a task of the startup is a failed startup, even if it ends the event loop."""
    error = SystemExit(3)

    def fail() -> None:
        raise error

    app = App(startup=(lambda scope: asyncio.get_running_loop().call_soon(fail), 10.0))
    with pytest.raises(StartupFailed) as caught:
        respond(ASGIToWSGI(app, lifespan="auto"))
    assert caught.value.__cause__ is error


def test_a_failed_startup_is_told_once(adapt: Adapt) -> None:
    """Starlette sends its error's traceback as the message, and raises the error as well: one traceback is enough."""
    error = RuntimeError("no database")
    message = "Traceback (most recent call last):\n  File ...\nRuntimeError: no database\n"
    app = App(startup=({"type": "lifespan.startup.failed", "message": message}, error))
    with pytest.raises(StartupFailed) as caught:
        respond(adapt(app, lifespan="on"))
    assert str(caught.value) == "the ASGI app's lifespan startup failed: RuntimeError: no database"
    assert caught.value.__cause__ is error
    app.startup = app.startup[:1]  # now only the error has the traceback
    with pytest.raises(StartupFailed, match="Traceback"):
        respond(adapt(app, lifespan="on"))


def test_an_exit_in_a_lifespan_that_serves_is_logged(adapt: Adapt, caplog: pytest.LogCaptureFixture) -> None:
    """SystemExit in a lifespan that serves is logged, and ends neither the loop nor its requests."""
    raised = threading.Event()

    class Exits(App):
        async def lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(COMPLETE)
            await anyio.sleep(0.01)
            raised.set()
            raise SystemExit("while serving")

    adapter = adapt(Exits(), lifespan="auto")
    adapter.start()
    loop_thread = adapter._private_loop.get().get()
    assert raised.wait(5)
    assert respond(adapter).body == b"hello"
    assert adapter._private_loop.get().get() is loop_thread
    in_thread(adapter.close)
    assert "while serving" in caplog.text


def test_a_startup_that_takes_too_long_is_an_error(adapt: Adapt) -> None:
    """startup_timeout bounds it, and the app's task is cancelled."""
    with pytest.raises(StartupFailed, match=r"longer than 0\.05 seconds"):
        respond(adapt(App(startup=(10.0, COMPLETE)), lifespan="auto", startup_timeout=0.05))


@pytest.mark.parametrize(
    "startup", [(10.0, COMPLETE), (lambda scope: time.sleep(0.5), COMPLETE)], ids=["waits", "blocks"]
)
def test_close_ends_a_startup(adapt: Adapt, startup: Any) -> None:
    """close() during a startup does not wait for it, and the request that waits for it gets an error."""
    entered = threading.Event()
    adapter = adapt(App(startup=(lambda scope: entered.set(), *startup)), lifespan="auto")
    errors: list[BaseException] = []

    def request() -> None:
        try:
            respond(adapter)
        except AdapterClosed as error:
            errors.append(error)

    thread = threading.Thread(target=request)
    thread.start()
    assert entered.wait(5)
    start = time.monotonic()
    adapter.close()
    thread.join(5)
    assert time.monotonic() - start < 0.4
    assert len(errors) == 1


def test_a_startup_that_blocks_the_loop_is_an_error(adapt: Adapt) -> None:
    """Even a startup that does not await anything ends the request's wait."""
    app = App(startup=(lambda scope: time.sleep(2), COMPLETE))
    with pytest.raises(StartupFailed, match="blocked"):
        respond(adapt(app, lifespan="auto", startup_timeout=0.05))


@pytest.mark.parametrize(
    ("shutdown", "logged"),
    [
        (({"type": "lifespan.shutdown.failed", "message": "cannot flush"},), "cannot flush"),
        (({"type": "lifespan.shutdown.failed"},), "shutdown failed"),
        ((ZeroDivisionError("in shutdown"),), "in shutdown"),
        ((10.0,), "longer than 0.05 seconds"),
    ],
    ids=["failed", "failed without a word", "raises", "too long"],
)
def test_a_shutdown_that_fails_is_logged(
    adapt: Adapt, caplog: pytest.LogCaptureFixture, shutdown: Any, logged: str
) -> None:
    """However the shutdown fails, close() returns, and the log has the reason."""
    adapter = adapt(App(shutdown=shutdown), lifespan="auto", shutdown_timeout=0.05)
    respond(adapter)
    in_thread(adapter.close)
    assert logged in caplog.text


def test_a_lifespan_that_raises_while_serving_is_logged(adapt: Adapt, caplog: pytest.LogCaptureFixture) -> None:
    """An app whose lifespan raises later is still served, and closed without a shutdown."""
    raised = threading.Event()

    class Dies(App):
        async def lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(COMPLETE)
            await anyio.sleep(0.01)
            raised.set()
            raise ZeroDivisionError("while serving")

    adapter = adapt(Dies(), lifespan="auto")
    respond(adapter)
    assert raised.wait(5)
    assert respond(adapter).body == b"hello"
    in_thread(adapter.close)
    assert "while serving" in caplog.text


def test_messages_out_of_turn_are_refused(adapt: Adapt) -> None:
    """send() raises for a message that the lifespan does not allow at that point."""
    refused: list[str] = []

    class Wrong(App):
        async def lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            for message in (STOPPED, {"type": "http.response.start", "status": 200}, COMPLETE, COMPLETE):
                try:
                    await send(message)
                except Exception as error:
                    refused.append(str(error))
            await receive()
            await send(STOPPED)
            await receive()

    adapter = adapt(Wrong(), lifespan="on")
    respond(adapter)
    in_thread(adapter.close)
    assert len(refused) == 3


def test_a_receive_that_is_given_up_does_not_lose_the_shutdown(adapt: Adapt) -> None:
    """An app that cancels its wait for the shutdown now and then still gets it, and leaves nothing behind."""
    waiters: list[int] = []
    looked_up = threading.Event()

    class Impatient(App):
        async def lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(COMPLETE)
            for _ in range(3):
                with anyio.CancelScope() as given_up:
                    given_up.cancel()
                    await receive()
            lifespan: Any = receive.__self__  # type: ignore[attr-defined]
            waiters.append(len(lifespan._change._waiting))
            looked_up.set()
            self.events.append((await receive())["type"])
            await send(STOPPED)

    app = Impatient()
    adapter = adapt(app, lifespan="on", shutdown_timeout=0.5)
    adapter.start()
    assert looked_up.wait(5)
    in_thread(adapter.close)
    assert app.events == ["lifespan.shutdown"]
    assert waiters == [0]


def test_the_loop_runs_between_requests(adapt: Adapt) -> None:
    """A task of the lifespan goes on while no request is in flight."""
    ticks = threading.Semaphore(0)

    class Ticking(App):
        async def lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
            async def tick() -> None:
                while True:
                    ticks.release()
                    await anyio.sleep(0.001)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(tick)
                await super().lifespan(scope, receive, send)
                tasks.cancel_scope.cancel()

    adapter = adapt(Ticking(), lifespan="on")
    respond(adapter)
    for _ in range(20):
        assert ticks.acquire(timeout=5)
