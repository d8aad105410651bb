"""Whose faults the validator reports, and what it only warns of."""

import contextlib
from typing import Any

import anyio
import pytest

from bridge.errors import AppProtocolError, BridgeError, ServerProtocolError
from bridge.types import Message, Receive, Scope, Send
from bridge.validate import ASGIWarning, validator
from tests.fakes import http_scope
from tests.validate.conversation import websocket_scope

START = {"type": "http.response.start", "status": 200, "headers": []}
END = {"type": "http.response.body", "body": b""}
REQUEST = {"type": "http.request", "body": b"", "more_body": False}
ACCEPT = {"type": "websocket.accept"}
# As Starlette's TestClient has it.
POOR_SCOPE = {key: value for key, value in http_scope().items() if key != "asgi"}


async def run(
    scope: Any, *sent: Message, given: Any = REQUEST, judge: Any = "both", returned: Any = None
) -> list[Message]:
    """Have an app receive once and send messages; return what reaches the server."""
    reached: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> Any:
        await receive()
        for message in sent:
            await send(message)
        return returned

    async def receive() -> Any:
        return given

    async def send(message: Message) -> None:
        reached.append(message)

    await validator(app, judge=judge)(scope, receive, send)
    return reached


FAULTS: dict[str, dict[str, Any]] = {
    "scope": {"scope": POOR_SCOPE},
    "no scope": {"scope": {}},
    "message": {"given": {"type": "http.request", "body": "text"}},
    "unknown message": {"given": {"type": "http.nothing"}},
    "no message": {"given": None},
    "order": {"given": {"type": "websocket.connect"}},
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_an_app_alone_may_be_judged(fault: str) -> None:
    """What the server does wrong is passed on, and what the app does wrong is reported all the same."""
    how = {"scope": http_scope(), **FAULTS[fault]}
    with pytest.raises(ServerProtocolError):
        await run(how["scope"], START, END, given=how.get("given", REQUEST))
    given = how.get("given", REQUEST)
    assert await run(how["scope"], START, END, given=given, judge="app") == [START, END]
    if how["scope"]:
        with pytest.raises(AppProtocolError):
            await run(how["scope"], END, given=given, judge="app")


@pytest.mark.parametrize(
    "sent", [[END], [START, START, END], [{"type": "http.nothing"}], [{}], [START], [START, {**END, "body": "text"}]]
)
async def test_a_server_alone_may_be_judged(sent: list[Message]) -> None:
    """What the app does wrong is passed on, and what the server does wrong is reported all the same."""
    with pytest.raises(AppProtocolError):
        await run(http_scope(), *sent)
    assert await run(http_scope(), *sent, judge="server", returned="something") == sent
    with pytest.raises(ServerProtocolError):
        await run(POOR_SCOPE, *sent, judge="server")


def test_a_judge_is_one_of_three() -> None:
    """The error has the values, and the one that came."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        """Do nothing."""

    with pytest.raises(ValueError, match=r"^judge: expected 'app', 'server' or 'both', got 'client'$"):
        validator(app, judge="client")  # type: ignore[arg-type]  # what the test is about


EXTENSIONS: dict[str, Any] = {"extensions": {"http.response.debug": {}}}
DEBUG = {"type": "http.response.debug", "info": {}}
CONNECT = {"type": "websocket.connect"}


@pytest.mark.parametrize(
    ("scope", "given", "sent", "clause"),
    [
        (http_scope(), REQUEST, [START, {**END, "body": memoryview(b"one")}], "ASGI-HTTP-069"),
        (http_scope(), REQUEST, [START, {**END, "body": bytearray(b"one")}], "ASGI-HTTP-069"),
        (http_scope(**EXTENSIONS), REQUEST, [START, DEBUG, END], "ASGI-EXT-029"),
        (websocket_scope(), CONNECT, [{**ACCEPT, "headers": [(b"X-A", b"1")]}], "ASGI-WS-014"),
        (websocket_scope(), CONNECT, [ACCEPT, {"type": "websocket.close", "reason": [{}]}], "ASGI-WS-024"),
    ],
    ids=["memoryview", "bytearray", "debug", "accept", "reason"],
)
async def test_what_servers_take_is_a_warning(scope: Any, given: Any, sent: list[Message], clause: str) -> None:
    """It reaches the server, as it is what frameworks send today."""
    with pytest.warns(ASGIWarning, match=clause):
        assert await run(scope, *sent, given=given) == sent


def faulty(scope: Any, *sent: Any, returned: Any = None) -> tuple[Any, list[Any], Any]:
    return scope, list(sent), returned


# What apps have done wrong, for the comparison with asgion.
APP_FAULTS = {
    "body before start": faulty(http_scope(), END),
    "no response": faulty(http_scope()),
    "start alone": faulty(http_scope(), START),
    "half a body": faulty(http_scope(), START, {**END, "more_body": True}),
    "two starts": faulty(http_scope(), START, START, END),
    "no status": faulty(http_scope(), {"type": "http.response.start"}, END),
    "status as text": faulty(http_scope(), {**START, "status": "200"}, END),
    "status out of range": faulty(http_scope(), {**START, "status": 42}, END),
    "header as text": faulty(http_scope(), {**START, "headers": [("a", "b")]}, END),
    "line break in a header": faulty(http_scope(), {**START, "headers": [(b"a", b"b\r\nc: d")]}, END),
    "pseudo header": faulty(http_scope(), {**START, "headers": [(b":status", b"200")]}, END),
    "body as text": faulty(http_scope(), START, {**END, "body": "text"}),
    "unknown type": faulty(http_scope(), START, {"type": "http.response.nothing"}, END),
    "extension that is not offered": faulty(http_scope(), START, {"type": "http.response.pathsend", "path": "/a"}),
    "message of another protocol": faulty(http_scope(), {"type": "websocket.accept"}, START, END),
    "a value that is returned": faulty(http_scope(), START, END, returned="one"),
    "send before accept": faulty(websocket_scope(), {"type": "websocket.send", "text": "one"}),
    "text and bytes": faulty(websocket_scope(), ACCEPT, {"type": "websocket.send", "text": "a", "bytes": b"a"}),
    "two accepts": faulty(websocket_scope(), ACCEPT, ACCEPT),
    "close code": faulty(websocket_scope(), ACCEPT, {"type": "websocket.close", "code": 1005}),
}


async def play(wrap: Any, scope: Any, sent: list[Any], returned: Any) -> None:
    """Have an app with a fault speak with a server that takes everything."""
    given = iter([CONNECT if scope["type"] == "websocket" else REQUEST])

    async def app(scope: Scope, receive: Receive, send: Send) -> Any:
        await receive()
        for message in sent:
            await send(message)
        return returned

    async def receive() -> Message:
        try:
            return next(given)
        except StopIteration:
            await anyio.sleep_forever()
            raise

    async def send(message: Message) -> None:
        pass

    await wrap(app)(scope, receive, send)


@pytest.mark.parametrize("fault", APP_FAULTS)
async def test_faults_of_apps_are_seen(fault: str) -> None:
    """Each of them is an error."""
    with pytest.raises(BridgeError):
        await play(validator, *APP_FAULTS[fault])


async def test_asgion_sees_no_fault_that_the_validator_does_not() -> None:
    """Where asgion is installed, it is compared: 0.6.1 on Python 3.12 reports 14 of the 20, and hints at two more."""
    asgion = pytest.importorskip("asgion")
    seen = set()
    for name, (scope, sent, returned) in APP_FAULTS.items():
        inspector: list[Any] = []

        def wrap(app: Any, inspector: list[Any] = inspector) -> Any:
            inspector.append(asgion.Inspector(app))
            return inspector[0]

        with contextlib.suppress(Exception):
            await play(wrap, {**scope}, sent, returned)
        if any(str(each.severity) != "info" for each in inspector[0].violations):
            seen.add(name)
    assert 0 < len(seen) < len(APP_FAULTS)
