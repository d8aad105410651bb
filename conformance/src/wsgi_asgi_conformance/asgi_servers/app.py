"""The app that an ASGI server serves: it passes each request on to the app of its test."""

import importlib
import os
import sys
from typing import Any

from wsgi_asgi_conformance.notes import Notes
from wsgi_asgi_conformance.serving import APP, LIFESPAN, NOTE
from wsgi_asgi_conformance.types import Message, Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a connection with the function that its headers name."""
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
    """Serve as `app` does, but name the parameters differently from the spec."""
    await app(first, second, third)


def _named(name: str) -> Any:
    module, _, attribute = name.partition(":")
    if not module.startswith(f"{__package__}."):
        raise ValueError(f"expected an app of {__package__}, got {name!r}")
    return getattr(importlib.import_module(module), attribute)


async def plain(scope: Scope, receive: Receive, send: Send, notes: Notes | None) -> None:
    """Answer a request that belongs to no test, such as a check whether the server is up."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"plain"})


async def lifespan(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    """Complete the startup and the shutdown, and note the scope and the messages."""
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
