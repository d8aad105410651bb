"""Choose the servers of a run, a core of them or all with `--all-servers`, and the fixtures of their tests."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

import pytest

from tests.servers.checks import checks_of
from tests.servers.shortcomings import OF_ASGI_SERVERS
from tests.servers.wsgi_client import Puppet

# One server for each way to run an app: two loops, a fork before and after the adapter is created, one that buffers.
CORE = (
    "uvicorn-h11-asyncio",
    "uvicorn-httptools-uvloop",
    "hypercorn-trio",
    "gunicorn-gthread",
    "gunicorn-gthread-preload",
    "waitress",
)
# The frameworks' apps on them: plain and mounted, in each direction.
CORE_PAIRS = (
    ("flask", "hypercorn-trio"),
    ("flask-in-fastapi", "uvicorn-httptools-uvloop"),
    ("fastapi", "gunicorn-gthread-preload"),
    ("fastapi-in-flask", "gunicorn-gthread"),
)


def pytest_report_header(config: pytest.Config) -> str:
    if config.getoption("--all-servers"):
        return "servers: all that are installed"
    return f"servers: {', '.join(CORE)} (--all-servers takes all that are installed)"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests whose server, or whose framework on it, is not in the core."""
    all_servers = config.getoption("--all-servers")
    chosen: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        if not _is_of_here(item):
            chosen.append(item)
        elif _makes_sense(item):
            (chosen if all_servers or _in_core(_params(item)) else left_out).append(item)
    for item in chosen:
        if _is_of_here(item) and (why := _maybe_why_not(item)) is not None:
            item.add_marker(pytest.mark.xfail(reason=why, strict=False))  # some of a test's cases pass
    items[:] = chosen
    if left_out:
        config.hook.pytest_deselected(items=left_out)


def _is_of_here(item: pytest.Item) -> TypeGuard[pytest.Function]:
    """Return whether this is a test of servers, because the hook above gets the tests of all folders."""
    return isinstance(item, pytest.Function) and item.path.is_relative_to(Path(__file__).parent)


def _maybe_why_not(item: pytest.Function) -> str | None:
    """Return what the test's server does not do, if that is known."""
    return OF_ASGI_SERVERS.get(str(_params(item).get("kind")), {}).get(item.originalname)


def _params(item: pytest.Function) -> dict[str, Any]:
    return item.callspec.params if hasattr(item, "callspec") else {}


def _makes_sense(item: pytest.Function) -> bool:
    """Return whether the framework has what is checked."""
    params = _params(item)
    return "served" not in params or params["check"] in checks_of(params["served"][0])


def _in_core(params: dict[str, Any]) -> bool:
    if "served" in params:
        return params["served"] in CORE_PAIRS
    kind = params.get("kind")
    return kind is None or getattr(kind, "name", kind) in CORE


_ids = itertools.count(1)


@pytest.fixture
def request_id() -> str:
    """Return an id for the notes of an app, new for each test."""
    return f"request-{next(_ids)}"


@pytest.fixture
def puppet() -> Iterator[Puppet]:
    """Return the test's side of an app that obeys the test."""
    with contextlib.closing(Puppet()) as puppet:
        yield puppet
