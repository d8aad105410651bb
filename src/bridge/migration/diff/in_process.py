"""Plays requests to apps in this process, without a server."""

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
from typing import Any

from bridge.migration.diff.calls import call_asgi, call_wsgi, raised
from bridge.migration.diff.exchange import Answer
from bridge.migration.diff.requests import Request
from bridge.migration.kinds import is_asgi_app
from bridge.migration.lifespans import serve_lifespans
from bridge.migration.loading import CannotRun
from bridge.types import ASGIApp, Message, WSGIApp

# How many seconds the lifespan of an app may take to end, before its thread is left behind.
_SHUTDOWN_TIMEOUT = 10.0


def player_of(app: Any, name: str, timeout: float) -> "WSGIPlayer | ASGIPlayer":
    """Return a player for an app. Raises CannotRun if its startup fails."""
    return ASGIPlayer(app, name, timeout) if is_asgi_app(app, unsure=False) else WSGIPlayer(app, name, timeout)


class WSGIPlayer:
    """A WSGI app. Each request runs in its own thread, which is left behind if the app hangs."""

    host = "localhost"

    def __init__(self, app: WSGIApp, name: str, timeout: float) -> None:
        self.name = name
        self._app = app
        self._timeout = timeout

    def close(self) -> None:
        """Do nothing: the threads end with their requests."""

    def play(self, request: Request) -> Answer:
        """Call the app; an exception counts as 500."""
        answer: concurrent.futures.Future[Answer] = concurrent.futures.Future()

        def run() -> None:
            try:
                answer.set_result(call_wsgi(self._app, request))
            except (Exception, SystemExit) as error:
                answer.set_result(raised(error))

        threading.Thread(target=run, name="bridge diff", daemon=True).start()
        try:
            return answer.result(self._timeout)
        except TimeoutError:
            raise CannotRun(f"{self.name} did not answer within {self._timeout:g} s") from None


class ASGIPlayer:
    """An ASGI app with its lifespan, on its own loop in its own thread. Raises CannotRun if it does not start."""

    host = "localhost"

    def __init__(self, app: ASGIApp, name: str, timeout: float) -> None:
        self.name = name
        self._app = app
        self._timeout = timeout
        self._loop = asyncio.new_event_loop()
        self._state: dict[str, Any] = {}
        self._stopping = asyncio.Event()
        self._startup: concurrent.futures.Future[str | None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, name="bridge diff", daemon=True)
        self._thread.start()
        try:
            failure = self._startup.result(60)
        except TimeoutError:
            raise CannotRun(f"the startup of {name} did not end within 60 s") from None
        if failure is not None:
            raise CannotRun(f"the startup of {name} failed")

    def close(self) -> None:
        """End the lifespan and the loop; if the app blocks the loop, leave its thread behind."""
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(_SHUTDOWN_TIMEOUT)

    def play(self, request: Request) -> Answer:
        """Call the app; an exception counts as 500."""
        call = asyncio.run_coroutine_threadsafe(self._call(request), self._loop)
        try:
            return call.result(self._timeout)
        except TimeoutError:
            call.cancel()
            raise CannotRun(f"{self.name} did not answer within {self._timeout:g} s") from None

    # --- On the loop ------------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            logging.getLogger("bridge").debug("an ASGI app's lifespan ended by an error", exc_info=error)
        finally:
            if not self._startup.done():
                self._startup.set_result("ended")
            with contextlib.suppress(Exception):
                tasks = asyncio.all_tasks(self._loop)
                for task in tasks:
                    task.cancel()
                self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
                self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _serve(self) -> None:
        asked = False

        async def receive() -> Message:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "lifespan.startup"}
            await self._stopping.wait()
            return {"type": "lifespan.shutdown"}

        async def send(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._startup.set_result(None)
            elif message["type"] == "lifespan.startup.failed":
                self._startup.set_result("failed")

        scope: dict[str, Any] = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self._state,
        }
        await serve_lifespans([self._app], "bridge.diff", scope, receive, send)

    async def _call(self, request: Request) -> Answer:
        states = self._state.get("bridge.diff", [{}])
        return await call_asgi(self._app, request, dict(states[0]))
