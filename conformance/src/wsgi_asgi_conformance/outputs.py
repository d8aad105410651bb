"""The findings of a run, and the machine-readable files that report them."""

import importlib.metadata
import json
import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from wsgi_asgi_conformance.catalogue import TITLES, Clause
from wsgi_asgi_conformance.deviations import Deviation
from wsgi_asgi_conformance.verdicts import MARKS, Outcome, Verdicts, counts, verdicts_from

# Incremented when readers of the JSON must change.
SCHEMA_VERSION = 1
_FAILURES = ("broken", "hung")


class Fault(NamedTuple):
    """A clause that a direction breaks, and what its tests observed."""

    direction: str
    clause: Clause
    verdict: str
    tests: "list[Outcome]"

    @property
    def seen(self) -> list[str]:
        """What the tests observed, without repetitions."""
        return list(dict.fromkeys(test.seen for test in self.tests))


class Run:
    """The outcomes of the tests of one run."""

    def __init__(
        self, adapters: Mapping[str, str], clauses: Sequence[Clause], deviations: Sequence[Deviation] = ()
    ) -> None:
        self.adapters = adapters
        self.clauses = clauses
        self.deviations = deviations
        self.outcomes: dict[str, Outcome] = {}

    @property
    def names_any(self) -> bool:
        """Whether the run has an adapter."""
        return any(name != "none" for name in self.adapters.values())

    @property
    def directions(self) -> list[str]:
        """The directions that were run."""
        return [
            direction for direction in TITLES if any(each.direction == direction for each in self.outcomes.values())
        ]

    def add(self, outcome: Outcome) -> None:
        """Record the outcome of a phase of a test; the worst one counts."""
        if outcome.test not in self.outcomes or outcome.outcome in (*_FAILURES, "deviates"):
            self.outcomes[outcome.test] = outcome

    def verdicts(self) -> Verdicts:
        """Return the verdict on each clause."""
        return verdicts_from(self.outcomes.values())

    def broken(self) -> list[Fault]:
        """Return the clauses that are broken, in the order of the catalogue."""
        verdicts = self.verdicts()
        return [
            Fault(direction, clause, verdicts[direction, clause.id], self.failed(direction, clause.id))
            for direction in TITLES
            for clause in self.clauses
            if verdicts.get((direction, clause.id)) in _FAILURES
        ]

    def mended(self) -> list[Deviation]:
        """Return the deviations whose tests have all passed."""
        found = []
        for deviation in self.deviations:
            tests = [each for each in self.outcomes.values() if deviation.covers(each.direction, each.clauses)]
            if any(test.outcome == "kept" for test in tests) and all(test.outcome != "deviates" for test in tests):
                found.append(deviation)
        return found

    def failed(self, direction: str, clause: str) -> list[Outcome]:
        """Return the failing tests of a clause: those that hang first, then those of the fewest clauses."""
        tests = [
            test
            for test in self.outcomes.values()
            if test.direction == direction and clause in test.clauses and test.outcome in _FAILURES
        ]
        return sorted(tests, key=lambda test: (test.outcome != "hung", len(test.clauses)))


def as_json(run: Run) -> dict[str, Any]:
    """Return the whole report of a run."""
    verdicts = run.verdicts()
    return {
        "schema_version": SCHEMA_VERSION,
        "suite": {"name": "wsgi-asgi-conformance", "version": _version("wsgi-asgi-conformance")},
        "python": platform.python_version(),
        "specs": dict(Counter(clause.document for clause in run.clauses)),
        "adapters": {direction: run.adapters[direction] for direction in run.directions},
        "totals": {direction: counts(run.clauses, direction, verdicts) for direction in run.directions},
        "clauses": [
            {
                "id": clause.id,
                "direction": direction,
                "document": clause.document,
                "section": clause.section,
                "strength": clause.strength,
                "clause": clause.clause,
                "verdict": verdicts.get((direction, clause.id), "untested"),
                "seen": list(dict.fromkeys(test.seen for test in run.failed(direction, clause.id))),
                "wire": [test.wire for test in run.failed(direction, clause.id)[:1] if test.wire],
            }
            for direction in run.directions
            for clause in run.clauses
            if direction in clause.subjects
        ],
        "mended_deviations": [deviation.clause for deviation in run.mended()],
        "tests": [test.as_json() for test in run.outcomes.values()],
    }


def badge(run: Run) -> dict[str, Any]:
    """Return the JSON that https://shields.io/badges/endpoint-badge draws."""
    verdicts = run.verdicts()
    found = Counter(
        verdict
        for direction in run.directions
        for verdict, count in counts(run.clauses, direction, verdicts).items()
        for _ in range(count)
    )
    bad = found["broken"] + found["hung"]
    judged = bad + found["kept"] + found["deviates"]
    color = "brightgreen" if not bad else "yellow" if bad * 10 <= judged else "red"
    return {
        "schemaVersion": 1,
        "label": "WSGI/ASGI conformance",
        "message": f"{found['kept']} of {judged} clauses",
        "color": color,
    }


def markdown(run: Run) -> Iterator[str]:
    """Yield the lines of a summary for a CI's page."""
    verdicts = run.verdicts()
    yield "## WSGI and ASGI conformance\n"
    yield f"| adapter | {' | '.join(MARKS)} |"
    yield f"|---|{'--:|' * len(MARKS)}"
    for direction in run.directions:
        found = counts(run.clauses, direction, verdicts)
        yield f"| `{run.adapters[direction]}` | {' | '.join(str(found[mark]) for mark in MARKS)} |"
    faults = run.broken()
    if faults:
        yield "\n<details><summary>Broken clauses</summary>\n"
        yield "| clause | | what was seen |"
        yield "|---|---|---|"
        for fault in faults:
            seen = escaped(fault.seen[0]) if fault.seen else ""
            yield f"| {fault.clause.id} | {escaped(fault.clause.clause)} | {fault.verdict}: {seen} |"
        yield "\n</details>"
    for deviation in run.mended():
        yield f"\n{deviation.clause} is kept now: delete it from the file of deviations."


def escaped(text: str) -> str:
    """Escape text for a cell of a Markdown table: "|" everywhere, and "<" outside code."""
    parts = text.replace("|", "\\|").split("`")
    return "`".join(part if index % 2 else part.replace("<", "&lt;") for index, part in enumerate(parts))


def write_outputs(run: Run, config: pytest.Config) -> None:
    """Write the files that the options name."""
    if path := config.getoption("conformance_json"):
        Path(path).write_text(json.dumps(as_json(run), indent=1) + "\n", encoding="utf-8")
    if path := config.getoption("conformance_badge"):
        Path(path).write_text(json.dumps(badge(run)) + "\n", encoding="utf-8")
    if path := config.getoption("conformance_markdown"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in markdown(run))


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
