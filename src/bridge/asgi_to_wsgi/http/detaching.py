"""How a response leaves its WSGI thread: under which conditions, and how its connection gets to the loop."""

import errno
import logging
import math
from typing import Any

from bridge.asgi_to_wsgi.http import access
from bridge.asgi_to_wsgi.http.detached import DetachedResponse
from bridge.asgi_to_wsgi.http.exchange import HTTPExchange
from bridge.asgi_to_wsgi.http.patience import Patience
from bridge.asgi_to_wsgi.http.place import Place
from bridge.asgi_to_wsgi.servers import (
    end_connection,
    forget_call,
    has_next_request,
    is_start_response_of_server,
    may_answer_by_itself,
    may_send_chunks,
)
from bridge.asgi_to_wsgi.sockets import maybe_connection, steal
from bridge.runtime import Tally
from bridge.sansio.http1 import ResponseWriter
from bridge.sansio.redacted import RedactedMapping
from bridge.sansio.request_name import request_name
from bridge.sansio.trailers import maybe_send_trailers
from bridge.types import Environ, StartResponse

resource: Any
try:
    import resource
except ModuleNotFoundError:  # Windows, where no connection is taken
    resource = None

_logger = logging.getLogger("bridge")

# The share of the process's descriptors that is left to the server and the app, and how many that are at most.
_RESERVED_SHARE, _MOST_RESERVED = 4, 1000


class Detaching:
    """The detached responses of one adapter in one process; all of it in the requests' WSGI threads."""

    def __init__(self, behind_middleware: bool, after: float, limit: int) -> None:
        self.patience = Patience(after)
        self._behind_middleware = behind_middleware
        self.limit = limit
        self._taken: set[int] = set()  # by `Place`
        self.left, self.kept = Tally(), Tally()  # of the responses that were to leave
        self._told_limit = False
        # A number that a new descriptor must not reach: the system gives the lowest one that is free.
        self._descriptors = _descriptors()

    @property
    def maybe_threads(self) -> int | None:
        """How many requests the server runs at once; None if that is unknown, or has no limit."""
        threads = self.patience.threads
        return int(threads) if 0 < threads < math.inf else None

    def maybe_take(
        self, exchange: HTTPExchange, environ: Environ, start_response: StartResponse
    ) -> DetachedResponse | None:
        """Take the connection from the server, and return what answers on it; return None if that cannot be.

        Once the returned response is submitted to the loop, only the loop may take from the outbox.
        """
        place = Place(self._taken, self.patience, exchange)
        taken = self._take_connection(exchange, place, environ, start_response)
        if isinstance(taken, str):
            place.free()
            self.kept.add()
            _log(exchange, "keeps", f": {taken}")
            return None
        self.left.add()
        self.patience.left(exchange)
        _log(exchange, "leaves")
        return taken

    def _take_connection(
        self, exchange: HTTPExchange, place: Place, environ: Environ, start_response: StartResponse
    ) -> DetachedResponse | str:
        """Return the response with its connection, or the reason why it keeps its thread."""
        if not exchange.body_ended:
            return "the request body has not been read to its end"
        if not (self._behind_middleware or is_start_response_of_server(start_response)):
            return "middleware, or an unknown server, passes a start_response of its own"
        if maybe_send_trailers(environ) is not None:
            return "only the server can send the trailers that it offers"
        connection = maybe_connection(environ, lasting=False)
        if connection is None or not connection.stealable or not may_answer_by_itself(environ, start_response):
            return "the server's connection cannot be taken"
        if connection.unsent():
            return "an earlier response is still being sent on its connection"
        is_last = environ.get("HTTP_CONNECTION", "").lower() == "close"
        if not is_last and has_next_request(environ, start_response):
            return "the server has read the next request on its connection, and only the server can answer that"
        if len(self._taken) > self.limit:
            return f"{self.limit} responses have left theirs (max_detached)"
        chunks = may_send_chunks(environ, start_response)
        writer = ResponseWriter(exchange.method, exchange.http_version, chunks)
        try:
            sock = steal(connection, self._descriptors)
        except OSError as error:
            if error.errno == errno.EMFILE:
                self._tell_limit()
            return f"its connection could not be taken: {error}"
        end_connection(start_response)
        request = exchange.scope.get("wsgi_environ")
        if not isinstance(request, RedactedMapping):  # the app has replaced it
            request = environ.copy()  # because the server may clear its own
        forget_call(request, environ)
        place.requests.append(request)
        environ[access.MARK] = True
        return DetachedResponse(exchange, sock, writer, place, is_last)

    def _tell_limit(self) -> None:
        if not self._told_limit:
            self._told_limit = True
            _logger.warning(
                "%d descriptors are open, so more responses keep their WSGI threads until some are closed: raise the "
                "limit (ulimit -n, systemd's LimitNOFILE=) to detach more",
                self._descriptors,
            )


def _log(exchange: HTTPExchange, what: str, why: str = "") -> None:
    if _logger.isEnabledFor(logging.DEBUG):  # this check costs less than the name
        _logger.debug("%s: the response %s its WSGI thread%s", request_name(exchange.scope), what, why)


def _descriptors() -> float:
    """Return how many descriptors the process may have, less a reserve for the server and the app."""
    if resource is None:
        return math.inf
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else soft - min(soft // _RESERVED_SHARE, _MOST_RESERVED)
