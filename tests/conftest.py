"""Options and fixtures for all tests."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-servers", action="store_true", help="run on every server that is installed, not on a core")


@pytest.fixture(params=["asyncio", "asyncio+uvloop", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """Run every async test on each of the loops that users have."""
    name, _, uvloop = str(request.param).partition("+")
    return name, {"use_uvloop": True} if uvloop else {}
