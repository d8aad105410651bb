"""The recipes, each run as it stands."""

import hmac
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from bridge import ASGIToWSGI
from tests.docs.pages import Page

RECIPES = Page("docs/recipes.md")


@pytest.fixture
def adapters() -> Iterator[list[ASGIToWSGI]]:
    """Take adapters that a block has made, to be closed after the test."""
    made: list[ASGIToWSGI] = []
    yield made
    for adapter in made:
        adapter.close()


async def get(app: Any, *paths: str) -> list[httpx.Response]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", follow_redirects=True) as client:
        return [await client.get(path) for path in paths]


def get_wsgi(app: Any, *paths: str) -> list[httpx.Response]:
    with httpx.Client(transport=httpx.WSGITransport(app), base_url="http://test") as client:
        return [client.get(path) for path in paths]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_flask_in_fastapi() -> None:
    """The mounted app's redirects stay inside its mount."""
    responses = await get(RECIPES.run("flask in fastapi")["app"], "/legacy/", "/new")
    assert (responses[0].text, responses[0].url.path) == ("the old page", "/legacy/page")
    assert responses[1].json() == "the new page"


def test_fastapi_in_flask(adapters: list[ASGIToWSGI]) -> None:
    """Both apps answer, and the docs page of the mounted one leads to its own schema."""
    app = RECIPES.run("fastapi in flask")["app"]
    adapters.append(app.wsgi_app.mounts["/api"])
    responses = get_wsgi(app, "/", "/api/items", "/api/docs", "/api/openapi.json")
    assert responses[0].text == "the old page"
    assert responses[1].json() == ["one", "two"]
    assert "/api/openapi.json" in responses[2].text
    assert responses[3].json()["servers"] == [{"url": "/api"}]


def test_several_asgi_apps(adapters: list[ASGIToWSGI]) -> None:
    """All apps see what the outer app's lifespan has opened."""
    names = RECIPES.run("several asgi apps")
    adapters.append(names["bridged"])
    responses = get_wsgi(names["app"], "/", "/api/closed", "/reports/closed")
    assert responses[0].text == "the old page"
    assert [response.json() for response in responses[1:]] == [False, False]


def test_body_read_before(adapters: list[ASGIToWSGI]) -> None:
    """The app gets the body that was checked, and none that fails the check."""
    module = RECIPES.run("body read before")
    adapters.append(module["bridged"])
    signature = hmac.new(b"key", b"some data", "sha256").hexdigest()
    transport = httpx.WSGITransport(module["wsgi_app"])
    with httpx.Client(transport=transport, base_url="http://test") as client:
        response = client.post("/hook", content=b"some data", headers={"X-Signature": signature})
        assert response.json() == "some data"
        assert client.post("/hook", content=b"other data", headers={"X-Signature": signature}).status_code == 403


def test_context_manager() -> None:
    """The block has its own assertion."""
    RECIPES.run("context manager")
