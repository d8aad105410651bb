"""The quickstarts, followed as they are written."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from bridge import ASGIToWSGI
from tests.docs.commands import check_dialogue, check_environment, check_install, served
from tests.docs.pages import Page
from tests.processes import ROOT

README = Page("README.md")
FLASK = Page("docs/quickstarts/flask.md")
DJANGO = Page("docs/quickstarts/django.md")
FASTAPI = Page("docs/quickstarts/fastapi.md")
EXAMPLE = Page("examples/fastapi_on_gunicorn/README.md")
QUART = Page("docs/quickstarts/quart.md")


@pytest.mark.parametrize("page", [FLASK, FASTAPI, QUART], ids=lambda page: page.path)
def test_a_quickstart(page: Page, tmp_path: Path) -> None:
    """What the page says to install is known, and the server answers as the page says."""
    environment, install = page.commands("install")
    check_environment(environment)
    check_install(install)
    (tmp_path / "hello.py").write_text(page["hello"])
    with served(page, "serve", tmp_path) as server:
        check_dialogue(page, "ask", server)
        if page is QUART:
            with connect(f"ws://127.0.0.1:{server.port}/echo") as websocket:
                websocket.send("hello")
                assert websocket.recv(timeout=20) == "hello"


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_django(kind: str, tmp_path: Path) -> None:
    """A new project answers with its welcome page, on either server."""
    environment, install, start = DJANGO.commands("install")
    check_environment(environment)
    check_install(install)
    subprocess.run([sys.executable, *start], cwd=tmp_path, check=True, timeout=50)
    (tmp_path / "mysite" / f"{kind}.py").write_text(DJANGO["asgi" if kind == "asgi" else "wsgi"])
    with served(DJANGO, "serve by asgi" if kind == "asgi" else "serve by wsgi", tmp_path) as server:
        assert "The install worked successfully" in server.client.get("/").text


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # httpx's ASGITransport wants it
async def test_disconnected() -> None:
    """The report is finished for a client that stays."""
    transport = httpx.ASGITransport(FLASK.run("disconnected")["asgi_app"])
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/report")).text == str(sum(range(1000)))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_readme_flask_on_uvicorn() -> None:
    """The README's first block answers."""
    for command in README.commands("install for flask"):
        check_install(command)
    transport = httpx.ASGITransport(README.run("flask on uvicorn")["asgi_app"])
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/")).text == "Hello from a thread!"


def test_readme_fastapi_on_gunicorn() -> None:
    """The README's second block answers."""
    for command in README.commands("install for fastapi"):
        check_install(command)
    adapter: ASGIToWSGI = README.run("fastapi on gunicorn")["wsgi_app"]
    with adapter, httpx.Client(transport=httpx.WSGITransport(adapter), base_url="http://test") as client:
        assert client.get("/").json() == "Hello from a private loop!"


@pytest.mark.parametrize(
    ("page", "name", "path"),
    [(README, "flask example", "/"), (README, "fastapi example", "/docs"), (EXAMPLE, "serve", "/docs")],
    ids=["flask", "fastapi", "fastapi's own page"],
)
def test_examples(page: Page, name: str, path: str, tmp_path: Path) -> None:
    """The commands for a checkout serve the examples."""
    databases = {"NOTES_DB": str(tmp_path / "notes.sqlite3"), "GUESTBOOK_DB": str(tmp_path / "guestbook.sqlite3")}
    with served(page, name, ROOT, databases) as server:
        assert server.client.get(path).status_code == 200


def test_readme_test_command() -> None:
    """It runs in `.ci/run`; here, pytest knows its options."""
    assert README["test command"].endswith(".venv/bin/python -m pytest -n 4 --dist loadfile\n")
