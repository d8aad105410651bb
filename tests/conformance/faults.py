"""Faults planted in `bridge`, one at a time, to see whether the suite notices.

    python -m tests.conformance.faults [NAME ...]

Each fault of `faults.toml` is put in a copy of `src/bridge`, on which the tests of the clauses that it breaks are run.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.processes import ROOT
from wsgi_asgi_conformance.catalogue import FOLDER, read_marks

# After this many seconds, a run that a fault has hung is killed.
_TIMEOUT = 300.0


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A change to one file of `src/bridge`, and the clauses that it breaks."""

    name: str
    direction: str
    file: str
    old: str
    new: str
    fault: str
    clauses: tuple[str, ...]

    def changed(self, source: Path) -> str:
        """Return the file's text with the fault. Raises ValueError unless the old text occurs exactly once."""
        text = (source / self.file).read_text(encoding="utf-8")
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.file} has the old text {count} times, not once")
        return text.replace(self.old, self.new)

    def test_files(self) -> list[str]:
        """Return the files with tests of the clauses."""
        marks = [mark for mark in read_marks() if mark.direction == self.direction and mark.id in self.clauses]
        return sorted({str(FOLDER / mark.place.partition(":")[0]) for mark in marks})


class Verdict(NamedTuple):
    """The result of trying a fault."""

    caught: bool
    text: str


def read_faults(path: Path = Path(__file__).parent / "faults.toml") -> list[Fault]:
    """Return all faults. Raises TypeError for a missing or unknown key."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    return [Fault(name=name, clauses=tuple(table.pop("clauses")), **table) for name, table in tables.items()]


def try_fault(fault: Fault, source: Path = ROOT / "src" / "bridge") -> Verdict:
    """Run the tests of its clauses on `bridge` with one fault, up to the first that fails."""
    with tempfile.TemporaryDirectory() as folder:
        copy, results, log = Path(folder) / "bridge", Path(folder) / "results.json", Path(folder) / "log"
        try:
            changed = fault.changed(source)
        except ValueError as error:
            return Verdict(False, f"DOES NOT APPLY: {error}")
        if not (files := fault.test_files()):
            return Verdict(False, "NOT CAUGHT: its clauses have no tests")
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        (copy / fault.file).write_text(changed, encoding="utf-8")
        command = [
            *(sys.executable, "-m", "pytest", *files, "-x", "-q", "--tb=short", "-p", "no:cacheprovider"),
            *("--clauses", ",".join(fault.clauses), "--deadline", "1", "--conformance-json", str(results)),
        ]
        env = {**os.environ, "PYTHONPATH": folder}
        with log.open("wb") as output:
            try:
                status = subprocess.run(
                    command, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT, timeout=_TIMEOUT
                ).returncode
            except subprocess.TimeoutExpired:
                status = pytest.ExitCode.TESTS_FAILED  # the process does not end, though its tests may have
        tests = json.loads(results.read_text(encoding="utf-8"))["tests"] if results.exists() else []
        failed = [test["test"] for test in tests if test["outcome"] in ("broken", "hung")]
        if status == pytest.ExitCode.TESTS_FAILED and failed:
            return Verdict(True, f"caught by {failed[0].removeprefix('conformance/src/wsgi_asgi_conformance/')}")
        if status == pytest.ExitCode.OK:
            return Verdict(False, f"NOT CAUGHT by {len(tests)} tests of {', '.join(fault.clauses)}")
        return Verdict(False, f"DOES NOT RUN:\n{log.read_text(encoding='utf-8', errors='replace')[-2000:]}")


def main(names: list[str]) -> int:
    """Try all faults, or some by name, two at a time; return the exit status."""
    faults = {fault.name: fault for fault in read_faults()}
    if unknown := [name for name in names if name not in faults]:
        print(f"no such fault: {', '.join(unknown)}", file=sys.stderr)
        return 2
    chosen = [faults[name] for name in names] if names else list(faults.values())
    caught = 0
    with ThreadPoolExecutor(2) as executor:
        for fault, verdict in zip(chosen, executor.map(try_fault, chosen), strict=True):
            print(f"{fault.direction} {fault.name}: {verdict.text}", flush=True)
            caught += verdict.caught
    print(f"{caught} of {len(chosen)} faults were caught")
    return 0 if caught == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
