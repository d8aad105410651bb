"""An adapter in a process that forks, exits, or serves one request by CGI."""

import os
import time

import pytest

from bridge import ASGIToWSGI
from tests.asgi_to_wsgi.apps import hello
from tests.processes import run_script

APPS = """
import anyio, io, os, sys, threading
from bridge import ASGIToWSGI
from tests.fakes import WSGIServer, respond

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        print("startup", os.getpid() == main, flush=True)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("shutdown", os.getpid() == main, flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hello", "more_body": scope["path"] != "/"})
    if scope["path"] != "/":
        await anyio.sleep(60)

main = os.getpid()
adapter = ASGIToWSGI(app)
"""


def test_the_interpreters_exit_waits_for_a_dropped_adapter() -> None:
    """Background work of a dropped adapter ends, and its app shuts down, before the interpreter exits."""
    output = run_script(
        APPS.replace("adapter = ASGIToWSGI(app)", "")
        + """
async def with_background_work(scope, receive, send):
    await app(scope, receive, send)
    if scope["type"] == "http":
        await anyio.sleep(0.3)
        print("background work", flush=True)

assert respond(ASGIToWSGI(with_background_work)).body == b"hello"
"""
    )
    assert output.splitlines() == ["startup True", "background work", "shutdown True"]


def test_cgi_shuts_an_adapter_down_that_it_has_dropped() -> None:
    """CGIHandler().run(ASGIToWSGI(app)) drops the adapter, and its app shuts down each time."""
    script = (
        APPS.replace("adapter = ASGIToWSGI(app)", "")
        + """
from wsgiref.handlers import CGIHandler
os.environ.update(REQUEST_METHOD="GET", SERVER_NAME="x", SERVER_PORT="80", SERVER_PROTOCOL="HTTP/1.1", PATH_INFO="/")
CGIHandler().run(ASGIToWSGI(app))
"""
    )
    for _ in range(5):
        assert run_script(script).endswith("shutdown True\n")


def test_a_fork_starts_its_own_loop_and_lifespan() -> None:
    """An adapter that served before a fork serves after it in both processes, with one lifespan in each."""
    output = run_script(
        APPS
        + """
assert respond(adapter).body == b"hello"
if (pid := os.fork()) == 0:
    assert respond(adapter).body == b"hello"
    adapter.close()
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
assert respond(adapter).body == b"hello"
"""
    )
    assert sorted(output.splitlines()) == ["shutdown False", "shutdown True", "startup False", "startup True"]


def test_the_interpreters_exit_shuts_the_app_down() -> None:
    """Without close() the app is shut down when the interpreter exits."""
    assert run_script(APPS + "respond(adapter)").splitlines() == ["startup True", "shutdown True"]


@pytest.mark.parametrize("daemon", [True, False])
def test_the_interpreter_exits_whatever_is_in_flight(daemon: bool) -> None:
    """Work that never ends does not stop the process from exiting."""
    start = time.monotonic()
    output = run_script(
        APPS
        + f"""
adapter.start()
server = WSGIServer(adapter, dict(respond.__globals__["http_environ"]("GET", "/endless")))
first = threading.Event()
def run():
    blocks = server.call()
    next(blocks)
    first.set()
    try:
        next(blocks)
    except Exception:
        pass
threading.Thread(target=run, daemon={daemon}).start()
assert first.wait(5)
import time
start = time.monotonic()
import atexit
atexit.register(lambda: print(time.monotonic() - start < 2))
"""
    )
    assert output.splitlines() == ["startup True", "shutdown True", "True"]
    assert time.monotonic() - start < 15


@pytest.mark.parametrize("size", [5, 20_000_000], ids=["slow app", "slow client"])
def test_the_interpreters_exit_waits_for_detached_responses(size: int) -> None:
    """They get `shutdown_timeout`, because no server waits for them, and not the grace of other requests."""
    output = run_script(
        f"""
import anyio, threading
from bridge import ASGIToWSGI
from bridge.asgi_to_wsgi import runner
from tests.asgi_to_wsgi.http.detachable import Detachable

runner._EXIT_GRACE = 0.0
exiting = threading.Event()

async def app(scope, receive, send):
    while {size} == 5 and not exiting.is_set():
        await anyio.sleep(0.01)
    await send({{"type": "http.response.start", "status": 200}})
    await send({{"type": "http.response.body", "body": bytes({size})}})

def read():
    exiting.wait()
    status, body = server.read()
    server.client.close()
    print(status, len(body), flush=True)

server = Detachable(ASGIToWSGI(app, detach="always", detach_after=0.001, lifespan="off"))
server.run()
assert server.has_left
threading._register_atexit(exiting.set)  # called before the adapter's own, which was registered earlier
threading.Thread(target=read).start()
"""
    )
    assert output == f"200 {size}\n"


def test_cgi_prints_the_whole_response() -> None:
    """CGI, a server of one request and one thread, gets the response, shuts the app down and exits."""
    output = run_script(
        APPS
        + """
from wsgiref.handlers import CGIHandler
os.environ.update(REQUEST_METHOD="GET", SERVER_NAME="x", SERVER_PORT="80", SERVER_PROTOCOL="HTTP/1.1", PATH_INFO="/")
CGIHandler().run(adapter)
"""
    )
    assert "Status: 200 OK" in output
    assert "hello" in output
    assert output.endswith("shutdown True\n")


def test_another_process_has_another_pid() -> None:
    """Processes are told apart by their pid, so a child must not see its parent's."""
    adapter = ASGIToWSGI(hello, lifespan="off")
    with adapter:
        assert adapter._private_loop.maybe_get() is adapter._private_loop.get()
        assert list(adapter._private_loop._by_pid) == [os.getpid()]
