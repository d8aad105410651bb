from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from bridge.errors import AppProtocolError, ClientDisconnected
from bridge.types import Message, Receive, Scope, Send
from bridge.validate import validator
from tests.fakes import request
from tests.validate.conversation import (
    BODY,
    COMPLETE,
    CONNECT,
    DEBUG,
    DENIAL,
    HTTP,
    LIFESPAN,
    MORE,
    OFFERING,
    REQUEST,
    SHUTDOWN,
    START,
    STARTUP,
    TRAILED,
    WEBSOCKET,
    Said,
    converse,
)


@pytest.mark.parametrize(
    ("scope", "conversation", "clause"),
    [
        (HTTP, [], "ASGI-HTTP-071"),
        (HTTP, [REQUEST], "ASGI-HTTP-071"),
        (OFFERING, [DEBUG], "ASGI-HTTP-071"),
        (HTTP, [START], "ASGI-HTTP-072"),
        (HTTP, [START, MORE], "ASGI-HTTP-072"),
        (OFFERING, [TRAILED, BODY], "ASGI-HTTP-072"),
        (WEBSOCKET, [], "ASGI-WS-011"),
        (WEBSOCKET, [CONNECT], "ASGI-WS-011"),
        (WEBSOCKET, [CONNECT, DENIAL], "ASGI-WS-026"),
        (LIFESPAN, [], "ASGI-LS-007"),
        (LIFESPAN, [STARTUP], "ASGI-LS-007"),
        (LIFESPAN, [STARTUP, COMPLETE], "ASGI-LS-019"),
        (LIFESPAN, [STARTUP, COMPLETE, SHUTDOWN], "ASGI-LS-026"),
    ],
)
async def test_an_app_must_not_return_too_early(scope: dict[str, Any], conversation: list[Said], clause: str) -> None:
    """A response, the answer to a handshake and a lifespan must be complete when the app returns."""
    with pytest.raises(AppProtocolError, match=rf"the ASGI app returned too early .*; {clause}\)"):
        await converse(scope, *conversation)


async def test_an_app_must_return_none() -> None:
    """Nobody would get the value that the app returns (ASGI-CORE-005)."""
    with pytest.raises(AppProtocolError, match=r"returned 5, not None .*ASGI-CORE-005"):
        await converse(HTTP, START, BODY, returned=5)


async def test_an_app_must_be_async() -> None:
    """A WSGI app that happens to take three arguments gets an error that says so (ASGI-CORE-013)."""

    def app(scope: Scope, receive: Receive, send: Send) -> Any:
        return []

    with pytest.raises(AppProtocolError, match=r"its call returned list of length 0 .*ASGI-CORE-013"):
        await request(validator(app))


async def test_the_argument_of_send_is_positional() -> None:
    """send takes a positional argument (ASGI-CORE-018); the app's arguments have names, which Daphne uses."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(TypeError, match="positional"):
            await send(message={"type": "http.response.start", "status": 200})  # type: ignore[call-arg]
        await send(START.message)
        await send(BODY.message)

    async def send(message: Message) -> None:
        pass

    await validator(app)(scope=HTTP, receive=anyio.sleep_forever, send=send)  # type: ignore[call-arg]


@pytest.mark.parametrize("raises", [False, True])
async def test_calls_after_the_return_are_refused(raises: bool) -> None:
    """The connection ends when the app's coroutine ends, however it does (ASGI-CORE-005)."""
    kept: list[Callable[[], Awaitable[object]]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        kept.extend([receive, lambda: send(BODY.message)])
        await send(START.message)
        await send(BODY.message)
        if raises:
            raise ValueError("the app's own")

    if raises:
        with pytest.raises(ValueError, match="the app's own"):
            await request(validator(app))
    else:
        await request(validator(app))
    for call, name in zip(kept, ("receive", "send"), strict=True):
        with pytest.raises(AppProtocolError, match=f"called {name} after it had returned .*ASGI-CORE-005"):
            await call()


async def test_a_report_that_the_app_catches_is_raised_when_it_returns() -> None:
    """An app that catches the errors hides no fault, its own or the server's; the first one is raised."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in ({"type": "http.response.start"}, {"type": "http.response.body"}):
            with pytest.raises(AppProtocolError):
                await send(message)
        await send(START.message)
        await send(BODY.message)

    with pytest.raises(AppProtocolError, match="without 'status'"):
        await request(validator(app))


async def test_what_the_app_raises_passes() -> None:
    """The validator passes on an error of the app itself."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("the app's own")

    with pytest.raises(ValueError, match="the app's own"):
        await request(validator(app))


async def test_a_send_may_fail_for_a_client_that_has_left() -> None:
    """The server may raise OSError, and the app may then return early (ASGI HTTP spec, Disconnected Client)."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for said in (START, START, MORE):
            with pytest.raises(ClientDisconnected):
                await send(said.message)

    async def receive() -> Message:
        raise AssertionError("not called")

    async def send(message: Message) -> None:
        raise ClientDisconnected

    await validator(app)(HTTP, receive, send)


async def test_a_receive_that_waits_may_get_more_of_the_request_after_the_response() -> None:
    """Only calls that start after the response must get http.disconnect (ASGI HTTP spec, Disconnect)."""
    waits, responded = anyio.Event(), anyio.Event()
    got: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def watch() -> None:
            got.append(await receive())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            await waits.wait()
            await send(START.message)
            await send(BODY.message)
            responded.set()

    async def receive() -> Message:
        waits.set()
        await responded.wait()
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        pass

    await validator(app)(HTTP, receive, send)
    assert got == [{"type": "http.request"}]
