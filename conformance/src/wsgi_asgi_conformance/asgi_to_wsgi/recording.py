"""ASGI apps that record what an adapter passes to them, and functions for several modules of tests."""

import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import anyio
import pytest

from wsgi_asgi_conformance.apps import http_app
from wsgi_asgi_conformance.exchange import in_thread
from wsgi_asgi_conformance.samples import http_environ
from wsgi_asgi_conformance.types import ASGIApp, Environ, Message, Receive, Scope, Send, WSGIApp
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIRequest, WSGIServer

START = {"type": "http.response.start", "status": 200, "headers": []}
END = {"type": "http.response.body", "body": b"", "more_body": False}

Step: TypeAlias = Callable[[Scope, Send], Awaitable[None]]


def block(body: bytes) -> dict[str, Any]:
    """Return a message with one block of a response's body, which says that more will follow."""
    return {"type": "http.response.body", "body": body, "more_body": True}


class Recording:
    """An app that receives the whole request, answers it, and keeps the scopes and messages."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.received: list[Message] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError("this app knows of HTTP alone")
        self.scopes.append(scope)
        more_body = True
        while more_body:
            self.received.append(await receive())
            more_body = self.received[-1].get("more_body", False)
        await send(START)
        await send({**END, "body": b"done"})


def scope_of(adapt: ToWSGI, serve: WSGIServer, environ: Environ | None = None) -> Scope:
    """Return the scope that an app gets for `environ`."""
    app = Recording()
    assert serve(adapt(app), environ).finish().body == b"done"
    (scope,) = app.scopes
    return scope


def skip_without(adapt: ToWSGI, serve: WSGIServer, extension: str, **variables: Any) -> None:
    """Skip the test if the adapter does not offer an extension in an environ with these variables."""
    if extension not in (scope_of(adapt, serve, http_environ(**variables)).get("extensions") or {}):
        pytest.skip(f"the adapter does not offer {extension}")


def sending(*messages: Message, errors: list[Exception]) -> ASGIApp:
    """Return an app that sends messages, and continues if send() raises."""

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            try:
                await send(message)
            except Exception as error:
                errors.append(error)

    return app


async def complete_startup(scope: Scope, send: Send) -> None:
    """Do nothing at startup."""
    await send({"type": "lifespan.startup.complete"})


async def complete_shutdown(scope: Scope, send: Send) -> None:
    """Do nothing at shutdown."""
    await send({"type": "lifespan.shutdown.complete"})


class LifespanApp:
    """An app with a lifespan that notes each message, and calls `startup` and `shutdown` when these arrive."""

    def __init__(self, startup: Step = complete_startup, shutdown: Step = complete_shutdown) -> None:
        self.events: list[str] = []
        self.scopes: list[Scope] = []
        self.threads: list[threading.Thread] = []
        self.answer: Step = self._answer
        self._steps = {"lifespan.startup": startup, "lifespan.shutdown": shutdown}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.events.append(scope["type"])
        self.scopes.append(scope)
        self.threads.append(threading.current_thread())
        if scope["type"] == "http":
            await self.answer(scope, send)
            return
        for _ in range(2):
            message = await receive()
            self.events.append(message["type"])
            await self._steps[message["type"]](scope, send)

    async def _answer(self, scope: Scope, send: Send) -> None:
        await send(START)
        await send({**END, "body": b"done"})

    def skip_without_lifespan(self) -> None:
        """Skip the test if the request came without a lifespan, because another test checks that."""
        if self.scopes[0]["type"] != "lifespan":
            pytest.skip("the adapter runs no lifespan")


def is_refused(request: WSGIRequest) -> bool:
    """Return whether the request ended with an error, which was raised or became the response."""
    request.until_ended()
    return request.error is not None or request.status.startswith("5")


def close_of(app: Any) -> Callable[[], object]:
    """Return the adapter's close(); skip the test if it has none."""
    if not hasattr(app, "close"):
        pytest.skip("the adapter has no close()")
    close: Callable[[], object] = app.close
    return close


def close(app: WSGIApp, deadline: float) -> None:
    """Close an adapter, within the deadline."""
    in_thread(close_of(app), deadline)


async def until_set(event: threading.Event, deadline: float) -> None:
    """Wait, on the app's loop, for an event that the test's thread sets."""
    with anyio.fail_after(deadline):
        while not event.is_set():
            await anyio.sleep(0.001)
