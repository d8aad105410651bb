"""Each event loop closes its file descriptors when it is closed, even if the garbage collector never runs."""

import asyncio
import gc
import os
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from bridge import ASGIToWSGI, WSGIToASGI
from bridge.runtime import running_loop
from bridge.types import Environ, Receive, Scope, Send, StartResponse
from tests.fakes import ASGIServer, ASGIWebSocket, WSGIServer
from tests.processes import wait_until

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not list descriptors"),
    pytest.mark.skipif(bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="free-threaded Python frees later"),
]
MakeLoop = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(params=[asyncio.SelectorEventLoop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def make_loop(request: pytest.FixtureRequest) -> MakeLoop:
    """Create each kind of loop that an eventfd wakes."""
    make: MakeLoop = request.param
    loop = make()  # uvloop's first loop leaves descriptors of its own
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    return make


@pytest.fixture(autouse=True)
def _without_garbage_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def hello(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    yield b"hel"
    yield b"lo"


async def no_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hello"})


def test_a_closed_loop_has_no_descriptor(make_loop: MakeLoop) -> None:
    """A closed loop has closed its descriptors, even if something still refers to the loop."""

    async def main() -> None:
        before = descriptors()
        loop = running_loop()
        assert descriptors() == before + 1
        called = asyncio.Event()
        loop.call_soon(called.set)
        await called.wait()

    before = descriptors()
    loops = [make_loop() for _ in range(3)]
    for loop in loops:
        loop.run_until_complete(main())
        loop.close()
    assert descriptors() <= before


def test_requests_leave_no_descriptor_behind_with_their_loop(make_loop: MakeLoop) -> None:
    """Once the loop is closed, requests and WebSockets have left no descriptor open."""
    adapter = WSGIToASGI(hello)

    async def main() -> None:
        server: Any
        for server in (ASGIServer(adapter), ASGIWebSocket(adapter)):
            await server.run()

    before = descriptors()
    for _ in range(3):
        with asyncio.Runner(loop_factory=make_loop) as runner:
            runner.run(main())
    wait_until(lambda: descriptors() <= before)  # the threads may drop their requests last


@pytest.mark.parametrize("use_uvloop", [False, True])
def test_a_private_loop_leaves_no_descriptor_behind(use_uvloop: bool) -> None:
    """A closed private loop leaves no descriptor open, even if the app has no lifespan and raises."""
    before = descriptors()
    for _ in range(3):
        with ASGIToWSGI(no_lifespan, backend_options={"use_uvloop": use_uvloop}) as adapter:
            WSGIServer(adapter).run()
    del adapter
    wait_until(lambda: descriptors() <= before)
