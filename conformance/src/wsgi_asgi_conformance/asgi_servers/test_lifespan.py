"""The lifespan that an ASGI server runs, and how the server ends."""

import sys
import time
from typing import Any

import anyio
import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.asgi_servers.test_scope import OK, path
from wsgi_asgi_conformance.asgi_servers.test_send import BODY, tries
from wsgi_asgi_conformance.conftest import Start
from wsgi_asgi_conformance.exchange import Hang
from wsgi_asgi_conformance.notes import Notes
from wsgi_asgi_conformance.serving import START, DidNotStart, RunningServer, name_of
from wsgi_asgi_conformance.types import Receive, Scope, Send

STARTED = {"type": "lifespan.startup.complete"}
STOPPED = {"type": "lifespan.shutdown.complete"}


def noted(server: RunningServer, key: str) -> list[Any]:
    """Return what lifespans have noted under a key."""
    return [value for name, value, _ in server.lifespan() if name == key]


def until_noted(server: RunningServer, key: str) -> Any:
    """Wait for a note of the lifespan, for as long as a server may take to start."""
    end = time.monotonic() + START
    while not noted(server, key):
        if time.monotonic() > end:
            raise Hang(f"waited {START:g} s for {key!r} of the lifespan")
        time.sleep(0.01)
    return noted(server, key)[0]


@pytest.fixture(autouse=True)
def offered(server: RunningServer) -> None:
    """Skip the test if the server runs no lifespan."""
    if not server.lifespan():
        pytest.skip("the lifespan is not offered")


async def seen(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    notes("state", scope.get("state", "absent"))
    notes("pid", sys.modules["os"].getpid())
    if "state" in scope:
        scope["state"]["mine"] = 1
        scope["state"]["shared"].append(1)
    await send(OK)
    await send({"type": BODY, "body": b"one"})


@clause("ASGI-LS-004", "ASGI-LS-010")
def test_the_scope_of_a_lifespan_has_its_type(server: RunningServer) -> None:
    """The scope of a lifespan has its type, a version, and optionally an empty state."""
    scope = noted(server, "scope")[0]
    assert scope["type"] == "lifespan"
    assert isinstance(scope["asgi"]["version"], str)
    assert scope["asgi"].get("spec_version", "1.0") in ("1.0", "2.0", "2.1", "2.2", "2.3", "2.4", "2.5")
    assert scope.get("state", {}) == {}


@clause("ASGI-LS-001", "ASGI-LS-016")
def test_a_lifespan_runs_once_for_each_loop(server: RunningServer) -> None:
    """Each process runs one lifespan, which starts before the first request."""
    _, exchange = server.get(seen)
    processes = [pid for key, _, pid in server.lifespan() if key == "scope"]
    assert len(processes) == len(set(processes))
    assert exchange.value("pid") in [pid for key, _, pid in server.lifespan() if key == "started"]


@clause("ASGI-LS-013", "ASGI-LS-014", "ASGI-HTTP-033")
def test_requests_have_the_state_of_the_startup(server: RunningServer) -> None:
    """Requests have the state that the app filled at startup, or neither they nor the lifespan have a state."""
    _, exchange = server.get(seen)
    state = exchange.value("state")
    if "state" not in noted(server, "scope")[0]:
        assert state == "absent"
        pytest.skip("the state is not offered")
    assert state["at startup"] == "yes"


@clause("ASGI-LS-011", "ASGI-LS-012", "ASGI-HTTP-033")
def test_each_request_has_a_shallow_copy_of_the_state(server: RunningServer) -> None:
    """Each request gets a shallow copy of the state: its keys are its own, and the objects are shared."""
    if "state" not in noted(server, "scope")[0]:
        pytest.skip("the state is not offered")
    states = [server.get(seen)[1] for _ in range(6)]
    by_process: dict[int, list[Any]] = {}
    for exchange in states:
        by_process.setdefault(exchange.value("pid"), []).append(exchange.value("state"))
    assert [state for found in by_process.values() for state in found if "mine" in state] == []
    for found in by_process.values():
        lengths = [len(state["shared"]) for state in found]
        assert lengths == list(range(lengths[0], lengths[0] + len(lengths)))


# --- Startup ---------------------------------------------------------------------------------------


async def slow(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await receive()
    notes("startup")
    await notes.wait_async("go on")
    await send(STARTED)
    await receive()
    await send(STOPPED)


@clause("ASGI-LS-017", "ASGI-LS-016")
def test_no_request_comes_before_the_startup_is_complete(start: Start) -> None:
    """A client that connects early waits until the startup is complete."""
    with start(lifespan=name_of(slow), wait=False) as server:
        until_noted(server, "startup")
        served: list[bytes] = []
        try:
            exchange = server.exchange(path).request(target="/early")
        except OSError:
            pass  # it does not listen yet
        else:
            served += [block for block in [(exchange.client.fill(0.5) and exchange.client.unread) or b""] if block]
        assert served == []
        Notes("lifespan", server.folder).open("go on")


async def raises(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    notes("called")
    raise ValueError("this app has no lifespan")


async def returns(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    notes("called")


@clause("ASGI-LS-005")
def test_an_app_without_a_lifespan_is_served(start: Start) -> None:
    """An app that raises on the lifespan scope does not support it, and the server serves requests all the same."""
    with start(lifespan=name_of(raises)) as server:
        assert server.get(path, "/one")[0].body == b"/one"


@clause("ASGI-LS-009")
def test_an_app_that_returns_at_once_is_served_or_refused(start: Start) -> None:
    """The server does not wait for a startup message from an app that has returned."""
    try:
        with start(lifespan=name_of(returns)) as server:
            assert server.get(path, "/one")[0].body == b"/one"
    except DidNotStart as error:
        if "does not answer" in str(error):
            raise Hang("the server waits for a startup that nobody completes") from error


async def fails(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await receive()
    notes("called")
    await send({"type": "lifespan.startup.failed", "message": "the database is not there"})


async def fails_without_a_word(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed"})


def until_ended(server: RunningServer) -> None:
    """Wait until the process has ended by itself, or until the deadline."""
    end = time.monotonic() + server.deadline
    while server.process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)


@clause("ASGI-LS-020")
def test_a_startup_that_fails_is_logged_and_nothing_is_served(start: Start) -> None:
    """If the startup fails, the app's message is logged, and no request reaches the app."""
    with start(lifespan=name_of(fails), wait=False) as server:
        until_noted(server, "called")
        until_ended(server)
        assert "the database is not there" in server.output()
        assert not is_serving(server)


@clause("ASGI-LS-021")
def test_a_startup_may_fail_without_a_message(start: Start) -> None:
    """If the startup fails without a message, no request reaches the app, either."""
    with start(lifespan=name_of(fails_without_a_word), wait=False) as server:
        until_ended(server)
        assert not is_serving(server)


def is_serving(server: RunningServer) -> bool:
    """Return whether a request reaches the app."""
    try:
        exchange = server.exchange(path).request(target="/one")
        exchange.client.fill(1)
    except OSError:
        return False
    return bool(exchange.values("called"))


async def sends_wrongly(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await receive()
    await tries(send, notes, {"type": "lifespan.nothing"})
    await send(STARTED)
    await tries(send, notes, STARTED)
    await receive()
    await send(STOPPED)


@clause("ASGI-LS-027")
def test_a_message_that_is_no_answer_raises(start: Start) -> None:
    """send() raises for an unknown message, and for a second lifespan.startup.complete."""
    with start(lifespan=name_of(sends_wrongly)) as server:
        end = time.monotonic() + server.deadline
        while len(noted(server, "tried")) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        assert "taken" not in noted(server, "tried")


# --- Shutdown --------------------------------------------------------------------------------------


async def slow_to_stop(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await receive()
    await send(STARTED)
    notes("shutdown", (await receive())["type"])

    await anyio.sleep(0.5)
    notes("slept")
    await send(STOPPED)


@clause("ASGI-LS-023", "ASGI-LS-024", "ASGI-LS-029")
def test_sigterm_shuts_the_app_down(start: Start) -> None:
    """On SIGTERM, the app gets lifespan.shutdown once, and the process waits for its answer."""
    with start(lifespan=name_of(slow_to_stop)) as server:
        server.get(path, "/one")
        server.terminate()
        server.until_exited()
        assert noted(server, "shutdown") == ["lifespan.shutdown"] * len(set(pids(server)))
        assert len(noted(server, "slept")) == len(set(pids(server)))


def pids(server: RunningServer) -> list[int]:
    """Return the processes whose lifespan has noted anything."""
    return [pid for _, _, pid in server.lifespan()]


async def long(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:

    notes("serving")
    await anyio.sleep(1)
    await send({**OK, "headers": [(b"content-length", b"4")]})
    await send({"type": BODY, "body": b"done"})


@clause("ASGI-LS-023")
def test_a_request_in_flight_ends_before_the_shutdown(start: Start) -> None:
    """On SIGTERM, the server finishes running requests before it shuts the app down."""
    with start(lifespan=name_of(slow_to_stop)) as server:
        exchange = server.exchange(long).request()
        exchange.value("serving")
        server.terminate()
        assert exchange.response().body == b"done"
        server.until_exited()
        assert noted(server, "shutdown")


async def fails_to_stop(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await receive()
    await send(STARTED)
    await receive()
    await send({"type": "lifespan.shutdown.failed", "message": "the cache is not written"})


@clause("ASGI-LS-025")
def test_a_shutdown_that_fails_is_logged(start: Start) -> None:
    """If the shutdown fails, the app's message is logged, and the process ends."""
    with start(lifespan=name_of(fails_to_stop)) as server:
        server.get(path, "/one")
        server.terminate()
        server.until_exited()
        assert "the cache is not written" in server.output()


async def raises_later(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await receive()
    await send(STARTED)
    await receive()
    raise ValueError("this app raises on purpose")


async def ends_early(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await receive()
    await send(STARTED)
    raise ValueError("this app raises on purpose")


@clause("ASGI-LS-028")
@pytest.mark.parametrize("lifespan", [raises_later, ends_early])
def test_a_lifespan_that_raises_does_not_hang_the_end(start: Start, lifespan: Any) -> None:
    """If the lifespan raises after its startup, requests are served, and SIGTERM ends the process."""
    with start(lifespan=name_of(lifespan)) as server:
        assert server.get(path, "/one")[0].body == b"/one"
        server.terminate()
        server.until_exited()
