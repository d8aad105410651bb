import asyncio
import functools
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

import anyio
import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.adapters import adapter_name, deadline_for
from wsgi_asgi_conformance.asgi_server import ToASGI
from wsgi_asgi_conformance.exchange import in_thread
from wsgi_asgi_conformance.processes import child_environ
from wsgi_asgi_conformance.types import ASGIApp, Environ, StartResponse

BODY = b"0123456789" * 10_000


@pytest.fixture
def deadline(pytestconfig: pytest.Config) -> float:
    """How long a server or a process may take, including its start."""
    return 4 * deadline_for(pytestconfig)


def check(response: Any) -> None:
    """Fail unless `response` is the app's answer to the test's request."""
    assert (response.status_code, response.content) == (201, b"/a?b=1 " + BODY)


def by_httpx(adapter: ASGIApp) -> None:
    """Send the request through httpx's transport, without a server."""
    httpx = pytest.importorskip("httpx")

    async def post() -> None:
        transport = httpx.ASGITransport(adapter)
        async with httpx.AsyncClient(transport=transport, base_url="http://example.org") as client:
            check(await client.post("/a?b=1", content=BODY))

    asyncio.run(post())


def by_starlette(adapter: ASGIApp, backend: str) -> None:
    """Send the request through Starlette's test client, without a server."""
    testclient = pytest.importorskip("starlette.testclient")
    check(testclient.TestClient(adapter, backend=backend).post("/a?b=1", content=BODY))


def over_loopback(listener: socket.socket, run: Callable[[], object], stop: Callable[[], object]) -> None:
    """Send the request over HTTP to the server that `run` runs until `stop` is called."""
    httpx = pytest.importorskip("httpx")
    server = threading.Thread(target=run, daemon=True)
    server.start()
    try:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/a?b=1"
        check(httpx.post(url, content=BODY, trust_env=False))
        check(httpx.post(url, content=iter([BODY]), trust_env=False))
    finally:
        stop()
        server.join()


def by_uvicorn(adapter: ASGIApp, http: str) -> None:
    """Send the request to uvicorn."""
    uvicorn = pytest.importorskip("uvicorn")
    pytest.importorskip(http)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(adapter, http=http, loop="asyncio", ws="none", log_config=None))
        stop = functools.partial(setattr, server, "should_exit", True)
        over_loopback(listener, lambda: asyncio.run(server.serve([listener])), stop)


def by_hypercorn(adapter: ASGIApp, backend: str) -> None:
    """Send the request to Hypercorn."""
    config = pytest.importorskip("hypercorn.config").Config()
    serve = pytest.importorskip(f"hypercorn.{backend}").serve
    stopping = threading.Event()

    async def until_stopped() -> None:
        while not stopping.is_set():
            await anyio.sleep(0.005)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        config.bind = [f"fd://{os.dup(listener.fileno())}"]
        run = functools.partial(serve, adapter, config, shutdown_trigger=until_stopped, mode="asgi")
        over_loopback(listener, lambda: anyio.run(run, backend=backend), stopping.set)


def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the path, query and body of the request."""
    body = environ["wsgi.input"].read()
    start_response("201 Created", [("Content-Type", "text/plain")])
    yield f"{environ['PATH_INFO']}?{environ['QUERY_STRING']} ".encode()
    yield body


@clause("CONV-013")
@pytest.mark.parametrize(
    "ask",
    [by_httpx, functools.partial(by_uvicorn, http="h11"), functools.partial(by_uvicorn, http="httptools")],
    ids=["httpx", "uvicorn-h11", "uvicorn-httptools"],
)
def test_servers_take_the_adapter_as_it_is(adapt: ToASGI, ask: Callable[[ASGIApp], None], deadline: float) -> None:
    """Stock servers and test clients serve the adapter like any ASGI app."""
    in_thread(lambda: ask(adapt(app)), deadline)


@clause("CONV-013")
@pytest.mark.parametrize("ask", [by_starlette, by_hypercorn], ids=["starlette", "hypercorn"])
def test_servers_on_either_library_take_the_adapter_as_it_is(
    adapt: ToASGI, ask: Callable[[ASGIApp, str], None], backend: str, deadline: float
) -> None:
    """Servers and test clients that run on asyncio or trio can serve the adapter on either."""
    in_thread(lambda: ask(adapt(app), backend), deadline)


# A process that serves one request, and has a second one running when the loop ends. Arguments: the adapter, the
# backend, what the second request does ("reads" or "writes"), and how it ends ("cancelled", or "dropped" by the loop).
PROCESS = """
import asyncio, importlib, sys, threading, anyio
from wsgi_asgi_conformance.samples import http_scope

module, _, name = sys.argv[1].partition(":")
backend, work, end = sys.argv[2:]
at_work = threading.Event()

def app(environ, start_response):
    start_response("200 OK", [])
    yield b"one"
    if environ["PATH_INFO"] == "/long":
        at_work.set()
        while work == "writes":
            yield b"x" * 65536
        yield environ["wsgi.input"].read()

adapter = getattr(importlib.import_module(module), name)(app)

async def call(path):
    messages = [{"type": "http.request", "body": b"one", "more_body": path == "/long" and work == "reads"}]

    async def receive():
        if not messages:
            if path == "/long" and work == "reads":
                at_work.set()  # for an adapter that reads the body before it calls the app
            await anyio.sleep_forever()
        return messages.pop()

    async def send(message):
        if at_work.is_set():
            await anyio.sleep_forever()

    await adapter(http_scope("POST", path), receive, send)

async def start(tasks):
    await call("/short")
    tasks.start_soon(call, "/long")
    while not at_work.is_set():
        await anyio.sleep(0.001)

async def cancelled():
    async with anyio.create_task_group() as tasks:
        await start(tasks)
        tasks.cancel_scope.cancel()

class Dropped:
    def start_soon(self, function, *args):
        self.task = loop.create_task(function(*args))

if end == "cancelled":
    anyio.run(cancelled, backend=backend)
else:
    loop, dropped = asyncio.new_event_loop(), Dropped()
    loop.run_until_complete(start(dropped))
    loop.close()
print("ended")
"""


@clause("CONV-018")
@pytest.mark.parametrize("work", ["reads", "writes"])
def test_a_process_ends_with_a_request_that_was_cancelled(
    pytestconfig: pytest.Config, backend: str, work: str, deadline: float
) -> None:
    """The interpreter does not wait at exit for a request that was cancelled."""
    run_process(adapter_name(pytestconfig, "wsgi_to_asgi"), backend, work, "cancelled", deadline=deadline)


@clause("CONV-018")
@pytest.mark.parametrize("work", ["reads", "writes"])
def test_a_process_ends_with_a_request_on_a_closed_loop(
    pytestconfig: pytest.Config, work: str, deadline: float
) -> None:
    """The interpreter does not wait at exit for a request whose loop was closed."""
    run_process(adapter_name(pytestconfig, "wsgi_to_asgi"), "asyncio", work, "dropped", deadline=deadline)


def run_process(*arguments: str, deadline: float) -> None:
    """Run PROCESS, which must end by itself."""
    command = [sys.executable, "-c", PROCESS, *arguments]
    done = subprocess.run(command, env=child_environ(), capture_output=True, text=True, timeout=deadline, check=True)
    assert done.stdout == "ended\n"
