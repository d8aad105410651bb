"""The lifespan of an ASGI app, on its private loop."""

import logging
from typing import Any, Literal

import anyio

from bridge.errors import StartupFailed
from bridge.runtime import Change, Loop
from bridge.sansio.messages import DONE, LIFESPAN, event_from_message, next_state
from bridge.types import ASGIApp, Message

_logger = logging.getLogger("bridge")


class Lifespan:
    """One run of the app's lifespan protocol (ASGI lifespan spec). All of it runs on the loop.

    mode
        With "auto", an app that raises before it answers startup has no lifespan, and is served
        without one. With "on", that is an error. lifespan.startup.failed is an error in both.
    """

    def __init__(self, app: ASGIApp, mode: Literal["auto", "on"], loop: Loop) -> None:
        self.state: dict[str, Any] = {}
        self.supported = False
        self._app = app
        self._mode = mode
        self._order = "starting"
        self._told: list[str] = []
        self._failure = ""
        self._error: BaseException | None = None
        self._ended = False
        self._change = Change(loop.event)

    async def run(self) -> None:
        """Run the app in lifespan scope until it returns. Needs a task of its own."""
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._app(scope, self._receive, self._send)
        except BaseException as error:  # SystemExit too, which would end the loop
            cancelled = isinstance(error, anyio.get_cancelled_exc_class())
            if self._order == "starting" or not (cancelled or self._order == "serving"):
                self._error = error
            elif not cancelled:
                _logger.error("the ASGI app's lifespan raised while it was serving", exc_info=error)
        finally:
            self._ended = True
            self._change.notify_all()

    async def startup(self) -> None:
        """Wait until the app has answered startup, or ended. Raises StartupFailed."""
        while self._order == "starting" and not self._ended:
            await self._change.wait()
        if self._order == "serving":
            self.supported = True
            return
        error, self._error = self._error, None  # break the cycle: its traceback refers to this object
        if self._order == "failed":
            reason = self._failure
            if error is not None and "Traceback (most recent call last)" in reason:
                # Starlette sends a traceback, and then raises the error, whose own traceback our cause already shows.
                reason = f"{type(error).__name__}: {error}"
            raise StartupFailed(f"the ASGI app's lifespan startup failed: {reason}") from error
        if error is not None and not isinstance(error, Exception):
            raise StartupFailed(f"the ASGI app's lifespan startup ended by {error!r:.200}") from error
        if self._mode == "on":
            raise StartupFailed("the ASGI app ended its lifespan without answering lifespan.startup") from error
        # As text, because a stored log record would keep the error's frames alive, and with them this loop.
        _logger.info("the ASGI app does not support lifespan: %s", repr(error))

    async def shutdown(self) -> None:
        """Tell the app to shut down, and wait until it has."""
        if self._order == "starting":
            self._order = "failed"  # so that send() raises in an app that completes its startup only now
        if self._order == "serving" and not self._ended:
            self._order = "stopping"
            self._change.notify_all()
            while self._order != DONE and not self._ended:
                await self._change.wait()
            error, self._error = self._error, None
            if error is not None:
                _logger.error("the ASGI app's lifespan raised during shutdown", exc_info=error)

    async def _receive(self) -> Message:
        if not self._told:
            self._told.append("startup")
            return {"type": "lifespan.startup"}
        while "shutdown" in self._told or self._order != "stopping":
            await self._change.wait()  # after shutdown for ever, until the loop's end cancels it
        self._told.append("shutdown")
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        event = event_from_message(message)
        self._order = next_state(LIFESPAN, self._order, event)
        if event.endswith(".failed"):
            self._failure = str(message.get("message", ""))
            if event == "lifespan.shutdown.failed":
                _logger.error("the ASGI app's lifespan shutdown failed: %s", self._failure)
        self._change.notify_all()
