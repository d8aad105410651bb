"""Whole messages between a WebSocket's app and the loop, for an app that needs no socket."""

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import anyio.lowlevel

from bridge.errors import ClientDisconnected
from bridge.runtime import Event, Loop, LoopClosed, binary_semaphore
from bridge.wsgi_to_asgi.http.streams import LoopEvent

# How many bytes may wait in each direction; asyncio's transports and uvicorn have the same high-water mark.
_LIMIT = 64 * 1024
# What a message counts in addition to its content, so that empty messages are limited, too.
_OVERHEAD = 64

Content: TypeAlias = str | bytes


class Accept(NamedTuple):
    """The app accepts, with one of the client's subprotocols or none."""

    subprotocol: str | None = None


class Close(NamedTuple):
    """The app closes."""

    code: int
    reason: str


Item: TypeAlias = Content | Accept | Close


class Messages:
    """The messages of one WebSocket between the app's threads and the loop. The loop never waits for a lock."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._inbox: queue.SimpleQueue[Content | None] = queue.SimpleQueue()  # None is the end, and stays in it
        self._outbox: deque[Item] = deque()
        # Written on the loop:
        self.end: tuple[int, str | None] | None = None  # code and reason of the close frame
        self._put = 0
        self._sent = 0
        self._room_within: Event | None = None  # wakes `put` when the app has read
        self._arrival: threading.Event | None = None  # set when something is in the inbox; made for apps that ask
        self._event = loop.event()  # wakes `take` when something is in the outbox
        # Written in threads:
        self.accepted = False
        self._hung_up = False
        self._told = False  # the loop is about to look at the outbox; it clears this first
        self._read = 0
        self._given = 0
        self._reading = threading.Lock()
        self._sending = threading.Lock()
        self._room = binary_semaphore()  # `send` sleeps on it

    # IN ANY THREAD OF THE APP

    def accept(self, subprotocol: str | None = None) -> bool:
        """Accept the WebSocket, whose messages come here from now on; return False if it was accepted before."""
        self._take_turn()
        try:
            if self.accepted:
                return False
            self._outbox.append(Accept(subprotocol))
            self.accepted = True
            return True
        finally:
            self._sending.release()

    def receive(self, timeout: float | None = None) -> Content | None:
        """Wait for the next message; return None at the end.

        Raises queue.Empty after `timeout` seconds, and WouldBlockLoop on the loop's own thread.
        """
        ended = self.end is not None  # first, so that an inbox that is empty now stays empty
        if self._inbox.empty():
            if ended:
                return None  # a watchdog's exception has cut short the call that took the end
            if timeout is None or timeout > 0:
                self._loop.refuse_to_sleep("receive() on a WebSocket")
            if self._arrival is not None:
                self._arrival.clear()
        content = self._inbox.get(timeout=timeout)
        if content is None:
            self._inbox.put(None)
            return None
        with self._reading:
            self._read += len(content) + _OVERHEAD
        room = self._room_within
        if room is not None and self._put - self._read <= _LIMIT:
            self._call_soon(room.set)
        return content

    def arrival(self) -> threading.Event:
        """Return an event that is set when there is something to receive; a `receive` that finds nothing clears it."""
        self._arrival = event = LoopEvent(self._loop, "a WebSocket's event")
        if not self._inbox.empty():
            event.set()
        return event

    def send(self, item: Content | Close) -> None:
        """Send a message or close; wait while the client is slow.

        Raises ClientDisconnected after the end, and WouldBlockLoop on the loop's own thread if it would wait.
        """
        if isinstance(item, str) and not item.isascii():
            item.encode()  # raises UnicodeEncodeError here, in the app's own call
        size = _size(item)
        self._take_turn()
        try:
            if self.end is not None or self._hung_up:
                raise ClientDisconnected("the WebSocket is closed")
            if self._given + size - self._sent > _LIMIT:
                self._loop.refuse_to_sleep("send() on a WebSocket")
            self._given += size
            self._outbox.append(item)
            self._tell()
            while self._given - self._sent > _LIMIT and self.end is None:
                self._room.acquire()
        finally:
            self._sending.release()

    def _take_turn(self) -> None:
        """Wait for other threads that send. The caller must release `_sending`."""
        if not self._sending.acquire(blocking=False):
            self._loop.refuse_to_sleep("send() on a WebSocket")
            self._sending.acquire()

    def hang_up(self) -> None:
        """End the app's side."""
        self._hung_up = True
        self._tell()

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            self._call_soon(self._look)

    def _call_soon(self, callback: Callable[[], object]) -> None:
        with contextlib.suppress(LoopClosed):
            self._loop.call_soon(callback)

    # ON THE LOOP

    async def put(self, content: Content) -> None:
        """Pass a message to the app; wait while it does not read."""
        self._put += len(content) + _OVERHEAD
        self._inbox.put(content)
        if self._arrival is not None:
            self._arrival.set()
        while self._put - self._read > _LIMIT:
            self._room_within = room = self._loop.event()
            if self._put - self._read > _LIMIT:  # checked again, in case the app has read before it could see the event
                await room.wait()
            self._room_within = None

    async def take(self) -> list[Item]:
        """Wait for items from the app and return all of them; an empty list at the end."""
        if self._outbox:
            # A fast app would otherwise hold up the other tasks of the loop.
            await anyio.lowlevel.checkpoint()
        while True:
            self._event, self._told = self._loop.event(), False
            if self._outbox or self._hung_up:
                break
            await self._event.wait()
        return [self._outbox.popleft() for _ in range(len(self._outbox))]

    def _look(self) -> None:
        self._event.set()

    def was_sent(self, item: Item) -> None:
        """Record that `item` was sent, and wake `send` if there is room again."""
        self._sent += _size(item)
        if self._room.locked() and self._given - self._sent <= _LIMIT:
            self._wake()

    def finish(self, code: int, reason: str | None) -> None:
        """Record how the WebSocket ended, and wake the app's threads. Only the first call counts."""
        if self.end is None:
            self.end = (code, reason)
            self._inbox.put(None)
            if self._arrival is not None:
                self._arrival.set()
            self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the thread is awake
            self._room.release()


def _size(item: Item) -> int:
    return _OVERHEAD + (len(item) if isinstance(item, (str, bytes)) else 0)
