import logging
import math
import threading
from typing import Any

import anyio.lowlevel
import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import http_app
from wsgi_asgi_conformance.asgi_to_wsgi.recording import END, START, Recording, block, scope_of, until_set
from wsgi_asgi_conformance.samples import http_environ
from wsgi_asgi_conformance.types import Message, Receive, Scope, Send
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIServer


def is_plain(value: object) -> bool:
    """Return whether a value is of a type that the spec allows in messages, and not of a subclass."""
    if type(value) is dict:
        return all(type(key) is str and is_plain(item) for key, item in value.items())
    if type(value) in (list, tuple):
        return all(map(is_plain, value))  # type: ignore[call-overload]  # it is a list or a tuple
    if type(value) is float:
        return math.isfinite(value)
    return (type(value) is int and -(2**63) <= value < 2**63) or type(value) in (bytes, str, bool, type(None))


@clause("ASGI-CORE-012", "ASGI-CORE-040")
@pytest.mark.parametrize("length", [0, 3, 200_000])
def test_messages_are_made_of_plain_values(adapt: ToWSGI, serve: WSGIServer, length: int) -> None:
    """A message that an app receives has str keys, bytes as its body, and only values of the spec's types."""
    app = Recording()
    serve(adapt(app), http_environ("POST", "/", bytes(length))).finish()
    assert all(map(is_plain, app.received))
    assert {type(message["body"]) for message in app.received} == {bytes}


@clause("ASGI-CORE-040")
def test_a_scope_is_made_of_plain_values(adapt: ToWSGI, serve: WSGIServer) -> None:
    """Each key is a str, and each value is str or bytes as the spec says."""
    environ = http_environ("POST", "/\xc3\xa9", b"one", QUERY_STRING="a=1", SCRIPT_NAME="/app", HTTP_X_ONE="\xe9")
    scope = scope_of(adapt, serve, environ | {"RAW_URI": "/%C3%A9?a=1"})
    assert {type(key) for key in scope} == {str}
    assert is_plain({key: value for key, value in scope.items() if key not in ("wsgi_environ", "state")})
    types = {key: type(scope[key]) for key in ("path", "root_path", "method", "scheme", "http_version")}
    assert set(types.values()) == {str}
    assert type(scope["query_string"]) is bytes
    assert type(scope.get("raw_path")) in (bytes, type(None))
    assert {type(part) for header in scope["headers"] for part in header} == {bytes}


@clause("ASGI-CORE-016")
def test_each_message_is_a_dict_of_its_own(adapt: ToWSGI, serve: WSGIServer) -> None:
    """A change that an app makes to a message, a body or a disconnect, does not show in the next."""
    received: list[Message] = []
    done = threading.Event()

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_one() -> bool:
            message = await receive()
            received.append(dict(message))
            messages.append(message)
            message.clear()
            return bool(received[-1].get("more_body"))

        messages: list[Message] = []
        while await receive_one():
            pass
        await send(START)
        await send(END)
        for _ in range(2):
            await receive_one()
        assert len({id(message) for message in messages}) == len(messages)
        done.set()

    request = serve(adapt(app), http_environ("POST", "/", bytes(200_000))).finish()
    request.until(done.is_set, "the end of the app")
    assert sum(len(message.get("body", b"")) for message in received) == 200_000
    assert received[-2:] == [{"type": "http.disconnect"}] * 2


@clause("ASGI-CORE-017")
def test_send_returns_none(adapt: ToWSGI, serve: WSGIServer) -> None:
    """send() takes its message as a positional argument, and returns None."""
    returned: list[object] = []

    @http_app
    async def app(scope: Scope, receive: Receive, send: Any) -> None:
        returned.extend([await send(START), await send(block(b"one")), await send(END)])

    request = serve(adapt(app)).finish()
    assert request.until(lambda: len(returned) == 3).body == b"one"
    assert returned == [None] * 3


@clause("ASGI-CORE-017")
def test_send_waits_for_the_server(adapt: ToWSGI, serve: WSGIServer) -> None:
    """If the server takes nothing, send() waits until the server closes the response."""
    sent = 0
    ended = threading.Event()

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        if scope["path"] == "/other":
            for _ in range(1000):  # time enough for hundreds of blocks
                await anyio.lowlevel.checkpoint()
        await send(START)
        if scope["path"] == "/":
            try:
                for _ in range(200):
                    await send(block(bytes(65536)))
                    sent += 1
            finally:
                ended.set()
        await send(END)

    adapter = adapt(app)
    request = serve(adapter, hold_after=1).until_logged("block")
    serve(adapter, http_environ("GET", "/other")).finish()
    assert sent < 200
    assert not ended.is_set()
    request.disconnect()
    request.until(ended.is_set, "the end of the app")


@clause("ASGI-CORE-017", "ASGI-HTTP-064")
def test_a_send_that_was_held_up_goes_on(adapt: ToWSGI, serve: WSGIServer) -> None:
    """When the server takes blocks again, an app that waits in send() sends the rest."""

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        for number in range(200):
            await send(block(bytes([number]) * 65536))
        await send(END)

    request = serve(adapt(app), hold_after=1).until_logged("block")
    request.release()
    assert request.finish().body == b"".join(bytes([number]) * 65536 for number in range(200))


@clause("ASGI-CORE-020", "ASGI-CORE-036")
def test_send_after_a_disconnect_does_as_the_version_says(adapt: ToWSGI, serve: WSGIServer) -> None:
    """send() does nothing or raises an OSError, as it must if the scope claims version 2.4 or later; it never hangs."""
    version = ""
    left, done = threading.Event(), threading.Event()
    errors: list[Exception] = []

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal version
        version = scope["asgi"].get("spec_version", "2.0")
        await send(START)
        await send(block(b"one"))
        await until_set(left, serve.deadline)
        while (await receive())["type"] != "http.disconnect":
            pass
        for message in (block(b"two"), END):
            try:
                await send(message)
            except Exception as error:
                errors.append(error)
        done.set()

    request = serve(adapt(app), hold_after=1).until_logged("block")
    request.disconnect()
    request.until_ended()
    left.set()
    request.until(done.is_set, "the end of the app")
    assert [error for error in errors if not isinstance(error, OSError)] == []
    assert errors or [int(part) for part in version.split(".")] < [2, 4]


@clause("ASGI-CORE-037")
def test_an_error_of_send_is_no_error_of_the_app(
    adapt: ToWSGI, serve: WSGIServer, caplog: pytest.LogCaptureFixture
) -> None:
    """If an app does not catch the error that send() raises after a disconnect, it is not reported as failed."""
    errors: list[Exception] = []
    ended = threading.Event()

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        if scope["path"] == "/":
            try:
                for _ in range(1000):
                    await send(block(bytes(1024)))
                    await anyio.lowlevel.checkpoint()
            except Exception as error:
                errors.append(error)
                raise
            finally:
                ended.set()
        await send(END)

    adapter = adapt(app)
    request = serve(adapter, hold_after=1).until_logged("block")
    request.disconnect()
    request.until(ended.is_set, "the end of the app").until_ended()
    serve(adapter, http_environ("GET", "/other")).finish()  # the loop has seen to the end of the first one by now
    if not errors:
        pytest.skip("send() does not raise here")
    assert request.error is None
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def refused(adapt: ToWSGI, serve: WSGIServer, *messages: Any) -> list[bool]:
    """Return for each message whether send() raises for it, in an app that answers nevertheless."""
    raised: list[bool] = []

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            try:
                await send(message)
            except Exception:
                raised.append(True)
            else:
                raised.append(False)
        if raised[0]:
            await send(START)
        await send({**END, "body": b"one"})

    request = serve(adapt(app)).finish()
    assert (request.status, request.body) == ("200 OK", b"one")
    return raised


@clause("ASGI-CORE-028")
@pytest.mark.parametrize(
    "kind",
    [
        "bogus",
        "",
        "http.response",
        "http.response.starts",
        "http.request",
        "websocket.send",
        "lifespan.startup.complete",
    ],
)
def test_a_message_of_an_unknown_type_is_refused(adapt: ToWSGI, serve: WSGIServer, kind: str) -> None:
    """send() raises into the app, which may then send a valid message."""
    assert refused(adapt, serve, {"type": kind}) == [True]


@clause("ASGI-CORE-029")
@pytest.mark.parametrize(
    "message", [{"type": "http.response.start"}, {"status": 200}, {}, None, "http.response.start", [], 7], ids=repr
)
def test_a_message_without_what_it_needs_is_refused(adapt: ToWSGI, serve: WSGIServer, message: Any) -> None:
    """send() raises for a start without a status, a message without a type, and anything that is not a message."""
    assert refused(adapt, serve, message) == [True]


@clause("ASGI-CORE-030")
@pytest.mark.parametrize(
    "values",
    [
        {"status": "200"},
        {"status": None},
        {"status": 200.5},
        {"headers": [("x-one", "1")]},
        {"headers": [(b"x-one", "1")]},
        {"headers": [(b"x-one", 1)]},
        {"headers": [(b"x-one", b"1", b"2")]},
        {"headers": [b"x-one"]},
        {"headers": 7},
        {"type": b"http.response.start"},
    ],
    ids=repr,
)
def test_a_start_with_values_of_wrong_types_is_refused(
    adapt: ToWSGI, serve: WSGIServer, values: dict[str, Any]
) -> None:
    """send() raises into the app, which may then send a valid start."""
    assert refused(adapt, serve, {**START, **values}) == [True]


@clause("ASGI-CORE-030")
@pytest.mark.parametrize("body", ["text", 7, [b"one"], {"body": b"one"}], ids=repr)
def test_a_body_of_a_wrong_type_is_refused(adapt: ToWSGI, serve: WSGIServer, body: Any) -> None:
    """send() raises into the app, which may then send a valid body."""
    assert refused(adapt, serve, START, {**END, "body": body}) == [False, True]


@clause("ASGI-CORE-032")
def test_keys_that_nobody_knows_are_ignored(adapt: ToWSGI, serve: WSGIServer) -> None:
    """Unknown keys, which a later version of the spec may define, do not raise."""
    more = {"x": object(), "priority": 1, "more": True}
    assert refused(adapt, serve, {**START, **more}, {**block(b""), **more}) == [False, False]


EXTENSIONS: dict[str, dict[str, Any]] = {
    "http.response.early_hint": {"links": [b"</x.css>; rel=preload; as=style"]},
    "http.response.push": {"path": "/x.css", "headers": []},
    "http.response.debug": {"info": {}},
    "http.response.pathsend": {"path": __file__},
    "http.response.zerocopysend": {"file": 0, "count": 0},
    "http.response.trailers": {"headers": []},
}


@clause("ASGI-CORE-038")
@pytest.mark.parametrize("name", EXTENSIONS)
@pytest.mark.parametrize("variables", [{}, {"wsgi.early_hints": lambda headers: None}], ids=["plain", "early hints"])
@pytest.mark.parametrize("factory", ["adapt", "adapt_for_files"])
def test_extensions_are_those_that_work(
    factory: str, serve: WSGIServer, name: str, variables: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    """send() accepts what the scope offers, and raises for what it does not offer."""
    offered: list[dict[str, Any]] = []
    raised = False

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal raised
        offered.append(scope.get("extensions", {}))
        start = [START] if name.endswith(("send", "trailers")) else []
        if name == "http.response.trailers" and name in offered[0]:
            start = [{**START, "trailers": True}, END]
        for message in start:
            await send(message)
        try:
            await send({"type": name, **EXTENSIONS[name]})
        except Exception:
            raised = True
        for message in [END] if start else [START, END]:
            await send(message)

    adapt: ToWSGI = request.getfixturevalue(factory)
    serve(adapt(app), http_environ(**variables)).finish()
    assert {(type(key), type(value)) for key, value in offered[0].items()} <= {(str, dict)}
    assert raised is (name not in offered[0])
