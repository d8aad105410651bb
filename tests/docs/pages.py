"""The pages of the documentation, and the blocks of code on them."""

import re
import shlex
import sys
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.processes import ROOT

BIN = Path(sys.executable).parent
# Languages of blocks that are pictures or output, not something that a reader would run or write to a file.
NOT_RUN = ("mermaid", "text", "")
BLOCK = re.compile(
    r"^(?P<indent> *)(?:<!-- (?P<name>[^>\n]+) -->\n *)?```(?P<language>[\w-]*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """A block of code, and the name in the comment above it."""

    name: str | None
    language: str
    text: str


class Page:
    """A page, by its path in the repository."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.text = (ROOT / path).read_text()
        self.blocks = list(_blocks(self.text))

    def __getitem__(self, name: str) -> str:
        """Return the text of the block of that name."""
        (text,) = [block.text for block in self.blocks if block.name == name]
        return text

    def run(self, name: str) -> dict[str, Any]:
        """Run a block of Python as a module of its own, and return its names."""
        module = types.ModuleType("docs")
        sys.modules["docs"] = module
        try:
            exec(compile(self[name], f"{self.path}: {name}", "exec"), module.__dict__)
        finally:
            del sys.modules["docs"]
        return module.__dict__

    def commands(self, name: str) -> list[list[str]]:
        """Return the commands of a block of shell, with the programs of this environment."""
        lines = self[name].replace("\\\n", " ").replace(" && ", "\n").splitlines()
        return [_here(shlex.split(line, comments=True)) for line in lines if line.strip()]


def _blocks(text: str) -> Iterator[Block]:
    for found in BLOCK.finditer(text):
        yield Block(found["name"], found["language"], textwrap.dedent(found["text"]))


def _here(command: list[str]) -> list[str]:
    """Return a command with the program of the environment that runs the tests, if that has one of the name."""
    name = command[0].removeprefix(".venv/bin/")
    return [str(BIN / name) if (BIN / name).exists() else name, *command[1:]]


def pages() -> list[Page]:
    """Return all pages that people read."""
    paths = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    return [Page(str(path.relative_to(ROOT))) for path in sorted(paths)]
