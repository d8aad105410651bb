from typing import Any

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.asgi_to_wsgi.recording import LifespanApp, Recording, complete_startup
from wsgi_asgi_conformance.types import Receive, Scope, Send
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIServer


class StateApp(LifespanApp):
    """An app with a lifespan whose startup puts `at_startup` into the state."""

    def __init__(self, at_startup: dict[Any, Any] | None = None) -> None:
        super().__init__(self._startup)
        self.first: Any = None  # a copy of the state as it came
        self._at_startup = at_startup or {}

    async def _startup(self, scope: Scope, send: Send) -> None:
        if "state" in scope:
            self.first = dict(scope["state"])
            scope["state"].update(self._at_startup)
        await complete_startup(scope, send)

    def states(self, adapt: ToWSGI, serve: WSGIServer, requests: int = 1) -> list[Any]:
        """Return the lifespan's state and that of each request; skip the test if there is none."""
        adapter = adapt(self)
        for _ in range(requests):
            serve(adapter).finish()
        self.skip_without_lifespan()
        if "state" not in self.scopes[0]:
            pytest.skip("the adapter offers no state")
        return [scope["state"] for scope in self.scopes]


@clause("ASGI-LS-010")
def test_the_state_is_an_empty_dict_at_first(adapt: ToWSGI, serve: WSGIServer) -> None:
    """The state holds only what the app puts there."""
    app = StateApp()
    (state, _) = app.states(adapt, serve)
    assert type(state) is dict
    assert app.first == {}


@clause("ASGI-LS-011", "ASGI-LS-014", "ASGI-HTTP-033")
def test_each_request_has_a_copy_of_the_state(adapt: ToWSGI, serve: WSGIServer) -> None:
    """Each request gets a dict of its own with the objects that the startup put into the state."""
    pool: list[int] = []
    lifespan, one, two = StateApp({"pool": pool}).states(adapt, serve, requests=2)
    assert type(one) is dict
    assert one == two == {"pool": pool}
    assert len({id(state) for state in (lifespan, one, two)}) == 3
    assert one["pool"] is two["pool"] is pool


@clause("ASGI-LS-011")
def test_what_a_request_adds_to_its_state_is_its_own(adapt: ToWSGI, serve: WSGIServer) -> None:
    """No other request sees a key that a request adds; all see a change to a shared object."""
    seen: list[dict[str, Any]] = []
    lifespan: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if "state" in scope:
                seen.append(dict(scope["state"]))
                scope["state"]["mine"] = True
                scope["state"]["shared"].append(len(seen))
            await Recording()(scope, receive, send)
            return
        lifespan.append(scope)
        await receive()
        scope.get("state", {})["shared"] = []
        await complete_startup(scope, send)
        await receive()

    adapter = adapt(app)
    for _ in range(2):
        serve(adapter).finish()
    if not seen:
        pytest.skip("the adapter offers no state")
    assert seen == [{"shared": [1, 2]}] * 2
    assert lifespan[0]["state"] == {"shared": [1, 2]}


@clause("ASGI-LS-012")
def test_the_state_is_left_alone(adapt: ToWSGI, serve: WSGIServer) -> None:
    """What an app puts into the state stays unchanged, whatever its type, and nothing is added."""
    strange: dict[Any, Any] = {"": None, 1: object(), ("a", b"b"): type, "type": "mine", None: lambda: None}
    lifespan, one = StateApp(strange).states(adapt, serve)
    assert lifespan == one == strange


@clause("ASGI-LS-013", "ASGI-HTTP-033")
@pytest.mark.parametrize("supported", [True, False], ids=["with lifespan", "without lifespan"])
def test_the_state_is_in_both_scopes_or_in_neither(adapt: ToWSGI, serve: WSGIServer, supported: bool) -> None:
    """A request has a state if its lifespan has one; without a lifespan, it may have one or not."""
    scopes: list[Scope] = []
    app = StateApp({"key": 1})

    async def maybe_supporting(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        if scope["type"] == "lifespan" and not supported:
            raise ValueError("no lifespan here")
        await app(scope, receive, send)

    serve(adapt(maybe_supporting)).finish()
    request = scopes[-1]
    assert request["type"] == "http"
    if not supported or scopes[0]["type"] != "lifespan":
        assert request.get("state", {}) == {}
    else:
        assert ("state" in request) == ("state" in scopes[0])
