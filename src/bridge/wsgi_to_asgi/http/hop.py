"""The hop between an exchange's loop and its thread: what one tells the other, and how each waits and is woken."""

import contextlib
import enum
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from bridge.runtime import Event, Loop, LoopClosed, binary_semaphore
from bridge.types import Message

# How often a sleeping thread checks that its loop is still open, in seconds.
_LOOP_CHECK = 5.0
# Blocks of body smaller than this are joined if several wait: copying them costs less than another message.
_SMALL_BLOCK = 16 * 1024


class Mark(enum.Enum):
    """What a thread puts in the outbox besides messages and blocks of body."""

    END = "the response is complete"
    WATCH_WANTED = "the app reads more of the body, or asks whether the client has left"
    FINISHED = "the thread is done with the exchange"


# As globals, because Python 3.11 takes ten times as long to look a member up in its enum.
END: Final = Mark.END
WATCH_WANTED: Final = Mark.WATCH_WANTED
FINISHED: Final = Mark.FINISHED


Item: TypeAlias = Message | bytes | Mark


def body_message_from_items(item: bytes | Mark, outbox: deque[Item]) -> Message:
    """Return the message for `item`, a block or END, and take from `outbox` what it includes: END, or small blocks."""
    if not isinstance(item, bytes):  # END, after blocks that were sent before
        return {"type": "http.response.body", "body": b"", "more_body": False}
    if len(item) < _SMALL_BLOCK and outbox and isinstance(outbox[0], bytes):
        item = b"".join([item, *_pop_blocks(outbox)])
    # One look at `outbox`: a thread may append a block between two.
    more_body = outbox[0] is not END if outbox else True
    if not more_body:
        outbox.popleft()
    return {"type": "http.response.body", "body": item, "more_body": more_body}


def _pop_blocks(outbox: deque[Item]) -> Iterator[bytes]:
    while outbox and isinstance(block := outbox[0], bytes):
        outbox.popleft()
        yield block


# Stand in for deques that are made only when they are needed; these hold nothing.
_NO_ITEMS: deque[Item] = deque(maxlen=0)
_NO_SLEEPERS: deque[threading.Lock] = deque(maxlen=0)


class Exchange:
    """One exchange as its threads see it: an outbox to the loop, and a way to sleep until the loop has acted.

    `HTTPExchange` and a WebSocket's `AppThread` derive from it.
    """

    loop: Loop
    # Written in the thread of the call:
    outbox = _NO_ITEMS
    _watch_asked = False
    # Written on the loop:
    gone = False  # the client has left, or is not sent this response
    complete = False  # the response has ended
    finished = False  # the loop is done with the exchange
    transmitted = 0  # bytes of the response body that were sent
    _event: Event | None = None  # set when something is in the outbox
    # Set by a thread that wakes the loop, cleared on the loop before it looks at the outbox:
    _told = False
    # The lock of each thread that sleeps; made by the first one:
    _sleepers = _NO_SLEEPERS

    # ON THE LOOP

    def look(self) -> None:
        """Wake the task that looks at the outbox."""
        if self._event is not None:
            self._event.set()

    def leave(self) -> None:
        """Record that the client has left, and wake all sleepers."""
        self.gone = True
        self.wake_sleepers()

    def end_response(self) -> None:
        """Record that the response has ended, and the request body with it; wake all sleepers."""
        self.complete = True
        self.wake_sleepers()

    def wake_sleepers(self) -> None:
        """Wake each thread that sleeps, so that it checks again what it waits for."""
        if sleepers := self._sleepers:
            for _ in range(len(sleepers)):  # no more than those, because a woken thread may sleep again
                with contextlib.suppress(IndexError):  # a thread whose time ran out has removed its lock
                    sleepers.popleft().release()

    # IN ANY THREAD

    def tell(self) -> None:
        """Make the loop look at the outbox, unless it is about to."""
        try:
            if not self._told:
                self._told = True
                self.knock()
        except BaseException:  # from a watchdog; the next call is to wake the loop
            self._told = False
            raise

    def read_on(self) -> None:
        """Make the loop receive more of the body, and watch the client from now on."""
        self.outbox.append(WATCH_WANTED)
        self.tell()

    def watch(self) -> None:
        """Make the loop watch the client from now on."""
        if not self._watch_asked:
            self._watch_asked = True
            self.read_on()

    def knock(self) -> None:
        """Wake the loop; if it was closed, record that the client is gone."""
        try:
            self.loop.call_soon(self.look)
        except LoopClosed:
            self.gone = True

    def sleep_while(self, blocked: Callable[[], bool], timeout: float = math.inf) -> None:
        """Sleep while `blocked()`, up to `timeout` seconds. The loop must wake all sleepers after each change to that.

        `blocked` must be False once `gone` is set. Raises WouldBlockLoop instead of sleeping on the loop's own thread.
        """
        if self.loop.runs_here() and timeout > 0 and blocked():
            self.loop.refuse_to_sleep("a read of wsgi.input, write(), or a wait for bridge.disconnected")
        deadline = time.monotonic() + timeout
        lock = binary_semaphore()
        sleepers = vars(self).setdefault("_sleepers", deque())  # atomic, because another thread may do the same
        sleepers.append(lock)  # before the check, so that no wake-up is missed
        while blocked() and (left := deadline - time.monotonic()) > 0:
            if lock.acquire(timeout=min(left, _LOOP_CHECK)):
                sleepers.append(lock)
            else:
                self.knock()
        with contextlib.suppress(ValueError):  # the wake-up removed it
            sleepers.remove(lock)
