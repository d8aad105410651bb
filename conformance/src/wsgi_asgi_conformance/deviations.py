"""Clauses that an adapter breaks on purpose, or has not mended yet."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsgi_asgi_conformance.catalogue import Clause

_KEYS = {"reason", "link", "direction"}


@dataclass(frozen=True)
class Deviation:
    """One clause, and the directions in which its tests may fail."""

    clause: str
    reason: str
    link: str
    directions: tuple[str, ...]

    def covers(self, direction: str, clauses: Sequence[str]) -> bool:
        """Return whether a failure of a test of `clauses` is expected."""
        return direction in self.directions and self.clause in clauses


def read_deviations(path: Path, clauses: Mapping[str, Clause]) -> list[Deviation]:
    """Read a file with one table for each clause. Raises ValueError, which names the file.

    ["ASGI-HTTP-077"]
    reason = "send() never raises, for older apps"
    link = "https://example.org/issues/1"  # optional
    direction = "asgi_to_wsgi"  # optional: without it, the directions that the clause binds
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: {error}") from error
    found = []
    for name, table in tables.items():
        if name not in clauses:
            raise ValueError(f"{path}: {name}: expected the id of a clause of the catalogue")
        if not isinstance(table, dict) or not table.get("reason") or not table.keys() <= _KEYS:
            raise ValueError(f"{path}: {name}: expected a table with a reason, and perhaps a link and a direction")
        directions = tuple(clauses[name].directions)
        if (direction := table.get("direction")) is not None:
            if direction not in directions:
                raise ValueError(f"{path}: {name}: direction is one of {sorted(directions)}, got {direction!r}")
            directions = (direction,)
        found.append(Deviation(name, table["reason"], table.get("link", ""), directions))
    return found
