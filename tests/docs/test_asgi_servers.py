"""The pages about ASGI servers and about threads."""

import importlib.util
from pathlib import Path

import pytest

from tests.docs.commands import served
from tests.docs.pages import Page
from tests.processes import serving

FLASK = Page("docs/quickstarts/flask.md")
SERVERS = Page("docs/deployment/asgi-servers.md")
THREADS = Page("docs/deployment/threads.md")


@pytest.mark.parametrize("name", ["uvicorn", "hypercorn", "granian", "daphne"])
def test_a_server(name: str, tmp_path: Path) -> None:
    """It serves the app of the quickstart."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    (tmp_path / "hello.py").write_text(FLASK["hello"])
    with served(SERVERS, name, tmp_path) as server:
        assert server.client.get("/").text == "Hello from a thread!"


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("statistics of ASGIToWSGI", ["gunicorn", "--bind", "127.0.0.1:{port}", "-k", "gthread", "hello:wsgi_app"]),
        ("statistics of WSGIToASGI", ["uvicorn", "--port", "{port}", "hello:asgi_app"]),
    ],
)
def test_statistics(name: str, command: list[str], tmp_path: Path) -> None:
    """The page counts the request that asks for it, and has the names that the tables use."""
    (tmp_path / "hello.py").write_text(THREADS[name])
    with serving(["{python}", "-m", *command], cwd=tmp_path) as server:
        numbers = server.client.get("/statistics").json()
    assert numbers["requests"] == numbers["threads"] == 1
    section = THREADS.text.partition(f"## `{name.rpartition(' ')[2]}")[2].partition("\n## ")[0]
    for row in section.splitlines():
        words = row.strip("| ").partition(" | ")[0].split("`")[1::2] if row.startswith("| ") else []
        assert all(word in numbers for word in words if "_" in word or (word.isalpha() and word != "statistics()")), row
