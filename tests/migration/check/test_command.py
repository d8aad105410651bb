import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ROOT
from tests.servers.frameworks import FRAMEWORKS, maybe_version

APPS = """
import asyncio
import os
import signal
import sqlite3
import threading
import time

from flask import Flask, jsonify, request

print("imported")
app = Flask("app", static_folder=None)
database = sqlite3.connect(":memory:")
user = None


@app.get("/")
def front():
    return f"hello from {os.getpid()}"


@app.get("/sqlite")
def sqlite():
    return jsonify(database.execute("select 1").fetchone())


@app.get("/signal")
def signals():
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    return "ok"


@app.get("/loop")
def loop():
    return str(asyncio.get_event_loop().run_until_complete(asyncio.sleep(0, "slept")))


@app.get("/who")
def who():
    global user
    user = request.args["user"]
    time.sleep(0.01)
    return jsonify(user=user)


@app.get("/token")
async def token():
    return jsonify(token="planted-secret")


def returns_text(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return "text"


def raises(environ, start_response):
    raise ValueError("planted-secret")


def hangs(environ, start_response):
    while True:
        try:
            threading.Event().wait()
        except Exception:
            pass


def exits(environ, start_response):
    os._exit(3)


async def does_not_start(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "planted-secret"})


async def returns_early(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(APPS)
    return tmp_path


def check(folder: Path, app: str, *arguments: str, timeout: float = 50) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    command = [sys.executable, "-m", "bridge", "check", app, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout, check=False)


def paths(*names: str) -> list[str]:
    return [argument for name in names for argument in ("--path", name)]


def test_four_planted_faults_of_threads_are_found(folder: Path) -> None:
    """Each is named, with its request and its line, and an answer that another request should have had is counted."""
    names = ["/", "/sqlite", "/signal", "/loop", "/who?user=ada", "/who?user=bob"]
    done = check(folder, "shop:app", *paths(*names), "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    by_title = {finding["title"]: finding for finding in found["findings"]}
    threads = {finding["request"] for finding in found["findings"] if finding["kind"] == "threads"}
    assert threads == {"GET /sqlite", "GET /signal", "GET /loop"}
    assert "shop.py, line" in by_title["a SQLite connection is used outside of the thread that opened it"]["detail"]
    assert by_title["8 at once, $.user: another value"]["request"].startswith("GET /who?user=")
    assert any(title.endswith("answers were those to another request") for title in by_title)
    assert "GET /" not in {finding["request"] for finding in found["findings"]}


def test_an_app_without_faults_has_no_findings(folder: Path) -> None:
    """The text says what the app is, how to serve it, and what was not tried; the process's number is noise."""
    done = check(folder, "shop:app")
    assert (done.returncode, done.stderr) == (0, "imported\n" * 3)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("shop:app is a WSGI app, Flask 3.")
    assert lines[0].endswith(", with 6 routes, 1 async def view.")
    assert lines[1:11] == [
        "",
        "Its own kind of server:",
        "    gunicorn --threads 8 shop:app",
        "The other kind, with these lines in serve.py:",
        "    from bridge import WSGIToASGI",
        "    from shop import app",
        "",
        "    asgi_app = WSGIToASGI(app)",
        "    # uvicorn serve:asgi_app",
        "",
    ]
    assert "noise, which differs between two passes of the app itself: 1 line of text" in done.stdout
    assert "    POST and other methods that may change something" in lines
    assert lines[-1] == "nothing found in 1 request, played natively, through WSGIToASGI, and 8 at once"
    assert max(map(len, lines)) <= 100
    assert len(lines) < 24
    assert "safe" not in done.stdout


@pytest.mark.parametrize(
    ("app", "code", "sentence"),
    [
        ("returns_text", 1, "the app breaks PEP 3333"),
        ("returns_early", 1, "the app breaks ASGI"),
        ("raises", 2, "GET / raises ValueError (shop.py, line"),
        ("hangs", 2, "bridge check: GET /: shop:hangs did not answer within 0.5 s"),
        ("exits", 2, "bridge check: GET /: shop:exits ended its process"),
        ("does_not_start", 2, "bridge check: the startup of shop:does_not_start failed"),
        ("nothing", 2, "the module 'shop' has no 'nothing'"),
    ],
)
def test_what_is_wrong_with_an_app_is_said_in_a_sentence(app: str, code: int, sentence: str, folder: Path) -> None:
    """There is no traceback, and no value of the app's."""
    done = check(folder, f"shop:{app}", *["--timeout", "0.5"] * (app == "hangs"))
    assert done.returncode == code
    assert sentence in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "planted-secret" not in done.stdout + done.stderr


def test_markdown_has_a_table_of_what_was_found(folder: Path) -> None:
    """It includes the module to write for the other kind of server."""
    done = check(folder, "shop:app", *paths("/sqlite"), "--markdown")
    lines = done.stdout.splitlines()
    assert lines[0] == "## 2 findings in 1 request"
    assert lines[4] == "| kind | finding | times | first request | detail |"
    assert lines[6].startswith("| threads | a SQLite connection is used outside of the thread that opened it | 1 |")
    assert "asgi_app = WSGIToASGI(app)" in lines


ASKED = [
    *("/json", "/cookies", "/empty/204", "/empty/304", "/redirect", "/path/a%20b?q=c", "/client", "/nowhere"),
    *("/context?value=1", "/context?value=2", "/download?size=100000", "/events?count=3&pause=0.01", "/state"),
    *("/error-before", "/slow?seconds=0.01"),
]


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize("name", list(FRAMEWORKS))
def test_nothing_is_found_in_the_apps_of_the_compatibility_table(name: str) -> None:
    """Whatever the framework, each by its own kind of app."""
    framework = FRAMEWORKS[name]
    if maybe_version(framework.distribution) is None:
        pytest.skip(f"{framework.title} is not installed")
    asked = [framework.prefix + path for path in ASKED]
    done = check(ROOT, framework.path(framework.native), *paths(*asked), "--json", timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["findings"] == []
    assert found["interface"] == ("ASGI" if framework.asgi else "WSGI")
