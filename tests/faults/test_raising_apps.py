"""Apps that raise at every point: the client gets a 500, a cut response or a whole one, and the next one is served."""

import http.client
from collections.abc import Callable

import pytest

from tests.faults import asgi_app, wsgi_app
from tests.faults.clients import Idle, ask, wait_until_idle
from tests.faults.conftest import Kind
from tests.processes import Server

MODULES = {"wsgi_app": wsgi_app, "asgi_app": asgi_app}


def paths(server_kind: Kind, views: str) -> list[str]:
    """Return the paths of the apps of one kind."""
    found: list[Callable[..., object]] = getattr(MODULES[server_kind.app], views)
    return [f"/{view.__name__}" for view in found]


def test_raising_before_the_response(server: Server, server_kind: Kind, idle: Idle) -> None:
    """The client gets a 500 and the log the error, whatever the app raises and whatever the request holds."""
    for path in paths(server_kind, "RAISE_BEFORE"):
        for body in (None, b"body", b"x" * 100_000):
            before = len(server.output())
            if server_kind.answers_errors:
                assert ask(server, path, 1, body).status == 500, path
            else:
                with pytest.raises(ConnectionError):
                    ask(server, path, 1, body)
            assert "Traceback" in server.output()[before:], path
            assert ask(server, "/hello", 2) == (200, "2", b"hello")
    wait_until_idle(server, idle)


def test_raising_within_the_response(server: Server, server_kind: Kind, idle: Idle) -> None:
    """The client can tell that its response is cut off."""
    for path in paths(server_kind, "RAISE_WITHIN"):
        if not server_kind.takes_chunks and path in ("/raise_in_chunks", "/leave_unfinished"):
            continue  # any end of the connection looks like the end of the response
        for body in (None, b"body"):
            with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                ask(server, path, 1, body)
            assert ask(server, "/hello", 2) == (200, "2", b"hello")
    wait_until_idle(server, idle)


def test_raising_behind_the_response(server: Server, server_kind: Kind, idle: Idle) -> None:
    """The client has its whole response, and the error does not reach it."""
    for path in paths(server_kind, "RAISE_BEHIND"):
        for body in (None, b"body"):
            assert ask(server, path, 3, body) == (200, "3", b"whole"), path
            assert ask(server, "/hello", 2) == (200, "2", b"hello")
    wait_until_idle(server, idle)
