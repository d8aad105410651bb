"""The commands of the page about migration; `tests/test_migration_docs.py` runs its other blocks."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.commands import check_install, served
from tests.docs.pages import Page

PAGE = Page("docs/migration.md")
# Named, and run with the blocks above them, in tests/test_migration_docs.py.
RUN_THERE = ("check run", "diff run")
LEGACY = """
from flask import Flask

app = Flask(__name__, static_folder=None)


@app.get("/orders")
def orders():
    return [1]


@app.post("/orders")
def add_order():
    return "added"


@app.get("/orders/<int:id>")
def order(id):
    return str(id)


@app.get("/docs")
def docs():
    return "the old docs"
"""
API = """
from fastapi import FastAPI

app = FastAPI()


@app.get("/orders")
async def orders():
    return ["1"]


@app.get("/orders/{id}")
async def order(id: int):
    return str(id)
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with a shop of which a part has moved."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "legacy.py").write_text(LEGACY)
    (tmp_path / "shop" / "api.py").write_text(API)
    (tmp_path / "paths.txt").write_text("/orders\n")
    return tmp_path


def bridge(arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command `bridge` with a line of a page."""
    command = [sys.executable, "-m", "bridge", *arguments.split()]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=50, check=False)


def test_serve(tmp_path: Path) -> None:
    """The first block of the page runs with the commands below it."""
    check_install(PAGE.commands("serve")[0])
    (tmp_path / "both.py").write_text(PAGE["fallback"])
    with served(PAGE, "serve", tmp_path) as server:
        assert server.client.get("/orders").json() == "the new orders"


def test_routes(shop: Path) -> None:
    """The table is the one of the page."""
    command, _, expected = PAGE["routes"].partition("\n")
    done = bridge(command.removeprefix("$ bridge "), shop)
    assert done.stdout == expected, done.stderr


def test_accept(shop: Path) -> None:
    """The first line writes down a difference, with which the second one finds none."""
    write, check = (line.removeprefix("bridge ") for line in PAGE["accept"].splitlines())
    bridge(write, shop)
    done = bridge(check, shop)
    assert done.returncode == 0, done.stdout + done.stderr
    assert bridge(re.sub(" --accept .*", "", check), shop).returncode == 1
