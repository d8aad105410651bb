"""Apps, and requests in threads, that the tests of this folder share."""

import threading
from collections.abc import Callable

import anyio

from bridge import ASGIToWSGI, ClientDisconnected
from bridge.types import Environ, Receive, Scope, Send, WSGIApp
from tests.fakes import WSGIServer

# The fixture `adapt`: creates an adapter for an app and some options, and closes it after the test.
Adapt = Callable[..., ASGIToWSGI]


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hello"})


class Requester:
    """A request to `adapter` in a thread of its own, and its outcome: a body or an error."""

    def __init__(self, adapter: WSGIApp, environ: Environ | None = None) -> None:
        self.outcome: bytes | BaseException | None = None
        self._server = WSGIServer(adapter, environ)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._server.run()
            self.outcome = self._server.body
        except BaseException as error:
            self.outcome = error

    def join(self) -> bytes | BaseException | None:
        """Wait for the outcome, up to five seconds, and return it."""
        self._thread.join(5)
        return self.outcome


EVENT_STREAM = [(b"content-type", b"text/event-stream; charset=utf-8")]


class Streams:
    """An app that streams: server-sent events at /events, plain text at any other path. The streams end differently.

    /events/sends sends until `send` raises; a plain stream ends once `proceed` is set. `ended` tells how each stream
    and the lifespan have ended.
    """

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.proceed = threading.Event()
        self.ended: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self.ended.append("lifespan")
            await send({"type": "lifespan.shutdown.complete"})
            return
        path = scope["path"]
        headers = EVENT_STREAM if path.startswith("/events") else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if path != "/events/mute":
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        self.begun.release()
        try:
            if path == "/events/sends":
                while True:
                    await send({"type": "http.response.body", "body": b".", "more_body": True})
                    await anyio.sleep(0.001)
            elif path.startswith("/events"):
                await receive()
                self.ended.append((await receive())["type"])
            else:
                while not self.proceed.is_set():
                    await anyio.sleep(0.001)
                await send({"type": "http.response.body", "body": b", done"})
        except ClientDisconnected:
            self.ended.append("send raised")
            raise
        except anyio.get_cancelled_exc_class():
            self.ended.append("cancelled")
            raise
