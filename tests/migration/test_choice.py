import sys
import threading
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Match, Mount, Route, Router, WebSocketRoute

from bridge.migration import choice as choice_module
from bridge.migration.choice import Choice
from bridge.types import Scope
from tests.fakes import http_environ, http_scope
from tests.migration import apps


def page(request: object) -> PlainTextResponse:
    return PlainTextResponse("new")


class Counting(Route):
    """A route that counts how often it is asked."""

    def __init__(self, path: str) -> None:
        super().__init__(path, page)
        self.asked = 0

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        self.asked += 1
        return super().matches(scope)


class OwnRoute(Counting):
    """A route that matches by a header."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        return (match if (b"x-new", b"1") in scope["headers"] else Match.NONE), child_scope


def counted(monkeypatch: pytest.MonkeyPatch) -> tuple[Counting, Choice]:
    monkeypatch.setattr(Counting.matches, "__module__", "starlette.routing")  # so it passes for Starlette's own
    route = Counting("/a")
    return route, Choice(Starlette(routes=[route]), apps.flask("old", {"/b": ["GET"]}), None)


def test_an_answer_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The routers are asked once, by either kind of request."""
    route, choice = counted(monkeypatch)
    assert [choice.is_new_for_scope(http_scope(path="/a")) for _ in range(3)] == [True] * 3
    assert route.asked == 1
    assert [choice.is_new_for_environ(http_environ("GET", "/a")) for _ in range(3)] == [True] * 3
    assert route.asked == 2


@pytest.mark.parametrize(
    "keys",
    [{"method": "POST"}, {"path": "/a/"}, {"headers": [(b"host", b"other.example")]}, {"root_path": "/a"}],
    ids=lambda keys: next(iter(keys)),
)
def test_another_question_is_asked(keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Type, method, host, path and prefix are what an answer depends on."""
    route, choice = counted(monkeypatch)
    choice.is_new_for_scope(http_scope(path="/a"))
    before = route.asked
    choice.is_new_for_scope(http_scope(**{"path": "/a", **keys}))
    assert route.asked > before


def test_environs_of_another_kind_or_prefix_are_other_questions() -> None:
    """A WebSocket is no page, and a prefix moves the routes."""

    async def echo(websocket: Any) -> None:
        raise AssertionError("not to be called")

    new = Starlette(routes=[WebSocketRoute("/ws", echo), Route("/a/b", page)])
    choice = Choice(new, apps.flask("old", {"/b": ["GET"]}), None)
    upgrade = {"HTTP_UPGRADE": "websocket", "HTTP_CONNECTION": "Upgrade"}
    environs = [http_environ("GET", "/ws"), http_environ("GET", "/ws", **upgrade)]
    environs += [http_environ("GET", "/a/b", SCRIPT_NAME=prefix) for prefix in ("", "/a")]
    environs += [http_environ("GET", "/b", SCRIPT_NAME="/a")]
    for _ in range(2):
        answers = [choice.is_new_for_environ(environ) for environ in environs]
        assert answers == [False, True, True, True, False]


def test_a_preflight_has_an_origin() -> None:
    """Without it the request is an OPTIONS request like any other."""
    choice = Choice(apps.starlette("new", {"/a": ["GET"]}), apps.flask("old", {"/a": ["POST"]}), None)
    asked, origin = (b"access-control-request-method", b"GET"), (b"origin", b"http://a.example")
    for headers, expected in [([asked, origin], True), ([asked], False), ([origin], False)]:
        scope = http_scope("OPTIONS", "/a", headers=[(b"host", b"example.org"), *headers])
        assert choice.is_new_for_scope(scope) is expected
        variables = {f"HTTP_{name.decode().upper().replace('-', '_')}": value.decode() for name, value in headers}
        assert choice.is_new_for_environ(http_environ("OPTIONS", "/a", **variables)) is expected


def test_a_path_that_the_server_has_not_decoded_is_decoded() -> None:
    """Passenger leaves PATH_INFO as it came."""
    variables = {"passenger.hijack": True, "REQUEST_URI": "/a/%62"}
    choice = Choice(apps.starlette("new", {"/a/b": ["GET"]}), apps.flask("old", {}), None)
    assert choice.is_new_for_environ(http_environ("GET", "/a/%62", **variables)) is True


def test_what_is_long_or_has_no_host_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients cannot fill the memory with made-up paths and hosts."""
    route, choice = counted(monkeypatch)
    for keys in ({"path": f"/{'a' * 300}"}, {"path": "/a", "headers": []}):
        asked = [route.asked]
        for _ in range(2):
            choice.is_new_for_scope(http_scope(**keys))
            asked.append(route.asked)
        assert asked[0] < asked[1] < asked[2]


def test_what_is_not_used_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decision in use is kept; one that is not used is dropped after two generations."""
    monkeypatch.setattr(choice_module, "_SIZE", 4)
    route, choice = counted(monkeypatch)
    choice.is_new_for_scope(http_scope(path="/rare"))
    choice.is_new_for_scope(http_scope(path="/a"))
    for number in range(20):
        choice.is_new_for_scope(http_scope(path=f"/{number}"))
        before = route.asked
        choice.is_new_for_scope(http_scope(path="/a"))
        assert route.asked == before
    choice.is_new_for_scope(http_scope(path="/rare"))
    assert route.asked > before


def test_a_route_of_a_kind_of_its_own_is_asked_each_time() -> None:
    """Its `matches` may look at any part of the request."""
    routes: list[Any] = [OwnRoute("/a")]
    for new in (Starlette(routes=routes), Starlette(routes=[Mount("/", Router(routes)), Host("b", Router(routes))])):
        choice = Choice(new, apps.flask("old", {"/a": ["GET"]}), None)
        headers = [(b"host", b"example.org")]
        for expected in (False, True, False):
            scope = http_scope(path="/a", headers=headers + [(b"x-new", b"1")] * expected)
            assert choice.is_new_for_scope(scope) is expected


def test_such_a_route_of_the_old_app_is_asked_each_time() -> None:
    """The old app is asked because the new app has the path but not the method."""
    routes: list[Any] = [OwnRoute("/a")]
    choice = Choice(apps.starlette("new", {"/a": ["POST"]}), Starlette(routes=routes), None)
    for expected in (True, False, True):
        headers = [(b"host", b"example.org")] + [(b"x-new", b"1")] * (not expected)
        assert choice.is_new_for_scope(http_scope(path="/a", headers=headers)) is expected


def test_claims_decide() -> None:
    """The routers are not asked, and `claims` is called for each request."""
    claimed: list[bool] = [True, False, True]
    choice = Choice(Starlette(), apps.flask("old", {}), lambda scope: claimed.pop(0))
    assert choice.is_new_for_scope(http_scope()) is True
    assert choice.is_new_for_environ(http_environ()) is False
    assert choice.is_new_for_scope(http_scope()) is True


def test_claims_may_leave_it_to_the_routers() -> None:
    """Returning None leaves the choice to the routers, so one line rolls back a route."""

    def claims(scope: Scope) -> bool | None:
        return False if scope["path"] == "/back" else None

    choice = Choice(apps.starlette("new", {"/a": ["GET"], "/back": ["GET"]}), apps.flask("old", {}), claims)
    assert [choice.is_new_for_scope(http_scope(path=path)) for path in ("/a", "/back", "/c")] == [True, False, False]
    assert [choice.is_new_for_environ(http_environ("GET", path)) for path in ("/a", "/back")] == [True, False]


def test_claims_see_the_request_as_an_asgi_server_has_it() -> None:
    """Under both kinds of server; a preflight as what it asks about, and Content-Length as it came."""
    seen: list[Scope] = []

    def claims(scope: Scope) -> bool:
        seen.append(scope)
        return True

    choice = Choice(Starlette(), apps.flask("old", {}), claims)
    headers = [(b"host", b"h"), (b"origin", b"o"), (b"access-control-request-method", b"put")]
    choice.is_new_for_scope(http_scope("OPTIONS", "/a", headers=headers))
    variables = {"HTTP_ORIGIN": "o", "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "put", "CONTENT_LENGTH": "3"}
    choice.is_new_for_environ(http_environ("OPTIONS", "/a", **variables))
    choice.is_new_for_environ(http_environ("GET", "/ws", HTTP_UPGRADE="websocket", HTTP_CONNECTION="Upgrade"))
    assert [scope.get("method") for scope in seen] == ["PUT", "PUT", None]
    assert [scope["type"] for scope in seen] == ["http", "http", "websocket"]
    assert (b"content-length", b"3") in seen[1]["headers"]


def test_claims_must_say_yes_or_no() -> None:
    """A value such as a coroutine, which is truthy by accident, is an error; so is None if no router can be seen."""

    async def later(scope: Scope) -> bool:
        return True

    new, old = Starlette(), apps.flask("old", {})
    with pytest.raises(TypeError, match="coroutine function"):
        Choice(new, old, later)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="got 3"):
        Choice(new, old, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="got 'yes'"):
        Choice(new, old, lambda scope: "yes").is_new_for_scope(http_scope())  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="returned None"):
        Choice(CORSMiddleware(new), old, lambda scope: None).is_new_for_scope(http_scope())


@pytest.mark.parametrize("length", ["abc", "3, 4"])
def test_a_length_that_is_none_keeps_nobody_from_choosing(length: str) -> None:
    """The app that is chosen gets to answer it."""
    choice = Choice(apps.starlette("new", {"/a": ["GET"]}), apps.flask("old", {"/a": ["POST"]}), None)
    assert choice.is_new_for_environ(http_environ("GET", "/a", CONTENT_LENGTH=length)) is True
    headers = [(b"host", b"h"), *((b"content-length", part.encode()) for part in length.split(", "))]
    assert choice.is_new_for_scope(http_scope("POST", "/a", headers=headers)) is False


def test_many_threads_may_ask() -> None:
    """Each gets the right answer while generations of answers come and go."""
    new = apps.starlette("new", {"/a/{id:int}": ["GET"]})
    choice = Choice(new, apps.flask("old", {"/a/<id>": ["POST"]}), None)
    wrong: list[object] = []

    def ask() -> None:
        for number in range(2000):
            name = f"{number % 1500}" if number % 2 else f"x{number % 1500}"
            if choice.is_new_for_scope(http_scope(path=f"/a/{name}")) is not bool(number % 2):
                wrong.append(name)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []
