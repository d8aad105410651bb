import asyncio
from collections.abc import Iterator
from typing import Any
from wsgiref.validate import validator

import pytest

from bridge.migration.diff.calls import call_asgi, call_wsgi
from bridge.migration.diff.exchange import LARGEST_BODY, Answer
from bridge.migration.diff.requests import Request
from bridge.types import Environ, Receive, Scope, Send, StartResponse
from tests.fakes import eventually

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the loop of these calls
GET = Request("GET", "/a?b=c")


class Blocks:
    """An iterable that counts the blocks taken from it and the calls of its `close()`."""

    def __init__(self, *blocks: bytes) -> None:
        self.blocks = blocks
        self.taken = self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        for block in self.blocks:
            self.taken += 1
            yield block

    def close(self) -> None:
        self.closed += 1


async def test_a_wsgi_app_is_called_as_pep_3333_says() -> None:
    """With an environ that `wsgiref.validate` accepts, and its iterable is closed."""
    blocks = Blocks(b"one", b"two")
    seen: Environ = {}

    def app(environ: Environ, start_response: StartResponse) -> Any:
        seen.update(environ)
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(b"written ")
        return blocks

    answer = call_wsgi(validator(app), Request("POST", "/a%20b?c=d", (("X-Who", "ada"),), b"body"))
    assert answer == Answer(200, (("Content-Type", "text/plain"),), b"written onetwo")
    assert (seen["PATH_INFO"], seen["QUERY_STRING"], seen["CONTENT_LENGTH"]) == ("/a b", "c=d", "4")
    assert (seen["HTTP_X_WHO"], seen["SERVER_NAME"], seen["SERVER_PORT"]) == ("ada", "localhost", "80")
    assert (seen["wsgi.multithread"], seen["wsgi.multiprocess"], seen["wsgi.run_once"]) == (True, False, False)
    assert blocks.closed == 1


async def test_a_wsgi_app_that_raises_is_closed_and_raises() -> None:
    """A server does the same."""

    class Raising(Blocks):
        def __iter__(self) -> Iterator[bytes]:
            yield b"one"
            raise KeyError

    blocks = Raising()

    def app(environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", [])
        return blocks

    with pytest.raises(KeyError):
        call_wsgi(app, GET)
    assert blocks.closed == 1


async def test_a_head_has_no_body_and_its_length_may_be_that_of_a_get() -> None:
    """Servers drop the body of an answer to HEAD."""

    def app(environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", [("Content-Length", "4")])
        return [b"body"]

    async def asgi_app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"body"})

    head = Request("HEAD", "/")
    assert call_wsgi(app, head)[2:] == (b"", False, "")
    assert (await call_asgi(asgi_app, head, {}))[2:] == (b"", False, "")


async def test_no_more_than_a_mebibyte_is_taken() -> None:
    """The app is not asked for the rest, or is cancelled."""
    blocks = Blocks(*[b"x" * (LARGEST_BODY // 2)] * 5)
    cancelled = False

    def app(environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", [])
        return blocks

    async def asgi_app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal cancelled
        await send({"type": "http.response.start", "status": 200})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            cancelled = True
            raise

    answer = call_wsgi(app, GET)
    assert (len(answer.body), answer.cut) == (LARGEST_BODY, True)
    assert (blocks.taken, blocks.closed) == (3, 1)
    answer = await call_asgi(asgi_app, GET, {})
    assert (len(answer.body), answer.cut) == (LARGEST_BODY, True)
    await eventually(lambda: cancelled)


async def test_an_app_without_a_response_has_answered_500() -> None:
    """The fault tells which, in words that have no value of the app's."""

    def silent(environ: Environ, start_response: StartResponse) -> Any:
        return []

    async def asgi_silent(scope: Scope, receive: Receive, send: Send) -> None: ...

    async def half(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})

    async def no_start(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.body"})

    async def raising(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("a secret")

    assert call_wsgi(silent, GET) == Answer(500, (), b"", fault="the app did not call start_response")
    for app in (asgi_silent, half, no_start):
        assert await call_asgi(app, GET, {}) == Answer(500, (), b"", fault="no whole response")
    assert await call_asgi(raising, GET, {}) == Answer(500, (), b"", fault="the app raised KeyError")


async def test_an_asgi_app_hears_and_says_all_of_a_request() -> None:
    """It has the body, blocks with and without the keys that may be left out, and a disconnect once it has answered."""
    events: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        events.append(scope["state"])
        events.append(await receive())
        await send({"type": "http.response.start", "status": 201, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "more_body": True})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"two"})
        events.append(await receive())
        await asyncio.sleep(0)
        events.append("background")

    answer = await call_asgi(app, Request("POST", "/", (), b"body"), {"name": "ada"})
    assert answer == Answer(201, (("a", "b"),), b"onetwo")
    assert events == [
        {"name": "ada"},
        {"type": "http.request", "body": b"body", "more_body": False},
        {"type": "http.disconnect"},
        "background",
    ]
