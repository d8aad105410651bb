from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException, WebSocket
from fastapi import Request as FastAPIRequest
from flask import Flask
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute

from bridge import WSGIToASGI
from bridge.migration import ASGIFallback
from bridge.types import Environ, Receive, Scope, Send, StartResponse
from tests.fakes import ASGIServer, ASGIWebSocket, http_scope, request, websocket_scope
from tests.migration import apps

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])  # Quart and Django want it


class Calls:
    """An old ASGI app that counts its calls, and answers each with its path."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"old"})


async def test_what_the_chosen_app_says_is_final() -> None:
    """A 404, 401, 422 or exception of a handler stays; the old app is not called."""
    new, old = FastAPI(), Calls()

    @new.get("/status/{status}")
    async def status(status: int) -> None:
        raise HTTPException(status)

    @new.get("/error")
    async def error() -> None:
        raise RuntimeError("of the handler")

    app = ASGIFallback(new, old)
    for name, expected in [("404", 404), ("401", 401), ("405", 405), ("not-a-number", 422)]:
        assert (await request(app, http_scope(path=f"/status/{name}"))).status == expected
    with pytest.raises(RuntimeError, match="of the handler"):
        await request(app, http_scope(path="/error"))
    assert old.scopes == []


async def test_nothing_is_read_before_the_choice() -> None:
    """The app that answers gets the whole body, and the server's own receive."""
    new, old = Starlette(routes=[]), Calls()
    server = ASGIServer(ASGIFallback(new, old), http_scope("POST", "/upload"), [b"one", b"two"])
    await server.run()
    assert server.receive_calls == 0
    assert server.body == b"old"


async def test_a_head_goes_to_old_while_it_has_the_route() -> None:
    """FastAPI has no HEAD for a GET route: the old app answers it, and later the new one says 405."""
    new = apps.fastapi("new", {"/a": ["GET"]})
    old = apps.flask("old", {"/a": ["GET"]})
    assert (await request(ASGIFallback(new, old), http_scope("HEAD", "/a"))).status == 200
    without = apps.flask("old", {"/b": ["GET"]})
    assert (await request(ASGIFallback(new, without), http_scope("HEAD", "/a"))).status == 405


async def test_websockets_go_where_their_route_is() -> None:
    """A WebSocket and a plain GET of one path are two questions."""

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("new")
        await websocket.close()

    old = Calls()
    new = Starlette(routes=[WebSocketRoute("/ws", echo), Route("/page", lambda request: PlainTextResponse("new"))])
    app = ASGIFallback(new, old, header="X-Who")
    for path, sent in [("/ws", "websocket.send"), ("/page", "websocket.close"), ("/other", "websocket.close")]:
        server = ASGIWebSocket(app, websocket_scope(path))
        await server.run()
        assert server.sent[1]["type"] == sent
        assert server.sent[0]["headers"][-1] == (b"x-who", b"new" if path == "/ws" else b"old")
    assert (await request(app, http_scope(path="/ws"))).body == b"old"


@pytest.mark.parametrize("kind", ["quart", "django"])
async def test_an_old_asgi_app_is_asked_too(kind: str) -> None:
    """Quart and Django's ASGI handler are known as old apps."""
    new = apps.fastapi("new", {"/a": ["GET"], "/b/": ["GET"]})
    routes = {"/a": ["POST"]}
    with apps.django_urls(apps.django_patterns("old", routes)):
        app = ASGIFallback(new, apps.quart("old", routes) if kind == "quart" else apps.django_asgi())
        assert (await request(app, http_scope("POST", "/a"))).body == b"old POST /a"
        assert (await request(app, http_scope("GET", "/b"))).status == 307
        assert (await request(app, http_scope("GET", "/c"))).status == 404


async def test_a_new_wsgi_app_is_asked_too() -> None:
    """From one WSGI app to another, on an ASGI server."""
    new, old = apps.flask("new", {"/a": ["GET"]}), apps.flask("old", {"/a": ["GET", "POST"]})
    app = ASGIFallback(new, old)
    assert (await request(app, http_scope("GET", "/a"))).body == b"new GET /a"
    assert (await request(app, http_scope("POST", "/a"))).body == b"old POST /a"


async def test_an_adapter_is_looked_through() -> None:
    """A caller can pass an adapter with options; the fallback still asks the app inside for its routes."""
    old = WSGIToASGI(apps.flask("old", {"/a": ["POST"]}), workers=1)
    app = ASGIFallback(apps.fastapi("new", {"/a": ["GET"], "/b": ["GET"]}), old)
    assert (await request(app, http_scope("POST", "/a"))).body == b"old POST /a"
    assert (await request(app, http_scope("POST", "/b"))).status == 405


async def test_an_old_app_that_cannot_be_asked_knows_every_path() -> None:
    """It answers all that the new app does not claim."""
    app = ASGIFallback(apps.fastapi("new", {"/a": ["GET"]}), Calls())
    assert (await request(app, http_scope("GET", "/a"))).body == b"new GET /a"
    assert (await request(app, http_scope("POST", "/a"))).body == b"old"


async def test_each_app_keeps_its_own_middleware() -> None:
    """The new app's middleware does not see the old app's requests."""
    new = apps.fastapi("new", {"/a": ["GET"]})

    @new.middleware("http")
    async def guard(request: FastAPIRequest, call_next: Any) -> PlainTextResponse:
        return PlainTextResponse("no", status_code=401)

    app = ASGIFallback(new, apps.flask("old", {"/b": ["GET"]}))
    assert (await request(app, http_scope(path="/a"))).status == 401
    assert (await request(app, http_scope(path="/b"))).status == 200


async def test_a_router_that_cannot_be_seen_is_refused() -> None:
    """Middleware hides the routes, and the error says what to do."""
    with pytest.raises(TypeError, match=r"CORSMiddleware.*claims="):
        ASGIFallback(CORSMiddleware(Starlette()), Flask("old"))
    ASGIFallback(CORSMiddleware(Starlette()), Flask("old"), claims=lambda scope: False)


async def test_what_is_no_app_is_refused() -> None:
    """The error says what an app takes."""
    with pytest.raises(TypeError, match=r"takes \(environ, start_response\)"):
        ASGIFallback(Starlette(), lambda: None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="got 3"):
        ASGIFallback(Starlette(), 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("header", ["", "X Who", "X-Who:", "X-Wér", 3])
async def test_what_is_no_header_name_is_refused(header: Any) -> None:
    """The error names the option."""
    with pytest.raises(ValueError, match="header must be"):
        ASGIFallback(Starlette(), Flask("old"), header=header)


async def test_the_header_is_off_by_default() -> None:
    """Nothing is added to a response."""
    app = ASGIFallback(Starlette(), Calls())
    assert (await request(app)).headers == []
    app = ASGIFallback(Starlette(), Calls(), header="X-Who")
    assert (await request(app)).headers == [(b"x-who", b"old")]


async def test_a_scope_of_another_type_is_refused() -> None:
    """The ASGI spec asks apps to raise for a scope type that they do not support."""
    with pytest.raises(ValueError, match=r"http\.fish"):
        await request(ASGIFallback(Starlette(), Calls()), http_scope(type="http.fish"))


async def test_headers_that_can_be_read_once_reach_the_app() -> None:
    """ASGI allows any iterable of headers."""
    old = Calls()
    scope = http_scope(headers=iter([(b"host", b"example.org"), (b"a", b"b")]))
    await request(ASGIFallback(Starlette(), old), scope)
    assert list(old.scopes[0]["headers"]) == [(b"host", b"example.org"), (b"a", b"b")]


def stateful(name: str) -> Starlette:
    """Make an app that shows the state that its lifespan and others have made."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
        yield {"name": name}

    def show(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{request.state.name} {request.state.outer} {len(request.scope['state'])}")

    return Starlette(routes=[Route(f"/{name}", show)], lifespan=lifespan)


async def test_each_app_has_a_state_of_its_own() -> None:
    """An app sees what its own lifespan yields, and the state that middleware around both apps has set."""
    app = ASGIFallback(stateful("new"), stateful("old"))
    state: dict[str, Any] = {"outer": "at startup"}
    lifespan = ASGIServer(app, {"type": "lifespan", "asgi": {"version": "3.0"}, "state": state}, blocks=())
    async with lifespan.running():
        lifespan.feed_message({"type": "lifespan.startup"})
        await lifespan.until_sent(1)
        for name in ("new", "old", "new"):
            server = await request(app, http_scope(path=f"/{name}", state={**state, "outer": "of the request"}))
            assert server.body == f"{name} of the request 2".encode()
        lifespan.feed_message({"type": "lifespan.shutdown"})
    assert [message["type"] for message in lifespan.sent] == [
        *("lifespan.startup.complete", "lifespan.shutdown.complete")
    ]


async def test_a_mount_is_asked_where_it_has_routes() -> None:
    """A mounted app of the same kind claims its routes; any other claims its prefix."""

    def closed(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("404 Not Found", [])
        yield b"mounted"

    inner = apps.fastapi("inner", {"/a": ["GET"], "/b/": ["GET"]})
    new = Starlette(routes=[Mount("/in", inner), Mount("/closed", WSGIToASGI(closed))])
    old = apps.flask("old", {"/in/a": ["POST"], "/in/c": ["GET"], "/closed/d": ["GET"], "/in": ["GET"]})
    app = ASGIFallback(new, old)
    expected = {
        ("GET", "/in/a"): (200, b"inner GET /in/a"),
        ("POST", "/in/a"): (200, b"old POST /in/a"),
        ("GET", "/in/b"): (307, b""),
        ("GET", "/in/c"): (200, b"old GET /in/c"),
        ("GET", "/in"): (200, b"old GET /in"),
        ("GET", "/closed/d"): (404, b"mounted"),
        ("GET", "/closed"): (307, b""),
    }
    for (method, path), (status, body) in expected.items():
        server = await request(app, http_scope(method, path))
        assert (server.status, server.body) == (status, body), path
