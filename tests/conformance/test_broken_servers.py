"""Small servers with planted faults: server mode must report a clause that each fault breaks."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.broken import asgi, wsgi
from wsgi_asgi_conformance.catalogue import SERVERS, read_catalogue
from wsgi_asgi_conformance.processes import child_environ

KINDS = {"asgi-server": asgi, "wsgi-server": wsgi}
PLANTED = [(kind, fault, clause) for kind, module in KINDS.items() for fault, clause in module.FAULTS.items()]
# The default run tries one fault of each kind, and both servers without a fault.
QUICK = {"query-is-decoded", "cookies-joined-by-commas"}


def judged(kind: str, fault: str, clauses: str, folder: Path) -> dict[str, Any]:
    """Return server mode's report on a broken server."""
    results = folder / "out.json"
    module = f"tests.conformance.broken.{kind.partition('-')[0]}"
    server = f"{{python}} -m {module} {{app}} {{port}} {fault}"
    command = [sys.executable, "-m", "wsgi_asgi_conformance.command", kind, "--command", server, "--clauses", clauses]
    command += ["--advised", "--deadline", "2", "--conformance-json", str(results), "-p", "no:randomly"]
    done = subprocess.run(command, env=child_environ(), capture_output=True, text=True, timeout=55, check=False)
    assert results.exists(), done.stdout + done.stderr
    report: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))
    return report


@pytest.mark.parametrize(
    ("kind", "fault", "clause"),
    [
        pytest.param(*planted, marks=[] if planted[1] in QUICK else [pytest.mark.slow], id="-".join(planted[:2]))
        for planted in PLANTED
    ],
)
def test_each_fault_of_a_server_is_caught(kind: str, fault: str, clause: str, tmp_path: Path) -> None:
    """The clause that the fault breaks is reported as broken or hung."""
    report = judged(kind, fault, clause, tmp_path)
    verdicts = {each["id"]: each["verdict"] for each in report["clauses"]}
    assert verdicts[clause] in ("broken", "hung")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_without_a_fault_nothing_is_caught(kind: str, tmp_path: Path) -> None:
    """Without the fault, the same clauses are kept."""
    clauses = ",".join(dict.fromkeys(KINDS[kind].FAULTS.values()))
    report = judged(kind, "", clauses, tmp_path)
    assert {each["id"]: each["seen"] for each in report["clauses"] if each["verdict"] != "kept"} == {}


def test_there_are_twenty_faults_of_servers() -> None:
    """Each fault breaks a clause that binds its kind of server."""
    assert len(PLANTED) >= 20
    clauses = read_catalogue()
    subjects = {subject.removesuffix("s").replace("_", "-"): subject for subject in SERVERS.values()}
    assert [planted for planted in PLANTED if subjects[planted[0]] not in clauses[planted[2]].subjects] == []
