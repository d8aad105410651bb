import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bridge import ASGIToWSGI

BACKENDS: dict[str, dict[str, Any]] = {
    "asyncio": {},
    "asyncio+uvloop": {"backend_options": {"use_uvloop": True}},
    "trio": {"backend": "trio"},
}


@pytest.fixture(params=BACKENDS)
def adapt(request: pytest.FixtureRequest) -> Iterator[Callable[..., ASGIToWSGI]]:
    """Return a function that creates an adapter, for each loop that users run; it is closed after the test.

    By default it has no lifespan, so that apps need to handle only HTTP."""
    adapters: list[ASGIToWSGI] = []

    def make(app: Any, **options: Any) -> ASGIToWSGI:
        adapters.append(
            ASGIToWSGI(app, **{"lifespan": "off", "shutdown_timeout": 2.0, **BACKENDS[request.param], **options})
        )
        return adapters[-1]

    yield make
    for adapter in adapters:
        adapter.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return a server's socket and its client's."""
    server, client = socket.socketpair()
    server.settimeout(5)
    client.settimeout(5)
    with server, client:
        yield server, client
