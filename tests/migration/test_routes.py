from typing import Any

import pytest
from fastapi import FastAPI
from flask import Flask
from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute
from werkzeug.routing import BaseConverter

from bridge.migration.routes import Row, compare_routes, shape
from tests.migration import apps


def test_each_rule_and_method_has_a_row() -> None:
    """With the rule of the new app that answers."""
    new = apps.fastapi("new", {"/a": ["GET"], "/b/{id:int}": ["GET"], "/only-new": ["GET"]})
    old = apps.flask("old", {"/a": ["GET", "POST"], "/b/{id}": ["GET"], "/c": ["GET"]})
    assert compare_routes(new, old) == [
        Row("/a", "GET", "new", "/a", False),
        Row("/a", "POST", "old", "", False),
        Row("/b/<id>", "GET", "both", "/b/{id:int}", False),
        Row("/c", "GET", "old", "", False),
    ]


def test_a_rule_that_is_no_port_hides() -> None:
    """A catch-all, a parameter in the place of a name, a mount, the docs pages of FastAPI."""
    new = FastAPI()
    new.mount("/static", WSGILess())
    new.add_api_route("/users/{name}", lambda name: name)
    old = apps.flask("old", {"/docs": ["GET"], "/users/me": ["GET"], "/users/{name}": ["GET"], "/static/logo": ["GET"]})
    assert [(row.rule, row.by) for row in compare_routes(new, old) if row.hidden] == [
        ("/docs", "/docs"),
        ("/users/me", "/users/{name}"),
        ("/static/logo", "/static/{path:path}"),
    ]


class WSGILess:
    """An ASGI app without routes."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError


def test_a_mount_of_static_files_is_a_port_of_a_static_rule() -> None:
    """Each has one parameter that may contain slashes."""
    new = Starlette(routes=[Mount("/static", WSGILess())])
    (row,) = compare_routes(new, Flask("old"))
    assert row == Row("/static/<path:filename>", "GET", "new", "/static/{path:path}", False)


def test_rules_of_django_take_any_method() -> None:
    """One row if all have the same answer, else one for each that the new app has, and one for the rest."""
    new = apps.starlette("new", {"/a": ["GET"], "/c/{id:int}/": ["GET", "POST", "PUT", "PATCH", "DELETE"]})
    with apps.django_urls(apps.django_patterns("old", {"/a": ["GET"], "/b": ["GET"], "/c/{id:int}/": ["GET"]})):
        assert compare_routes(new, apps.django_wsgi()) == [
            Row("/a", "GET", "new", "/a", False),
            Row("/a", "any other", "old", "", False),
            Row("/b", "any", "old", "", False),
            Row("/c/<int:id>/", "any", "new", "/c/{id:int}/", False),
        ]


def test_websockets_have_rows() -> None:
    """The routers are asked with scopes of type websocket."""

    async def echo(websocket: Any) -> None:
        raise AssertionError

    new = Starlette(routes=[WebSocketRoute("/ws", echo)])
    old = Flask("old", static_folder=None)
    old.add_url_rule("/ws", "ws", lambda: "", websocket=True)
    old.add_url_rule("/other", "other", lambda: "", websocket=True)
    assert compare_routes(new, old) == [
        Row("/ws", "WebSocket", "new", "/ws", False),
        Row("/other", "WebSocket", "old", "", False),
    ]


def test_a_rule_without_a_sample_is_told() -> None:
    """The command does not guess which app answers it."""

    class Odd(BaseConverter):
        regex = "[A-Z]{40}"

    old = Flask("old", static_folder=None)
    old.url_map.converters["odd"] = Odd
    old.add_url_rule("/<odd:id>", "a", lambda **values: "", methods=["POST"])
    assert compare_routes(Starlette(), old) == [Row("/<odd:id>", "POST", "unknown", "", False)]


def test_rules_of_hosts_are_asked_with_their_host() -> None:
    """The row names the host."""
    old = Flask("old", host_matching=True, static_folder=None)
    old.add_url_rule("/a", "a", lambda: "", host="a.example.org")
    assert compare_routes(apps.starlette("new", {"/a": ["GET"]}), old) == [
        Row("a.example.org/a", "GET", "new", "/a", False)
    ]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (["/a/{id}", "/a/{id:int}", "/a/<id>", "/a/<int:id>/", r"/^a/(?P<id>\d+)/$", r"/^a/(x|(y))$"], "/a/{}"),
        (["/a/{rest:path}", "/a/<path:rest>"], "/a/\0"),
        (["/{a}-{b}", "/<a>-<int(min=1):b>"], "/{}-{}"),
        (["/", ""], ""),
    ],
)
def test_rules_of_one_shape_are_ports_of_each_other(rules: list[str], expected: str) -> None:
    """The notation of each framework is understood."""
    assert [shape(rule) for rule in rules] == [expected] * len(rules)
