"""The app that an ASGI server serves: it finds the app of the test that a request is for."""

import importlib
import os
import sys
from typing import Any

from wsgi_asgi_conformance.notes import Notes
from wsgi_asgi_conformance.serving import APP, LIFESPAN, NOTE
from wsgi_asgi_conformance.types import Message, Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a connection by the function that its headers name."""
    if scope["type"] == "lifespan":
        await _named(os.environ.get(LIFESPAN, f"{__name__}:lifespan"))(scope, receive, send, Notes("lifespan"))
        return
    headers = {bytes(name).lower(): bytes(value).decode("latin-1") for name, value in scope.get("headers", ())}
    name, note = headers.get(APP.lower().encode()), headers.get(NOTE.lower().encode())
    if name is None or note is None:
        await plain(scope, receive, send, None)
        return
    notes = Notes(note)
    notes("called")
    try:
        await _named(name)(scope, receive, send, notes)
    except BaseException as error:
        notes("raised", type(error).__name__)
        raise
    else:
        notes("returned")


async def positional(first: Scope, second: Receive, third: Send) -> None:
    """Be the same app, with arguments that have other names than those of the spec."""
    await app(first, second, third)


def _named(name: str) -> Any:
    module, _, attribute = name.partition(":")
    if not module.startswith(f"{__package__}."):
        raise ValueError(f"expected an app of {__package__}, got {name!r}")
    return getattr(importlib.import_module(module), attribute)


async def plain(scope: Scope, receive: Receive, send: Send, notes: Notes | None) -> None:
    """Answer what no test is about, such as a look whether the server is up."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"plain"})


async def lifespan(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    """Start and stop without ado, and note what came."""
    notes("scope", dict(scope))
    notes("thread", sys.modules["threading"].get_ident())
    if "state" in scope:
        scope["state"]["at startup"] = "yes"
        scope["state"]["shared"] = []
    message: Message = await receive()
    notes("message", dict(message))
    await send({"type": "lifespan.startup.complete"})
    notes("started")
    notes("message", dict(await receive()))
    await send({"type": "lifespan.shutdown.complete"})
    notes("stopped")
