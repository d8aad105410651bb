"""Which servers a run takes: a core of them, or all by `--all-servers`."""

import pytest

# Each way to run an app that differs in kind: two loops, a fork before and after the adapter is made, one big buffer.
CORE = (
    "uvicorn-h11-asyncio",
    "uvicorn-httptools-uvloop",
    "hypercorn-trio",
    "gunicorn-gthread",
    "gunicorn-gthread-preload",
    "waitress",
)


def pytest_report_header(config: pytest.Config) -> str:
    if config.getoption("--all-servers"):
        return "servers: all that are installed"
    return f"servers: {', '.join(CORE)} (--all-servers takes all that are installed)"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests whose `kind` of server is not in the core."""
    if config.getoption("--all-servers"):
        return
    left_out = [
        item
        for item in items
        if isinstance(item, pytest.Function)
        and hasattr(item, "callspec")
        and (kind := item.callspec.params.get("kind")) is not None
        and getattr(kind, "name", kind) not in CORE
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]
