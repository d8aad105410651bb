"""The blocks of docs/monitoring.md, each run as it stands."""

import inspect
import logging
import re
from collections.abc import Iterator

import httpx
import pytest

from bridge import ASGIToWSGIStatistics, WSGIToASGIStatistics
from tests.docs.pages import Page

PAGE = Page("docs/monitoring.md")


@pytest.mark.parametrize("statistics", [ASGIToWSGIStatistics, WSGIToASGIStatistics])
def test_the_tables_are_whole(statistics: type) -> None:
    """Each number is in the table of its adapter."""
    _, _, table = PAGE.text.partition(f"| `{statistics.__name__.removesuffix('Statistics')}.statistics()`")
    table, _, _ = table.partition("\n\n")
    for name in inspect.signature(statistics).parameters:
        assert f"`{name}`" in table


def test_metrics() -> None:
    """The page has a line for each number that is known, and counts its own request."""
    with (
        PAGE.run("metrics")["wsgi_app"] as wsgi_app,
        httpx.Client(transport=httpx.WSGITransport(wsgi_app), base_url="http://test") as client,
    ):
        text = client.get("/metrics").text
    assert re.search(r'^# TYPE bridge_requests gauge\nbridge_requests\{pid="\d+"\} 1$', text, re.MULTILINE)
    assert re.search(r"^# TYPE bridge_detached_total counter\nbridge_detached_total\{.*\} 0$", text, re.MULTILINE)
    assert "None" not in text


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # httpx's ASGITransport wants it
async def test_health_page() -> None:
    """The page has the numbers, and says that all is well."""
    transport = httpx.ASGITransport(PAGE.run("health page")["asgi_app"])
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.get("/health")
    assert response.status_code == 200
    assert response.json()["threads"] == 1


@pytest.fixture
def access_logger() -> Iterator[logging.Logger]:
    """The logger of the access log, restored after the test."""
    logger = logging.getLogger("bridge.access")
    level, handlers = logger.level, logger.handlers[:]
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)
    logger.propagate = True


def test_access_log(access_logger: logging.Logger) -> None:
    """Its lines go to stderr, and only once."""
    PAGE.run("access log")
    assert access_logger.isEnabledFor(logging.INFO)
    assert len(access_logger.handlers) == 1
