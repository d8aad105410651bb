"""The lifespans of two apps as one (ASGI lifespan spec)."""

import logging
from collections.abc import Sequence
from typing import Any

import anyio

from bridge.errors import ServerProtocolError
from bridge.sansio.messages import LIFESPAN, event_from_message, next_state
from bridge.sansio.redacted import shown
from bridge.types import ASGIApp, Message, Receive, Scope, Send

_logger = logging.getLogger("bridge")


async def serve_lifespans(apps: Sequence[ASGIApp], states_key: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Start the apps one after the other, and shut them down in reverse order.

    An app that raises before it answers the startup is served without a lifespan. If the startup of an app fails,
    those before it are shut down, and the server is told of the failure. If the server offers `state`, each app gets
    its own, which begins as a copy of the server's. The server's then holds all of them under `states_key`.
    """
    message = await receive()
    if message["type"] != "lifespan.startup":
        raise ServerProtocolError(f"expected lifespan.startup, got {shown(message)} (ASGI lifespan spec)")
    lifespans = [_Lifespan(app, scope) for app in apps]
    started: list[_Lifespan] = []
    async with anyio.create_task_group() as tasks:
        for lifespan in lifespans:
            tasks.start_soon(lifespan.run)
            failure = await lifespan.startup()
            if failure is not None:
                await _shut_down(started)
                answer: Message = {"type": "lifespan.startup.failed", "message": failure}
                break
            started.append(lifespan)
        else:
            if "state" in scope:
                scope["state"][states_key] = [lifespan.own_state(scope["state"]) for lifespan in lifespans]
            answer = await _serve(started, receive, send)
        tasks.cancel_scope.cancel()  # an app may go on after its last message
    await send(answer)  # last, because hypercorn cancels whoever has not returned by then, and logs that as an error


async def _serve(started: list["_Lifespan"], receive: Receive, send: Send) -> Message:
    """Tell the server that both have started; wait until it shuts them down, and return what to answer to that."""
    await send({"type": "lifespan.startup.complete"})
    message = await receive()
    if message["type"] != "lifespan.shutdown":
        raise ServerProtocolError(f"expected lifespan.shutdown, got {shown(message)} (ASGI lifespan spec)")
    failures = await _shut_down(started)
    if failures:
        return {"type": "lifespan.shutdown.failed", "message": "\n".join(failures)}
    return {"type": "lifespan.shutdown.complete"}


async def _shut_down(lifespans: list["_Lifespan"]) -> list[str]:
    """Shut the apps down, the last one first; return what failed."""
    for lifespan in reversed(lifespans):
        await lifespan.shutdown()
    return [lifespan.failure for lifespan in reversed(lifespans) if lifespan.failure is not None]


class _Lifespan:
    """The lifespan of one app, in its own task."""

    def __init__(self, app: ASGIApp, scope: Scope) -> None:
        self.state: dict[str, Any] = dict(scope.get("state") or {})
        self.failure: str | None = None
        self._app = app
        self._scope = {**scope, "state": self.state} if "state" in scope else dict(scope)
        self._received = 0
        self._started = anyio.Event()  # the app has answered the startup, or ended
        self._stopping = anyio.Event()
        self._stopped = anyio.Event()  # the app has answered the shutdown, or ended
        self._order = "starting"

    async def run(self) -> None:
        """Run the app in lifespan scope, to its end."""
        try:
            await self._app(self._scope, self._receive, self._send)
        except (Exception, SystemExit) as error:  # SystemExit would end the process before the other app has shut down
            if not self._started.is_set() and isinstance(error, Exception):
                _logger.info("the ASGI app does not support lifespan: %r", error)
            elif self.failure is None:
                self.failure = f"the lifespan of {self._app!r:.200} ended by {error!r:.200}"
                self._order = "failed" if self._order == "starting" else self._order
                _logger.error("an ASGI app's lifespan ended by an error", exc_info=error)
        finally:
            self._started.set()
            self._stopped.set()

    def own_state(self, shared: dict[str, Any]) -> dict[str, Any]:
        """Return what the app has added to its state or replaced there."""
        return {key: value for key, value in self.state.items() if key not in shared or shared[key] is not value}

    async def startup(self) -> str | None:
        """Wait until the app has answered the startup, or ended; return the message if it failed."""
        await self._started.wait()
        return self.failure if self._order == "failed" else None

    async def shutdown(self) -> None:
        """Tell the app to shut down, and wait until it has."""
        if self._order == "serving":
            self._order = "stopping"
        self._stopping.set()
        await self._stopped.wait()

    async def _receive(self) -> Message:
        self._received += 1
        if self._received == 1:
            return {"type": "lifespan.startup"}
        await self._stopping.wait()
        if self._received > 2:
            await anyio.sleep_forever()  # the protocol has no further message
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        event = event_from_message(message)
        self._order = next_state(LIFESPAN, self._order, event)
        if event.endswith(".failed"):
            self.failure = str(message.get("message") or f"{event} of {self._app!r:.200}")
        self._started.set()
        if self._order not in ("serving", "failed"):
            self._stopped.set()
