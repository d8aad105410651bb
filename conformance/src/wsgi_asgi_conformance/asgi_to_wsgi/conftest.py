import functools
from collections.abc import Iterator
from typing import Any

import pytest

from wsgi_asgi_conformance.adapters import deadline_for, is_thorough, load_adapter, takes
from wsgi_asgi_conformance.asgi_to_wsgi.websocket_client import Connect, connecting, offers_websockets
from wsgi_asgi_conformance.exchange import in_thread
from wsgi_asgi_conformance.types import ASGIApp, WSGIApp
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIServer

DIRECTION = "asgi_to_wsgi"
OFFERED = pytest.StashKey[bool]()  # whether the adapter offers WebSockets


@pytest.fixture
def adapt(pytestconfig: pytest.Config) -> Iterator[ToWSGI]:
    """The adapter's class, called with an ASGI app, and with options where the test is about one.

    An adapter with a close() is closed after the test. It is told to be quick, if it has an option for that.
    """
    adapter = load_adapter(pytestconfig, DIRECTION)
    made: list[Any] = []

    def make(app: ASGIApp, **options: object) -> WSGIApp:
        if takes(adapter, "shutdown_timeout"):
            options.setdefault("shutdown_timeout", 1.0)
        made.append(adapter(app, **options))
        closable: WSGIApp = made[-1]
        return closable

    yield make
    for closable in made:
        if hasattr(closable, "close"):
            try:
                in_thread(closable.close, deadline_for(pytestconfig))
            except Exception:
                if is_thorough(pytestconfig):
                    raise


@pytest.fixture
def adapt_for_files(adapt: ToWSGI, pytestconfig: pytest.Config) -> ToWSGI:
    """`adapt`, with http.response.pathsend offered by an adapter that has an option for that."""
    has_option = takes(load_adapter(pytestconfig, DIRECTION), "pathsend")
    return functools.partial(adapt, pathsend=True) if has_option else adapt


@pytest.fixture
def serve(adapt: ToWSGI, pytestconfig: pytest.Config) -> Iterator[WSGIServer]:
    """A WSGI server. Its requests end with the test, before the adapters are closed."""
    thorough = is_thorough(pytestconfig)
    server = WSGIServer(deadline_for(pytestconfig), strict=thorough)
    yield server
    server.close()
    if thorough:
        server.check_starts()


@pytest.fixture
def connect(adapt: ToWSGI, serve: WSGIServer, pytestconfig: pytest.Config) -> Iterator[Connect]:
    """Starts a WebSocket with an app and variables of the environ; skips the test if the adapter has no WebSockets."""
    if OFFERED not in pytestconfig.stash:
        pytestconfig.stash[OFFERED] = is_thorough(pytestconfig) or offers_websockets(adapt, serve)
    if not pytestconfig.stash[OFFERED]:
        pytest.skip("WebSockets are not offered")
    with connecting(adapt, serve) as connect:
        yield connect
