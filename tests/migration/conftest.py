"""Send requests through either fallback, and tell which app has answered."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import anyio
import pytest

from bridge.migration import ASGIFallback, WSGIFallback
from tests.fakes import http_environ, http_scope, request, respond
from tests.migration import apps

HEADER = "X-Answered-By"


class Answered(NamedTuple):
    """A response, and the app that it comes from."""

    who: str
    status: int
    headers: dict[str, str]
    body: str


class Site:
    """A fallback behind a server of its kind."""

    def __init__(self, fallback: ASGIFallback | WSGIFallback) -> None:
        self._fallback = fallback

    def send(self, method: str, path: str, headers: dict[str, str] | None = None, root_path: str = "") -> Answered:
        """Send a request, and return what comes back."""
        headers = {"Host": "example.org", **(headers or {})}
        if isinstance(self._fallback, ASGIFallback):
            raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
            scope = http_scope(method, root_path + path, root_path=root_path, headers=raw)
            answer = anyio.run(request, self._fallback, scope)
            pairs = [(name.decode(), value.decode()) for name, value in answer.headers]
            return _answered(answer.status, pairs, answer.body)
        variables = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
        native = path.encode().decode("latin-1")
        server = respond(self._fallback, http_environ(method, native, SCRIPT_NAME=root_path, **variables))
        return _answered(int(server.status[:3]), server.headers, server.body)


def _answered(status: int, pairs: list[tuple[str, str]], body: bytes) -> Answered:
    headers = {name.lower(): value for name, value in pairs}
    return Answered(headers[HEADER.lower()], status, headers, body.decode())


@pytest.fixture(params=["asgi", "wsgi"])
def site_of(request: pytest.FixtureRequest) -> Iterator[Callable[..., Site]]:
    """Make a site of two apps, behind each kind of server."""
    with contextlib.ExitStack() as closing:

        def make(new: Any, old: Any, **options: Any) -> Site:
            if request.param == "asgi":
                return Site(ASGIFallback(new, old, header=HEADER, **options))
            return Site(closing.enter_context(WSGIFallback(new, old, header=HEADER, **options)))

        yield make


@pytest.fixture(params=list(apps.ASGI))
def make_new(request: pytest.FixtureRequest) -> Callable[[apps.Routes], Any]:
    """Make a new app of each framework from a table of routes."""
    return lambda routes: apps.ASGI[request.param]("new", routes)


@pytest.fixture(params=["flask", "django"])
def make_old(request: pytest.FixtureRequest) -> Iterator[Callable[[apps.Routes], Any]]:
    """Make an old app of each framework from a table of routes."""
    with contextlib.ExitStack() as closing:

        def make(routes: apps.Routes) -> Any:
            if request.param == "flask":
                return apps.flask("old", routes)
            closing.enter_context(apps.django_urls(apps.django_patterns("old", routes)))
            return apps.django_wsgi()

        yield make
