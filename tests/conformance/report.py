"""`python -m tests.conformance.report [NAME ...]` runs the suite on every adapter that is installed.

It writes `docs/conformance.md`, and the totals between the markers in the README, from what it measured and, for
adapters that are not named, from `tests/conformance/adapters.json`.
"""

import argparse
import importlib.metadata
import itertools
import json
import platform
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import bridge
from bridge.types import ASGIApp, WSGIApp
from tests.processes import ROOT
from wsgi_asgi_conformance.catalogue import DIRECTIONS, FOLDER, TITLES, Clause, read_catalogue
from wsgi_asgi_conformance.outputs import escaped
from wsgi_asgi_conformance.verdicts import MARKS as ALL_MARKS
from wsgi_asgi_conformance.verdicts import Outcome, Verdicts, verdicts_from

MARKS = {mark: shown for mark, shown in ALL_MARKS.items() if mark != "deviates"}  # no deviations file is used here
# An adapter spends most of its time in tests that hang, so there are more processes than cores.
_WORKERS = 4
RESULTS = Path(__file__).parent / "adapters.json"
_TOTALS = re.compile(r"(?<=<!-- conformance totals -->\n).*?(?=<!-- end -->)", re.DOTALL)

_INTRODUCTION = f"""\
# Conformance

This page says which rules of PEP 3333, ASGI and the RFCs that they build on each adapter keeps.
`python -m tests.conformance.report` ran [the suite](../conformance/README.md) and wrote this page. A clause is kept (✓)
if all its tests pass on all backends. It is broken (✗) if a test fails, and hangs if a test waits until the deadline.
If a test that checks several clauses fails, it counts only against those that another test, of fewer clauses, has
found broken. An optional feature that an adapter lacks is not offered (-). An empty cell means that there is no test.
A few verdicts on other adapters depend on how threads are scheduled, and differ between runs (CONV-018, P3333-115,
P3333-154).

On Python {platform.python_version()}; `WSGIToASGI` ran on asyncio and trio, all other adapters on asyncio.
"""


@dataclass(frozen=True, eq=False)
class Adapter:
    """A package that has an adapter for one direction or both, whose classes are in `names`."""

    package: str
    names: Mapping[str, str]
    backends: str = "asyncio"
    measured: str | None = None  # the version that was measured, if it is not the installed one

    @property
    def maybe_version(self) -> str | None:
        if self.measured is not None:
            return self.measured
        if self.package == bridge.__name__:
            return bridge.__version__
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return None

    @property
    def title(self) -> str:
        return f"{self.package} {self.maybe_version or '(not installed)'}"


def hypercorn_middleware(app: WSGIApp) -> ASGIApp:
    """Return hypercorn's adapter, with its server's limit for request bodies in place of the middleware's 64 KiB."""
    from hypercorn.config import Config
    from hypercorn.middleware.wsgi import AsyncioWSGIMiddleware

    adapter: Any = AsyncioWSGIMiddleware(app, Config.wsgi_max_body_size)
    made: ASGIApp = adapter
    return made


OURS = {"wsgi_to_asgi": "bridge:WSGIToASGI", "asgi_to_wsgi": "bridge:ASGIToWSGI"}
ADAPTERS = (
    Adapter("bridge", OURS, backends="asyncio,trio"),
    Adapter("a2wsgi", {"wsgi_to_asgi": "a2wsgi:WSGIMiddleware", "asgi_to_wsgi": "a2wsgi:ASGIMiddleware"}),
    Adapter("asgiref", {"wsgi_to_asgi": "asgiref.wsgi:WsgiToAsgi"}),
    Adapter("starlette", {"wsgi_to_asgi": "starlette.middleware.wsgi:WSGIMiddleware"}),
    Adapter("uvicorn", {"wsgi_to_asgi": "uvicorn.middleware.wsgi:_WSGIMiddleware"}),
    Adapter("hypercorn", {"wsgi_to_asgi": f"{__package__}.report:hypercorn_middleware"}),
)


def run_suite(adapter: Adapter) -> list[Outcome]:
    """Return the outcome of each test."""
    names = {**OURS, **adapter.names}  # because some tests need both directions
    with tempfile.TemporaryDirectory() as folder:
        results, log = Path(folder) / "results.json", Path(folder) / "log"
        command = [
            *(sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "-n", str(_WORKERS)),
            *(str(FOLDER / direction) for direction in adapter.names),
            *("--wsgi-to-asgi", names["wsgi_to_asgi"], "--asgi-to-wsgi", names["asgi_to_wsgi"]),
            *("--backends", adapter.backends, "--advised", "--conformance-json", str(results)),
        ]
        with log.open("wb") as output:
            ended = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, check=False)
        if ended.returncode not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) or not results.exists():
            text = log.read_text(encoding="utf-8", errors="replace")
            sys.exit(f"{adapter.title}: pytest ended with {ended.returncode}:\n{text[:2000]}\n...\n{text[-4000:]}")
        tests = json.loads(results.read_text(encoding="utf-8"))["tests"]
        return [Outcome(**{**test, "clauses": tuple(test["clauses"])}) for test in tests]


def totals(clauses: Iterable[Clause], verdicts: Mapping[Adapter, Verdicts | None]) -> Iterator[str]:
    """Yield the table of totals: how many of the clauses that bind a direction were kept, broken, and so on."""
    clauses = list(clauses)
    yield f"| adapter | direction | {' | '.join(MARKS)} |"
    yield f"|---|---|{'--:|' * len(MARKS)}"
    for direction in DIRECTIONS.values():
        binding = [clause for clause in clauses if direction in clause.directions]
        for adapter, found in verdicts.items():
            if direction in adapter.names:
                counts = Counter((found or {}).get((direction, clause.id), "untested") for clause in binding)
                cells = [str(counts[mark]) if found is not None else "" for mark in MARKS]
                yield f"| {adapter.title} | {TITLES[direction]} | {' | '.join(cells)} |"


def tables(clauses: Iterable[Clause], verdicts: Mapping[Adapter, Verdicts | None]) -> Iterator[str]:
    """Yield the tables of verdicts, one for each document and direction."""
    by_document = defaultdict(list)
    for clause in clauses:
        by_document[clause.document].append(clause)
    for document, of_document in by_document.items():
        yield f"\n## {document}"
        for direction in DIRECTIONS.values():
            adapters = [adapter for adapter in verdicts if direction in adapter.names]
            binding = [clause for clause in of_document if direction in clause.directions]
            if binding:
                yield f"\n### {TITLES[direction]}\n"
                yield f"| clause | | strength | {' | '.join(adapter.package for adapter in adapters)} |"
                yield f"|---|---|---|{':-:|' * len(adapters)}"
            for clause in binding:
                found = [(verdicts[adapter] or {}).get((direction, clause.id), "untested") for adapter in adapters]
                text = clause.clause
                if set(found) == {"untested"}:
                    text += f" *Untested: {_reason(clause, direction)}*"
                marks = " | ".join(MARKS[outcome] for outcome in found)
                yield f"| {clause.id} | {escaped(text)} | {clause.strength} | {marks} |"


def _reason(clause: Clause, direction: str) -> str:
    return clause.untested.get(direction) or clause.note or clause.condition or "no test can see it."


def page(clauses: Iterable[Clause], verdicts: Mapping[Adapter, Verdicts | None]) -> str:
    """Return `docs/conformance.md`."""
    clauses = list(clauses)
    return "\n".join([_INTRODUCTION, *totals(clauses, verdicts), *tables(clauses, verdicts), ""])


def clause_page(clauses: Iterable[Clause]) -> str:
    """Return `docs/clauses.md`, where each clause has a heading to link to."""
    lines = ["# Clauses\n", "What the conformance suite tests, and what `bridge.validate` cites, clause by clause."]
    for document, of_document in itertools.groupby(clauses, key=lambda clause: clause.document):
        lines.append(f"\n## {document}")
        for clause in of_document:
            lines += [f"\n### {clause.id}\n", f"{escaped(clause.clause)}\n"]
            lines.append(f"{clause.section}; {clause.strength}. Seen by: {escaped(clause.observable)}")
    return "\n".join([*lines, ""])


def with_totals(text: str, lines: Iterable[str]) -> str:
    """Return a text with `lines` between its markers, if it has them."""
    table = "\n".join(lines)
    return _TOTALS.sub(lambda match: f"\n{table}\n\n", text)


def as_json(adapter: Adapter, found: Verdicts) -> dict[str, Any]:
    """Return what is stored of a run: for each direction, the clauses of each verdict."""
    verdicts: dict[str, dict[str, list[str]]] = {direction: defaultdict(list) for direction in adapter.names}
    for (direction, name), verdict in sorted(found.items()):
        if direction in verdicts:
            verdicts[direction][verdict].append(name)
    return {"version": adapter.maybe_version, "verdicts": verdicts}


def stored_verdicts(results: Mapping[str, Any]) -> dict[Adapter, Verdicts | None]:
    """Return the verdicts on each adapter, from what was stored of its run."""
    verdicts: dict[Adapter, Verdicts | None] = {}
    for adapter in ADAPTERS:
        if (stored := results.get(adapter.package)) is None:
            verdicts[adapter] = None
            continue
        verdicts[replace(adapter, measured=stored["version"])] = {
            (direction, name): verdict
            for direction, by_verdict in stored["verdicts"].items()
            for verdict, names in by_verdict.items()
            for name in names
        }
    return verdicts


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge the adapters, one after the other, and write the pages; return the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}.report", description=(__doc__ or "").strip())
    known = [adapter.package for adapter in ADAPTERS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(known)}; all of them by default")
    names = parser.parse_args(arguments).names
    if unknown := set(names) - set(known):
        parser.error(f"expected adapters out of {', '.join(known)}, got {', '.join(sorted(unknown))}")
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for adapter in ADAPTERS:
        if names and adapter.package not in names:
            continue
        if adapter.maybe_version is None:
            print(f"{adapter.package} is not installed")
            continue
        results[adapter.package] = as_json(adapter, verdicts_from(run_suite(adapter)))
        print(adapter.title, flush=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    clauses = list(read_catalogue().values())
    verdicts = stored_verdicts(results)
    (ROOT / "docs" / "conformance.md").write_text(page(clauses, verdicts), encoding="utf-8")
    (ROOT / "docs" / "clauses.md").write_text(clause_page(clauses), encoding="utf-8")
    readme = ROOT / "README.md"
    readme.write_text(with_totals(readme.read_text(encoding="utf-8"), totals(clauses, verdicts)), encoding="utf-8")
    print("\n".join(totals(clauses, verdicts)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
