"""The server's objects are used only during its call, because uWSGI empties its environ and fills it again."""

import threading

import anyio
import pytest

from bridge import ASGIToWSGI
from bridge.types import Environ, Receive, Scope, Send
from tests.asgi_to_wsgi.apps import Adapt
from tests.asgi_to_wsgi.http.apps import body, start, until
from tests.fakes import WSGIServer, http_environ, in_thread


def serve_as_uwsgi(adapter: ASGIToWSGI, environ: Environ, next_environ: Environ) -> WSGIServer:
    """Serve a request; then use its environ for the next one."""
    server = WSGIServer(adapter, environ)
    in_thread(server.run)
    environ.clear()
    environ.update(next_environ)
    return server


def test_a_background_task_finds_its_own_environ(adapt: Adapt) -> None:
    """scope["wsgi_environ"] stays that of its request while the server serves the next one."""
    served, done = threading.Event(), threading.Event()
    found: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"hello"))
        await until(served)
        found.append(scope["wsgi_environ"]["HTTP_COOKIE"])
        done.set()

    environ = http_environ(HTTP_COOKIE="user=first")
    assert serve_as_uwsgi(adapt(app), environ, http_environ(HTTP_COOKIE="user=second")).body == b"hello"
    served.set()
    assert done.wait(5)
    assert found == ["user=first"]


@pytest.mark.parametrize("leaves", [False, True], ids=["stays", "leaves"])
def test_nothing_is_asked_of_the_server_after_its_call(adapt: Adapt, leaves: bool) -> None:
    """wsgi.input, start_response and wsgi.early_hints are not used after the call, even if the app asks for them."""
    served, done = threading.Event(), threading.Event()
    touched: list[str] = []

    class Input:
        def read(self, size: int) -> bytes:
            if served.is_set():
                touched.append("wsgi.input")
            return b"x" * size

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(start())
        await send(body(b"hello", leaves))
        await until(served)
        with anyio.move_on_after(0.05):
            await receive()
        for message in (start(), body(b"more", True), {"type": "http.response.early_hint", "links": [b"</a>"]}):
            try:
                await send(message)
            except OSError:
                pass
        done.set()

    def early_hints(headers: object) -> None:
        touched.append("wsgi.early_hints")

    environ = http_environ(
        "POST", **{"wsgi.early_hints": early_hints, "CONTENT_LENGTH": "1000000", "wsgi.input": Input()}
    )
    server = WSGIServer(adapt(app), environ)

    def run() -> None:
        assert next(server.call()) == b"hello"
        server.close()
        environ.clear()
        served.set()

    in_thread(run)
    assert done.wait(5)
    assert touched == []
    assert len(server.starts) == 1
