"""The base of both fake servers: they call the adapter outside the test's thread, and every wait has a deadline."""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Self

# How often a wait checks a condition that does not notify it, such as a flag of the app, in seconds.
_TICK = 0.002


class Hang(AssertionError):
    """Raised in the test's thread if something has not happened by the deadline."""


class Entry(NamedTuple):
    """One thing that happened in an exchange."""

    kind: str
    value: Any
    time: float  # time.monotonic()
    thread: int  # threading.get_ident()


class Exchange:
    """One call of the adapter, in another thread or on another thread's loop.

    The log lists what happened, in order: "call", then the events that each fake documents, then "ended". `error` is
    the exception that the call raised.
    """

    def __init__(self, deadline: float, hold_after: int | None) -> None:
        self.deadline = deadline
        self.log: list[Entry] = []
        self.error: BaseException | None = None
        self.ended = False
        self.hung = False
        self.changed = threading.Condition()
        self._counts: Counter[str] = Counter()
        self._hold_after = math.inf if hold_after is None else hold_after
        self._disconnected = False

    # Waits of the test

    def until(self, condition: Callable[[], object], what: str = "the test's condition") -> Self:
        """Wait until `condition` holds; it may look at anything. Raises Hang at the deadline."""
        end = time.monotonic() + self.deadline
        with self.changed:
            while not condition():
                if time.monotonic() > end:
                    self.hung = True
                    kinds = " ".join(entry.kind for entry in self.log[-20:])
                    raise Hang(f"waited {self.deadline:g} s for {what}; last: {kinds}")
                self.changed.wait(_TICK)
        return self

    def until_logged(self, kind: str, count: int = 1) -> Self:
        """Wait for the `count`-th entry of a kind; fail at once if the call ends without it."""
        self.until(lambda: self._counts[kind] >= count or self.ended, f"{kind!r} number {count}")
        found = self._counts[kind]
        assert found >= count, f"expected {kind!r} {count} times, got {found}; the call ended with {self.error!r}"
        return self

    def until_ended(self) -> Self:
        """Wait until the call is over, however it ended."""
        return self.until(lambda: self.ended, "the end of the call")

    def finish(self) -> Self:
        """Wait until the call is over; raise what it raised."""
        self.until_ended()
        if isinstance(self.error, Exception):
            raise self.error
        assert self.error is None, f"the call ended with {self.error!r}"
        return self

    # What the test reads

    def values(self, kind: str, since: str | None = None) -> list[Any]:
        """Return the values of all entries of a kind; with `since`, of those after the first entry of that kind."""
        log = list(self.log)
        kinds = [entry.kind for entry in log]
        start = 0 if since is None else kinds.index(since) if since in kinds else len(kinds)
        return [entry.value for entry in log[start:] if entry.kind == kind]

    def entries(self, *kinds: str) -> list[Entry]:
        """Return the entries of some kinds."""
        return [entry for entry in list(self.log) if entry.kind in kinds]

    # Used by both fakes

    def disconnect(self) -> None:
        """Make the client leave."""
        raise NotImplementedError

    def _record(self, kind: str, value: Any = None) -> None:
        with self.changed:
            self.log.append(Entry(kind, value, time.monotonic(), threading.get_ident()))
            self._counts[kind] += 1
            self.changed.notify_all()

    def _end(self, error: BaseException | None) -> None:
        with self.changed:
            self.error = error
            self._record("ended", error)
            self.ended = True


class Server:
    """The base of both fake servers, which end all exchanges with the test."""

    def __init__(self, deadline: float, strict: bool) -> None:
        self.deadline = deadline
        self._strict = strict

    def _end_all(self, exchanges: Sequence[Exchange]) -> None:
        """Make the clients leave, and wait until the calls end, except those that are known to hang."""
        left = [exchange for exchange in exchanges if not exchange.ended]
        for exchange in left:
            exchange.disconnect()
        if left and not any(exchange.hung for exchange in exchanges):
            try:
                left[0].until(lambda: all(exchange.ended for exchange in left), "the end of calls without a client")
            except Hang:
                if self._strict:
                    raise


def joined(blocks: Iterable[Any]) -> bytes:
    """Join the blocks of a body. Each must be bytes."""
    blocks = list(blocks)
    assert all(type(block) is bytes for block in blocks), f"not bytes: {blocks!r:.200}"
    return b"".join(blocks)


def in_thread(function: Any, timeout: float = 5) -> None:
    """Call `function` in a new thread, and raise what it raises, or Hang after `timeout` seconds."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout)
    if thread.is_alive():
        raise Hang(f"waited {timeout:g} s for the end of {function}")
    if errors:
        raise errors[0]
