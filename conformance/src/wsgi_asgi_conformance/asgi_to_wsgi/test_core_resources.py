import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterable
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.adapters import adapter_name
from wsgi_asgi_conformance.apps import http_app
from wsgi_asgi_conformance.asgi_to_wsgi.recording import END, START, block
from wsgi_asgi_conformance.processes import child_environ
from wsgi_asgi_conformance.samples import http_environ
from wsgi_asgi_conformance.types import Environ, Receive, Scope, Send, StartResponse
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIServer

FILES = Path("/proc/self/fd")


class Token:
    """An object in an environ that shows whether the environ still exists."""


@http_app
async def app_of_all_ends(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/tasks":
        await send(START)
        await send({**END, "body": b"%d" % len(anyio.get_running_tasks())})
        return
    await receive()
    if scope["path"] == "/error":
        raise ValueError("no answer")
    await send(START)
    await send(block(b"one"))
    if scope["path"] == "/late-error":
        raise ValueError("no more")
    if scope["path"] == "/endless":
        for _ in range(1000):
            await send(block(bytes(1024)))
            await anyio.lowlevel.checkpoint()
    await send(END)


@clause("CONV-017")
def test_nothing_is_left_of_a_request(adapt: ToWSGI, serve: WSGIServer, caplog: pytest.LogCaptureFixture) -> None:
    """However requests end, afterwards there are as many threads, tasks and files as before, and no environ is left."""
    adapter = adapt(app_of_all_ends)
    tokens: list[weakref.ref[Token]] = []

    def server(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        token = Token()
        tokens.append(weakref.ref(token))
        return adapter({**environ, "server.token": token}, start_response)

    def all_ends() -> None:
        for path in ("/", "/error", "/late-error", "/endless"):
            request = serve(server, http_environ("GET", path), hold_after=1 if path == "/endless" else None)
            if path == "/endless":
                request.until_logged("block").disconnect()
            request.until_ended()
            request.error = None
            request.log.clear()

    def tasks() -> int:
        return int(serve(adapter, http_environ("GET", "/tasks")).finish().body)

    def counts() -> tuple[int, int]:
        return threading.active_count(), len(list(FILES.iterdir())) if FILES.exists() else 0

    all_ends()
    others = serve(adapter).finish()
    before_tasks, before = tasks(), counts()
    for _ in range(5):
        all_ends()
    gc.collect()
    others.until(lambda: not any(token() for token in tokens) or gc.collect() < 0, "the end of all environs")
    others.until(lambda: tasks() <= before_tasks, "the end of all tasks")
    others.until(lambda: all(now <= then for now, then in zip(counts(), before, strict=True)), "the end of all threads")
    assert "was destroyed" not in caplog.text


# Both scripts get the adapter as `module:Class`.
APP = """
import importlib, operator, sys, time
from wsgi_asgi_conformance.samples import http_environ

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for _ in range(2):
            message = await receive()
            print(message["type"], file=sys.stderr, flush=True)
            await send({"type": message["type"] + ".complete"})
        return
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    while scope["path"] == "/endless":
        await send({"type": "http.response.body", "body": bytes(1024), "more_body": True})
    await send({"type": "http.response.body", "body": b"body of the response"})

module, _, name = sys.argv[1].partition(":")
adapter = operator.attrgetter(name)(importlib.import_module(module))(app)
"""

CGI = """
from wsgiref.handlers import CGIHandler
CGIHandler().run(adapter)
"""

ABORTED = """
def start_response(status, headers, exc_info=None):
    pass

assert b"".join(adapter(http_environ(), start_response)) == b"body of the response"
for path in sys.argv[2:]:
    iterable = adapter(http_environ("GET", path), start_response)
    next(iter(iterable))
    iterable.close()
print(time.time())
"""


def run(config: pytest.Config, script: str, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own until it ends."""
    command = [sys.executable, "-c", APP + script, adapter_name(config, "asgi_to_wsgi"), *args]
    return subprocess.run(command, env=child_environ(**env), input="", capture_output=True, text=True, timeout=20)


@clause("CONV-012")
def test_an_adapter_works_in_a_cgi_script(pytestconfig: pytest.Config) -> None:
    """A process with one thread that serves one request writes the whole response, and ends after the lifespan."""
    variables = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/cgi-bin/x", "PATH_INFO": "/", "SERVER_PROTOCOL": "HTTP/1.1"}
    result = run(pytestconfig, CGI, **variables, SERVER_NAME="example.org", SERVER_PORT="80", QUERY_STRING="")
    assert result.returncode == 0
    head, _, body = result.stdout.partition("\n\n")
    assert head.startswith("Status: 200 OK\n")
    assert body == "body of the response"
    assert result.stderr.split() in ([], ["lifespan.startup", "lifespan.shutdown"])


@clause("CONV-018")
@pytest.mark.parametrize("paths", [[], ["/endless"]], ids=["served", "aborted"])
def test_the_interpreter_ends_after_requests(pytestconfig: pytest.Config, paths: list[str]) -> None:
    """The adapter does not keep the process alive, after a complete response or an abandoned one."""
    result = run(pytestconfig, ABORTED, *paths)
    assert result.returncode == 0
    assert time.time() - float(result.stdout) < 5  # 2 by the clause, on a machine that does nothing else
    assert result.stderr.split() in ([], ["lifespan.startup", "lifespan.shutdown"])
