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
        A plain function that takes a scope and returns whether the new app answers; None leaves that request to the
        routers. Without it the routers decide all. It runs on the event loop, so it must not block. Needed where the
        routes of `new` cannot be seen.
    header
        The name of a response header that tells who answered, "new" or "old". None by default.

    The new app answers what it has a route for, by path and method. What it knows by its path only (405, or a
    redirect for a slash) the old app answers, if that knows the path; all else is the old app's, its 404 page too. A
    CORS preflight counts as the request that it asks about. Exactly one app is called, and nothing is read before.
    Routers of Starlette, FastAPI, Flask, Quart and Django are asked; an old app of another kind counts as knowing
    every path. Answers are remembered by type, method, host and path, so routes must stand before the first request.

    Both apps see the request as it is, with its `root_path`. The lifespan of `new` starts first and ends last; each
    app has a `state` of its own.

    Raises TypeError if `new` hides its routes and there are no `claims`, or if an app is none.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, on the loop that the server runs on (ASGI spec, Applications)."""
        scope_type = scope["type"]
        if scope_type == "lifespan":
            await serve_lifespans(self._apps[::-1], self._states_key, scope, receive, send)
            return
        if scope_type not in ("http", "websocket"):
            # "If an application does not understand the scope, it should raise": ASGI spec.
            raise ValueError(f"no app for a scope of type {scope_type!r:.200}")
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
        """Where the server's state holds those of both apps, from the lifespan to the requests."""
        return f"bridge.migration.{id(self)}"


def _naming(send: Send, header: str, who: Literal["new", "old"]) -> Send:
    """Return a `send` that adds the header to each head of a response."""
    added = (header.lower().encode(), who.encode())

    async def naming(message: Message) -> None:
        if message["type"] in _HEADS:
            message = {**message, "headers": [*(message.get("headers") or ()), added]}
        await send(message)

    return naming
