"""How long a response may hold its WSGI thread, judged by the server's free threads and by similar responses."""

import math
import re
import threading
import time

from bridge.asgi_to_wsgi.http.exchange import HTTPExchange
from bridge.asgi_to_wsgi.servers import maybe_number_of_threads
from bridge.runtime import LoopClosed
from bridge.types import Environ, StartResponse

# How long an app may take before anybody looks whether other threads are free, in seconds. Most apps answer sooner, and
# cost nothing; the time doubles whenever a look was in vain. A lock.acquire() with a timeout below one clock tick costs
# 10 us more, even when it is woken before the timeout.
_SHORT = 0.005
# If the loop comes to a look later than this, in seconds, the processor is busy.
_LATE = 0.001
# How many kinds of requests are remembered, and how much of their paths. A part of a path that has a digit counts as a
# number or an identifier, which differs between requests of one kind.
_MOST_KINDS, _PATH_SIZE = 1000, 200
_VARIABLE = re.compile(r"[^/]*[0-9][^/]*")


class Patience:
    """Knows which of an adapter's calls in one process hold their threads, and which kinds of requests take long."""

    def __init__(self, after: float) -> None:
        """`after` is how many seconds an app may take while other threads are free."""
        self.threads = 0.0  # how many the server has, once that is known
        self.short = min(after, _SHORT)  # written on the loop
        self.after = after
        # Calls that have taken longer than `short`, by thread ident. If a call was interrupted, its thread's next call
        # takes over the entry.
        self._holding: dict[int, HTTPExchange] = {}
        # Of the requests whose response has left, by kind: the start of the oldest one that has had no quick answer
        # since. Only an answer within `after` removes the entry.
        self.waiting_since: dict[str, float] = {}

    # IN THE REQUESTS' WSGI THREADS

    def count_threads(self, environ: Environ, start_response: StartResponse) -> None:
        """Find out how many threads the server has, from its first request."""
        self.threads = self.threads or maybe_number_of_threads(environ, start_response) or math.inf

    def is_of_waiting_kind(self, exchange: HTTPExchange) -> bool:
        """Return whether a response of the same kind has waited for `after` seconds, so that this can leave at once."""
        since = self.waiting_since.get(_kind(exchange))
        return since is not None and time.monotonic() - since >= self.after

    def hold(self, exchange: HTTPExchange) -> float:
        """Note that a call holds its thread; return for how many more seconds it may.

        If it holds the last thread, it hurries the others.
        """
        if not exchange.begun:
            exchange.begun = time.monotonic() - self.short
        self._holding[threading.get_ident()] = exchange
        if len(self._holding) < self.threads:
            return max(0.0, exchange.begun + self.after - time.monotonic())
        for other in list(self._holding.values()):
            if other is not exchange and other.may_detach:
                self.ask(other, hurried=True)
        return 0.0

    def let_go(self, exchange: HTTPExchange) -> None:
        """Note that a call no longer holds its thread."""
        ident = threading.get_ident()
        if self._holding.get(ident) is exchange:
            self._holding.pop(ident, None)

    def ask(self, exchange: HTTPExchange, hurried: bool) -> None:
        """Have the loop consider whether `exchange` leaves its thread, and wake that thread if so.

        Unless it is `hurried`, it keeps its thread until `after` seconds have passed.
        """
        try:
            exchange.loop.call_soon(self._consider, exchange, hurried, time.monotonic())
        except LoopClosed:
            pass  # it has failed the exchange

    def left(self, exchange: HTTPExchange) -> None:
        """Remember that a response leaves its thread."""
        if not exchange.begun:
            exchange.begun = time.monotonic()
        if len(self.waiting_since) >= _MOST_KINDS:
            self.waiting_since.clear()
        self.waiting_since.setdefault(_kind(exchange), exchange.begun)

    # ON THE LOOP

    def _consider(self, exchange: HTTPExchange, hurried: bool, asked: float) -> None:
        now = time.monotonic()
        if now - exchange.begun >= self.after:
            exchange.consider_leaving(for_thread=True)
        elif hurried:
            # On a busy processor, more requests at once would not be answered sooner. For the same reason, an app that
            # waits for a thread of a pool is not hurried.
            if now - asked < _LATE and exchange.consider_leaving(for_thread=False):
                self.short = min(self.after, _SHORT)
            else:
                self.short = min(self.after, 2 * self.short)

    def answered(self, exchange: HTTPExchange) -> None:
        """Learn from a response that has left, when its head is sent."""
        if time.monotonic() - exchange.begun < self.after and not exchange.response.is_event_stream:
            self.waiting_since.pop(_kind(exchange), None)


def _kind(exchange: HTTPExchange) -> str:
    return f"{exchange.method} {_VARIABLE.sub('*', exchange.path[:_PATH_SIZE])}"
