"""Apps of this process, each called through its own interface: no server, no socket."""

import asyncio
import concurrent.futures
import contextlib
import io
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

from bridge.migration.diff.exchange import Answer, Body, checked_length, scope_of
from bridge.migration.diff.requests import Request
from bridge.migration.kinds import is_asgi_app
from bridge.migration.lifespans import serve_lifespans
from bridge.migration.loading import CannotRun
from bridge.sansio.request import environ_from_scope
from bridge.types import ASGIApp, Message, WSGIApp

# Once an app has been given up, this is how long its lifespan may take to end.
_SHUTDOWN_TIMEOUT = 10.0


def player_of(app: Any, name: str, timeout: float) -> "WSGIPlayer | ASGIPlayer":
    """Return a player for an app. Raises CannotRun if its startup fails."""
    return ASGIPlayer(app, name, timeout) if is_asgi_app(app, unsure=False) else WSGIPlayer(app, name, timeout)


def _raised(error: BaseException) -> Answer:
    """Return what a server answers in place of an app that raises."""
    return Answer(500, (), b"", fault=f"the app raised {type(error).__name__}")


class WSGIPlayer:
    """A WSGI app: each request has a thread of its own, which is left behind if the app hangs."""

    host = "localhost"

    def __init__(self, app: WSGIApp, name: str, timeout: float) -> None:
        self.name = name
        self._app = app
        self._timeout = timeout

    def close(self) -> None:
        """There is nothing to end."""

    def play(self, request: Request) -> Answer:
        """Call the app; an exception counts as 500."""
        answer: concurrent.futures.Future[Answer] = concurrent.futures.Future()

        def run() -> None:
            try:
                answer.set_result(self._call(request))
            except (Exception, SystemExit) as error:
                answer.set_result(_raised(error))

        threading.Thread(target=run, name="bridge diff", daemon=True).start()
        try:
            return answer.result(self._timeout)
        except TimeoutError:
            raise CannotRun(f"{self.name} did not answer within {self._timeout:g} s") from None

    def _call(self, request: Request) -> Answer:
        environ = environ_from_scope(scope_of(request))
        environ.update(
            {
                "wsgi.version": (1, 0),
                "wsgi.input": io.BytesIO(request.body),
                "wsgi.errors": io.StringIO(),  # what the app writes there may have secrets in it
                "wsgi.multithread": True,
                "wsgi.multiprocess": False,
                "wsgi.run_once": False,
            }
        )
        body = Body()
        head: list[tuple[int, tuple[tuple[str, str], ...]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[..., object]:
            head[:] = [(int(status[:3]), tuple(headers))]
            return body.add

        blocks: Iterable[bytes] = self._app(environ, start_response)
        try:
            for block in blocks:
                body.add(block)
                if body.cut:
                    break
        finally:
            if hasattr(blocks, "close"):
                blocks.close()
        if not head:
            return Answer(500, (), b"", fault="the app did not call start_response")
        status, headers = head[0]
        value = b"" if request.method == "HEAD" else body.value()  # as servers do it
        return checked_length(request, Answer(status, headers, value, body.cut))


class ASGIPlayer:
    """An ASGI app on a loop of its own, with its lifespan."""

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
        """End the app's lifespan and the loop; an app that blocks the loop is left behind."""
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
        scope = {**scope_of(request), "state": dict(states[0])}
        body = Body()
        heads: list[Message] = []
        asked = False
        ended = asyncio.Event()

        async def receive() -> Message:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": request.body, "more_body": False}
            await ended.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                heads.append(message)
            elif message["type"] == "http.response.body":
                body.add(message.get("body", b""))
                if body.cut or not message.get("more_body", False):
                    ended.set()

        task = asyncio.ensure_future(self._app(scope, receive, send))
        waiting = asyncio.ensure_future(ended.wait())
        try:
            await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.is_set() and task.done():
                error = task.exception()
                return Answer(500, (), b"", fault="no whole response") if error is None else _raised(error)
            if not body.cut:
                # Background tasks run to their end; an error there comes after the answer, as on a server.
                await asyncio.wait({task})
        finally:
            waiting.cancel()
            task.cancel()
        if task.done() and not task.cancelled():
            task.exception()
        if not heads:
            return Answer(500, (), b"", fault="no whole response")
        pairs = tuple(
            (bytes(name).decode("latin-1"), bytes(value).decode("latin-1"))
            for name, value in heads[0].get("headers") or ()
        )
        value = b"" if request.method == "HEAD" else body.value()
        return checked_length(request, Answer(heads[0]["status"], pairs, value, body.cut))
