import json

from tests.conformance.server_report import ALL, PAGE, RESULTS, page
from wsgi_asgi_conformance.catalogue import read_catalogue


def test_the_page_is_made_of_the_results() -> None:
    """docs/server-conformance.md says what was measured last, of this catalogue."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert PAGE.read_text(encoding="utf-8") == page(results)
    assert results.keys() <= {server.name for server in ALL}
    named = {fault["id"] for result in results.values() for fault in result["faults"]}
    assert named <= read_catalogue().keys()


def test_a_fault_is_shown_with_its_clause_and_bytes() -> None:
    """The fault is in the table of its kind of server, and the bytes are below it."""
    fault = {"id": "ASGI-HTTP-010", "verdict": "hung", "seen": ["Hang: waited"], "wire": ["> b'GET /'"]}
    totals = {"kept": 1, "broken": 0, "hung": 1, "deviates": 0, "not offered": 2, "untested": 3}
    text = page({ALL[0].name: {"version": "1.2", "totals": totals, "faults": [fault]}})
    assert f"| {ALL[0].name} | 1.2 | 1 | 0 | 1 | 2 | 3 |" in text
    assert f"| {ALL[0].name} (hangs) |" in text
    assert "  > b'GET /'\n" in text
