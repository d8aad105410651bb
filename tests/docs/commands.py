"""How tests run what a page says to type: commands that install are checked, and servers run on a free port."""

import contextlib
import importlib.metadata
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx
from packaging.requirements import Requirement

from tests.docs.pages import Page
from tests.processes import ROOT, Server, free_port, serving

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DISTRIBUTION = "wsgi-asgi-bridge"
# The port that pages use, which becomes a free one here; and what it is to servers that use it if they are not told.
PORT = "8000"
ADDRESS = {
    "daphne": ("--port", PORT),
    "granian": ("--port", PORT),
    "gunicorn": ("--bind", f"127.0.0.1:{PORT}"),
    "hypercorn": ("--bind", f"127.0.0.1:{PORT}"),
    "uvicorn": ("--port", PORT),
}


def check_install(command: list[str]) -> None:
    """Check that what `pip install` is told to install is known: ours with its extras, or a package that tests use."""
    assert Path(command[0]).name == "pip", command
    assert command[1] == "install", command
    for word in command[2:]:
        if word.startswith("-"):
            continue
        requirement = Requirement(word)
        if requirement.name == DISTRIBUTION:
            assert requirement.extras <= set(PYPROJECT["project"]["optional-dependencies"]), word
        else:
            listed = re.search(rf'"{requirement.name}\b', (ROOT / "pyproject.toml").read_text())
            assert listed or importlib.metadata.version(requirement.name), word


def check_environment(command: list[str]) -> None:
    """Check a command that creates the virtual environment."""
    assert [Path(command[0]).name, *command[1:]] == ["python3", "-m", "venv", ".venv"], command


@contextlib.contextmanager
def served(
    page: Page, name: str, folder: Path, env: dict[str, str] | None = None, config: dict[str, str] | None = None
) -> Iterator[Server]:
    """Run the server that the last command of a block starts, in `folder`, where the files of `config` are first."""
    command = page.commands(name)[-1]
    program = Path(command[0]).name
    if program in ADDRESS and not any(PORT in word for word in command):
        command[1:1] = ADDRESS[program]
    if _is_script(command[0]):  # its first line names an environment that may have been moved
        command.insert(0, sys.executable)
    port = free_port()
    for path, text in (config or {}).items():
        (folder / path).write_text(text.replace(PORT, str(port)))
    words = [word.replace("{", "{{").replace("}", "}}").replace(PORT, str(port)) for word in command]
    with serving(words, cwd=folder, env=env, port=port) as server:
        yield server


def _is_script(program: str) -> bool:
    path = Path(program)
    return path.parent == Path(sys.executable).parent and path.read_bytes().startswith(b"#!")


def check_dialogue(page: Page, name: str, server: Server) -> None:
    """Send the requests of a block of `curl` commands, and compare the answers with the lines below each."""
    for line, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", page[name], re.MULTILINE):
        command = shlex.split(line)
        assert command[0] == "curl", line
        assert len(command) == 2, line
        response = server.client.get(httpx.URL(command[1]).raw_path.decode())
        assert response.text + "\n" == expected
