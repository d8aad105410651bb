import logging
import sys
import types
from collections.abc import Coroutine, Generator
from typing import Any

import anyio
import pytest

from bridge import ServerProtocolError
from bridge.migration.lifespans import serve_lifespans
from bridge.types import ASGIApp, Message, Receive, Scope, Send
from tests.fakes import ASGIServer


class App:
    """An app that records its events in a list, which several apps share."""

    def __init__(self, name: str, events: list[str], fails: str = "") -> None:
        self.name, self.events, self.fails = name, events, fails

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.fails == "unsupported":
            raise ValueError("no lifespan here")
        if self.fails == "exit":
            sys.exit("no settings")
        assert (await receive())["type"] == "lifespan.startup"
        if "state" in scope:
            scope["state"]["name"] = self.name
        self.events.append(f"{self.name} starts")
        if self.fails == "startup":
            await send({"type": "lifespan.startup.failed", "message": f"{self.name} cannot start"})
            if self.name == "stubborn":
                await receive()
            return
        await send({"type": "lifespan.startup.complete"})
        if self.fails == "serving":
            raise RuntimeError("while it was serving")
        assert (await receive())["type"] == "lifespan.shutdown"
        self.events.append(f"{self.name} ends")
        if self.fails == "shutdown":
            await send({"type": "lifespan.shutdown.failed", "message": f"{self.name} cannot end"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
        if self.name == "stubborn":
            await receive()


def server_of(*apps: ASGIApp, **keys: Any) -> ASGIServer:
    """Return a server in lifespan scope."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await serve_lifespans(apps, "key", scope, receive, send)

    return ASGIServer(app, {"type": "lifespan", "asgi": {"version": "3.0"}, **keys}, blocks=())


async def run(server: ASGIServer) -> list[str]:
    """Start and shut down; return the types of what was sent."""
    server.feed_message({"type": "lifespan.startup"})
    server.feed_message({"type": "lifespan.shutdown"})
    with anyio.fail_after(5):
        await server.run()
    return [message["type"].removeprefix("lifespan.") for message in server.sent]


async def test_the_second_starts_last_and_ends_first() -> None:
    """Lifespans are nested, the new app's outside."""
    events: list[str] = []
    sent = await run(server_of(App("new", events), App("old", events)))
    assert events == ["new starts", "old starts", "old ends", "new ends"]
    assert sent == ["startup.complete", "shutdown.complete"]


@pytest.mark.parametrize("fails", ["", "startup", "shutdown"])
async def test_the_answer_to_the_server_is_the_last_thing(fails: str) -> None:
    """The lifespan returns right after it, because hypercorn cancels one that does not and logs an error."""
    after: list[bool] = []
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    last = ""

    async def receive() -> Message:
        return next(messages)

    async def send(message: Message) -> None:
        nonlocal last
        last = message["type"].removeprefix("lifespan.")

    @types.coroutine
    def watched(lifespan: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
        steps = lifespan.__await__()
        received = None
        while True:
            try:
                step = steps.send(received)
            except StopIteration:
                return
            after.append(last not in ("", "startup.complete"))
            received = yield step

    apps = [App("new", []), App("old", [], fails)]
    with anyio.fail_after(5):
        await watched(serve_lifespans(apps, "key", {"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send))
    assert last == ("shutdown.complete" if not fails else f"{fails}.failed")
    assert after
    assert True not in after


@pytest.mark.parametrize("name", ["old", "stubborn"])
async def test_a_failed_startup_shuts_down_what_has_started(name: str) -> None:
    """The server is told why, and an app that waits for more is not waited for."""
    events: list[str] = []
    server = server_of(App("new", events), App(name, events, "startup"))
    assert await run(server) == ["startup.failed"]
    assert server.sent[0]["message"] == f"{name} cannot start"
    assert events == ["new starts", f"{name} starts", "new ends"]


async def test_an_exit_in_a_startup_is_a_failed_one() -> None:
    """The process does not exit before the other app has shut down."""
    events: list[str] = []
    server = server_of(App("new", events), App("old", events, "exit"))
    assert await run(server) == ["startup.failed"]
    assert "SystemExit('no settings')" in server.sent[0]["message"]
    assert events == ["new starts", "new ends"]


async def test_after_the_first_failed_the_second_is_not_started() -> None:
    """The site is not going to serve, so starting the second app would be useless."""
    events: list[str] = []
    assert await run(server_of(App("new", events, "startup"), App("old", events))) == ["startup.failed"]
    assert events == ["new starts"]


async def test_an_app_that_raises_is_done_without(caplog: pytest.LogCaptureFixture) -> None:
    """Servers do the same with lifespan "auto"."""
    events: list[str] = []
    caplog.set_level(logging.INFO, "bridge")
    sent = await run(server_of(App("new", events, "unsupported"), App("old", events)))
    assert sent == ["startup.complete", "shutdown.complete"]
    assert events == ["old starts", "old ends"]
    assert "no lifespan here" in caplog.text


async def test_an_app_that_takes_it_for_a_request_is_done_without() -> None:
    """Its messages do not belong to the lifespan protocol."""

    async def hello(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    events: list[str] = []
    assert await run(server_of(hello, App("old", events))) == ["startup.complete", "shutdown.complete"]
    assert events == ["old starts", "old ends"]


async def test_a_failed_shutdown_does_not_keep_the_other_from_ending() -> None:
    """Both shut down, and the server is told what failed."""
    events: list[str] = []
    server = server_of(App("new", events), App("old", events, "shutdown"))
    assert await run(server) == ["startup.complete", "shutdown.failed"]
    assert server.sent[1]["message"] == "old cannot end"
    assert events[-2:] == ["old ends", "new ends"]


async def test_what_is_raised_while_serving_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The other app is still served; the last message and the log report the error."""
    server = server_of(App("new", [], "serving"), App("old", []))
    assert await run(server) == ["startup.complete", "shutdown.failed"]
    assert "while it was serving" in server.sent[1]["message"]
    assert "while it was serving" in caplog.text


async def test_an_app_that_goes_on_after_its_end_is_cancelled() -> None:
    """It waits for a message that never comes."""
    assert await run(server_of(App("stubborn", []), App("old", []))) == ["startup.complete", "shutdown.complete"]


async def test_states_are_left_for_the_requests() -> None:
    """The list under the key holds what each app has added."""
    state = {"outer": "shared"}
    await run(server_of(App("new", []), App("old", []), state=state))
    assert state == {"outer": "shared", "key": [{"name": "new"}, {"name": "old"}]}


@pytest.mark.parametrize("messages", [["lifespan.shutdown"], ["lifespan.startup", "lifespan.startup"]])
async def test_a_server_that_breaks_the_order_is_told(messages: list[str]) -> None:
    """The error names the message."""
    server = server_of(App("new", []))
    for message in messages:
        server.feed_message({"type": message})
    with anyio.fail_after(5), pytest.raises((ServerProtocolError, ExceptionGroup)) as raised:
        await server.run()
    assert messages[-1] in str(getattr(raised.value, "exceptions", [raised.value])[0])
