"""`python -m tests.conformance.report` runs the suite on every adapter that is installed.

It writes `docs/conformance.md`, and the totals between the markers in the README.
"""

import importlib.metadata
import itertools
import json
import platform
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
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
_TOTALS = re.compile(r"(?<=<!-- conformance totals -->\n).*?(?=<!-- end -->)", re.DOTALL)

_INTRODUCTION = f"""\
# Conformance

This page says which rules of PEP 3333, ASGI and the RFCs that they build on each adapter keeps.
`python -m tests.conformance.report` ran [the suite](../conformance/README.md) and wrote this page. A clause is kept (✓)
if all its tests pass on all backends. It is broken (✗) if a test fails, and hangs if a test waits until the deadline.
If a test that checks several clauses fails, it counts only against those that another test, of fewer clauses, has
found broken. An optional feature that an adapter lacks is not offered (-). An empty cell means that there is no test.

On Python {platform.python_version()}; `WSGIToASGI` ran on asyncio and trio, all other adapters on asyncio.
"""


@dataclass(frozen=True, eq=False)
class Adapter:
    """A package that has an adapter for one direction or both, whose classes are in `names`."""

    package: str
    names: Mapping[str, str]
    backends: str = "asyncio"

    @property
    def maybe_version(self) -> str | None:
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


def run_suite(adapter: Adapter) -> Iterator[Outcome]:
    """Yield what became of each test."""
    names = {**OURS, **adapter.names}  # because some tests need both directions
    for direction in adapter.names:
        for path in sorted((FOLDER / direction).glob("test_*.py")):
            yield from _run_file(path, names, adapter)


def _run_file(path: Path, names: Mapping[str, str], adapter: Adapter) -> Iterable[Outcome]:
    """Run the tests of a file in a process of their own, because an adapter may leave threads and loops behind."""
    with tempfile.TemporaryDirectory() as folder:
        results, log = Path(folder) / "results.json", Path(folder) / "log"
        command = [
            *(sys.executable, "-m", "pytest", str(path), "-q", "--tb=short", "-p", "no:cacheprovider"),
            *("--wsgi-to-asgi", names["wsgi_to_asgi"], "--asgi-to-wsgi", names["asgi_to_wsgi"]),
            *("--backends", adapter.backends, "--advised", "--conformance-json", str(results)),
        ]
        with log.open("wb") as output:
            ended = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, check=False)
        if ended.returncode not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) or not results.exists():
            text = log.read_text(encoding="utf-8", errors="replace")
            sys.exit(
                f"{path.name} on {adapter.title} ended with {ended.returncode}:\n{text[:2000]}\n...\n{text[-4000:]}"
            )
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


def main() -> None:
    """Run everything, one adapter at a time, because two at once would make each other's waits time out."""
    clauses = list(read_catalogue().values())
    verdicts: dict[Adapter, Verdicts | None] = {}
    for adapter in ADAPTERS:
        print(adapter.title, flush=True)
        verdicts[adapter] = verdicts_from(run_suite(adapter)) if adapter.maybe_version else None
    target = ROOT / "docs" / "conformance.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text(page(clauses, verdicts), encoding="utf-8")
    (target.parent / "clauses.md").write_text(clause_page(clauses), encoding="utf-8")
    readme = ROOT / "README.md"
    readme.write_text(with_totals(readme.read_text(encoding="utf-8"), totals(clauses, verdicts)), encoding="utf-8")
    print("\n".join(totals(clauses, verdicts)))


if __name__ == "__main__":
    main()
