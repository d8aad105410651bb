"""Who answers: each row of the table in docs/migration.md, by each pair of frameworks, under both kinds of server."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.migration.apps import Routes
from tests.migration.conftest import Site

MakeApp = Callable[[Routes], Any]
SiteOf = Callable[..., Site]


class Case(NamedTuple):
    """Two apps, a request, and the expected answer."""

    name: str
    new: Routes
    old: Routes
    method: str
    path: str
    who: str
    status: int
    headers: dict[str, str] = {}  # noqa: RUF012  # read only


def preflight(method: str) -> dict[str, str]:
    return {"Origin": "http://other.example", "Access-Control-Request-Method": method}


CASES = [
    Case("path-and-method", {"/a": ["GET"]}, {"/a": ["GET"]}, "GET", "/a", "new", 200),
    Case("parameter", {"/a/{id:int}": ["GET"]}, {"/a/{id}": ["GET"]}, "GET", "/a/7", "new", 200),
    Case("parameter-of-old", {"/a/{id:int}": ["GET"]}, {"/a/{id}": ["GET"]}, "GET", "/a/x", "old", 200),
    Case("path-of-new-method-of-old", {"/a": ["GET"]}, {"/a": ["POST"]}, "POST", "/a", "old", 200),
    Case("405-of-both", {"/a": ["GET"]}, {"/a": ["GET"]}, "DELETE", "/a", "old", 405),
    Case("405-of-new", {"/a": ["GET"]}, {"/b": ["GET"]}, "DELETE", "/a", "new", 405),
    Case("nobody", {"/a": ["GET"]}, {"/b": ["GET"]}, "GET", "/c", "old", 404),
    Case("old", {"/a": ["GET"]}, {"/b": ["GET"]}, "GET", "/b", "old", 200),
    Case("slash-of-old", {"/a/": ["GET"]}, {"/a": ["GET"]}, "GET", "/a", "old", 200),
    Case("root", {"/": ["GET"]}, {"/": ["GET"]}, "GET", "/", "new", 200),
    Case("root-of-old", {"/a": ["GET"]}, {"/": ["GET"]}, "GET", "/", "old", 200),
    Case("catch-all", {"/{rest:path}": ["GET"]}, {"/a": ["GET"]}, "GET", "/a", "new", 200),
    Case("catch-all-method", {"/{rest:path}": ["GET"]}, {"/a": ["POST"]}, "POST", "/a", "old", 200),
    Case("head-of-old", {"/a": ["POST"]}, {"/a": ["GET"]}, "HEAD", "/a", "old", 200),
    Case("not-ascii", {"/a/{id}": ["GET"]}, {"/b": ["GET"]}, "GET", "/a/€", "new", 200),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_request_is_answered_by(case: Case, make_new: MakeApp, make_old: MakeApp, site_of: SiteOf) -> None:
    """The new app answers what it claims, and what it knows by path only if the old app does not know that."""
    site = site_of(make_new(case.new), make_old(case.old))
    for _ in range(2):  # the second time from memory
        answered = site.send(case.method, case.path, case.headers)
        assert (answered.who, answered.status) == (case.who, case.status)
        if answered.status == 200 and case.method != "HEAD" and case.path.isascii():
            assert answered.body == f"{case.who} {case.method} {case.path}"


def test_a_redirect_for_a_slash_is_new_if_old_does_not_know_the_path(
    make_new: MakeApp, make_old: MakeApp, site_of: SiteOf
) -> None:
    """The new app's redirects work."""
    answered = site_of(make_new({"/a/": ["GET"]}), make_old({"/b": ["GET"]})).send("GET", "/a")
    assert answered.who == "new"
    assert answered.status in (307, 308)
    assert answered.headers["location"] == "http://example.org/a/"


def test_a_preflight_is_a_request_of_its_method(make_new: MakeApp, make_old: MakeApp, site_of: SiteOf) -> None:
    """A preflight reaches the app that answers the request it asks about."""
    site = site_of(make_new({"/a": ["GET"]}), make_old({"/a": ["POST"]}))
    assert [site.send("OPTIONS", "/a", preflight(method)).who for method in ("GET", "POST", "GET")] == [
        *("new", "old", "new")
    ]


def test_a_root_path_is_unchanged_for_both(make_new: MakeApp, make_old: MakeApp, site_of: SiteOf) -> None:
    """Nothing is stripped: both apps find their routes behind the prefix."""
    site = site_of(make_new({"/a": ["GET"]}), make_old({"/b": ["GET"]}))
    assert [site.send("GET", path, root_path="/app").status for path in ("/a", "/b", "/c")] == [200, 200, 404]
    assert [site.send("GET", path, root_path="/app").who for path in ("/a", "/b", "/app/a")] == ["new", "old", "old"]
