"""Options and fixtures for all tests."""

import gc
import logging
from collections.abc import Iterator

import pytest
from hypothesis import settings

# By default tests/fuzz tries the same examples each time, which takes seconds. --hypothesis-profile=long tries new ones
# each time, for minutes.
settings.register_profile("short", max_examples=100, derandomize=True)
settings.register_profile("long", max_examples=2000, print_blob=True)
settings.load_profile("short")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of `tests/servers`, because pytest must know them before it reads that folder."""
    parser.addoption("--all-servers", action="store_true", help="run on every server that is installed, not on a core")


def pytest_collection_finish() -> None:
    """Hide modules and tests from the garbage collector, because `gc.collect()` in a test would walk all of them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _root_logger_has_its_level() -> Iterator[None]:
    """Fail a test that changes the level of the root logger for later tests, as an app that it imports may do."""
    yield
    found = logging.root.level
    logging.root.setLevel(logging.WARNING)
    assert found == logging.WARNING, f"the root logger's level was set to {logging.getLevelName(found)}"


@pytest.fixture(params=["asyncio", "asyncio+uvloop", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """Run every async test on each of the loops that users run."""
    name, _, uvloop = str(request.param).partition("+")
    return name, {"use_uvloop": True} if uvloop else {}
