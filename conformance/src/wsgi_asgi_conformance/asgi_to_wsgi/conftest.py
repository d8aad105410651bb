import functools
from collections.abc import Iterator
from typing import Any

import pytest

from bridge.types import ASGIApp, WSGIApp
from tests.conformance.asgi_to_wsgi.websocket_client import Connect, connecting, offers_websockets
from tests.conformance.conftest import adapter_name, deadline_for, is_ours, load_adapter
from tests.conformance.wsgi_server import ToWSGI, WSGIServer
from tests.fakes import in_thread

DIRECTION = "asgi_to_wsgi"
OFFERED = pytest.StashKey[bool]()  # whether the adapter offers WebSockets


@pytest.fixture
def adapt(pytestconfig: pytest.Config) -> Iterator[ToWSGI]:
    """The adapter's class, called with an ASGI app, and with options where the test is about one.

    What has a close() is closed after the test; bridge's own within the deadline.
    """
    adapter = load_adapter(pytestconfig, DIRECTION)
    ours = is_ours(adapter_name(pytestconfig, DIRECTION))
    made: list[Any] = []

    def make(app: ASGIApp, **options: object) -> WSGIApp:
        if ours:
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
                if ours:
                    raise


@pytest.fixture
def adapt_for_files(adapt: ToWSGI, pytestconfig: pytest.Config) -> ToWSGI:
    """`adapt`, with http.response.pathsend offered; bridge's own adapter does that where it is asked to."""
    ours = is_ours(adapter_name(pytestconfig, DIRECTION))
    return functools.partial(adapt, pathsend=True) if ours else adapt


@pytest.fixture
def serve(adapt: ToWSGI, pytestconfig: pytest.Config) -> Iterator[WSGIServer]:
    """A WSGI server; its requests end with the test, and before the adapters are closed."""
    strict = is_ours(adapter_name(pytestconfig, DIRECTION))
    server = WSGIServer(deadline_for(pytestconfig), strict)
    yield server
    server.close()
    if strict:
        server.check_starts()


@pytest.fixture
def connect(adapt: ToWSGI, serve: WSGIServer, pytestconfig: pytest.Config) -> Iterator[Connect]:
    """Called with an ASGI app, and variables of the environ, starts a WebSocket; skips where there are none."""
    if OFFERED not in pytestconfig.stash:
        ours = is_ours(adapter_name(pytestconfig, DIRECTION))
        pytestconfig.stash[OFFERED] = ours or offers_websockets(adapt, serve)
    if not pytestconfig.stash[OFFERED]:
        pytest.skip("WebSockets are not offered")
    with connecting(adapt, serve) as connect:
        yield connect
