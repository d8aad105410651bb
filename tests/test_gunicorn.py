"""The hooks of `bridge.gunicorn` in real gunicorns. The apps write to stdout what happens to them."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import free_port, serving, wait_until

APP = """
import asyncio, os, sys
from bridge import ASGIToWSGI

def say(text):
    os.write(1, f"<{text}>\\n".encode())  # in one piece, as the log goes there, too

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        if os.environ.get("FAILS"):
            await send({"type": "lifespan.startup.failed", "message": "Traceback (most recent call last): ..."})
            raise RuntimeError("no database")
        say("startup")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        say("shutdown")
        await send({"type": "lifespan.shutdown.complete"})
        return
    media_type = b"text/event-stream" if scope["path"] == "/events" else b"text/plain"
    if scope["path"] == "/late":
        await asyncio.sleep(0.3)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", media_type)]})
    try:
        await send({"type": "http.response.body", "body": b"begun", "more_body": scope["path"] in STREAMS})
        if scope["path"] in STREAMS:
            await receive()
            await receive() if scope["path"] == "/events" else await asyncio.sleep(600)
    finally:
        say(f"end of {scope['path']}")

STREAMS = ("/events", "/stream")
wsgi_app = ASGIToWSGI(app, detach=os.environ.get("DETACH", "off"))

def within(environ, start_response):  # as other apps and middleware hold an adapter
    return wsgi_app(environ, start_response)

def broken():
    raise ImportError("no such app")
"""
# Braces are doubled, because `serving` fills in the port.
ACCESS_FORMAT = "[%(h)s] %(r)s %(s)s %(B)s %({{x-test}}i)s %({{content-type}}o)s %({{wsgi.url_scheme}}e)s"
HOOKS = "from bridge.gunicorn import post_worker_init, worker_exit"
GTHREAD = ("-k", "gthread", "--threads", "4")
WORKERS = {
    "gthread": GTHREAD,
    "sync": ("-k", "sync"),
    "gthread-preload": (*GTHREAD, "--preload"),
    "gevent": ("-k", "gevent"),
}


def command(folder: Path, *options: str) -> list[str]:
    """Return gunicorn's command line, with the hooks and the app above in `folder`."""
    (folder / "app.py").write_text(APP)
    (folder / "gunicorn.conf.py").write_text(HOOKS)
    return ["{python}", "-m", "gunicorn", "--bind", "127.0.0.1:{port}", *options]


def output_of_a_failure(folder: Path, app: str, **env: str) -> str:
    """Run a gunicorn that cannot boot, and return its output."""
    argv = [part.format(python=sys.executable, port=free_port()) for part in command(folder, app)]
    result = subprocess.run(
        argv,
        cwd=folder,
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=20,
        check=False,
    )
    assert result.returncode == 3, result.stdout  # the master has given up
    return result.stdout


@pytest.mark.parametrize("options", WORKERS.values(), ids=WORKERS)
@pytest.mark.parametrize("path", ["/events", "/stream"])
def test_the_hooks_end_a_worker_in_order(tmp_path: Path, options: tuple[str, ...], path: str) -> None:
    """The app starts with the worker; at SIGTERM its streams end or are cut, and it shuts down in time."""
    if "gevent" in options:
        pytest.importorskip("gevent")
    grace = 30 if path == "/events" else 5
    argv = command(tmp_path, *options, "--graceful-timeout", str(grace), "app:within")
    with serving(argv, cwd=tmp_path, env={"XDG_RUNTIME_DIR": str(tmp_path)}) as server:
        wait_until(lambda: "<startup>" in server.output())
        with server.connect() as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: example\r\n\r\n".encode())
            received = b""
            while b"begun" not in received:
                received += connection.recv(65536)
            seconds = server.stop()
            with contextlib.suppress(ConnectionResetError):
                while block := connection.recv(65536):
                    received += block
        assert received.endswith(b"0\r\n\r\n") == (path == "/events"), received
        ends = [line for line in server.output().splitlines() if line.startswith("<")]
        assert ends == ["<startup>", f"<end of {path}>", "<shutdown>"]
        assert seconds < 15  # an event stream ends at once, and another stream is cut before gunicorn's timeout


@pytest.mark.parametrize("kind", ["gthread", "sync", "gthread-preload"])
def test_the_hooks_log_detached_responses(tmp_path: Path, kind: str) -> None:
    """Each request has one line in gunicorn's access log, in gunicorn's format, with what its client got."""
    argv = command(tmp_path, *WORKERS[kind], "--access-logfile", "-", "--access-logformat", ACCESS_FORMAT)
    env = {"XDG_RUNTIME_DIR": str(tmp_path), "DETACH": "auto"}
    with serving([*argv, "app:within"], cwd=tmp_path, env=env) as server:
        wait_until(lambda: "<startup>" in server.output())
        for path in ("/?at=once", "/late?secret=no"):
            assert server.client.get(path, headers={"X-Test": "yes"}).text == "begun"
        with server.connect() as connection:
            connection.sendall(b"GET /events HTTP/1.1\r\nHost: example\r\nConnection: close\r\n\r\n")
            received = b""
            while b"begun" not in received:
                received += connection.recv(65536)
        wait_until(lambda: server.output().count("[127.0.0.1]") == 3, what="three lines")
        server.stop()
        lines = [line for line in server.output().splitlines() if line.startswith("[127.0.0.1]")]
        assert lines == [
            "[127.0.0.1] GET /?at=once HTTP/1.1 200 5 yes text/plain http",
            "[127.0.0.1] GET /late?secret=no HTTP/1.1 200 5 yes text/plain http",
            "[127.0.0.1] GET /events HTTP/1.1 200 5 - text/event-stream http",
        ]


def test_a_worker_whose_app_fails_to_start_tells_so_once(tmp_path: Path) -> None:
    """The log has one traceback, that of the app."""
    output = output_of_a_failure(tmp_path, "app:within", FAILS="yes")
    assert output.count("Traceback") == 1
    assert output.count("RuntimeError: no database") == 2  # the message, and the end of its traceback


def test_a_worker_that_fails_to_boot_has_no_second_traceback(tmp_path: Path) -> None:
    """If a worker fails before there is an app to close, only gunicorn reports it."""
    assert output_of_a_failure(tmp_path, "app:broken()").count("Traceback") == 1
