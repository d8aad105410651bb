from collections import Counter, defaultdict
from pathlib import Path

import pytest

from wsgi_asgi_conformance.catalogue import SERVERS, Clause, read_catalogue, read_marks, read_reasons

CLAUSES = read_catalogue()
MARKS = list(read_marks())

TABLE = """\
title = "Title"
["P3333-001"]
section = "Section"
strength = "MUST"
basis = "explicit"
roles = ["A-gw", "B-app"]
clause = "What is so."
observable = "How that is seen."
testable = "yes"
"""


def by_document(lines: dict[str, str]) -> str:
    """Return a listing of clauses, `lines` by id, with the clauses' documents as headings."""
    listing: dict[str, list[str]] = defaultdict(list)
    for key, line in sorted(lines.items()):
        listing[CLAUSES[key].document if key in CLAUSES else "no document"].append(f"  {key} {line}")
    return "\n".join(f"{document}: {len(entries)}\n" + "\n".join(entries) for document, entries in listing.items())


def test_each_clause_is_tested_in_each_direction_that_it_binds() -> None:
    """A clause that can be tested has a test in each of its directions, or a reason why not."""
    tested = {(mark.id, mark.direction) for mark in MARKS}
    missing: dict[str, str] = {}
    for clause in CLAUSES.values():
        wanting = [
            direction
            for direction in clause.directions
            if clause.testable != "no" and direction not in clause.untested and (clause.id, direction) not in tested
        ]
        if wanting:
            missing[clause.id] = f"{' '.join(wanting)} ({clause.section})"
    if missing:
        pytest.fail(f"{len(missing)} clauses have no test\n{by_document(missing)}", pytrace=False)


@pytest.mark.parametrize("subject", SERVERS.values())
def test_each_clause_that_binds_a_server_is_tested_or_says_why_not(subject: str) -> None:
    """Each clause has either a test on servers of its kind or one reason."""
    tested = {mark.id for mark in MARKS if mark.direction == subject}
    reasons = read_reasons(subject)
    binding = {clause.id for clause in CLAUSES.values() if subject in clause.subjects}
    assert binding - tested - reasons.keys() == set()
    assert reasons.keys() <= binding - tested
    assert all(reasons.values())


def test_each_mark_names_a_clause_that_binds_its_direction() -> None:
    """A mark must name a clause of the catalogue that binds the direction."""
    wrong = {
        mark.id: mark.place
        for mark in MARKS
        if mark.id not in CLAUSES or mark.direction not in CLAUSES[mark.id].subjects
    }
    assert not wrong, by_document(wrong)


def test_no_clause_is_both_tested_and_untested() -> None:
    """A clause that has a test has no reason for being untested."""
    both = {mark.id: mark.place for mark in MARKS if mark.id in CLAUSES and mark.direction in CLAUSES[mark.id].untested}
    assert not both, by_document(both)


def test_clauses_that_share_a_test_do_so_both_ways() -> None:
    """`same_test_as` is symmetric."""
    for clause in CLAUSES.values():
        for other in clause.same_test_as:
            assert clause.id in CLAUSES[other].same_test_as


def test_ids_are_numbered_without_gaps() -> None:
    """The clauses of a document count up from 001, so that none is lost by an edit."""
    counts = Counter(key.rpartition("-")[0] for key in CLAUSES)
    assert list(CLAUSES) == [
        f"{prefix}-{number:03}" for prefix, count in counts.items() for number in range(1, count + 1)
    ]


def read_one(folder: Path, text: str) -> Clause:
    (folder / "one.toml").write_text(text, encoding="utf-8")
    (clause,) = read_catalogue(folder).values()
    return clause


def test_a_clause_is_read_with_its_directions(tmp_path: Path) -> None:
    """The roles of a clause say which directions it binds, and `untested` is for all of them."""
    clause = read_one(tmp_path, TABLE + 'untested = "nobody can see it"\n')
    assert clause.directions == ["asgi_to_wsgi", "wsgi_to_asgi"]
    assert clause.untested == dict.fromkeys(clause.directions, "nobody can see it")


def test_a_clause_may_be_untested_in_one_direction(tmp_path: Path) -> None:
    """`untested` may be a table of reasons by direction."""
    clause = read_one(tmp_path, TABLE + 'untested = {wsgi_to_asgi = "the server does that"}\n')
    assert clause.untested == {"wsgi_to_asgi": "the server does that"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("P3333-001", "P3333-1"),
        ('strength = "MUST"', 'strength = "must"'),
        ('basis = "explicit"', 'basis = ""'),
        ('testable = "yes"', 'testable = "maybe"'),
        ('testable = "yes"', 'testabel = "yes"'),
        ('testable = "yes"', 'testable = "yes"\nsame_test_as = ["P3333-002"]'),
        ('testable = "yes"', 'testable = "yes"\nuntested = {sideways = "why"}'),
        ('testable = "yes"', 'testable = "yes"\nuntested = {wsgi_to_asgi = ""}'),
        ('roles = ["A-gw", "B-app"]', 'roles = ["C-app"]'),
        ('roles = ["A-gw", "B-app"]', "roles = []"),
        ('clause = "What is so."', 'clause = " "'),
    ],
)
def test_what_is_not_a_clause_is_refused(tmp_path: Path, old: str, new: str) -> None:
    """A slip in the catalogue is an error that names the clause."""
    with pytest.raises(ValueError, match=r"P3333-1|P3333-001"):
        read_one(tmp_path, TABLE.replace(old, new))


def test_marks_are_read_wherever_they_are(tmp_path: Path) -> None:
    """A mark counts on a function and on a parameter, by either name, and in the direction of its folder."""
    folder = tmp_path / "asgi_to_wsgi"
    folder.mkdir()
    (folder / "test_one.py").write_text(
        '@clause("P3333-001", "P3333-002")\n'
        "def test_one(): ...\n"
        '@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.clause("P3333-003"))])\n'
        "def test_two(x): ...\n"
    )
    assert [(mark.id, mark.direction, mark.place) for mark in read_marks(tmp_path)] == [
        ("P3333-001", "asgi_to_wsgi", "asgi_to_wsgi/test_one.py:1"),
        ("P3333-002", "asgi_to_wsgi", "asgi_to_wsgi/test_one.py:1"),
        ("P3333-003", "asgi_to_wsgi", "asgi_to_wsgi/test_one.py:3"),
    ]


def test_a_mark_has_literal_ids(tmp_path: Path) -> None:
    """An id that is not a literal is refused."""
    (tmp_path / "wsgi_to_asgi").mkdir()
    (tmp_path / "wsgi_to_asgi" / "test_one.py").write_text("@clause(NAME)\ndef test_one(): ...\n")
    with pytest.raises(ValueError, match=r"test_one\.py:1"):
        list(read_marks(tmp_path))
