from pathlib import Path
from typing import Any

import fastapi.routing
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles

from bridge.migration.question import Answer, Found, Question
from bridge.migration.routers.starlette import StarletteRouter
from bridge.types import Receive, Scope, Send
from tests.fakes import http_scope, websocket_scope
from tests.migration import apps

NOTHING, PATH, REQUEST = Answer.NOTHING, Answer.PATH, Answer.REQUEST


def page(request: object) -> PlainTextResponse:
    return PlainTextResponse("page")


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    """An app without a router."""
    raise AssertionError("not to be called")


def find(app: Any, path: str, method: str = "GET", **keys: Any) -> Found:
    return StarletteRouter(app).find(Question(scope=http_scope(method, path, **keys)))


INNER = Router([Route("/a", page), Route("/b/", page, methods=["POST"]), Route("/", page)])


@pytest.mark.parametrize(
    ("path", "answer", "rule"),
    [
        ("/in/a", REQUEST, "/in/a"),
        ("/in/a/", PATH, "/in/a"),
        ("/in/b", PATH, "/in/b/"),
        ("/in/b/", PATH, "/in/b/"),
        ("/in/c", NOTHING, ""),
        ("/in/", REQUEST, "/in/"),
        ("/in", PATH, "/in/"),
        ("/inner", NOTHING, ""),
        ("/deep/in/a", REQUEST, "/deep/in/a"),
        ("/deep", NOTHING, ""),
        ("/deep/", NOTHING, ""),
        ("/zipped/a", REQUEST, "/zipped/a"),
        ("/static/x", REQUEST, "/static/{path:path}"),
        ("/static", PATH, "/static/{path:path}"),
        ("/of/1/a", REQUEST, "/of/{id:int}/a"),
        ("/of/x/a", NOTHING, ""),
    ],
)
def test_a_mount_is_asked(path: str, answer: Answer, rule: str, tmp_path: Path) -> None:
    """Into those apps that can be, for the slash as well; the first mount whose prefix it is has the last word."""
    app = Starlette(
        routes=[
            Mount("/in", INNER),
            Mount("/deep", routes=[Mount("/in", INNER)]),
            Mount("/zipped", INNER, middleware=[Middleware(GZipMiddleware)]),
            Mount("/static", StaticFiles(directory=tmp_path)),
            Mount("/of/{id:int}", INNER),
            Route("/in/c", page),
        ]
    )
    found = find(app, path)
    assert found.answer is answer
    assert answer is NOTHING or found.rule == rule
    assert found.lasting


def test_a_redirect_that_leads_nowhere_does_not_count() -> None:
    """The router of a mount may redirect to a path that belongs to another mount."""
    app = Starlette(routes=[Mount("/a/b", routes=[]), Mount("/a", routes=[Route("/b/", page)])])
    assert find(app, "/a/b").answer is NOTHING
    app.router.routes.reverse()
    assert find(app, "/a/b").answer is PATH


def test_an_endpoint_that_is_a_class_has_the_methods_that_it_defines() -> None:
    """Its route takes any, and the class says 405; one that dispatches by itself is not second-guessed."""

    class Orders(HTTPEndpoint):
        def get(self, request: Request) -> PlainTextResponse:
            return page(request)

    class Anything(Orders):
        async def dispatch(self) -> None:
            raise AssertionError("not to be called")

    app = Starlette(routes=[Route("/a", Orders), Route("/b", Anything)])
    answers = {path: [find(app, path, method).answer for method in ("GET", "HEAD", "POST")] for path in ("/a", "/b")}
    assert answers == {"/a": [REQUEST, REQUEST, PATH], "/b": [REQUEST] * 3}


def test_a_route_of_another_kind_is_asked() -> None:
    """The fallback uses only its `matches`, and does not cache the answer."""

    class Teapot(BaseRoute):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            return (Match.FULL if scope["path"] == "/teapot" else Match.NONE), {}

    app = Starlette(routes=[Route("/first", page), Teapot(), Route("/a", page)])
    assert find(app, "/teapot") == Found(REQUEST, "", lasting=False)
    assert [find(app, path).lasting for path in ("/first", "/a", "/b")] == [True, False, False]
    assert [rule.rule for rule in StarletteRouter(app).rules()] == ["/first", "/a"]


def test_a_host_is_asked() -> None:
    """By the Host header, and on to its own routes."""
    app = Starlette(routes=[Host("api.example.org", INNER), Host("{sub}.plain.org", plain), Route("/a", page)])
    for host, path, answer in [
        ("api.example.org:80", "/a", REQUEST),
        ("api.example.org", "/c", NOTHING),
        ("www.example.org", "/a", REQUEST),
        ("www.example.org", "/b/", NOTHING),
        ("x.plain.org", "/whatever", REQUEST),
    ]:
        assert find(app, path, headers=[(b"host", host.encode())]).answer is answer, (host, path)


def test_a_default_app_claims_the_rest() -> None:
    """The default app answers everything without a route."""
    assert find(Router([Route("/a", page)], default=plain), "/b").answer is REQUEST
    assert find(Router([Route("/a", page)]), "/b").answer is NOTHING


def test_the_first_route_that_has_the_path_tells_its_rule() -> None:
    """It is the one that says 405."""
    app = Starlette(routes=[Route("/{a}", page), Route("/b", page)])
    assert find(app, "/b", "POST") == Found(PATH, "/{a}")


def test_without_redirects_a_slash_matters() -> None:
    """Nobody would redirect."""
    assert find(Router([Route("/a", page)], redirect_slashes=False), "/a/").answer is NOTHING
    assert find(FastAPI(redirect_slashes=False), "/docs/").answer is NOTHING
    assert find(FastAPI(), "/docs/").answer is PATH


def test_a_websocket_is_no_page() -> None:
    """And a page is no WebSocket; neither is there a redirect for one."""
    app = Starlette(routes=[WebSocketRoute("/ws", page), Route("/a", page)])
    router = StarletteRouter(app)
    assert [find(app, path).answer for path in ("/ws", "/a", "/ws/")] == [NOTHING, REQUEST, NOTHING]
    answers = [router.find(Question(scope=websocket_scope(path))).answer for path in ("/ws", "/a", "/ws/")]
    assert answers == [REQUEST, NOTHING, NOTHING]


# Before that, include_router() left mounts out.
INCLUDES_MOUNTS = hasattr(fastapi.routing, "_IncludedRouter")


def included() -> FastAPI:
    """Make an app whose routes are in routers within routers."""
    inner, outer = APIRouter(prefix="/inner"), APIRouter(prefix="/outer")
    inner.add_api_route("/items/{id}", page, methods=["GET"])
    inner.add_api_websocket_route("/ws", page)
    inner.mount("/in", INNER)
    inner.mount("/plain", plain)
    outer.include_router(inner)
    app = FastAPI(openapi_url=None)
    app.include_router(outer, prefix="/v1")
    return app


@pytest.mark.parametrize(
    ("method", "path", "answer", "rule"),
    [
        ("GET", "/v1/outer/inner/items/7", REQUEST, "/v1/outer/inner/items/{id}"),
        ("POST", "/v1/outer/inner/items/7", PATH, "/v1/outer/inner/items/{id}"),
        ("GET", "/v1/outer/inner/items/7/", PATH, "/v1/outer/inner/items/{id}"),
        ("GET", "/v1/outer/inner/ws", NOTHING, ""),
        ("GET", "/v1/outer/in/a", REQUEST, "/v1/outer/in/a"),
        ("GET", "/v1/outer/in/c", NOTHING, ""),
        ("GET", "/v1/outer/plain/c", REQUEST, "/v1/outer/plain/{path:path}"),
        ("GET", "/outer/inner/items/7", NOTHING, ""),
    ],
)
def test_an_included_router_is_asked(method: str, path: str, answer: Answer, rule: str) -> None:
    """FastAPI's include_router, at any depth, with mounts in it."""
    if not INCLUDES_MOUNTS and answer is REQUEST and "/items/" not in path:
        pytest.skip("this FastAPI leaves mounts out")
    found = find(included(), path, method)
    assert found.answer is answer
    assert answer is NOTHING or found.rule == rule


def test_a_route_of_another_kind_is_found_in_an_included_router() -> None:
    """Its answer is not remembered, either."""

    class ByHeader(APIRoute):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            return super().matches(scope) if (b"x-new", b"1") in scope["headers"] else (Match.NONE, {})

    inner, outer, app = APIRouter(), APIRouter(route_class=ByHeader), FastAPI(openapi_url=None)
    inner.add_api_route("/b", page)
    outer.add_api_route("/a", page)
    outer.include_router(inner)
    app.include_router(inner)
    assert find(app, "/b").lasting
    app.include_router(outer)
    assert find(app, "/a", headers=[(b"x-new", b"1")]) == Found(REQUEST, "/a", lasting=False)
    assert find(app, "/a") == Found(NOTHING, lasting=False)


def test_a_frontend_claims_what_is_left(tmp_path: Path) -> None:
    """FastAPI's frontend() comes behind all routes."""
    (tmp_path / "index.html").write_text("front")
    app = FastAPI(openapi_url=None)
    if not hasattr(app, "frontend"):
        pytest.skip("this FastAPI has no frontend()")
    app.add_api_route("/a", page, methods=["POST"])
    app.frontend("/", directory=tmp_path)
    assert [find(app, path).answer for path in ("/a", "/index.html", "/anything")] == [PATH, REQUEST, REQUEST]
    assert find(app, "/anything", "POST").answer is PATH


def test_a_root_path_of_fastapi_counts() -> None:
    """FastAPI(root_path=) takes the place of the server's."""
    app = FastAPI(openapi_url=None)
    app.root_path = "/app"  # as an argument it is deprecated
    app.add_api_route("/a", page)
    assert [find(app, path).answer for path in ("/app/a", "/a", "/app/b")] == [REQUEST, REQUEST, NOTHING]


def test_the_scope_stays_as_it_is() -> None:
    """Frameworks write into the scope that they match."""
    question = Question(scope=http_scope(path="/v1/outer/inner/items/7"))
    before = dict(question.scope)
    StarletteRouter(included()).find(question)
    assert question.scope == before


def test_all_rules_are_told() -> None:
    """Those of mounts, hosts and included routers, with sample paths."""
    app = included()
    app.router.routes.append(Host("h", Router([Route("/hosted/{name:path}", page)])))
    rules = {rule.rule: rule for rule in StarletteRouter(app).rules()}
    if not INCLUDES_MOUNTS:
        pytest.skip("this FastAPI leaves mounts out")
    assert list(rules) == [
        "/v1/outer/inner/items/{id}",
        "/v1/outer/inner/ws",
        "/v1/outer/in/a",
        "/v1/outer/in/b/",
        "/v1/outer/in/",
        "/v1/outer/plain/{path:path}",
        "/hosted/{name:path}",
    ]
    assert rules["/v1/outer/inner/items/{id}"].paths == ("/v1/outer/inner/items/sample", "/v1/outer/inner/items/1")
    assert rules["/v1/outer/inner/items/{id}"].methods == ("GET",)
    assert rules["/v1/outer/inner/ws"].websocket
    assert rules["/v1/outer/plain/{path:path}"].methods == ()


def test_pages_of_the_framework_are_told() -> None:
    """FastAPI's docs are no route that somebody has written; hosts are told by a sample."""
    assert find(FastAPI(), "/docs").generated
    assert not find(apps.fastapi("new", {"/docs": ["GET"]}), "/docs").generated
    app = Starlette(routes=[Host("{sub}.example.org", INNER), Host("plain.example.org", plain)])
    assert {rule.host for rule in StarletteRouter(app).rules()} == {"sample.example.org", "plain.example.org"}


def test_each_rule_is_found_by_its_samples() -> None:
    """What is made up leads back to the rule."""
    app = apps.starlette("new", {"/a/{id:int}/{name}": ["GET"], "/b/{rest:path}": ["GET"], "/c/{id:uuid}": ["GET"]})
    for rule in StarletteRouter(app).rules():
        assert rule.paths
        for path in rule.paths:
            assert find(app, path) == Found(REQUEST, rule.rule)
