"""How long a response may hold its WSGI thread: what is known of the server's threads, and of responses like it."""

import math
import re
import threading
import time

from bridge.asgi_to_wsgi.http.exchange import HTTPExchange
from bridge.asgi_to_wsgi.servers import maybe_number_of_threads
from bridge.runtime import LoopClosed
from bridge.types import Environ, StartResponse

# How long an app may take where no other thread is free, in seconds: others wait for this one.
_HURRY = 0.001
# How often newcomers hurry those who wait, in seconds.
_HURRY_AGAIN = 0.005
# A response leaves at once, where no thread is free, if one like it has waited for that long, in seconds.
_SURELY_WAITS = 0.005
# How many kinds of requests are remembered, and how much of their paths. The part of a path with a digit is a number or
# an identifier, which differs between requests of one kind.
_MOST_KINDS, _PATH_SIZE = 1000, 200
_VARIABLE = re.compile(r"[^/]*[0-9][^/]*")


class Patience:
    """The calls of one adapter in one process, and which of them are worth waiting for."""

    def __init__(self, after: float) -> None:
        self.threads = 0.0  # how many the server has, once that is known
        self._after = after
        self._inside: dict[int, HTTPExchange] = {}  # by thread, so that one that was interrupted is replaced
        self._hurried = 0.0  # when newcomers last hurried those inside
        # When the first of those began that have not answered since; it stays if their answers took `after`:
        self._waiting_since: dict[str, float] = {}

    # IN THE REQUESTS' WSGI THREADS

    def enter(self, exchange: HTTPExchange, environ: Environ, start_response: StartResponse) -> float | None:
        """Note that a call begins; return how many seconds to wait for its app, or None to leave without."""
        if not self.threads:
            self.threads = maybe_number_of_threads(environ, start_response) or math.inf
        exchange.begun = now = time.monotonic()
        self._inside[threading.get_ident()] = exchange
        is_free = len(self._inside) < self.threads
        if not is_free and now - self._hurried > _HURRY_AGAIN:
            self._hurried = now
            self._hurry_all(now)
        if self._waiting_since:
            since = self._waiting_since.get(_kind(exchange), now)
            if now > since and now - since >= (self._after if is_free else min(self._after, _SURELY_WAITS)):
                return None
        return self._after if is_free else min(self._after, _HURRY)

    def exit(self, exchange: HTTPExchange) -> None:
        """Note that a call is over, or that nothing it returned holds its thread."""
        ident = threading.get_ident()
        if self._inside.get(ident) is exchange:
            self._inside.pop(ident, None)

    def _hurry_all(self, now: float) -> None:
        for exchange in list(self._inside.values()):
            if exchange.may_detach and now - exchange.begun >= _HURRY:
                self.ask(exchange)

    def ask(self, exchange: HTTPExchange) -> None:
        """Have the loop consider whether `exchange` leaves its thread, which hears of it if it does."""
        try:
            exchange.loop.call_soon(self._consider, exchange, time.monotonic())
        except LoopClosed:
            pass  # it has failed the exchange

    def left(self, exchange: HTTPExchange) -> None:
        """Remember that a response has left its thread."""
        if len(self._waiting_since) >= _MOST_KINDS:
            self._waiting_since.clear()
        self._waiting_since.setdefault(_kind(exchange), exchange.begun)

    # ON THE LOOP

    def _consider(self, exchange: HTTPExchange, asked: float) -> None:
        now = time.monotonic()
        if now - exchange.begun >= self._after:
            exchange.consider_leaving(for_thread=True)
        elif now - asked < _HURRY:
            # Otherwise the processor is busy, and more requests at once would not be answered sooner. For the same
            # reason what an app does in a thread of a pool is given its time, as a WSGI app is.
            exchange.consider_leaving(for_thread=False)

    def answered(self, exchange: HTTPExchange) -> None:
        """Learn from a response that had left, when its head is sent."""
        if time.monotonic() - exchange.begun < self._after and not exchange.response.is_event_stream:
            self._waiting_since.pop(_kind(exchange), None)


def _kind(exchange: HTTPExchange) -> str:
    scope = exchange.scope
    return f"{scope['method']} {_VARIABLE.sub('*', scope['path'][:_PATH_SIZE])}"
