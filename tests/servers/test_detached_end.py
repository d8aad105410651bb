"""The end of a worker that has detached responses, on real servers.

The apps of its event streams are told at once. A response that the app has yet to send arrives whole, although the
server knows nothing of it. Then the app shuts down.
"""

import importlib.util
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.processes import Server, serving, wait_until
from tests.servers.wsgi_servers import KINDS
from tests.sockets import read_all, read_until

APP = """
import logging, os, anyio
from bridge import ASGIToWSGI

logging.basicConfig()
logging.getLogger("bridge").setLevel(logging.DEBUG)  # says which response has left its thread

def say(text):
    os.write(1, f"<{text}>\\n".encode())  # in one piece, as the log goes there, too

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        say("startup")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        say("shutdown")
        await send({"type": "lifespan.shutdown.complete"})
        return
    media_type = b"text/event-stream" if scope["path"] == "/events" else b"text/plain"
    if scope["path"] == "/slow":
        say("slow")
        while not os.path.exists("gate"):
            await anyio.sleep(0.01)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", media_type)]})
    if scope["path"] == "/events":
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await receive()
        await receive()
        say("events told")
    await send({"type": "http.response.body", "body": b"done"})

wsgi_app = ASGIToWSGI(app, detach="auto", shutdown_timeout=30)
"""
HOOKS = "from bridge.gunicorn import post_worker_init, worker_exit"
GUNICORN = ("{python}", "-m", "gunicorn", "--bind", "127.0.0.1:{port}", "--graceful-timeout", "70", "--timeout", "80")
UWSGI = KINDS["uwsgi-lazy-apps"].command[:5]  # the program, its address and its environment
slow = pytest.mark.slow


class Case(NamedTuple):
    """A server, how its worker ends, and whether another one replaces it."""

    command: tuple[str, ...]
    end: str  # "SIGTERM", "SIGHUP" or "requests"
    module: str | None = None  # the module without which it is skipped

    @property
    def replaced(self) -> bool:
        return self.end != "SIGTERM"


def gunicorn(end: str, *options: str) -> Case:
    limit = ("--max-requests", "3") if end == "requests" else ()
    return Case((*GUNICORN, *options, *limit, "app:wsgi_app"), end)


def uwsgi(end: str, *options: str) -> Case:
    """Return a case of uWSGI. Its reload mercy is how long it waits for a worker to end by itself."""
    command = (
        *UWSGI,
        "--master",
        "--need-app",
        "--die-on-term",
        "--threads",
        "4",
        "--worker-reload-mercy",
        "70",
        *options,
    )
    if end == "requests":
        command += ("--max-requests", "3", "--min-worker-lifetime", "0")
    return Case((*command, "--module", "app:wsgi_app"), end, "uwsgidecorators")


def script(name: str, closes_first: bool = False) -> Case:
    """Return a case of a server in a script that exits on SIGTERM; the documented way is to close the adapter first."""
    kind = KINDS[name]
    code = kind.command[-1].format(module="app", attribute="wsgi_app", port="{port}")
    if closes_first:
        assert "sys.exit()" in code
        code = code.replace("sys.exit()", "(app.close(wait=False), sys.exit())")
    return Case(("{python}", "-c", code), "SIGTERM", kind.optional)


GTHREAD = ("-k", "gthread", "--threads", "4")
CASES: dict[str, tuple[Case, Any]] = {
    "gthread": (gunicorn("SIGTERM", *GTHREAD), slow),
    "gthread, hooks": (gunicorn("SIGTERM", *GTHREAD, "-c", "hooks.py"), ()),
    "gthread, hooks, preload": (gunicorn("SIGTERM", *GTHREAD, "-c", "hooks.py", "--preload"), slow),
    "gthread, hooks, reload": (gunicorn("SIGHUP", *GTHREAD, "-c", "hooks.py"), ()),
    "gthread, reload": (gunicorn("SIGHUP", *GTHREAD), slow),
    "gthread, hooks, preload, reload": (gunicorn("SIGHUP", *GTHREAD, "-c", "hooks.py", "--preload"), slow),
    "gthread, hooks, max-requests": (gunicorn("requests", *GTHREAD, "-c", "hooks.py"), slow),
    "gthread, max-requests": (gunicorn("requests", *GTHREAD), slow),
    "sync": (gunicorn("SIGTERM", "-k", "sync"), slow),
    "sync, hooks": (gunicorn("SIGTERM", "-k", "sync", "-c", "hooks.py"), ()),
    "sync, hooks, reload": (gunicorn("SIGHUP", "-k", "sync", "-c", "hooks.py"), slow),
    "sync, hooks, max-requests": (gunicorn("requests", "-k", "sync", "-c", "hooks.py"), slow),
    "uwsgi": (uwsgi("SIGTERM"), ()),
    "uwsgi, lazy-apps": (uwsgi("SIGTERM", "--lazy-apps"), slow),
    "uwsgi, reload": (uwsgi("SIGHUP"), slow),
    "uwsgi, lazy-apps, reload": (uwsgi("SIGHUP", "--lazy-apps"), slow),
    "uwsgi, max-requests": (uwsgi("requests"), slow),
    "waitress": (script("waitress"), slow),
    "waitress, close first": (script("waitress", closes_first=True), ()),
    "cheroot": (script("cheroot"), slow),
    "cheroot, close first": (script("cheroot", closes_first=True), slow),
    "werkzeug": (script("werkzeug"), slow),
    "wsgiref": (script("wsgiref"), slow),
}


def request(server: Server, path: str) -> bytes:
    """Return all that the server sends in answer to a request."""
    with server.connect() as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n".encode())
        return read_all(connection)


@pytest.mark.parametrize("case", [pytest.param(case, marks=marks, id=name) for name, (case, marks) in CASES.items()])
def test_a_worker_ends_with_its_detached_responses(case: Case, tmp_path: Path) -> None:
    """The event stream ends while the other response still waits; that one is whole; the app shuts down last."""
    if case.module is not None and importlib.util.find_spec(case.module) is None:
        pytest.skip(f"{case.module} is not installed")
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "hooks.py").write_text(HOOKS)
    env = {"XDG_RUNTIME_DIR": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    with (
        serving(case.command, cwd=tmp_path, env=env) as server,
        ThreadPoolExecutor(1) as clients,
        server.connect() as events,
    ):
        events.sendall(b"GET /events HTTP/1.1\r\nHost: example.org\r\n\r\n")
        received = read_until(events, b"begun")
        slow_response = clients.submit(request, server, "/slow")
        wait_until(lambda: server.output().count("leaves its WSGI thread") == 2, what="both to leave")
        if case.end == "requests":
            assert b"done" in request(server, "/")
        else:
            server.process.send_signal(getattr(signal, case.end))
        received += read_all(events)
        events.close()
        assert received.endswith(b"0\r\n\r\n"), received
        assert not slow_response.done()
        (tmp_path / "gate").touch()
        assert slow_response.result(30).endswith(b"4\r\ndone\r\n0\r\n\r\n")
        if case.replaced:
            assert b"done" in request(server, "/")
            wait_until(lambda: "<shutdown>" in server.output(), 30)
        else:
            server.process.wait(30)
        said = [line for line in server.output().splitlines() if line.startswith("<")]
        told = [line for line in said if line != "<startup>"]
        assert told == ["<slow>", "<events told>", "<shutdown>"]
        assert said.count("<startup>") == 1 + case.replaced
        assert "Traceback" not in server.output()
