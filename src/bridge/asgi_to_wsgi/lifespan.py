"""The lifespan of an ASGI app, on its private loop."""

import logging
from typing import Any, Literal

import anyio

from bridge.errors import StartupFailed
from bridge.runtime import Event, Loop
from bridge.sansio.messages import DONE, LIFESPAN, event_from_message, next_state
from bridge.types import ASGIApp, Message

_logger = logging.getLogger("bridge")


class Lifespan:
    """One run of the app's lifespan protocol (ASGI lifespan spec); all of it on the loop.

    mode
        "auto": an app that raises before it answers startup has no lifespan, and is served all
        the same; "on": that is an error. A startup that the app says has failed is one in both.
    """

    def __init__(self, app: ASGIApp, mode: Literal["auto", "on"], loop: Loop) -> None:
        self.state: dict[str, Any] = {}
        self.supported = False
        self._app = app
        self._mode = mode
        self._loop = loop
        self._order = "starting"
        self._told: list[str] = []
        self._failure = ""
        self._error: BaseException | None = None
        self._ended = False
        self._waiters: list[Event] = []

    async def run(self) -> None:
        """Run the app in lifespan scope, to its end; the task that this is, is the app's own."""
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._app(scope, self._receive, self._send)
        except BaseException as error:  # SystemExit too, which would end the loop; nothing comes after this
            cancelled = isinstance(error, anyio.get_cancelled_exc_class())
            if self._order == "starting" or not (cancelled or self._order == "serving"):
                self._error = error
            elif not cancelled:
                _logger.error("the ASGI app's lifespan raised while it was serving", exc_info=error)
        finally:
            self._ended = True
            self._wake()

    async def startup(self) -> None:
        """Wait until the app has answered startup, or ended. Raises StartupFailed."""
        while self._order == "starting" and not self._ended:
            await self._changed()
        if self._order == "serving":
            self.supported = True
            return
        error, self._error = self._error, None  # that refers to this object by its traceback
        if self._order == "failed":
            reason = self._failure
            if error is not None and "Traceback (most recent call last)" in reason:
                # Starlette's, of the error that it raises then: our cause, which has its traceback with it
                reason = f"{type(error).__name__}: {error}"
            raise StartupFailed(f"the ASGI app's lifespan startup failed: {reason}") from error
        if error is not None and not isinstance(error, Exception):
            raise StartupFailed(f"the ASGI app's lifespan startup ended by {error!r:.200}") from error
        if self._mode == "on":
            raise StartupFailed("the ASGI app ended its lifespan without an answer to startup") from error
        # As text: whoever keeps log records would keep the error's frames, and with them this loop.
        _logger.info("the ASGI app does not support lifespan: %s", repr(error))

    async def shutdown(self) -> None:
        """Tell the app to shut down, and wait until it has."""
        if self._order == "starting":
            self._order = "failed"  # given up: an app that completes its startup now is told so by send()
        if self._order == "serving" and not self._ended:
            self._order = "stopping"
            self._wake()
            while self._order != DONE and not self._ended:
                await self._changed()
            error, self._error = self._error, None
            if error is not None:
                _logger.error("the ASGI app's lifespan raised during shutdown", exc_info=error)

    async def _receive(self) -> Message:
        if not self._told:
            self._told.append("startup")
            return {"type": "lifespan.startup"}
        while "shutdown" in self._told or self._order != "stopping":
            await self._changed()  # for ever, after shutdown: the loop's end cancels it
        self._told.append("shutdown")
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        event = event_from_message(message)
        self._order = next_state(LIFESPAN, self._order, event)
        if event.endswith(".failed"):
            self._failure = str(message.get("message", ""))
            if event == "lifespan.shutdown.failed":
                _logger.error("the ASGI app's lifespan shutdown failed: %s", self._failure)
        self._wake()

    async def _changed(self) -> None:
        event = self._loop.event()
        self._waiters.append(event)
        try:
            await event.wait()
        except BaseException:  # given up, by a timeout say
            if event in self._waiters:
                self._waiters.remove(event)
            raise

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for event in waiters:
            event.set()
