"""The selection of the clauses that a run tests."""

import fnmatch
from collections.abc import Mapping, Sequence

from wsgi_asgi_conformance.catalogue import Clause

# Rules that a document only advises or allows, and conventions that no document states.
_ADVISED = ("SHOULD", "MAY")


class Selection:
    """The clauses that `names` ask for: ids, their beginnings, patterns with *, or parts of a section's title."""

    def __init__(self, clauses: Mapping[str, Clause], names: str | None, advised: bool) -> None:
        """Raise ValueError for a name that no clause has."""
        chosen = set(clauses)
        if names is not None:
            chosen = set()
            for name in filter(None, (part.strip() for part in names.split(","))):
                found = {clause.id for clause in clauses.values() if _is_meant(clause, name)}
                if not found:
                    raise ValueError(f"--clauses {name}: expected an id, its beginning, or a section, got none")
                chosen |= found
        self._chosen = {key for key in chosen if advised or not is_advised(clauses[key])}
        if not self._chosen:
            raise ValueError(f"--clauses {names}: all of them are only advised; add --advised")
        self.clauses = [clause for clause in clauses.values() if clause.id in self._chosen]
        self._all = names is None

    def takes(self, names: Sequence[str]) -> bool:
        """Return whether to run a test of these clauses; a test without clauses runs only if all are selected."""
        return not self._chosen.isdisjoint(names) if names else self._all


def is_advised(clause: Clause) -> bool:
    """Return whether the clause is only advised or allowed, or is a convention."""
    return clause.strength in _ADVISED or clause.basis == "convention"


def _is_meant(clause: Clause, name: str) -> bool:
    return (
        clause.id == name
        or clause.id.startswith(f"{name}-")
        or fnmatch.fnmatchcase(clause.id, name)
        or name.lower() in clause.section.lower()
    )
