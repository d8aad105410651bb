"""The commands of CONTRIBUTING: too long to run here, but what they name is there."""

import importlib.util
import itertools
from pathlib import Path

import pytest

from tests.docs.commands import PYPROJECT
from tests.docs.pages import Page
from tests.processes import ROOT

PAGE = Page("CONTRIBUTING.md")
BLOCKS = ["install and test", "all tests", "long fuzz", "nox", "free threading", "conformance suite", "mutants"]
COMMANDS = [command for block in BLOCKS for command in PAGE.commands(block)]
# Programs of the system that compile a Python; the page says when one needs them.
OF_THE_SYSTEM = {"apt-get", "sudo", "tar", "cd", "./configure", "make"}


def options_of(command: list[str]) -> set[str]:
    return {word.partition("=")[0] for word in command if word.startswith("--")}


def source_of(module: str) -> str:
    """Return the source of a module that is run by `python -m`; all of it, if it is a package of ours."""
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None, module
    origin = Path(spec.origin)
    files = origin.parent.glob("*.py") if origin.name == "__init__.py" else [origin]
    return "".join(path.read_text() for path in files)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join([Path(command[0]).name, *command[1:]]))
def test_a_command_names_what_is_there(command: list[str]) -> None:
    """Groups, sessions, modules, their options and the paths of tests exist."""
    program, *arguments = command
    if program.startswith("PATH="):
        program, *arguments = arguments
    name = Path(program).name
    if name in OF_THE_SYSTEM or program in OF_THE_SYSTEM:
        return
    if name == "pip":
        for option, value in itertools.pairwise(arguments):
            assert option != "--group" or value in PYPROJECT["dependency-groups"]
    elif name == "nox":
        sessions = [value for option, value in itertools.pairwise(arguments) if option == "-s"]
        for session in sessions:
            assert f"def {session.partition('-')[0]}(" in (ROOT / "noxfile.py").read_text()
    elif name.startswith("python") and arguments[1] in ("venv", "pip"):
        return
    elif name.startswith("python"):
        assert arguments[0] == "-m"
        source = source_of(arguments[1])
        if arguments[1] == "pytest":  # whose options are ours in part
            source += (ROOT / "tests" / "conftest.py").read_text() + "--hypothesis-profile --timeout --dist"
        assert all(option in source for option in options_of(arguments)), arguments
        assert all((ROOT / word).exists() for word in arguments if word.startswith("tests/"))
    else:
        assert (ROOT / program).exists(), program
