"""The private loop of an adapter, as threads and processes share it."""

from typing import Any

import pytest

from bridge import AdapterClosed, ASGIToWSGI
from bridge.asgi_to_wsgi import runner
from bridge.asgi_to_wsgi.loop import LoopThread
from bridge.types import Receive, Scope, Send
from tests.fakes import respond
from tests.processes import wait_until


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hello"})


def test_a_close_that_comes_just_before_a_start_prevents_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a start went on after such a close, nobody would ever end the loop."""
    made: list[LoopThread] = []
    adapter = ASGIToWSGI(hello, lifespan="off")

    class Closing(LoopThread):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(self)
            adapter.close()

    monkeypatch.setattr(runner, "LoopThread", Closing)
    with pytest.raises(AdapterClosed):
        respond(adapter)
    assert [loop_thread._thread.ident for loop_thread in made] == [None]


def test_a_fork_s_copy_does_not_stop_its_parent_s_loop() -> None:
    """A forked child shares the descriptor that wakes the parent's loop, but must not stop that loop."""
    with ASGIToWSGI(hello, lifespan="off") as adapter:
        private_loop = adapter._private_loop.get()
        pid, private_loop._pid = private_loop._pid, -1  # as in a forked child
        assert private_loop.stop() is None
        private_loop.begin_to_stop(0)
        private_loop._pid = pid
        assert respond(adapter).body == b"hello"


def test_a_start_that_is_interrupted_leaves_no_loop_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a watchdog's exception lands just after the start, nobody would refer to the loop and end it."""
    made: list[LoopThread] = []

    class Interrupted(LoopThread):
        def start(self) -> None:
            super().start()
            made.append(self)
            if len(made) == 1:
                raise TimeoutError("from without")

    monkeypatch.setattr(runner, "LoopThread", Interrupted)
    adapter = ASGIToWSGI(hello, lifespan="off")
    with pytest.raises(TimeoutError, match="from without"):
        adapter.start()
    wait_until(lambda: made[0].ended)
    assert respond(adapter).body == b"hello"
    adapter.close()
