"""How `ASGIToWSGI` starts and ends with a server's processes, and with the interpreter."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.processes import ROOT, Server, wait_until
from tests.servers.wsgi_client import (
    APP,
    APPS,
    Puppet,
    assert_every_worker_answers,
    end,
    on,
    outcome,
    pid_of,
    request_head,
)
from tests.servers.wsgi_servers import GRACE, KINDS, Kind, gunicorn, running, uwsgi
from tests.sockets import read_all, read_until

ENDED_IN_FLIGHT = ("gunicorn-sync", "gunicorn-gthread", "uwsgi-threads", "werkzeug")


# --- The end --------------------------------------------------------------------------------------


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> Kind:
    chosen: Kind = request.param
    return chosen


@on(where=lambda kind: not kind.variant and kind.name not in ENDED_IN_FLIGHT)
def test_lifespan_ends_with_the_server(kind: Kind) -> None:
    """A process that exits normally runs the app's shutdown."""
    with running(kind, APP) as server:
        end(server)


@on("gunicorn-gthread-preload", "uwsgi-lazy-apps")
def test_killed_worker_is_replaced(kind: Kind) -> None:
    """After a worker was killed, the next one serves requests and exits normally."""
    with running(kind, APP) as server:
        assert_every_worker_answers(kind, server)
        pid = pid_of(server)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{pid}").exists())
        assert pid_of(server) != pid
        end(server)


@on(*ENDED_IN_FLIGHT)
def test_server_ends_with_requests_in_flight(kind: Kind, puppet: Puppet) -> None:
    """An endless stream delays the server's exit by the server's own grace period, and no longer.

    The other servers wait for ever for a thread that runs an app, or for a time of their own.
    """
    with running(kind, APP) as server, server.connect() as connection:
        connection.sendall(request_head(puppet.path))
        puppet.wait()
        puppet.start()
        puppet.send(b"first")
        read_until(connection, b"first")
        puppet.tell("receive")
        assert server.stop() < GRACE + 2
        with pytest.raises((EOFError, ConnectionError)):
            puppet.reply("nothing")


@pytest.mark.parametrize(
    "kind",
    [
        gunicorn("gevent-preload", "-k", "gevent", "--preload", optional="gevent"),
        uwsgi("gevent", "--processes", "1", "--gevent", "20", "--gevent-monkey-patch"),
    ],
    ids=lambda kind: kind.name,
)
def test_gevent_patches_after_the_import(kind: Kind) -> None:
    """An adapter that was imported before gevent patched the process works afterwards."""
    with running(kind, APP) as server:
        assert outcome(server, "/hello", timeout=5) == "hello"
        with ThreadPoolExecutor(5) as clients:
            assert list(clients.map(lambda _: outcome(server, "/slow/0.3", timeout=5), range(5))) == ["slept"] * 5


@on("gunicorn-gthread-preload")
def test_adapter_that_was_started_before_the_fork(kind: Kind) -> None:
    """The master and each worker have lifespans of their own, which begin and end with them."""
    with running(kind, APP, env={"START_AT_IMPORT": "1"}) as server:
        worker = pid_of(server)
        server.stop()
        for pid in (worker, server.process.pid):
            assert f"shutdown of {pid}" in server.output()


def script(code: str, *, env: dict[str, str] | None = None, timeout: float = 5) -> tuple[str, str, float]:
    """Run some lines of Python; return their output, and the seconds from the last line of it to the exit."""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(env or {})},
        bufsize=0,  # otherwise communicate() would miss what was read ahead
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        lines: list[bytes] = []
        left = time.monotonic()
        try:
            for line in process.stdout:
                lines.append(line)
                left = time.monotonic()
                if line == b"leaving\n":
                    break
            rest, errors = process.communicate(timeout=timeout)
        finally:
            process.kill()
        return (b"".join(lines) + rest).decode().replace("\r\n", "\n"), errors.decode(), time.monotonic() - left


IN_FLIGHT = """
import threading
from tests.servers.asgi_apps import wsgi_app
from wsgiref.util import setup_testing_defaults

def request(path, first=lambda: None):
    environ = {"PATH_INFO": path}
    setup_testing_defaults(environ)
    try:
        for block in wsgi_app(environ, lambda *_: None):
            first()
    except Exception as error:
        print(type(error).__name__)
"""


def test_cgi() -> None:
    """A CGI script prints the whole response, shuts the app down, and ends."""
    code = f"from wsgiref.handlers import CGIHandler\nfrom {APPS} import wsgi_app\nCGIHandler().run(wsgi_app)"
    cgi = {"REQUEST_METHOD": "GET", "PATH_INFO": "/hello", "SERVER_NAME": "localhost", "SERVER_PORT": "80"}
    output, errors, seconds = script(code, env={**cgi, "SERVER_PROTOCOL": "HTTP/1.1", "CONTENT_LENGTH": ""})
    assert output.startswith("Status: 200 OK\n")
    assert output.endswith("\n\nhello")
    assert "<shutdown of" in errors
    assert seconds < 2


@pytest.mark.parametrize("first", ["pool", "adapter"])
def test_interpreter_ends_with_a_stream_in_flight(first: str) -> None:
    """The interpreter ends an event stream in a pool's thread properly, whether the adapter or the pool came first."""
    code = (
        IN_FLIGHT
        + """
import concurrent.futures
if FIRST == "pool":
    pool = concurrent.futures.ThreadPoolExecutor()
request("/hello")
if FIRST == "adapter":
    pool = concurrent.futures.ThreadPoolExecutor()
begun = threading.Event()
pool.submit(request, "/ticking", begun.set)
begun.wait()
print("leaving")
"""
    )
    output, errors, seconds = script(f"FIRST = {first!r}\n{code}")
    assert output == "leaving\n"
    assert "<shutdown of" in errors
    assert seconds < 2


def test_interpreter_ends_with_a_server_in_a_thread() -> None:
    """With a wsgiref server in a daemon thread, the app shuts down and the interpreter exits."""
    code = f"""
import threading, urllib.request
from wsgiref.simple_server import make_server
from {APPS} import wsgi_app

server = make_server("127.0.0.1", 0, wsgi_app)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(urllib.request.urlopen(f"http://127.0.0.1:{{server.server_port}}/hello").read())
print("leaving")
"""
    output, errors, seconds = script(code)
    assert output == "b'hello'\nleaving\n"
    assert "<shutdown of" in errors
    assert seconds < 2


def test_interpreter_ends_during_a_startup() -> None:
    """The interpreter does not wait for a startup that hangs and that a request in a pool's thread waits for."""
    code = """
import concurrent.futures, threading
from bridge import ASGIToWSGI
from wsgiref.util import setup_testing_defaults

begun = threading.Event()

async def app(scope, receive, send):
    begun.set()
    await receive()
    await receive()

environ = {}
setup_testing_defaults(environ)
concurrent.futures.ThreadPoolExecutor().submit(ASGIToWSGI(app), environ, lambda *_: None)
begun.wait()
print("leaving")
"""
    _, _, seconds = script(code)
    assert seconds < 2


@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="Python 3.12 starts no threads once it exits")
def test_shutdown_at_the_interpreters_end_may_use_threads() -> None:
    """An app's shutdown can use threads (asyncio.to_thread) at the interpreter's exit."""
    code = """
import asyncio
from bridge import ASGIToWSGI

async def app(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await asyncio.to_thread(print, "closed in a thread")
    await send({"type": "lifespan.shutdown.complete"})

adapter = ASGIToWSGI(app)
adapter.start()
print("leaving")
"""
    output, errors, _ = script(code)
    assert output == "leaving\nclosed in a thread\n", errors


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_request_that_comes_during_the_shutdown(backend: str) -> None:
    """A request whose body is still being read when the app shuts down is refused, and the shutdown is completed."""
    code = f"""
import anyio, io, threading
from bridge import ASGIToWSGI
from wsgiref.util import setup_testing_defaults

reading, shutting_down = threading.Event(), threading.Event()

class SlowInput(io.BytesIO):
    def read(self, size):
        reading.set()
        shutting_down.wait()
        return b"x" * size

async def app(scope, receive, send):
    if scope["type"] == "http":
        print("the app was called")
        return
    await receive()
    await send({{"type": "lifespan.startup.complete"}})
    await receive()
    shutting_down.set()
    await anyio.sleep(0.3)
    print("shut down")
    await send({{"type": "lifespan.shutdown.complete"}})

def request():
    environ = {{"wsgi.input": SlowInput(), "CONTENT_LENGTH": "5"}}
    setup_testing_defaults(environ)
    try:
        adapter(environ, lambda *_: None)
    except Exception as error:
        print(type(error).__name__)

adapter = ASGIToWSGI(app, backend={backend!r})
adapter.start()
thread = threading.Thread(target=request, daemon=True)
thread.start()
reading.wait()
adapter.close()
thread.join(2)
"""
    output, errors, _ = script(code)
    assert sorted(output.splitlines()) == ["AdapterClosed", "shut down"], errors


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_adapter_that_is_closed_while_it_starts(backend: str) -> None:
    """Whenever close() comes, an app that has started is shut down, and its loop ends."""
    code = f"""
import threading, time
from bridge import AdapterClosed, ASGIToWSGI

started = shut_down = 0

async def app(scope, receive, send):
    global started, shut_down
    await receive()
    await send({{"type": "lifespan.startup.complete"}})
    started += 1
    await receive()
    shut_down += 1
    await send({{"type": "lifespan.shutdown.complete"}})

def start(adapter, begun):
    begun.set()
    try:
        adapter.start()
    except AdapterClosed:
        pass

for number in range(100):
    adapter, begun = ASGIToWSGI(app, backend={backend!r}), threading.Event()
    thread = threading.Thread(target=start, args=(adapter, begun))
    thread.start()
    begun.wait()
    time.sleep(number % 20 / 10_000)
    adapter.close()
    thread.join()
deadline = time.monotonic() + 1
while threading.active_count() > 1 and time.monotonic() < deadline:
    time.sleep(0.01)
print(started - shut_down, "not shut down,", threading.active_count() - 1, "threads left")
"""
    output, errors, _ = script(code, timeout=20)
    assert output == "0 not shut down, 0 threads left\n", errors


# --- Memory, threads and files ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def gthread() -> Iterator[Server]:
    """gunicorn's gthread worker, warmed up."""
    with running(KINDS["gunicorn-gthread"], APP) as server:
        yield server


def memory_peak(pid: int) -> int:
    """Return the peak of a process's resident memory, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.mark.slow
def test_memory_does_not_grow_with_the_body(gthread: Server) -> None:
    """1 GiB up and 1 GiB down take the memory of a few blocks."""
    pid = pid_of(gthread)
    gthread.client.post("/total", content=b"x" * 1_000_000)
    before = memory_peak(pid)
    with gthread.connect() as connection:
        connection.sendall(request_head("/total", f"Content-Length: {1 << 30}", "Connection: close", method="POST"))
        block = bytes(1 << 20)
        for _ in range(1024):
            connection.sendall(block)
        assert read_all(connection).endswith(b"%d" % (1 << 30))
    with gthread.connect() as connection:
        connection.sendall(request_head(f"/download/{1 << 14}", "Connection: close"))
        received, buffer = 0, bytearray(1 << 20)
        while size := connection.recv_into(buffer):
            received += size
        assert received > 1 << 30
    assert memory_peak(pid) - before < 32 << 20


@pytest.mark.slow
def test_nothing_is_left_behind(gthread: Server) -> None:
    """After 1,000 requests of all kinds, many of them abandoned, the worker has as many threads and files as before."""
    pid = pid_of(gthread)

    def request(number: int) -> None:
        path, body, sent, answer = (
            ("/hello", 0, 0, b"hello"),
            ("/digest", 100_000, 100_000, b"total"),
            ("/digest", 100_000, 70_000, b""),  # leaves in the middle of the upload
            ("/download/100", 0, 0, b"x"),  # leaves in the middle of the download
            ("/ticking", 0, 0, b"tick"),
            ("/slow/0.1", 0, 0, b""),  # leaves before the response
            ("/raises_in_body", 0, 0, b"start"),
            ("/starlette/thread", 0, 0, b"thread"),
        )[number % 8]
        with gthread.connect() as connection:
            connection.sendall(request_head(path, f"Content-Length: {body}", method="POST" if body else "GET"))
            connection.sendall(b"x" * sent)
            if answer:
                read_until(connection, answer)

    def tasks() -> int:
        return int(gthread.client.get("/tasks").text)

    def counts() -> tuple[int, int]:
        return len(os.listdir(f"/proc/{pid}/task")), len(os.listdir(f"/proc/{pid}/fd"))

    idle = tasks()
    with ThreadPoolExecutor(16) as clients:
        list(clients.map(request, range(200)))
        wait_until(lambda: tasks() == idle)
        threads, files = counts()
        list(clients.map(request, range(1000)))
    wait_until(lambda: tasks() == idle)
    wait_until(lambda: counts()[0] <= threads and counts()[1] <= files, what=f"{threads} threads and {files} files")
