"""The request body on its way from the loop to the thread that reads it."""

from collections import deque
from collections.abc import Callable
from typing import Protocol

import anyio

from bridge.errors import ClientDisconnected, ServerProtocolError
from bridge.runtime import Event
from bridge.sansio.redacted import shown
from bridge.types import Message
from bridge.wsgi_to_asgi.streams import Spool

# How much of a body is taken before the app reads it, as only behind it stands that the client has left.
_READ_AHEAD = 1024 * 1024
# How long a body beyond that waits for the app to read on, in seconds, before the rest of it goes to disk.
_PATIENCE = 5.0


class Connection(Protocol):
    """What a body asks of the request that it belongs to; see `http.HTTPExchange`."""

    gone: bool
    complete: bool
    finished: bool

    def read_on(self) -> None: ...

    def sleep_while(self, blocked: Callable[[], bool]) -> None: ...


def block_from_message(message: Message) -> bytes:
    """Return the block of body in an `http.request`."""
    block = message.get("body") or b""
    if not isinstance(block, bytes):
        raise ServerProtocolError(f"the body of http.request must be bytes, got {shown(block)}")
    return block


class RequestBody:
    """Blocks that wait to be read: in memory up to a limit, and on disk if nobody reads for a while.

    The loop puts them in; one thread takes them out, the app's worker thread most likely.
    """

    # Written on the loop:
    ended = False
    _arrived = 0
    _spool: Spool | None = None  # for what comes from now on
    _read_on: Event | None = None  # tells `wait_for_room` that the app reads on
    # Written in the thread that reads:
    _consumed = 0

    def __init__(self, event: Callable[[], Event]) -> None:
        self._blocks: deque[bytes] = deque()
        self._event = event

    # ON THE LOOP

    def put(self, message: Message) -> None:
        """Take an `http.request` message."""
        if self.ended:
            return
        block = block_from_message(message)
        if self._spool is None:
            self._blocks.append(block)
        else:
            self._spool.put(block)
        self._arrived += len(block)
        self.ended = not message.get("more_body")

    @property
    def full(self) -> bool:
        """Whether there is more unread than there should be."""
        return not self.ended and self._spool is None and self._arrived - self._consumed >= _READ_AHEAD

    async def wait_for_room(self) -> None:
        """Wait while there is more unread than there should be; in the end, have the rest go to disk."""
        while self.full:
            consumed = self._consumed
            self._read_on = self._event()
            with anyio.move_on_after(_PATIENCE) as patience:
                await self._read_on.wait()
            self._read_on = None
            if patience.cancelled_caught and self._consumed == consumed:
                self._spool = Spool()

    def wake_loop(self) -> None:
        """End `wait_for_room`'s wait: the app reads on."""
        if self._read_on is not None:
            self._read_on.set()

    def close(self) -> None:
        """Drop what is on disk."""
        if self._spool is not None:
            self._spool.close()

    # IN THE THREAD THAT READS

    def next_block(self, connection: Connection) -> bytes:
        """Return the next block, b"" at the end; wait for it. Raises ClientDisconnected."""
        asked = False
        while True:
            ended = self.ended  # before the look at the blocks, where the last one comes first
            if self._blocks:
                block = self._blocks.popleft()
            else:
                block = b"" if self._spool is None else self._spool.take()
                if not block:
                    if ended:
                        return b""
                    if connection.complete and not connection.gone:
                        raise ClientDisconnected("the response has ended, and with it the request body")
                    if connection.gone or connection.finished:
                        raise ClientDisconnected
                    if not asked:
                        asked = True
                        connection.read_on()
                    connection.sleep_while(lambda: self._waits_for(connection))
            if block:
                self._consumed += len(block)
                return block

    def _waits_for(self, connection: Connection) -> bool:
        """Return whether there is neither a block nor a reason why none will come."""
        over = self.ended or connection.gone or connection.complete or connection.finished
        return not over and self._arrived <= self._consumed
