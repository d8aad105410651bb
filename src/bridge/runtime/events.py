"""What tasks on an event loop wait on."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol


class Event(Protocol):
    """An event that one task awaits once; it is set on the loop's thread."""

    def set(self) -> object: ...

    async def wait(self) -> Any: ...


class FutureEvent:
    """An event for one asyncio task, at half the cost of an asyncio.Event."""

    __slots__ = ("_future",)

    def __init__(self, future: asyncio.Future[None]) -> None:
        self._future = future

    def set(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self) -> None:
        await self._future


class Change:
    """Wakes every task that waits for a change; all of it on the loop.

    `event` makes an event on that loop: `Loop.event`, or `anyio.Event`.
    """

    __slots__ = ("_event", "_waiting")

    def __init__(self, event: Callable[[], Event]) -> None:
        self._event = event
        self._waiting: list[Event] = []

    async def wait(self) -> None:
        """Wait for the next change. The caller checks its condition in a loop, because any change ends the wait."""
        event = self._event()
        self._waiting.append(event)
        try:
            await event.wait()
        except BaseException:  # cancelled, so nobody waits for this event now
            if event in self._waiting:
                self._waiting.remove(event)
            raise

    def notify_all(self) -> None:
        """Wake all tasks that wait now."""
        waiting, self._waiting = self._waiting, []
        for event in waiting:
            event.set()
