"""WSGI apps with a WebSocket, in both ways, and a client that serves them."""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import simple_websocket

from bridge import WSGIToASGI
from bridge.types import Environ, StartResponse, WSGIApp
from tests.fakes import ASGIWebSocket, websocket_scope

TEXT = [("Content-Type", "text/plain")]


def ok(start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    return [b"not for the client"]


class SocketServer(simple_websocket.Server):
    """A subclass of the app, which uses the socket."""


def by_simple_websocket(
    talk: Callable[[simple_websocket.Server], None], *, server: type = simple_websocket.Server, **options: Any
) -> WSGIApp:
    """Return an app that uses simple-websocket, as flask-sock does."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        ws = server(environ, **options)
        try:
            talk(ws)
        except simple_websocket.ConnectionClosed:
            pass
        try:
            ws.close()
        except simple_websocket.ConnectionClosed:
            pass
        return ok(start_response)

    return app


def on_socket(talk: Callable[[simple_websocket.Server], None]) -> WSGIApp:
    """Return the same app with a subclass, so that it uses the socket."""
    return by_simple_websocket(talk, server=SocketServer)


def by_object(talk: Callable[[Any], None]) -> WSGIApp:
    """Return an app that uses `wsgi.websocket`, as with gevent-websocket."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        ws = environ["wsgi.websocket"]
        try:
            talk(ws)
        except OSError:
            pass
        ws.close()
        return ok(start_response)

    return app


def write_raw(ws: simple_websocket.Server, frames: bytes) -> None:
    assert ws.sock is not None
    ws.sock.sendall(frames)


def echo(ws: Any) -> None:
    while (message := ws.receive()) is not None:
        ws.send(message)


def never(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    raise AssertionError("the app was called")


SIMPLE = [pytest.param(on_socket, id="socket"), pytest.param(by_simple_websocket, id="simple")]
WAYS = [*SIMPLE, pytest.param(by_object, id="object")]


def app_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "WSGIToASGI WebSocket"]


async def serve(app: WSGIApp, *contents: str | bytes, **keys: Any) -> ASGIWebSocket:
    """Serve a client that sends `contents`, waits for as many answers, and then leaves or waits for the app's close."""
    server = ASGIWebSocket(WSGIToASGI(app), websocket_scope(**keys))
    async with server.running():
        server.feed_content(*contents)
        await server.until_sent(1 + len(contents))
        if contents:
            server.leave(1000)
    return server


def not_found(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("404 Not Found", [*TEXT, ("X-Why", "no route")])
    return [b"no ", b"", b"such room"]


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


_last: dict[str, tuple[int, int]] = {}


def settled(count: Callable[[], int]) -> bool:
    """Return whether `count` stays the same for a while."""
    last, looks = _last.get("count", (-1, 0))
    now = count()
    _last["count"] = (now, looks + 1 if now == last else 0)
    return now == last and looks > 50
