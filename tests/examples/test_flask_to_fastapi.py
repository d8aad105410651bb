"""The example that is half moved, served and compared by the commands of its README."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.commands import served
from tests.docs.pages import BIN, Page
from tests.processes import ROOT, Server

PAGE = Page("examples/flask_to_fastapi/README.md")


@pytest.fixture(scope="module", params=["serve on uvicorn", "serve on gunicorn"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The site, on each server that the page names."""
    with served(PAGE, request.param, ROOT) as server:
        yield server
        assert "Traceback" not in server.output()


def dialogue(name: str) -> list[tuple[str, str]]:
    """Return the commands of a block, each with the lines that stand below it."""
    return re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", PAGE[name], re.MULTILINE)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("name", ["who answers", "one login"])
def test_curl_prints_what_the_page_says(name: str, server: Server, tmp_path: Path) -> None:
    """Each app answers what is its own, and both know who has logged in."""
    for command, expected in dialogue(name):
        line = command.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
        done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
        assert done.stdout.lower().strip() == expected.lower().strip(), done.stderr


@pytest.mark.parametrize(("name", "code"), [("routes", 0), ("diff", 1), ("accepted", 0)])
def test_the_commands_print_what_the_page_says(name: str, code: int) -> None:
    """`bridge routes` and `bridge diff` on the two apps."""
    ((command, expected),) = dialogue(name)
    program, *arguments = shlex.split(command)
    done = subprocess.run(
        [BIN / program, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == (expected, "", code)


def test_the_accepted_differences_are_those_that_the_command_writes(tmp_path: Path) -> None:
    """The file in the folder is what --write-accept makes."""
    ((command, _),) = dialogue("diff")
    program, *arguments = shlex.split(command)
    writing = ["--write-accept", str(tmp_path / "expected.json")]
    subprocess.run([BIN / program, *arguments, *writing], cwd=ROOT, capture_output=True, timeout=50, check=False)
    assert (tmp_path / "expected.json").read_text() == (
        ROOT / "examples" / "flask_to_fastapi" / "expected.json"
    ).read_text()


def test_login_orders_and_logout_work_across_both_apps(server: Server) -> None:
    """An order that the old app has taken is there in the new one, until the user logs out."""
    client = server.client
    client.cookies.clear()
    assert client.get("/me").status_code == 401
    assert client.post("/orders", data={"item": "tea", "quantity": "2"}).status_code == 401
    assert client.post("/login", data={"name": "1"}).status_code == 400
    assert client.post("/login", data={"name": "mary"}).status_code == 303
    assert "hello, mary" in client.get("/").text
    added = client.post("/orders", data={"item": "tea", "quantity": "2"})
    assert (added.status_code, added.headers["x-answered-by"]) == (201, "old")
    assert client.get("/me").json() == {"user": "mary", "orders": [added.json()]}
    shown = client.get(f"/orders/{added.json()['id']}")
    assert (shown.json(), shown.headers["x-answered-by"]) == (added.json(), "new")
    assert client.post("/logout").status_code == 303
    assert client.get("/me").status_code == 401


def test_the_docs_pages_hide_no_path_of_the_old_app(server: Server) -> None:
    """/docs is still the old app's 404."""
    assert server.client.get("/api/docs").headers["x-answered-by"] == "new"
    response = server.client.get("/docs")
    assert (response.status_code, response.headers["x-answered-by"]) == (404, "old")
