"""The place that a detached response occupies under `max_detached`, and the report of its end."""

import time
from collections.abc import Mapping
from typing import Any

from bridge.asgi_to_wsgi.http import access
from bridge.asgi_to_wsgi.http.access import Answered
from bridge.asgi_to_wsgi.http.exchange import HTTPExchange
from bridge.asgi_to_wsgi.http.patience import Patience


class Place:
    """One of the places for detached responses. It is free again after `free`, or when nothing refers to it.

    An exception that a watchdog throws into a thread cannot lose it.
    """

    _taken: set[int] | None = None  # for __del__, if an asynchronous exception cuts __init__ short

    def __init__(self, taken: set[int], patience: Patience, exchange: HTTPExchange) -> None:
        self._taken = taken
        self._patience = patience
        self._exchange = exchange
        self.requests: list[Mapping[str, Any]] = []  # the environ, until `note` has reported the end
        taken.add(id(self))

    def free(self) -> None:
        """Free the place, because the connection is closed. Idempotent."""
        if self._taken is not None:
            self._taken.discard(id(self))

    __del__ = free

    def answered(self) -> None:
        """Learn from the response, whose head is about to be sent; on the loop."""
        self._patience.answered(self._exchange)

    def note(self, status: str, size: int, whole: bool) -> None:
        """Report the response's end to the access log, once: `size` is how many bytes of body the system has taken.

        Any thread may call this.
        """
        try:
            request = self.requests.pop()
        except IndexError:
            return
        if access.is_wanted():
            exchange = self._exchange
            seconds = time.monotonic() - exchange.begun
            access.note(Answered(request, status or access.LEFT, exchange.response.headers, size, seconds, whole))
