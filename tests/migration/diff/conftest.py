"""Runs `bridge diff` on the apps of a test."""

import contextlib
import io
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bridge.__main__ import main
from bridge.migration.diff import command
from bridge.migration.diff.compare import Options

Diff = Callable[..., "Outcome"]


class Outcome(NamedTuple):
    """What the command has printed and written."""

    code: int
    out: str
    err: str
    json: str
    markdown: str


@pytest.fixture
def diff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Diff:
    """Run the command on two apps, or URLs, with further arguments."""
    monkeypatch.chdir(tmp_path)
    # The wait between the passes is for dates: these tests have none that are compared.
    monkeypatch.setattr(command, "Options", lambda *values: Options(*values)._replace(between_passes=0))
    module = types.ModuleType("apps_of_a_test")
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def run(old: Any, new: Any, *arguments: str) -> Outcome:
        vars(module).update(old=old, new=new)
        names = [app if isinstance(app, str) else f"{module.__name__}:{key}" for key, app in vars_of(old, new)]
        out, err = io.StringIO(), io.StringIO()
        forms = ["--json", "out.json", "--markdown", "out.md"]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(["diff", *names, *forms, *arguments])
            except SystemExit as error:  # argparse
                code = int(error.code or 0)
        written = [path.read_text() if path.exists() else "" for path in (Path("out.json"), Path("out.md"))]
        return Outcome(code, out.getvalue(), err.getvalue(), *written)

    return run


def vars_of(old: Any, new: Any) -> list[tuple[str, Any]]:
    return [("old", old), ("new", new)]
