"""Fixtures of a WSGI app's WebSockets."""

import gc
import threading
import time
from collections.abc import Iterator

import pytest

from tests.wsgi_to_asgi.websocket.apps import app_threads


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Check that no test leaves a thread or an open socket."""
    threads = set(threading.enumerate())
    yield
    gc.collect()
    deadline = time.monotonic() + 5
    while left := [thread for thread in app_threads() if thread not in threads]:
        assert time.monotonic() < deadline, left
        time.sleep(0.001)
