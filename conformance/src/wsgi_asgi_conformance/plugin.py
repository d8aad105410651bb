"""The pytest plugin: the options, the selection of tests, and the recording of their outcomes."""

import os
import signal
import subprocess
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from wsgi_asgi_conformance.adapters import (
    adapter_name,
    check_command,
    deadline_for,
    is_thorough,
    load_adapter,
    maybe_subject,
    option_for,
)
from wsgi_asgi_conformance.catalogue import DIRECTIONS, SERVERS, SUBJECTS, read_catalogue
from wsgi_asgi_conformance.deviations import Deviation, read_deviations
from wsgi_asgi_conformance.exchange import Hang
from wsgi_asgi_conformance.outputs import Run, write_outputs
from wsgi_asgi_conformance.selection import Selection
from wsgi_asgi_conformance.serving import RunningServer
from wsgi_asgi_conformance.summary import summary_lines
from wsgi_asgi_conformance.verdicts import Outcome

RUN = pytest.StashKey[Run]()
SELECTION = pytest.StashKey[Selection]()
DEVIATIONS = pytest.StashKey[Sequence[Deviation]]()
FAILED = pytest.StashKey[bool]()  # whether a test has failed
SESSION = pytest.StashKey[pytest.Session]()
# A whole test may take this many deadlines, because it may wait for several things.
_DEADLINES_PER_TEST = 12


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the suite's options."""
    group = parser.getgroup("conformance", "conformance of WSGI and ASGI adapters")
    group.addoption("--wsgi-to-asgi", metavar="MODULE:CLASS", help="adapter that makes a WSGI app an ASGI app, or none")
    group.addoption("--asgi-to-wsgi", metavar="MODULE:CLASS", help="adapter that makes an ASGI app a WSGI app, or none")
    for subject in SERVERS.values():
        group.addoption(
            option_for(subject), dest=subject, metavar="COMMAND", help="starts a server, with {app} and {port}"
        )
    group.addoption("--backends", default="asyncio", help="loops to run --wsgi-to-asgi on: asyncio, trio or both")
    group.addoption("--deadline", type=float, default=5.0, help="seconds after which a wait counts as a hang (5)")
    group.addoption("--clauses", metavar="NAMES", help="only these, such as P3333-028,ASGI-WS or a section's title")
    group.addoption("--advised", action="store_true", help="also judge what the specs only advise or allow")
    group.addoption("--deviations", metavar="FILE", help="TOML file of clauses that are broken on purpose")
    group.addoption("--conformance-json", metavar="FILE", help="write each clause's result as JSON")
    group.addoption("--conformance-markdown", metavar="FILE", help="append a summary, as for $GITHUB_STEP_SUMMARY")
    group.addoption("--conformance-badge", metavar="FILE", help="write a badge for shields.io as JSON")
    group.addoption(
        "--thorough",
        action="store_true",
        help="also fail tests for warnings, for what a validator reports, and for calls that outlive their client",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Read the files and adapters that the options name. Raises UsageError if one does not exist."""
    config.addinivalue_line("markers", "clause(*ids): clauses of the catalogue that the test checks")
    for direction in DIRECTIONS.values():
        if adapter_name(config, direction) != "none":
            load_adapter(config, direction)
    for subject in SERVERS.values():
        if adapter_name(config, subject) != "none":
            check_command(config, subject)
    clauses = read_catalogue()
    try:
        config.stash[SELECTION] = Selection(clauses, config.getoption("clauses"), config.getoption("advised"))
        path = config.getoption("deviations")
        config.stash[DEVIATIONS] = read_deviations(Path(path), clauses) if path else []
    except (OSError, ValueError) as error:
        raise pytest.UsageError(str(error)) from error
    names = {direction: adapter_name(config, direction) for direction in SUBJECTS}
    config.stash[RUN] = Run(names, config.stash[SELECTION].clauses, config.stash[DEVIATIONS])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that needs a server's loop on every backend."""
    if "backend" in metafunc.fixturenames and metafunc.module.__name__.startswith(__package__):
        metafunc.parametrize("backend", metafunc.config.getoption("backends").split(","))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests of directions without an adapter, and of clauses that the options leave out."""
    left_out = []
    directions: set[str] = set()
    for item in items:
        direction = maybe_subject(item.path)
        if direction is None:
            continue
        directions.add(direction)
        clauses = clauses_of(item)
        if adapter_name(config, direction) == "none" or not config.stash[SELECTION].takes(clauses):
            left_out.append(item)
            continue
        item.user_properties += [("direction", direction), *(("clause", name) for name in clauses)]
        if not is_thorough(config) or direction in SERVERS.values():
            item.add_marker(pytest.mark.filterwarnings("default"))
    if directions and all(adapter_name(config, subject) == "none" for subject in SUBJECTS):
        options = " or ".join(f"{option_for(direction)} MODULE:CLASS" for direction in DIRECTIONS.values())
        raise pytest.UsageError(f"expected an adapter or a server to judge, got none; add {options}")
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def clauses_of(item: pytest.Item) -> list[str]:
    """Return the clauses that a test checks."""
    return [name for mark in item.iter_markers("clause") for name in mark.args]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """End a test whose own thread hangs in the adapter, unless pytest-timeout does; needs a system with timers."""
    if (
        maybe_subject(item.path) is None
        or item.config.pluginmanager.has_plugin("timeout")
        or not hasattr(signal, "setitimer")
    ):
        return (yield)
    seconds = _DEADLINES_PER_TEST * deadline_for(item.config)

    def ring(signum: int, frame: object) -> None:
        raise Hang(f"the test waited {seconds:g} s in its own thread")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Record the outcome of a phase of a test as strings, which pytest-xdist workers can send."""
    report = yield
    direction = maybe_subject(item.path)
    if direction is None or (report.passed and report.when != "call"):
        return report
    clauses = tuple(clauses_of(item))
    outcome, seen = "kept" if report.passed else "not offered", ""
    if call.excinfo is not None:
        seen = call.excinfo.exconly().splitlines()[0]
    if report.failed and call.excinfo is not None:
        hung = isinstance(call.excinfo.value, (Hang, subprocess.TimeoutExpired))
        outcome = "hung" if hung else "broken"
        reasons = [each.reason for each in item.config.stash[DEVIATIONS] if each.covers(direction, clauses)]
        if reasons:
            outcome = "deviates"
            report.outcome = "skipped"
            report.wasxfail = reasons[0]
    wire = ""
    if isinstance(server := getattr(item, "funcargs", {}).get("server"), RunningServer) and report.failed:
        wire = server.wire()
        report.sections.append(("Client (>) and server (<)", wire))
        report.sections.append(("Output of the server", server.output()[-4000:]))
    item.stash[FAILED] = item.stash.get(FAILED, False) or outcome in ("broken", "hung", "deviates")
    report.conformance = Outcome(item.nodeid, direction, clauses, outcome, seen, wire).as_json()  # type: ignore[attr-defined]
    return report


def pytest_report_teststatus(report: pytest.CollectReport | pytest.TestReport, config: pytest.Config) -> Any:
    """Leave broken clauses out of pytest's list of failures, unless --tb or --thorough ask for them."""
    outcome = getattr(report, "conformance", {}).get("outcome")
    if outcome in ("broken", "hung") and not is_thorough(config) and config.option.tbstyle == "auto":
        return outcome, outcome[0].upper(), outcome.upper()
    return None


@pytest.hookimpl(wrapper=True)
def pytest_sessionstart(session: pytest.Session) -> Generator[None, None, None]:
    """Collect the outcomes in the process that reports; with pytest-xdist, that process runs no tests."""
    if not hasattr(session.config, "workerinput"):
        session.config.pluginmanager.register(_Recorder(session.config.stash[RUN]), "conformance recorder")
    return (yield)


class _Recorder:
    """Passes the outcomes of tests to the run."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if found := getattr(report, "conformance", None):
            self._run.add(Outcome(**{**found, "clauses": tuple(found["clauses"])}))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the files that the options name, and fail a run whose deviations no longer fail."""
    config = session.config
    config.stash[SESSION] = session
    if hasattr(config, "workerinput"):
        return
    run = config.stash[RUN]
    if run.outcomes:
        write_outputs(run, config)
        if run.mended() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the verdicts at the end."""
    run = config.stash[RUN]
    if not run.outcomes or (is_thorough(config) and not run.broken() and not run.mended()):
        return
    terminalreporter.section("conformance")
    for line in summary_lines(run, terminalreporter.verbosity):
        terminalreporter.write_line(line)


@pytest.hookimpl(tryfirst=True)  # other plugins may raise here because of what an adapter has left open
def pytest_unconfigure(config: pytest.Config) -> None:
    """Exit at once if threads of the adapter may be stuck, because the interpreter would wait for them."""
    if SESSION not in config.stash or config.stash[SESSION].exitstatus == pytest.ExitCode.USAGE_ERROR:
        return  # no test has run, and pytest still has to say why
    if config.stash[RUN].names_any and not is_thorough(config) and not hasattr(config, "workerinput"):
        config.get_terminal_writer().flush()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[SESSION].exitstatus)
