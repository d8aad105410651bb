"""Try mutants of `bridge`, one at a time, to see whether the fast tests notice.

    python -m tests.mutation [--sample N] [MODULE ...]

Name modules like `sansio/tls.py`, or by the start of their names; without names, all are tried. A run can be stopped
and resumed, because its folder holds the results, and the map of which test runs which line.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutation.mutants import chosen_mutants

ROOT = Path(__file__).parent.parent.parent
_ROOMS = ("sansio", "runtime", "validate", "wsgi_to_asgi", "asgi_to_wsgi")
_TESTS = (*(f"tests/{room}" for room in _ROOMS), "conformance/src")


def read_results(path: Path) -> dict[str, str]:
    """Return the outcome of each mutant that was tried, by its name. The last outcome counts."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {result["mutant"]: result["outcome"] for result in map(json.loads, lines)}


def run_pytest(folder: Path, tests: tuple[str, ...], *options: str) -> None:
    """Run the tests on a copy of the project, with our plugin."""
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "__pycache__"), dirs_exist_ok=True)
    command = [sys.executable, "-m", "pytest", *tests, "-q", "--timeout", "15", "-p", "no:cacheprovider"]
    command += ["-p", "no:bridge.validate.pytest_plugin"]  # or it imports `bridge` before its lines are measured
    # No run may load compiled code of another mutant, whose source has the same length and time of writing.
    env = {**os.environ, "PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    with (folder / "log").open("wb") as log:
        subprocess.run(
            [*command, "-p", "tests.mutation.runs", *options],
            cwd=folder,
            env=env,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("modules", nargs="*", default=[""], metavar="MODULE")
    parser.add_argument("--sample", type=int, help="mutants of each module, at random")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0, help="of tests for a mutant that none of them kills")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=ROOT / ".mutation", help="of the map and the results")
    parser.add_argument("--survivors", action="store_true", help="try those alone that survived")
    given = parser.parse_args()
    given.folder.mkdir(exist_ok=True)
    lines, results = (given.folder / name for name in ("map.json", "results.jsonl"))
    plan = {"map": str(lines), "results": str(results)} | {
        key: getattr(given, key) for key in ("modules", "sample", "seed", "seconds", "workers")
    }
    names = [each.name for each in chosen_mutants(ROOT / "src" / "bridge", given.seed, given.sample, given.modules)]
    tried = read_results(results)
    plan["only"] = [name for name in names if (tried.get(name) == "survived" if given.survivors else name not in tried)]

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if not lines.exists():
            run_pytest(folder / "map", _TESTS, "--mutation-map", str(lines))

        def work(number: int) -> None:
            path = folder / f"plan{number}.json"
            path.write_text(json.dumps(plan | {"worker": number}), encoding="utf-8")
            run_pytest(folder / str(number), _TESTS, "--mutation-plan", str(path))

        with ThreadPoolExecutor(given.workers) as executor:
            list(executor.map(work, range(given.workers)))

    tried = read_results(results)
    totals, killed = Counter[str](), Counter[str]()
    for name in names:
        for module in (name.partition(":")[0], "all"):
            totals[module] += 1
            killed[module] += tried[name] == "killed"
        if tried[name] != "killed":
            print(f"{tried[name]}: {name}")
    for module, total in totals.items():
        print(f"{module}: {killed[module]} of {total} killed, {killed[module] / total:.0%}")


if __name__ == "__main__":
    main()
