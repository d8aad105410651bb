"""Faults that other adapters of this direction have or had, and that no other test covers."""

import logging
import threading
from typing import Any

import pytest

from bridge import ASGIToWSGI
from bridge.types import Receive, Scope, Send
from tests.asgi_to_wsgi.apps import Adapt
from tests.fakes import WSGIServer, http_environ, in_thread, respond


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    more_body = True
    while more_body:
        message = await receive()
        more_body = message.get("more_body", False)
        await send({"type": "http.response.body", "body": message.get("body", b""), "more_body": more_body})


def test_start_response_is_called_before_the_call_returns(adapt: Adapt) -> None:
    """Some servers fail if start_response is called only during iteration, as by an adapter that is a generator."""
    server = WSGIServer(adapt(echo))
    in_thread(server.call)
    assert server.status == "200 OK"
    server.close()


@pytest.mark.parametrize(
    "variables",
    [
        {"PATH_INFO": "/\xff"},
        {"QUERY_STRING": "q=\xe9"},
        {"QUERY_STRING": "q=\u20ac"},
        {"CONTENT_LENGTH": ""},
        {"SERVER_PORT": ""},
        {"SERVER_PROTOCOL": "INCLUDED"},
        {"REMOTE_PORT": None},
        {"REMOTE_PORT": ""},
        {"REMOTE_ADDR": None, "REMOTE_PORT": None},
    ],
    ids=repr,
)
def test_odd_request_is_served(adapt: Adapt, variables: dict[str, Any]) -> None:
    """An unusual request, such as `GET /%FF`, or an environ without optional keys gets a response, not a 500."""
    assert respond(adapt(echo), http_environ("GET", "/", **variables)).status == "200 OK"


def test_large_body_is_not_cut_short(adapt: Adapt) -> None:
    """A body of many MiB arrives whole; another adapter silently drops what does not fit into memory."""
    length = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal length
        more_body = True
        while more_body:
            message = await receive()
            length += len(message["body"])
            more_body = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    respond(adapt(app), http_environ("POST", "/", bytes(20_000_000)))
    assert length == 20_000_000


@pytest.mark.parametrize("use_uvloop", [False, True], ids=["asyncio", "uvloop"])
def test_loop_is_touched_by_its_own_thread_alone(caplog: pytest.LogCaptureFixture, use_uvloop: bool) -> None:
    """No server thread calls methods of the loop that are not thread-safe.

    In debug mode, both loops raise RuntimeError for such calls.
    """
    done = threading.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(10_000), "more_body": True})
        finally:
            done.set()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (endless if scope["path"] == "/endless" else echo)(scope, receive, send)

    def leave() -> None:
        assert len(next(blocks.call())) > 0
        blocks.close()

    with ASGIToWSGI(app, lifespan="off", backend_options={"debug": True, "use_uvloop": use_uvloop}) as adapter:
        content = bytes(range(256)) * 2000
        assert respond(adapter, http_environ("POST", "/", content)).body == content
        blocks = WSGIServer(adapter, http_environ("GET", "/endless"))
        in_thread(leave)
        assert done.wait(5)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
