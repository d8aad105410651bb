"""The adapters under test, by the options in `tests/conftest.py`, and what a run does with adapters that hang."""

import importlib
import json
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.catalogue import DIRECTIONS, FOLDER
from tests.conformance.loops import Loops

RESULTS = pytest.StashKey[dict[str, dict[str, Any]]]()
SESSION = pytest.StashKey[pytest.Session]()


def adapter_name(config: pytest.Config, direction: str) -> str:
    """Return what stands for the adapter of a direction: `module:Class`, or "none"."""
    return str(config.getoption(direction))


def is_ours(name: str) -> bool:
    """Return whether an adapter is bridge's own, of which more is expected than of others."""
    return name.startswith("bridge:")


def maybe_direction(path: Path) -> str | None:
    """Return the direction that a test file is about."""
    if not path.is_relative_to(FOLDER):
        return None
    return next((name for name in DIRECTIONS.values() if name in path.relative_to(FOLDER).parts), None)


def load_adapter(config: pytest.Config, direction: str) -> Any:
    """Import the adapter of a direction. Raises UsageError where its name leads to none."""
    name = adapter_name(config, direction)
    option = f"--{direction.replace('_', '-')} {name}"
    module, _, attributes = name.partition(":")
    if not module or not attributes:
        raise pytest.UsageError(f"{option}: expected MODULE:CLASS, with a colon, or none")
    try:
        adapter: Any = importlib.import_module(module)
        for attribute in attributes.split("."):
            adapter = getattr(adapter, attribute)
    except (ImportError, AttributeError) as error:
        raise pytest.UsageError(f"{option}: {error}") from error
    if not callable(adapter):
        raise pytest.UsageError(f"{option}: expected a class or function, got {type(adapter).__name__}")
    return adapter


def deadline_for(config: pytest.Config) -> float:
    """Return how long a wait may take before it is a failure, in seconds; the same for every adapter."""
    deadline: float = config.getoption("deadline")
    return deadline


@pytest.fixture(scope="session")
def loops() -> Loops:
    """The loops that the fakes of ASGI servers run on, which outlive the tests: what hangs may still use them."""
    return Loops()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what needs a server's loop on each backend."""
    if "backend" in metafunc.fixturenames:
        ours = is_ours(adapter_name(metafunc.config, "wsgi_to_asgi"))
        backends = metafunc.config.getoption("backends") or ("asyncio,trio" if ours else "asyncio")
        metafunc.parametrize("backend", backends.split(","))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the direction that has no adapter; a warning is a failure of bridge's adapters alone.

    Raises UsageError where the name of an adapter leads to none.
    """
    left_out = []
    for item in items:
        direction = maybe_direction(item.path)
        if direction is not None:
            name = adapter_name(config, direction)
            if name == "none":
                left_out.append(item)
            elif not is_ours(name):
                item.add_marker(pytest.mark.filterwarnings("default"))
    for direction in {maybe_direction(item.path) for item in items if item not in left_out} - {None}:
        load_adapter(config, str(direction))  # here, as behind the first test it is too late to report a wrong name
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note what became of a test: the worst of its phases."""
    report = yield
    direction = maybe_direction(item.path)
    if direction is not None and (report.when == "call" or not report.passed):
        results = item.config.stash.setdefault(RESULTS, {})
        if results.get(item.nodeid, {}).get("outcome") != "failed":
            clauses = [name for mark in item.iter_markers("clause") for name in mark.args]
            failure = "" if call.excinfo is None else call.excinfo.exconly().splitlines()[0]
            results[item.nodeid] = {
                "clauses": clauses,
                "direction": direction,
                "outcome": report.outcome,
                "failure": failure,
            }
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the results where a file is named for them."""
    config = session.config
    config.stash[SESSION] = session
    if path := config.getoption("conformance_results"):
        adapters = {direction: adapter_name(config, direction) for direction in DIRECTIONS.values()}
        results = {"adapters": adapters, "tests": config.stash.get(RESULTS, {})}
        Path(path).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


@pytest.hookimpl(tryfirst=True)  # others may raise here, for what another adapter has left open
def pytest_unconfigure(config: pytest.Config) -> None:
    """End the process at once where threads of another adapter may be stuck, which the interpreter would wait for."""
    names = [adapter_name(config, direction) for direction in DIRECTIONS.values()]
    if SESSION not in config.stash or config.stash[SESSION].exitstatus == pytest.ExitCode.USAGE_ERROR:
        return  # no test has run, and pytest has yet to say why
    if not all(is_ours(name) or name == "none" for name in names):
        config.get_terminal_writer().flush()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[SESSION].exitstatus)
