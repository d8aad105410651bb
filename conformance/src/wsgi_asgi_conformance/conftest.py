"""Fixtures for the tests of adapters and of servers."""

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import pytest

from wsgi_asgi_conformance.adapters import adapter_name, deadline_for, maybe_subject
from wsgi_asgi_conformance.loops import Loops
from wsgi_asgi_conformance.plugin import FAILED
from wsgi_asgi_conformance.serving import RunningServer, running

_PEERS = {"httpx": "test_httpx.py", "flask": "wsgi_to_asgi/test_httpx.py"}
# These tests run clients and frameworks against an adapter; they need packages that may not be installed.
collect_ignore_glob = [f"*{file}" for name, file in _PEERS.items() if importlib.util.find_spec(name) is None]


@pytest.fixture(scope="session")
def loops() -> Loops:
    """The loops that the fake ASGI servers run on. They outlive tests, because a hung call may still use them."""
    return Loops()


# Starts a server for one test; the arguments are what differs from the shared one, such as the app's lifespan.
Start: TypeAlias = Callable[..., AbstractContextManager[RunningServer]]


class _Shared:
    """The server that tests share until one of them fails on it."""

    def __init__(self) -> None:
        self.server: RunningServer | None = None
        self.subject = ""
        self._stack = contextlib.ExitStack()

    def get(self, subject: str, start: Start) -> RunningServer:
        if self.server is None or self.subject != subject or self.server.process.poll() is not None:
            self.close()
            self.server = self._stack.enter_context(start())
            self.subject = subject
        return self.server

    def close(self) -> None:
        self.server = None
        self._stack.close()


@pytest.fixture(scope="session")
def shared_server() -> Iterator[_Shared]:
    """The holder of the server that the tests of a folder share."""
    shared = _Shared()
    yield shared
    shared.close()


@pytest.fixture
def start(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Start:
    """A function that starts a server for this test alone."""
    subject = str(maybe_subject(request.path))

    def start(attribute: str = "app", **how: Any) -> AbstractContextManager[RunningServer]:
        app = f"{__package__}.{subject}.app:{attribute}"
        return running(adapter_name(pytestconfig, subject), app, deadline_for(pytestconfig), **how)

    return start


@pytest.fixture
def server(request: pytest.FixtureRequest, shared_server: _Shared, start: Start) -> Iterator[RunningServer]:
    """A running server, replaced after each failed test, which may have left it stuck."""
    server = shared_server.get(str(maybe_subject(request.path)), start)
    yield server
    server.hang_up()
    if request.node.stash.get(FAILED, False):
        shared_server.close()
