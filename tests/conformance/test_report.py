import json
import re
from typing import Any

import pytest

from tests.conformance.report import (
    RESULTS,
    Adapter,
    as_json,
    clause_page,
    main,
    page,
    stored_verdicts,
    totals,
    with_totals,
)
from tests.processes import ROOT
from wsgi_asgi_conformance.catalogue import Clause, read_catalogue
from wsgi_asgi_conformance.verdicts import Outcome, verdicts_from

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


def result(outcome: str, *clauses: str, direction: str = "wsgi_to_asgi") -> Outcome:
    return Outcome("test", direction, clauses, outcome)


@pytest.mark.parametrize(
    ("tests", "verdict"),
    [
        ([result("kept", "P3333-001")], "kept"),
        ([result("kept", "P3333-001"), result("not offered", "P3333-001")], "kept"),
        ([result("not offered", "P3333-001")], "not offered"),
        ([result("kept", "P3333-001"), result("broken", "P3333-001")], "broken"),
        ([result("kept", "P3333-001"), result("deviates", "P3333-001")], "deviates"),
        ([result("broken", "P3333-001"), result("hung", "P3333-001")], "hung"),
    ],
)
def test_a_clause_is_what_the_worst_of_its_tests_is(tests: list[Outcome], verdict: str) -> None:
    """All tests have to pass for a clause to be kept."""
    for order in (tests, tests[::-1]):
        assert verdicts_from(order) == {("wsgi_to_asgi", "P3333-001"): verdict}


def test_a_test_counts_for_each_of_its_clauses_in_its_direction() -> None:
    """One test may cover two clauses, and a clause may be kept in one direction only."""
    tests = [
        result("kept", "P3333-001", "P3333-002"),
        result("broken", "P3333-001", direction="asgi_to_wsgi"),
        result("kept"),
    ]
    assert verdicts_from(tests) == {
        ("wsgi_to_asgi", "P3333-001"): "kept",
        ("wsgi_to_asgi", "P3333-002"): "kept",
        ("asgi_to_wsgi", "P3333-001"): "broken",
    }


def test_a_failure_is_put_down_to_what_is_known_to_be_broken() -> None:
    """A failed test of several clauses counts against those that narrower tests found broken, otherwise against all."""
    tests = [
        result("broken", "P3333-001"),
        result("hung", "P3333-001", "P3333-002"),
        result("kept", "P3333-002"),
        result("broken", "P3333-001", "P3333-003"),
        result("not offered", "P3333-003"),
        result("broken", "P3333-004", "P3333-005"),
        result("broken", "P3333-005", "P3333-006"),
        result("broken", "P3333-004", "P3333-006", "P3333-007"),
        result("kept", "P3333-007"),
        result("broken", "P3333-001", "P3333-008", direction="asgi_to_wsgi"),
        result("kept", "P3333-001", "P3333-008", direction="asgi_to_wsgi"),
    ]
    for order in (tests, tests[::-1]):
        verdicts = verdicts_from(order)
        assert {name: verdict for (direction, name), verdict in verdicts.items() if direction == "wsgi_to_asgi"} == {
            "P3333-001": "hung",
            "P3333-002": "kept",  # the narrower test shows that the first clause is to blame for the hang
            "P3333-003": "broken",  # because no other test kept it
            "P3333-004": "broken",
            "P3333-005": "broken",
            "P3333-006": "broken",
            "P3333-007": "kept",
        }
        assert verdicts["asgi_to_wsgi", "P3333-008"] == "broken"


def test_totals_count_the_clauses_that_bind_a_direction() -> None:
    """Each clause is in one column; an adapter that is not installed is marked so."""
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
    """Each row has a mark for each adapter of the direction, or the reason why there is no test."""
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
    """A second run replaces the table again and changes nothing else."""
    text = "Before.\n<!-- conformance totals -->\nold\n<!-- end -->\nAfter.\n<!-- end -->\n"
    new = "Before.\n<!-- conformance totals -->\n\n| \\1 |\n| two |\n\n<!-- end -->\nAfter.\n<!-- end -->\n"
    assert with_totals(text, ["| \\1 |", "| two |"]) == new
    assert with_totals(new, ["| \\1 |", "| two |"]) == new
    assert with_totals("No marker.", ["| one |"]) == "No marker."


def test_the_page_and_the_totals_are_made_of_the_results() -> None:
    """docs/conformance.md and the README say what was measured last; only the version of Python may differ here."""
    clauses = list(read_catalogue().values())
    verdicts = stored_verdicts(json.loads(RESULTS.read_text(encoding="utf-8")))
    text = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
    made = page(clauses, verdicts)
    assert [line for line in text.splitlines() if not line.startswith("On Python")] == [
        line for line in made.splitlines() if not line.startswith("On Python")
    ]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_totals(readme, totals(clauses, verdicts)) == readme


def test_what_is_kept_of_a_run_is_all_that_the_tables_need() -> None:
    """An adapter that does not run again keeps its verdicts and the version that they belong to."""
    adapter = Adapter("a2wsgi", {"wsgi_to_asgi": "one:Class", "asgi_to_wsgi": "one:Other"}, measured="1.2")
    found = {("wsgi_to_asgi", "P3333-001"): "hung", ("asgi_to_wsgi", "P3333-001"): "kept"}
    stored = stored_verdicts(json.loads(json.dumps({"a2wsgi": as_json(adapter, found)})))
    assert {each.title: verdicts for each, verdicts in stored.items() if verdicts is not None} == {"a2wsgi 1.2": found}


def test_an_adapter_that_is_not_known_is_an_error_of_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing runs, and the message lists the known names."""
    with pytest.raises(SystemExit):
        main(["bridge", "a2wsgy"])
    assert "out of bridge, a2wsgi, asgiref, starlette, uvicorn, hypercorn, got a2wsgy" in capsys.readouterr().err


def test_the_page_is_of_this_catalogue() -> None:
    """docs/conformance.md has each clause once for each direction that it binds."""
    text = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([A-Z0-9-]+) \|", text, re.MULTILINE)
    assert sorted(rows) == sorted(one.id for one in read_catalogue().values() for _ in one.directions)


def test_each_clause_has_a_heading_to_link_to() -> None:
    """docs/clauses.md matches the catalogue."""
    text = (ROOT / "docs" / "clauses.md").read_text(encoding="utf-8")
    assert text == clause_page(list(read_catalogue().values()))
