"""The hop between the thread of an exchange and its loop: what each tells the other, and how they wake and wait."""

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

# How often a sleeping thread looks whether its loop is still there, in seconds.
_LOOP_CHECK = 5.0
# A block of body below this is worth copying, to save the server a message.
_SMALL_BLOCK = 16 * 1024


class Mark(enum.Enum):
    """What a thread says to the loop, besides messages and blocks of body."""

    END = "the response is complete"
    WATCH_WANTED = "the app reads on, or asks whether the client is still there"
    FINISHED = "the thread is done with the request"


# Python 3.11 takes ten times as long to find a member in its class.
END: Final = Mark.END
WATCH_WANTED: Final = Mark.WATCH_WANTED
FINISHED: Final = Mark.FINISHED


Item: TypeAlias = Message | bytes | Mark


def body_message_from_items(item: bytes | Mark, outbox: deque[Item]) -> Message:
    """Return the message for a block, or for the end; small blocks that wait together leave as one."""
    if not isinstance(item, bytes):  # END, behind blocks that have left
        return {"type": "http.response.body", "body": b"", "more_body": False}
    if len(item) < _SMALL_BLOCK and outbox and isinstance(outbox[0], bytes):
        item = b"".join([item, *_pop_blocks(outbox)])
    # One look: `not (outbox and ...)` would look twice, and take for the end what came in between.
    more_body = outbox[0] is not END if outbox else True
    if not more_body:
        outbox.popleft()
    return {"type": "http.response.body", "body": item, "more_body": more_body}


def _pop_blocks(outbox: deque[Item]) -> Iterator[bytes]:
    while outbox and isinstance(block := outbox[0], bytes):
        outbox.popleft()
        yield block


# What stands in for a queue that is not made before it is needed; it takes nothing.
_NO_ITEMS: deque[Item] = deque(maxlen=0)
_NO_SLEEPERS: deque[threading.Lock] = deque(maxlen=0)


class Exchange:
    """What a call asks of the request that it answers: a way to the loop, and one to wait for what that does."""

    loop: Loop
    # Written in the thread of the call:
    outbox = _NO_ITEMS
    _watch_asked = False
    # Written on the loop:
    gone = False  # nobody is there to send anything to
    complete = False  # the response has ended
    finished = False  # all has ended
    transmitted = 0  # bytes of the response body
    _event: Event | None = None  # set when something is in the outbox
    # Set by a thread that wakes the loop, cleared on the loop before it looks:
    _told = False
    # Made by the first thread that has to sleep; the locks of all that do, as each has its own:
    _sleepers = _NO_SLEEPERS

    # ON THE LOOP

    def look(self) -> None:
        """See what is in the outbox."""
        if self._event is not None:
            self._event.set()

    def wake_sleepers(self) -> None:
        """Have each thread that sleeps look again at what it waits for."""
        if sleepers := self._sleepers:
            for _ in range(len(sleepers)):  # and no more, as one that looks may come back
                with contextlib.suppress(IndexError):  # one whose time ran out takes its own lock out
                    sleepers.popleft().release()

    # IN ANY THREAD

    def tell(self) -> None:
        """Have the loop look at the outbox, unless it is about to."""
        try:
            if not self._told:
                self._told = True
                self.knock()
        except BaseException:  # thrown in from without: whoever tells next wakes the loop
            self._told = False
            raise

    def read_on(self) -> None:
        """Have more of the body taken, and the connection watched from now on."""
        self.outbox.append(WATCH_WANTED)
        self.tell()

    def watch(self) -> None:
        """Have the connection watched from now on, if it is not."""
        if not self._watch_asked:
            self._watch_asked = True
            self.read_on()

    def knock(self) -> None:
        """Wake the loop; note that the client is as good as gone where that was closed."""
        try:
            self.loop.call_soon(self.look)
        except LoopClosed:
            self.gone = True

    def sleep_while(self, blocked: Callable[[], bool], timeout: float = math.inf) -> None:
        """Sleep while `blocked`, as far as that is for the loop to change, and for `gone`; up to `timeout` seconds.

        Raises WouldBlockLoop on the loop's own thread, if there is anything to sleep for.
        """
        if self.loop.runs_here() and timeout > 0 and blocked():
            self.loop.refuse_to_sleep("a read of wsgi.input, write(), or a wait for bridge.disconnected")
        deadline = time.monotonic() + timeout
        lock = binary_semaphore()
        sleepers = vars(self).setdefault("_sleepers", deque())  # at once, as another thread may be about to as well
        sleepers.append(lock)  # before the look at what may have changed already
        while blocked() and (left := deadline - time.monotonic()) > 0:
            if lock.acquire(timeout=min(left, _LOOP_CHECK)):
                sleepers.append(lock)
            else:
                self.knock()
        with contextlib.suppress(ValueError):  # who woke us took it out
            sleepers.remove(lock)
