"""The request body on its way from the loop to the thread that reads it."""

from collections import deque
from collections.abc import Callable

import anyio

from bridge.errors import ClientDisconnected, ServerProtocolError
from bridge.runtime import Event
from bridge.sansio.redacted import shown
from bridge.types import Message
from bridge.wsgi_to_asgi.http.hop import Exchange
from bridge.wsgi_to_asgi.http.streams import Spool

# How much of a body is taken before the app reads it, because the server reports that the client has left behind it.
_READ_AHEAD = 1024 * 1024
# How long a body beyond that waits for the app to read on, in seconds, before more of it goes to disk.
_PATIENCE = 5.0
# How much goes to disk until the app has read all of that: the size of the file.
_DISK_LIMIT = 16 * 1024 * 1024


def block_from_message(message: Message) -> bytes:
    """Return the block of body in an `http.request`."""
    block = message.get("body") or b""
    if not isinstance(block, bytes):
        raise ServerProtocolError(f"the body of http.request must be bytes, got {shown(block)}")
    return block


class RequestBody:
    """Blocks that wait to be read: in memory up to a limit, and on disk, up to another, if nobody reads for a while.

    The loop puts them in; one thread takes them out, the app's worker thread most likely. Once that
    has read all that was on disk, blocks wait in memory again.
    """

    # Written on the loop:
    ended = False
    _arrived = 0
    _spool: Spool | None = None  # for what comes from now on, until all of it was read
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
        if block:
            if self._spool is None or not self._spool.put(block):
                self._spool = None
                self._blocks.append(block)
            self._arrived += len(block)
        self.ended = not message.get("more_body")  # last, as whoever sees it takes the rest to have arrived

    @property
    def full(self) -> bool:
        """Whether there is more unread than there should be."""
        if self.ended:
            return False
        if self._spool is not None and not self._spool.closed:
            return self._spool.size >= _DISK_LIMIT
        return self._arrived - self._consumed >= _READ_AHEAD

    async def wait_for_room(self, begun: Callable[[], bool]) -> None:
        """Wait while there is more unread than there should be.

        If an app that has `begun` reads nothing for a while, more goes to disk, so that its client is seen to leave.
        """
        while self.full:
            could_read, consumed = begun(), self._consumed
            self._read_on = self._event()
            with anyio.move_on_after(_PATIENCE) as patience:
                await self._read_on.wait()
            self._read_on = None
            on_disk = self._spool is not None and not self._spool.closed
            if patience.cancelled_caught and could_read and self._consumed == consumed and not on_disk:
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

    def next_block(self, exchange: Exchange) -> bytes:
        """Return the next block; wait for it. Return b"" once every byte was returned. Raises ClientDisconnected."""
        asked = False
        while True:
            # Before the look at the blocks: what arrived before the end is given before it.
            over = exchange.gone or exchange.complete or exchange.finished
            block = self._maybe_take()
            if block:
                self._consumed += len(block)
                return block
            if self.ended and self._consumed == self._arrived:  # else the rest was on disk, and was dropped
                return b""
            if over:
                if exchange.complete and not exchange.gone:
                    raise ClientDisconnected("the response has ended, and with it the request body")
                raise ClientDisconnected
            if not asked:
                asked = True
                exchange.read_on()
            exchange.sleep_while(lambda: self._waits_for(exchange))

    def _maybe_take(self) -> bytes:
        """Return the oldest block; b"" if there is none."""
        spool = self._spool  # first: what is in a spool that the loop makes later comes behind blocks yet unseen
        if self._blocks:
            return self._blocks.popleft()
        return b"" if spool is None else spool.take()

    def _waits_for(self, exchange: Exchange) -> bool:
        """Return whether there is neither a block nor a reason why none will come."""
        over = self.ended or exchange.gone or exchange.complete or exchange.finished
        return not over and self._arrived <= self._consumed
