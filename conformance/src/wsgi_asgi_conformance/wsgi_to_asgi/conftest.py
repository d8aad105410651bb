from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from wsgi_asgi_conformance.adapters import deadline_for, is_thorough, load_adapter
from wsgi_asgi_conformance.asgi_server import ASGIServer, ToASGI
from wsgi_asgi_conformance.loops import Loops
from wsgi_asgi_conformance.samples import http_scope
from wsgi_asgi_conformance.types import ASGIApp, Environ, StartResponse, WSGIApp

DIRECTION = "wsgi_to_asgi"


@pytest.fixture
def adapt(pytestconfig: pytest.Config) -> ToASGI:
    """A function that makes the adapter for a WSGI app, with options if the test is about one."""
    adapter = load_adapter(pytestconfig, DIRECTION)

    def make(app: WSGIApp, **options: object) -> ASGIApp:
        made: ASGIApp = adapter(app, **options)
        return made

    return make


@pytest.fixture
def serve(adapt: ToASGI, loops: Loops, backend: str, pytestconfig: pytest.Config) -> Iterator[ASGIServer]:
    """An ASGI server on each backend; its connections end with the test."""
    thorough = is_thorough(pytestconfig)
    server = ASGIServer(loops, backend, deadline_for(pytestconfig), strict=thorough)
    yield server
    server.close()
    if thorough:
        server.check_messages()


@pytest.fixture
def environ_for(adapt: ToASGI, serve: ASGIServer) -> Callable[..., Environ]:
    """A function that takes keys of a scope, and names of keys to leave out, and returns the app's environ."""

    def environ_for(*missing: str, **keys: Any) -> Environ:
        environs: list[Environ] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            environs.append(dict(environ))
            start_response("200 OK", [])
            return [b"one"]

        scope = {key: value for key, value in http_scope(**keys).items() if key not in missing}
        connection = serve(adapt(app), scope).finish()
        assert environs, f"the app was not called, and the client got {connection.sent}"
        return environs[0]

    return environ_for
