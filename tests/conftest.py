"""Fixtures for all tests."""

import pytest


@pytest.fixture(params=["asyncio", "asyncio+uvloop", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """Run every async test on each of the loops that users have."""
    name, _, uvloop = str(request.param).partition("+")
    return name, {"use_uvloop": True} if uvloop else {}
