"""Whole requests to apps that do anything: each request ends with a response or a documented error."""

import math
from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import ASGIToWSGI, BridgeError, WSGIToASGI
from bridge.sansio.messages import DONE, RESPONSE, event_from_message, next_state
from bridge.types import Environ, Receive, Scope, Send, StartResponse
from tests.fakes import http_environ, http_scope, request, respond
from tests.fuzz.strategies import (
    ANYTHING,
    BODIES,
    ENVIRONS,
    FUZZ,
    NATIVE_HEADERS,
    RESPONSE_MESSAGES,
    SCOPES,
    SPOILED_ENVIRONS,
    SPOILED_SCOPES,
    STATUSES,
    expanded,
    mostly,
)


class AppError(Exception):
    """Raised by these apps themselves."""


RAISED = st.sampled_from(
    [AppError, SystemExit, KeyboardInterrupt, StopIteration, GeneratorExit, OSError, BaseException]
)
METHODS = st.sampled_from(["GET", "HEAD", "POST"])

# --- ASGI apps ------------------------------------------------------------------------------------

GOOD_START = {"type": "http.response.start", "status": 200, "headers": []}
ASGI_STEPS = st.lists(
    st.just(("send", GOOD_START))
    | st.tuples(st.just("send"), RESPONSE_MESSAGES)
    | st.tuples(st.just("receive"), st.none())
    | st.tuples(st.just("raise"), RAISED),
    max_size=6,
)


class ASGIScript:
    """An ASGI app that plays the steps it was given last. If it is `stubborn`, it goes on after a step that raises."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, Any]] = []
        self.stubborn = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for name, argument in self.steps:
            try:
                if name == "send":
                    await send({**argument, "body": expanded(argument["body"])} if "body" in argument else argument)
                elif name == "receive":
                    with anyio.move_on_after(0.01):  # after the last part of the body, `receive` waits for the end
                        assert (await receive())["type"] in ("http.request", "http.disconnect")
                else:
                    raise argument
            except (BridgeError, OSError):
                if not self.stubborn:
                    raise


@pytest.fixture(scope="module")
def asgi() -> Iterator[tuple[ASGIScript, ASGIToWSGI]]:
    """Return an app and its adapter, whose loop serves all examples."""
    script = ASGIScript()
    with ASGIToWSGI(script, lifespan="off", pathsend=True) as adapter:
        yield script, adapter


@FUZZ
@given(METHODS, BODIES, ASGI_STEPS, st.booleans())
def test_any_asgi_app(
    asgi: tuple[ASGIScript, ASGIToWSGI], method: str, body: bytes, steps: list[Any], stubborn: bool
) -> None:
    """The WSGI server gets a response that follows PEP 3333, or an error that says who broke which rule."""
    script, adapter = asgi
    script.steps, script.stubborn = steps, stubborn
    try:
        server = respond(adapter, http_environ(method, "/", expanded(body)))
    except (BridgeError, AppError, StopIteration, OSError, RuntimeError):
        return  # a coroutine turns StopIteration into RuntimeError
    assert len(server.starts) == 1
    lengths = [value for name, value in server.headers if name.lower() == "content-length"]
    bodiless = method == "HEAD" or server.status[:3] in ("204", "304")
    assert not lengths or len(server.body) == (0 if bodiless else int(lengths[0])) or bodiless


@FUZZ
@given(ENVIRONS | SPOILED_ENVIRONS, BODIES)
def test_any_environ(asgi: tuple[ASGIScript, ASGIToWSGI], environ: Environ, body: bytes) -> None:
    """The app or the adapter answers, or the adapter raises that the server broke PEP 3333."""
    script, adapter = asgi
    end = {"type": "http.response.body"}
    script.steps = [("receive", None), ("send", {"type": "http.response.start", "status": 200}), ("send", end)]
    try:
        server = respond(adapter, {**http_environ("POST", "/", expanded(body)), **environ})
    except BridgeError:
        return
    assert server.status[:3] in ("200", "400", "405", "426", "501")


# --- WSGI apps ------------------------------------------------------------------------------------

WSGI_STEPS: st.SearchStrategy[list[tuple[str, Any]]] = st.lists(
    st.just(("start", ("200 OK", [], False)))
    | st.tuples(st.just("start"), st.tuples(STATUSES, NATIVE_HEADERS, st.booleans()))
    | st.tuples(st.just("write"), mostly(BODIES, ANYTHING))
    | st.tuples(st.just("read"), st.integers(-1, 10))
    | st.tuples(st.just("yield"), mostly(BODIES, ANYTHING))
    | st.tuples(st.just("raise"), RAISED),
    max_size=6,
)


class WSGIScript:
    """A WSGI app that plays the given steps, before or while it is iterated, and returns a given object."""

    def __init__(self, steps: list[tuple[str, Any]], late: bool, returned: Any) -> None:
        self.steps = steps
        self.late = late
        self.returned = returned

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        blocks = self.run(environ, start_response)
        if self.late:
            return blocks
        list(blocks)
        returned: Iterable[bytes] = self.returned
        return returned

    def run(self, environ: Environ, start_response: Any) -> Iterator[bytes]:
        write: Any = None
        for name, argument in self.steps:
            if name == "start":
                status, headers, with_error = argument
                error = AppError("given to start_response")
                write = start_response(status, headers, (AppError, error, None) if with_error else None)
            elif name == "write" and write is not None:
                write(expanded(argument))
            elif name == "read":
                environ["wsgi.input"].read(argument)
            elif name == "yield":
                yield expanded(argument)
            elif name == "raise":
                raise argument


@FUZZ
@given(METHODS, st.lists(BODIES, min_size=1, max_size=3), WSGI_STEPS, st.booleans(), mostly(st.lists(BODIES), ANYTHING))
def test_any_wsgi_app(method: str, blocks: list[bytes], steps: list[Any], late: bool, returned: Any) -> None:
    """The ASGI server gets messages that follow the spec, or an error that says who broke which rule."""
    app = WSGIToASGI(WSGIScript(steps, late, returned), workers=1)
    state, length = "nothing sent", math.inf

    async def serve() -> list[Any]:
        return (await request(app, http_scope(method), *map(expanded, blocks))).sent

    try:
        sent = anyio.run(serve)
    except (BridgeError, TypeError, AppError, OSError, RuntimeError, StopIteration):
        return
    for message in sent:
        state = next_state(RESPONSE, state, event_from_message(message))
        if message["type"] == "http.response.start":
            length = float(dict(message["headers"]).get(b"content-length", b"inf"))
    assert state == DONE
    body = sum(len(message.get("body", b"")) for message in sent)
    assert body <= length


@FUZZ
@given(SCOPES, st.lists(BODIES, min_size=1, max_size=3))
def test_any_scope(scope: Scope, blocks: list[bytes]) -> None:
    """The app gets an environ that follows PEP 3333 and answers, or the adapter refuses the request."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        body: bytes = environ["wsgi.input"].read(-1)
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    async def serve() -> None:
        server = await request(
            WSGIToASGI(validator(app)), {**http_scope(), **scope, "type": "http"}, *map(expanded, blocks)
        )
        assert server.status in (200, 400)
        assert server.status == 400 or scope["method"] == "HEAD" or server.body == b"".join(map(expanded, blocks))

    anyio.run(serve)


@FUZZ
@given(SPOILED_SCOPES)
def test_any_value_in_a_scope(scope: Scope) -> None:
    """The app or the adapter answers, or the adapter raises that the server broke the ASGI spec."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"hello"]

    try:
        server = anyio.run(request, WSGIToASGI(app), {**scope, "type": "http"})
    except BridgeError:
        return
    assert server.status in (200, 400)
