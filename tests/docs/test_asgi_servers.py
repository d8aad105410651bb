"""The pages about ASGI servers and about threads."""

import importlib.util
import re
from pathlib import Path
from typing import get_type_hints

import pytest

from bridge import ASGIToWSGI, WSGIToASGI
from tests.docs.commands import served
from tests.docs.pages import Page

FLASK = Page("docs/quickstarts/flask.md")
SERVERS = Page("docs/deployment/asgi-servers.md")
THREADS = Page("docs/deployment/threads.md")


@pytest.mark.parametrize("name", ["uvicorn", "hypercorn", pytest.param("granian", marks=pytest.mark.slow), "daphne"])
def test_a_server(name: str, tmp_path: Path) -> None:
    """It serves the app of the quickstart."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    (tmp_path / "hello.py").write_text(FLASK["hello"])
    with served(SERVERS, name, tmp_path) as server:
        assert server.client.get("/").text == "Hello from a thread!"


@pytest.mark.parametrize("adapter", [WSGIToASGI, ASGIToWSGI])
def test_names_of_statistics(adapter: type[WSGIToASGI] | type[ASGIToWSGI]) -> None:
    """The numbers that the tables speak of are there."""
    numbers = get_type_hints(adapter.statistics)["return"].__dataclass_fields__
    section = THREADS.text.partition(f"## `{adapter.__name__}")[2].partition("\n## ")[0]
    rows = [row.strip("| ").partition(" | ")[0] for row in section.splitlines() if row.startswith("| ")]
    names = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert names <= set(numbers)
    assert "threads" in names
