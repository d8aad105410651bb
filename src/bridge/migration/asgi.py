"""`ASGIFallback`: two apps as one, behind an ASGI server."""

import functools
from typing import Any, Literal

from bridge.migration.fallback import Fallback
from bridge.migration.kinds import is_asgi_app
from bridge.migration.lifespans import serve_lifespans
from bridge.sansio.request_headers import with_header_pairs
from bridge.types import ASGIApp, Message, Receive, Scope, Send
from bridge.wsgi_to_asgi.adapter import WSGIToASGI

_HEADS = ("http.response.start", "websocket.accept", "websocket.http.response.start")


class ASGIFallback(Fallback[ASGIApp]):
    """Answer the new app's routes with `new` and everything else with `old`, behind an ASGI server.

        asgi_app = ASGIFallback(fastapi_app, flask_app)  # uvicorn module:asgi_app

    new, old
        Each an ASGI or a WSGI app. A WSGI app runs in a `WSGIToASGI`; pass `WSGIToASGI(old, workers=10)` to choose
        its options. An app that may be either (`*args`) counts as ASGI.
    claims
        A plain function that takes a scope and returns whether the new app answers. If it returns None, the routers
        decide; without `claims`, they decide every request. It runs on the event loop, so it must not block. Required
        if the fallback cannot see the routes of `new`.
    header
        The name of a response header that says which app has answered, "new" or "old". None (the default) adds none.

    The new app answers a request if it has a route for its path and method. If it has the path only (it would answer
    405, or redirect because of a slash), the old app answers, provided that it has the path, and otherwise the new
    one. The old app answers all other requests, so the site keeps its 404 page. A CORS preflight counts as the request
    that it announces. Exactly one app is called, and nothing of the request is read before. The fallback asks the
    routers of Starlette, FastAPI, Flask, Quart and Django; an old app of another kind counts as having every path.
    Decisions are remembered by type, method, host and path, so define all routes before the first request.

    Both apps see the request unchanged, with its `root_path`. The lifespan of `new` starts first and ends last, and
    each app has its own `state`.

    Raises TypeError if `new` hides its routes and there are no `claims`, or if one of the two is not an app, and
    ValueError for a `header` that is not the name of a header.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, on the loop that the server runs on (ASGI spec, Applications)."""
        scope_type = scope["type"]
        if scope_type == "lifespan":
            await serve_lifespans(self._apps[::-1], self._states_key, scope, receive, send)
            return
        if scope_type not in ("http", "websocket"):
            # ASGI spec, Applications: an app that does not know the scope's type must raise.
            raise ValueError(f"expected a scope of type http, websocket or lifespan, got {scope_type!r:.200}")
        scope = with_header_pairs(scope)
        is_new = self._choice.is_new_for_scope(scope)
        state = scope.get("state")
        if state and self._states_key in state:
            own = state.pop(self._states_key)
            state.update(own[0 if is_new else 1])
        if self._header is not None:
            send = _naming(send, self._header, "new" if is_new else "old")
        await self._apps[is_new](scope, receive, send)

    @staticmethod
    def _adapted(app: Any) -> ASGIApp:
        return app if is_asgi_app(app, unsure=True) else WSGIToASGI(app)

    @functools.cached_property
    def _states_key(self) -> str:
        """The key in the server's state under which the lifespan leaves the states of both apps for the requests."""
        return f"bridge.migration.{id(self)}"


def _naming(send: Send, header: str, who: Literal["new", "old"]) -> Send:
    """Return a `send` that adds the header to the start of a response and to the acceptance of a WebSocket."""
    added = (header.lower().encode(), who.encode())

    async def naming(message: Message) -> None:
        if message["type"] in _HEADS:
            message = {**message, "headers": [*(message.get("headers") or ()), added]}
        await send(message)

    return naming
