"""The catalogue of clauses, read from `clauses/*.toml`, and the marks by which tests name the clauses they check."""

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent
# A role's letter stands for the adapter's direction, and the rest for the side that the adapter plays.
DIRECTIONS = {"A": "wsgi_to_asgi", "B": "asgi_to_wsgi"}
# A server is bound by the same clauses as one side of an adapter.
SERVERS = {"B-srv": "asgi_servers", "A-gw": "wsgi_servers"}
# The subjects that a clause may bind, each with a folder of tests.
SUBJECTS = (*DIRECTIONS.values(), *SERVERS.values())
TITLES = {
    "wsgi_to_asgi": "A WSGI app behind an ASGI server",
    "asgi_to_wsgi": "An ASGI app behind a WSGI server",
    "asgi_servers": "ASGI server",
    "wsgi_servers": "WSGI server",
}
ROLES = ("A-app", "A-gw", "B-app", "B-srv")
ALLOWED = {
    "strength": {"MUST", "SHOULD", "MAY", "implied"},
    "basis": {"explicit", "definition", "derived", "convention"},
    "testable": {"yes", "conditional", "no"},
}


@dataclass(frozen=True, kw_only=True)
class Clause:
    """One rule of one document. `untested` maps a direction to the reason why no test checks the rule there."""

    id: str
    document: str
    section: str
    strength: str
    basis: str
    roles: tuple[str, ...]
    clause: str
    observable: str
    testable: str
    condition: str = ""
    note: str = ""
    same_test_as: tuple[str, ...] = ()
    untested: Mapping[str, str]

    @property
    def directions(self) -> list[str]:
        """The directions that the clause binds."""
        return sorted({DIRECTIONS[role[0]] for role in self.roles})

    @property
    def subjects(self) -> list[str]:
        """The directions and the kinds of server that the clause binds."""
        return [*self.directions, *sorted(SERVERS[role] for role in self.roles if role in SERVERS)]


class Mark(NamedTuple):
    """One id in a `@clause(...)` of a test file."""

    id: str
    direction: str
    place: str


def read_catalogue(folder: Path = FOLDER / "clauses") -> dict[str, Clause]:
    """Return all clauses by id. Raises ValueError, which names the file and the clause that is wrong."""
    clauses: dict[str, Clause] = {}
    prefixes: set[str] = set()
    for path in sorted(folder.glob("*.toml")):
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        document = tables.pop("title")
        prefix, *others = {key.rpartition("-")[0] for key in tables}
        if others or prefix in prefixes:
            raise ValueError(f"{path.name}: expected ids with one prefix, which no other file uses")
        prefixes.add(prefix)
        for key, table in tables.items():
            try:
                clauses[key] = _clause_from_table(key, document, table)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path.name}: {key}: {error}") from error
    for clause in clauses.values():
        if unknown := set(clause.same_test_as) - clauses.keys():
            raise ValueError(f"{clause.id}: same_test_as names no clause: {sorted(unknown)}")
    return clauses


def _clause_from_table(key: str, document: str, table: dict[str, Any]) -> Clause:
    if not re.fullmatch(r"[A-Z0-9]+(-[A-Z]+)?-\d{3}", key):
        raise ValueError("an id is a prefix and three digits")
    roles, same, untested = table.pop("roles"), table.pop("same_test_as", []), table.pop("untested", {})
    directions = {DIRECTIONS[role[0]] for role in roles if role in ROLES}
    if isinstance(untested, str):
        untested = dict.fromkeys(directions, untested)
    clause = Clause(
        id=key, document=document, roles=tuple(roles), same_test_as=tuple(same), untested=untested, **table
    )  # TypeError: a key is missing or unknown
    if not roles or not set(roles) <= set(ROLES):
        raise ValueError(f"roles are some of {ROLES}")
    for name, allowed in ALLOWED.items():
        if table[name] not in allowed:
            raise ValueError(f"{name} is one of {sorted(allowed)}, not {table[name]!r}")
    if not untested.keys() <= directions or not all(untested.values()):
        raise ValueError(f"untested is a reason, or one for each direction out of {sorted(directions)}")
    if not all(isinstance(table[name], str) and table[name].strip() for name in ("section", "clause", "observable")):
        raise ValueError("section, clause and observable are texts")
    return clause


def read_reasons(subject: str, folder: Path = FOLDER) -> dict[str, str]:
    """Return why no test checks a clause on a server, by clause. Raises ValueError if a clause has two reasons."""
    reasons: dict[str, str] = {}
    for reason, ids in tomllib.loads((folder / subject / "untested.toml").read_text(encoding="utf-8")).items():
        for key in ids:
            if key in reasons:
                raise ValueError(f"{subject}: {key} has two reasons")
            reasons[key] = reason
    return reasons


def read_marks(folder: Path = FOLDER) -> Iterator[Mark]:
    """Yield the marks of all test files, whether or not they are collected in this run.

    Any `clause(...)` counts, on a function, a class or a `pytest.param`. Its ids are literals.
    """
    for direction in SUBJECTS:
        for path in sorted((folder / direction).rglob("test_*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and _is_clause(node.func):
                    place = f"{path.relative_to(folder)}:{node.lineno}"
                    for argument in node.args:
                        if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
                            raise ValueError(f"{place}: the ids of a clause mark are literals")
                        yield Mark(argument.value, direction, place)


def _is_clause(function: ast.expr) -> bool:
    return (isinstance(function, ast.Name) and function.id == "clause") or (
        isinstance(function, ast.Attribute) and function.attr == "clause"
    )
