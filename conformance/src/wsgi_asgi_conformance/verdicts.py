"""The verdict on each clause, derived from the outcomes of its tests."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, TypeAlias

from wsgi_asgi_conformance.catalogue import Clause

# The possible verdicts, and how the tables show them.
MARKS = {"kept": "✓", "broken": "✗", "hung": "hangs", "deviates": "≠", "not offered": "-", "untested": ""}
_WORST_FIRST = ("hung", "broken", "deviates", "kept", "not offered")
_FAILURES = {"hung", "broken"}

# By direction and clause.
Verdicts: TypeAlias = Mapping[tuple[str, str], str]


@dataclass(frozen=True)
class Outcome:
    """The outcome of one test: "kept", "broken", "hung", "deviates" or "not offered", and what was observed."""

    test: str
    direction: str
    clauses: tuple[str, ...]
    outcome: str
    seen: str = ""
    wire: str = ""  # what client and server sent, where the subject is a server

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def verdicts_from(outcomes: Iterable[Outcome]) -> Verdicts:
    """Return the verdict on each clause that was tested: the worst outcome of its tests.

    If a test of several clauses fails, and tests of fewer clauses have found some of these broken, only those are
    blamed. The rest of their tests decide on the others.
    """
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    spared: dict[tuple[str, str], set[str]] = defaultdict(set)
    for _, group in groupby(sorted(outcomes, key=_width), key=_width):
        broken = {key for key, seen in found.items() if seen & _FAILURES}
        for test in group:
            keys = {(test.direction, name) for name in test.clauses}
            blamed = keys & broken if test.outcome in _FAILURES else keys
            for key in keys:
                (found if key in blamed or not blamed else spared)[key].add(test.outcome)
    for key, seen in spared.items():
        if "kept" not in found[key]:
            found[key] |= seen
    return {key: next(outcome for outcome in _WORST_FIRST if outcome in seen) for key, seen in found.items()}


def _width(test: Outcome) -> int:
    return len(set(test.clauses))


def counts(clauses: Iterable[Clause], direction: str, verdicts: Verdicts) -> dict[str, int]:
    """Return how many of the clauses that bind a direction or a kind of server were kept, broken, and so on."""
    found = Counter(
        verdicts.get((direction, clause.id), "untested") for clause in clauses if direction in clause.subjects
    )
    return {mark: found[mark] for mark in MARKS}
