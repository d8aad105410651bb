"""Requests played eight at once."""

import contextlib
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from bridge.migration.diff.exchange import Answer, Player
from bridge.migration.diff.requests import Request

AT_ONCE = 8
# With the interpreter's own 5 ms, most requests would run from end to end without a switch.
_SWITCH_INTERVAL = 1e-5
# As many requests as this are played at least: a few requests are repeated.
_LEAST = 3 * AT_ONCE


def enough(requests: Sequence[Request]) -> list[Request]:
    """Return the requests one or more times, so that there are some rounds of eight; different ones are neighbours."""
    return list(requests) * -(-_LEAST // len(requests))


class Together:
    """A player that sends the next eight of `requests` at once, whenever it is asked for the first of them."""

    def __init__(self, player: Player, requests: Sequence[Request]) -> None:
        self.name, self.host = player.name, player.host
        self._player = player
        self._waiting = deque(requests)
        self._playing: deque[Future[Answer]] = deque()
        self._threads = ThreadPoolExecutor(AT_ONCE, "bridge check")

    def play(self, request: Request) -> Answer:
        """Return the answer to the next request, which must be `request`. Raises CannotRun if it is late."""
        if not self._playing:
            batch = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
            start = threading.Barrier(len(batch))
            with _switching_often():
                self._playing.extend(self._threads.submit(self._play, each, start) for each in batch)
                for future in self._playing:
                    future.exception()  # waits
        return self._playing.popleft().result()

    def close(self) -> None:
        """End the threads; the player has its own `close`."""
        self._threads.shutdown()

    def _play(self, request: Request, start: threading.Barrier) -> Answer:
        start.wait()
        return self._player.play(request)


@contextlib.contextmanager
def _switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_INTERVAL)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
