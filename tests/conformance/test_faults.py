import builtins
import dis
from collections import Counter
from dataclasses import replace
from types import CodeType

import pytest

from tests.conformance.faults import Fault, main, read_faults, try_fault
from tests.processes import ROOT
from wsgi_asgi_conformance.catalogue import DIRECTIONS, read_catalogue

CLAUSES = read_catalogue()
FAULTS = read_faults()
SOURCE = ROOT / "src" / "bridge"
UNCHANGED = [
    Fault(
        name="none",
        direction=direction,
        file="errors.py",
        old="class BridgeError",
        new="class BridgeError",
        fault="There is none.",
        clauses=tuple({name for fault in FAULTS if fault.direction == direction for name in fault.clauses}),
    )
    for direction in DIRECTIONS.values()
]


def test_each_fault_can_be_planted() -> None:
    """The old text occurs once in its file, and the new text compiles."""
    for fault in FAULTS:
        assert fault.old != fault.new, fault.name
        compile(fault.changed(SOURCE), f"{fault.file} with {fault.name}", "exec", dont_inherit=True)


def test_each_fault_uses_names_that_its_file_has() -> None:
    """A fault that raises NameError would prove nothing about its clauses."""
    unknown = []
    for fault in FAULTS:
        code = compile(fault.changed(SOURCE), fault.file, "exec", dont_inherit=True)
        defined = {*vars(builtins), "__file__"}
        defined |= {each.argval for each in dis.get_instructions(code) if each.opname in ("STORE_NAME", "STORE_GLOBAL")}
        unknown += [(fault.name, name) for name in global_names_of(code) - defined]
    assert unknown == []


def global_names_of(code: CodeType) -> set[str]:
    """Return the names that the functions and classes in a module's code look up in the module."""
    names = {each.argval for each in dis.get_instructions(code) if each.opname == "LOAD_GLOBAL"}
    return names.union(*(global_names_of(each) for each in code.co_consts if isinstance(each, CodeType)))


def test_each_fault_breaks_clauses_of_its_direction() -> None:
    """The clauses are in the catalogue and bind the direction."""
    for fault in FAULTS:
        assert fault.clauses, fault.name
        assert [name for name in fault.clauses if fault.direction not in CLAUSES[name].directions] == [], fault.name


def test_there_are_forty_faults_in_each_direction() -> None:
    """Both directions have faults."""
    counts = Counter(fault.direction for fault in FAULTS)
    assert counts.keys() == set(DIRECTIONS.values())
    assert min(counts.values()) >= 40


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(0)
def test_every_fault_is_caught(capsys: pytest.CaptureFixture[str]) -> None:
    """A test of a clause that the fault breaks fails."""
    status = main([])
    assert status == 0, "\n".join(line for line in capsys.readouterr().out.splitlines() if ": caught by " not in line)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("unchanged", UNCHANGED, ids=[fault.direction for fault in UNCHANGED])
def test_without_a_fault_nothing_is_caught(unchanged: Fault) -> None:
    """Without the fault the same tests pass, so the fault is what fails them."""
    verdict = try_fault(unchanged)
    assert verdict.text.startswith("NOT CAUGHT by ")


def test_a_fault_that_cannot_be_planted_is_not_caught() -> None:
    """A fault whose old text is gone is reported and counts as a failure."""
    verdict = try_fault(replace(UNCHANGED[0], old="nothing of the kind"))
    assert verdict == (False, "DOES NOT APPLY: errors.py has the old text 0 times, not once")


def test_a_fault_that_is_not_there_is_not_tried(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt name is a usage error."""
    assert main(["no-such-fault"]) == 2
    assert capsys.readouterr().err == "no such fault: no-such-fault\n"
