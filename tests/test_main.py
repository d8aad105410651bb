import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.__main__ import main

MODULE = """
from fastapi import FastAPI
from flask import Flask

new, old = FastAPI(), Flask("old")
old.add_url_rule("/a", "a", lambda: "", methods=["GET", "POST"])
old.add_url_rule("/docs", "docs", lambda: "")
old.add_url_rule("/b/<id>", "b", lambda id: "")


@new.get("/a")
def a(): ...


@new.get("/b/{id:int}")
def b(id: int): ...
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(MODULE)
    return tmp_path


def bridge(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    command = [sys.executable, "-m", "bridge", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=50, check=False)


def test_routes_are_listed_for_people(folder: Path) -> None:
    """The list is aligned, has no colours without a terminal, and ends with what matters most."""
    done = bridge(folder, "routes", "shop:new", "shop:old")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "old rule                 method  answered by  rule of the new app\n"
        "/static/<path:filename>  GET     old\n"
        "/a                       GET     new          /a\n"
        "/a                       POST    old\n"
        "/docs                    GET     new          /docs  hides the old one\n"
        "/b/<id>                  GET     new or old   /b/{id:int}\n"
        "\n"
        "2 of 5 answered by the new app\n"
        "1 answered by the new app or the old one, depending on the value of a parameter\n"
        "warning: 1 hidden by a rule of the new app that has another shape\n"
    )


def test_routes_are_listed_for_machines(folder: Path) -> None:
    """The list comes as JSON or as a Markdown table."""
    found = json.loads(bridge(folder, "routes", "shop:new", "shop:old", "--json").stdout)
    rules = found.pop("rules")
    assert found == {"total": 5, "new": 2, "old": 2, "both": 1, "unknown": 0, "hidden": 1}
    assert rules[1] == {"rule": "/a", "method": "GET", "who": "new", "by": "/a", "hidden": False}
    lines = bridge(folder, "routes", "shop:new", "shop:old", "--markdown").stdout.splitlines()
    assert lines[:2] == ["| old rule | method | answered by | rule of the new app |", "|---|---|---|---|"]
    assert "| /a | GET | new | /a |" in lines
    assert "2 of 5 answered by the new app" in lines


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["routes", "shop:new", "shop:nothing"], "bridge routes: shop:nothing: the module 'shop' has no 'nothing'"),
        (
            ["routes", "wsgiref.simple_server:demo_app", "shop:old"],
            "bridge routes: the routes of wsgiref.simple_server:demo_app cannot be seen",
        ),
        (["routes", "shop:new"], "required: OLD"),
        (["fly"], "invalid choice: 'fly'"),
        ([], "required: COMMAND"),
    ],
)
def test_what_cannot_run_ends_with_2_and_a_sentence(arguments: list[str], sentence: str, folder: Path) -> None:
    """The command prints a sentence and no traceback."""
    done = bridge(folder, *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_reader_that_leaves_is_no_error(folder: Path) -> None:
    """`head` closes the pipe early, and the command ends quietly."""
    command = [sys.executable, "-m", "bridge", "routes", "shop:new", "shop:old"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate(timeout=50)
    assert b"Traceback" not in errors
    assert b"Exception" not in errors


DJANGO = """
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path
from quart import Quart

urlpatterns = [path("orders/", lambda request: JsonResponse({"orders": [1, 2]}))]
settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="of a test")
django_app = get_wsgi_application()
quart_app = Quart("shop", static_folder=None)


@quart_app.get("/orders/")
async def orders():
    return {"orders": ["1", 2]}
"""


def test_django_and_quart_are_compared(tmp_path: Path) -> None:
    """Each is called by its own interface."""
    (tmp_path / "shop.py").write_text(DJANGO)
    done = bridge(tmp_path, "diff", "shop:django_app", "shop:quart_app", "--path", "/orders/")
    assert "$.orders[]: number → string, once, first GET /orders/" in done.stdout, done.stderr
    assert done.returncode == 1
    same = bridge(tmp_path, "diff", "shop:quart_app", "shop:quart_app", "--path", "/orders/")
    assert (same.returncode, same.stdout) == (0, "alike: 1 request\n"), same.stderr


def test_a_terminal_that_cannot_show_an_arrow_gets_a_question_mark(folder: Path) -> None:
    """An encoding is no reason for a traceback."""
    command = [sys.executable, "-m", "bridge", "diff", "shop:new", "shop:old", "--path", "/docs", "--json", "-"]
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "?" in done.stdout


HANGING = """
import asyncio
import threading


async def app(scope, receive, send):
    assert scope["type"] == "http"
    await asyncio.to_thread(threading.Event().wait)


def loop_app(environ, start_response):
    thread = threading.Thread(target=threading.Event().wait)
    thread.start()
    thread.join()
"""


@pytest.mark.parametrize("name", ["app", "loop_app"])
def test_an_app_whose_thread_hangs_does_not_keep_the_command(name: str, tmp_path: Path) -> None:
    """The interpreter would wait for the thread for ever."""
    (tmp_path / "hanging.py").write_text(HANGING)
    apps = [f"hanging:{name}"] * 2
    done = bridge(tmp_path, "diff", *apps, "--path", "/", "--timeout", "0.2")
    assert done.stderr == f"bridge diff: GET /: hanging:{name} did not answer within 0.2 s\n"
    assert done.returncode == 2


def test_it_can_be_called_within_a_process(capsys: pytest.CaptureFixture[str]) -> None:
    """`main` returns the exit code."""
    apps = ["tests.servers.frameworks.fastapi_app:app", "tests.servers.frameworks.flask_app:app"]
    for form in ([], ["--markdown"], ["--json"]):
        assert main(["routes", *apps, *form]) == 0
    assert "16 of 17 answered by the new app" in capsys.readouterr().out
    assert main(["routes", *apps[:1], "nowhere:app"]) == 2
    assert (
        capsys.readouterr().err
        == "bridge routes: there is no module 'nowhere', in this folder or among the installed packages\n"
    )


@pytest.mark.parametrize("arguments", [["--help"], ["routes", "--help"]])
def test_help_is_there(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The help has examples."""
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 0
    assert "bridge" in capsys.readouterr().out
