"""The log names a request by its method and path, and tells the status if there was one."""

import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from bridge.asgi_to_wsgi.http import call as call_module
from bridge.asgi_to_wsgi.websocket import handshake as websocket
from bridge.types import Receive, Scope, Send
from tests.asgi_to_wsgi.apps import Adapt
from tests.asgi_to_wsgi.http.apps import answers, body, start, until
from tests.asgi_to_wsgi.websocket.clients import Client, Script, accept
from tests.fakes import WSGIServer, http_environ, in_thread, respond

QUERY: dict[str, Any] = {"QUERY_STRING": "token=secret"}


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def test_starlettes_errors_name_the_request(adapt: Adapt, caplog: pytest.LogCaptureFixture) -> None:
    """Starlette answers 500, and raises the error again."""

    async def boom(request: Request) -> None:
        raise ValueError("oops")

    adapter = adapt(Starlette(routes=[Route("/boom", boom, methods=["POST"])]))
    assert respond(adapter, http_environ("POST", "/boom", **QUERY)).status == "500 Internal Server Error"
    adapter.close()
    assert errors(caplog) == ["POST /boom: the ASGI app raised after it had answered with 500"]
    assert "ValueError: oops" in caplog.text
    assert "secret" not in caplog.text


def test_an_error_that_is_answered_too_late_is_told(
    adapt: Adapt, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Starlette's 500 fails because there is no client, so Starlette does not raise the app's error again."""
    monkeypatch.setattr(call_module, "CLIENT_CHECK", 0.02)
    called, left = threading.Event(), threading.Event()

    async def boom(request: Request) -> None:
        called.set()
        await until(left)
        raise ValueError("oops")

    adapter = adapt(Starlette(routes=[Route("/boom", boom)]))

    def client_has_left() -> bool:
        assert called.wait(5)
        return True

    def run() -> None:
        with pytest.raises(OSError, match="disconnected"):
            adapter(http_environ("GET", "/boom", **{"waitress.client_disconnected": client_has_left}), never_started)
        left.set()

    with caplog.at_level("INFO", "bridge"):
        in_thread(run)
        adapter.close()
    assert [record.getMessage() for record in caplog.records if record.name == "bridge"] == [
        "GET /boom: the client had left before the ASGI app answered an error"
    ]
    assert "ValueError: oops" in caplog.text


def never_started(*args: Any) -> Any:
    raise AssertionError(args)


@pytest.mark.parametrize(
    ("sent", "when"),
    [([], "its client had left"), ([start(404), body(b"one", True)], "its client had left in mid-response (404)")],
    ids=["no response", "a response"],
)
def test_an_error_without_a_client_names_the_request(
    adapt: Adapt, caplog: pytest.LogCaptureFixture, sent: list[Any], when: str
) -> None:
    """The log says how much of the response had been sent."""
    left = threading.Event()

    class Leaves:
        """A wsgi.input whose client leaves."""

        def read(self, size: int) -> bytes:
            return b""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in sent:
            await send(message)
        await receive()
        await until(left)
        raise ZeroDivisionError

    adapter = adapt(app)
    environ = http_environ("PUT", "/a b", **QUERY, **{"CONTENT_LENGTH": "100000", "wsgi.input": Leaves()})

    def run() -> None:
        server = WSGIServer(adapter, environ)
        try:
            for _ in server.call():
                pass
        except OSError:
            pass
        finally:
            server.close()
        left.set()

    in_thread(run)
    adapter.close()
    assert errors(caplog) == [f"PUT /a%20b: the ASGI app raised after {when}"]


def test_a_body_that_is_too_long_names_the_request(adapt: Adapt, caplog: pytest.LogCaptureFixture) -> None:
    """The warning about an app's Content-Length names the request."""
    app = answers(start(200, (b"content-length", b"3")), body(b"hello"))
    assert respond(adapt(app), http_environ("GET", "/long", **QUERY)).body == b"hel"
    (text,) = errors(caplog)
    assert text.startswith("GET /long: the app's body is longer than its Content-Length of 3")


def test_an_error_in_a_websocket_names_the_request(adapt: Adapt, caplog: pytest.LogCaptureFixture) -> None:
    """The error names the WebSocket by its path, because all have the same method."""
    script = Script("receive", accept(), ValueError("oops"))
    adapter = adapt(script)
    with Client(adapter, PATH_INFO="/chat", **QUERY) as client:
        client.open()
    adapter.close()
    assert errors(caplog) == ["WebSocket /chat: the ASGI app raised"]


@pytest.fixture
def without_wsproto(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make imports of wsproto fail."""
    monkeypatch.setitem(sys.modules, "wsproto", None)
    websocket._say_wsproto_is_missing.cache_clear()
    yield
    websocket._say_wsproto_is_missing.cache_clear()


@pytest.mark.usefixtures("without_wsproto")
def test_without_wsproto_a_websocket_is_refused(adapt: Adapt, caplog: pytest.LogCaptureFixture) -> None:
    """One sentence, to the client and once in the log, names the extra that is missing."""
    adapter = adapt(answers())
    for _ in range(2):
        refused = Client(adapter).refused()
        assert refused.status == "501 Not Implemented"
        assert b"pip install 'wsgi-asgi-bridge[websocket]'" in refused.body
    (text,) = errors(caplog)
    assert text.startswith("all WebSockets are refused: ")
    assert "wsgi-asgi-bridge[websocket]" in text


def test_an_error_in_an_apps_own_finally_is_logged(adapt: Adapt, caplog: pytest.LogCaptureFixture) -> None:
    """An error in a `finally` that ClientDisconnected reached is still the app's own."""
    closed = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        try:
            await send(body(b"one", True))
            await until(closed)
            while True:
                await send(body(b"two", True))
        finally:
            raise ValueError("in finally")

    adapter = adapt(app)

    def run() -> None:
        server = WSGIServer(adapter)
        next(server.call())
        server.close()
        closed.set()

    in_thread(run)
    adapter.close()
    assert errors(caplog) == ["GET /: the ASGI app raised after its client had left in mid-response (200)"]
    assert "ValueError: in finally" in caplog.text
