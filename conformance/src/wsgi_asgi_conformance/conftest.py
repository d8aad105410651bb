"""Fixtures of both directions."""

import importlib.util

import pytest

from wsgi_asgi_conformance.loops import Loops

_PEERS = {"httpx": "test_httpx.py", "flask": "wsgi_to_asgi/test_httpx.py"}
# Tests of what clients and frameworks make of an adapter, where these are not installed.
collect_ignore_glob = [f"*{file}" for name, file in _PEERS.items() if importlib.util.find_spec(name) is None]


@pytest.fixture(scope="session")
def loops() -> Loops:
    """The loops that the fakes of ASGI servers run on, which outlive the tests: what hangs may still use them."""
    return Loops()
