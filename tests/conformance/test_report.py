import re
from typing import Any

import pytest

from tests.conformance.catalogue import FOLDER, Clause, read_catalogue
from tests.conformance.report import Adapter, page, totals, verdicts_from_tests, with_totals

BOTH = Adapter("pytest", {"wsgi_to_asgi": "one:Class", "asgi_to_wsgi": "one:Other"})
MISSING = Adapter("no-such-package", {"wsgi_to_asgi": "two:Class"})


def clause(key: str, **keys: Any) -> Clause:
    values = {
        "id": key,
        "document": "Document",
        "section": "Section",
        "strength": "MUST",
        "basis": "explicit",
        "roles": ("A-gw", "B-app"),
        "clause": "What is so.",
        "observable": "How that is seen.",
        "testable": "yes",
        "untested": {},
    }
    return Clause(**{**values, **keys})


def result(outcome: str, *clauses: str, failure: str = "", direction: str = "wsgi_to_asgi") -> dict[str, Any]:
    return {"clauses": clauses, "direction": direction, "outcome": outcome, "failure": failure}


@pytest.mark.parametrize(
    ("tests", "verdict"),
    [
        ([result("passed", "P3333-001")], "kept"),
        ([result("passed", "P3333-001"), result("skipped", "P3333-001")], "kept"),
        ([result("skipped", "P3333-001", failure="Skipped: no close()")], "not offered"),
        ([result("passed", "P3333-001"), result("failed", "P3333-001", failure="AssertionError: 1")], "broken"),
        (
            [
                result("failed", "P3333-001", failure="AssertionError: 1"),
                result("failed", "P3333-001", failure="tests.conformance.exchange.Hang: waited 2 s for the end"),
            ],
            "hung",
        ),
        ([result("failed", "P3333-001", failure="AssertionError: <function close> hangs")], "hung"),
        ([result("failed", "P3333-001", failure="ValueError: nothing that Hangs: or so")], "broken"),
    ],
)
def test_a_clause_is_what_the_worst_of_its_tests_is(tests: list[dict[str, Any]], verdict: str) -> None:
    """All tests have to pass for a clause to be kept."""
    for order in (tests, tests[::-1]):
        assert verdicts_from_tests(order) == {("wsgi_to_asgi", "P3333-001"): verdict}


def test_a_test_counts_for_each_of_its_clauses_in_its_direction() -> None:
    """One test may be about two clauses, and one clause be kept in one direction alone."""
    tests = [
        result("passed", "P3333-001", "P3333-002"),
        result("failed", "P3333-001", direction="asgi_to_wsgi"),
        result("passed"),
    ]
    assert verdicts_from_tests(tests) == {
        ("wsgi_to_asgi", "P3333-001"): "kept",
        ("wsgi_to_asgi", "P3333-002"): "kept",
        ("asgi_to_wsgi", "P3333-001"): "broken",
    }


def test_a_failure_is_put_down_to_what_is_known_to_be_broken() -> None:
    """A test of several clauses fails for those that tests of fewer fail for, and else for all of them."""
    tests = [
        result("failed", "P3333-001"),
        result("failed", "P3333-001", "P3333-002", failure="tests.conformance.exchange.Hang: waited"),
        result("passed", "P3333-002"),
        result("failed", "P3333-001", "P3333-003"),
        result("skipped", "P3333-003"),
        result("failed", "P3333-004", "P3333-005"),
        result("failed", "P3333-005", "P3333-006"),
        result("failed", "P3333-004", "P3333-006", "P3333-007"),
        result("passed", "P3333-007"),
        result("failed", "P3333-001", "P3333-008", direction="asgi_to_wsgi"),
        result("passed", "P3333-001", "P3333-008", direction="asgi_to_wsgi"),
    ]
    for order in (tests, tests[::-1]):
        verdicts = verdicts_from_tests(order)
        assert {name: verdict for (direction, name), verdict in verdicts.items() if direction == "wsgi_to_asgi"} == {
            "P3333-001": "hung",
            "P3333-002": "kept",  # the wider test hung for the first, says the narrower one
            "P3333-003": "broken",  # as nothing speaks for it
            "P3333-004": "broken",
            "P3333-005": "broken",
            "P3333-006": "broken",
            "P3333-007": "kept",
        }
        assert verdicts["asgi_to_wsgi", "P3333-008"] == "broken"


def test_totals_count_the_clauses_that_bind_a_direction() -> None:
    """Each of them is in one column; an adapter that is not installed is named as such."""
    clauses = [clause("P3333-001"), clause("P3333-002", roles=("A-gw",)), clause("P3333-003")]
    found = {("wsgi_to_asgi", "P3333-001"): "hung", ("wsgi_to_asgi", "P3333-002"): "kept"}
    lines = list(totals(clauses, {BOTH: found, MISSING: None}))
    assert lines[0] == "| adapter | direction | kept | broken | hung | not offered | untested |"
    assert lines[2:] == [
        f"| pytest {pytest.__version__} | A WSGI app behind an ASGI server | 1 | 0 | 1 | 0 | 1 |",
        "| no-such-package (not installed) | A WSGI app behind an ASGI server |  |  |  |  |  |",
        f"| pytest {pytest.__version__} | An ASGI app behind a WSGI server | 0 | 0 | 0 | 0 | 2 |",
    ]


def test_the_page_has_a_row_for_each_clause_and_direction() -> None:
    """With a mark for each adapter of the direction, and the reason where there is no test."""
    clauses = [
        clause("P3333-001", clause="`a|b` is <what> is so."),
        clause("P3333-002", untested={"asgi_to_wsgi": "Why."}),
    ]
    text = page(clauses, {BOTH: {("wsgi_to_asgi", "P3333-001"): "kept"}, MISSING: None})
    assert [line for line in text.splitlines() if line.startswith("| P3333-")] == [
        "| P3333-001 | `a\\|b` is &lt;what> is so. | MUST | ✓ |  |",
        "| P3333-002 | What is so. *Untested: no test can see it.* | MUST |  |  |",
        "| P3333-001 | `a\\|b` is &lt;what> is so. *Untested: no test can see it.* | MUST |  |",
        "| P3333-002 | What is so. *Untested: Why.* | MUST |  |",
    ]


def test_totals_go_between_the_markers() -> None:
    """Again and again, and nowhere else."""
    text = "Before.\n<!-- conformance totals -->\nold\n<!-- end -->\nAfter.\n<!-- end -->\n"
    new = "Before.\n<!-- conformance totals -->\n\n| \\1 |\n| two |\n\n<!-- end -->\nAfter.\n<!-- end -->\n"
    assert with_totals(text, ["| \\1 |", "| two |"]) == new
    assert with_totals(new, ["| \\1 |", "| two |"]) == new
    assert with_totals("No marker.", ["| one |"]) == "No marker."


def test_the_page_is_of_this_catalogue() -> None:
    """docs/conformance.md has each clause that there is, in each direction that it binds."""
    text = (FOLDER.parent.parent / "docs" / "conformance.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([A-Z0-9-]+) \|", text, re.MULTILINE)
    assert sorted(rows) == sorted(one.id for one in read_catalogue().values() for _ in one.directions)
