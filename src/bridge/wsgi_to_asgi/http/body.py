"""The request body on its way from the loop to the thread that reads it. Its twin is `asgi_to_wsgi/http/body.py`."""

from collections import deque
from collections.abc import Callable

import anyio

from bridge.errors import ClientDisconnected, ServerProtocolError
from bridge.runtime import Event
from bridge.sansio.redacted import shown
from bridge.types import Message
from bridge.wsgi_to_asgi.http.hop import Exchange
from bridge.wsgi_to_asgi.http.streams import Spool

# How many bytes are received before the app reads them, because servers report a disconnect only after the body.
_READ_AHEAD = 1024 * 1024
# How long a longer body waits for the app to read, in seconds, before more of it goes to disk.
_PATIENCE = 5.0
# How large the file on disk may become, in bytes; it is dropped when the app has read all of it.
_DISK_LIMIT = 16 * 1024 * 1024


def block_from_message(message: Message) -> bytes:
    """Return the block of body in an `http.request` message."""
    block = message.get("body") or b""
    if not isinstance(block, bytes):
        raise ServerProtocolError(f"the body of http.request must be bytes, got {shown(block)}")
    return block


class RequestBody:
    """Blocks that wait to be read: in memory up to a limit, then, if nobody reads for a while, on disk up to another.

    The loop adds blocks, and one thread takes them, usually the app's worker thread. Once it has read
    all that is on disk, blocks wait in memory again.
    """

    # Written on the loop:
    ended = False
    _arrived = 0
    _spool: Spool | None = None  # holds later blocks until all of them are read
    _read_on: Event | None = None  # ends `wait_for_room`
    # Written in the thread that reads:
    _consumed = 0

    def __init__(self, event: Callable[[], Event]) -> None:
        self._blocks: deque[bytes] = deque()
        self._event = event

    # ON THE LOOP

    def put(self, message: Message) -> None:
        """Add the block of an `http.request` message."""
        if self.ended:
            return
        block = block_from_message(message)
        if block:
            if self._spool is None or not self._spool.put(block):
                self._spool = None
                self._blocks.append(block)
            self._arrived += len(block)
        self.ended = not message.get("more_body")  # last, because a reader that sees it expects no more blocks

    @property
    def full(self) -> bool:
        """Whether the unread blocks have reached their limit."""
        if self.ended:
            return False
        if self._spool is not None and not self._spool.closed:
            return self._spool.size >= _DISK_LIMIT
        return self._arrived - self._consumed >= _READ_AHEAD

    async def wait_for_room(self, begun: Callable[[], bool]) -> None:
        """Wait while the body is full.

        If the app has `begun` and reads nothing for a while, more goes to disk, so that the server can report a
        disconnect.
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
        """End the wait of `wait_for_room`, because the app reads."""
        if self._read_on is not None:
            self._read_on.set()

    def close(self) -> None:
        """Delete what is on disk."""
        if self._spool is not None:
            self._spool.close()

    # IN THE THREAD THAT READS

    def next_block(self, exchange: Exchange) -> bytes:
        """Wait for the next block; return b"" at the end. Raises ClientDisconnected if the body ends early."""
        asked = False
        while True:
            # Checked before the blocks, so that a block that arrived before the end is returned first.
            over = exchange.gone or exchange.complete or exchange.finished
            due = self._arrived > self._consumed  # first, so that a block that is due can be taken
            block = self._maybe_take()
            if block:
                self._consumed += len(block)
                return block
            if self.ended and self._consumed == self._arrived:  # otherwise the rest was on disk, and was deleted
                return b""
            if over:
                if exchange.complete and not exchange.gone:
                    raise ClientDisconnected("the response has ended, and with it the request body")
                raise ClientDisconnected
            if due and not exchange.finished:  # a watchdog's exception cut short the read that took it
                raise ClientDisconnected("a part of the request body was lost when an exception interrupted a read")
            if not asked:
                asked = True
                exchange.read_on()
            exchange.sleep_while(lambda: self._waits_for(exchange))

    def _maybe_take(self) -> bytes:
        """Return the oldest block, or b"" if there is none."""
        spool = self._spool  # first, because a spool made later holds blocks that come after those in memory
        if self._blocks:
            return self._blocks.popleft()
        return b"" if spool is None else spool.take()

    def _waits_for(self, exchange: Exchange) -> bool:
        """Return whether a block may still come and none is here."""
        over = self.ended or exchange.gone or exchange.complete or exchange.finished
        return not over and self._arrived <= self._consumed
