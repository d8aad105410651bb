"""How a response leaves its WSGI thread: what has to be true for it, and the connection's way to the loop."""

import logging
import math
import os
import threading
import time
from typing import Any

from bridge.asgi_to_wsgi.http import access
from bridge.asgi_to_wsgi.http.access import Answered
from bridge.asgi_to_wsgi.http.detached import DetachedResponse
from bridge.asgi_to_wsgi.http.exchange import HTTPExchange
from bridge.asgi_to_wsgi.servers import (
    is_start_response_of_server,
    may_answer_by_itself,
    may_send_chunks,
    maybe_number_of_threads,
)
from bridge.asgi_to_wsgi.sockets import ClientConnection, maybe_connection, steal
from bridge.runtime import Tally
from bridge.sansio.http1 import ResponseWriter
from bridge.sansio.request_name import request_name
from bridge.types import Environ, StartResponse

resource: Any
try:
    import resource
except ModuleNotFoundError:  # Windows, where no connection is taken
    resource = None

_logger = logging.getLogger("bridge")

# How long an app may take where no other thread is free, in seconds: others wait for this one.
_HURRY = 0.001
# What part of the descriptors that a process may have is left to the server and the app, and the most of it.
_RESERVED_SHARE, _MOST_RESERVED = 4, 1000


class Detaching:
    """The detached responses of one adapter in one process; all of it in the requests' WSGI threads."""

    def __init__(self, behind_middleware: bool, after: float, limit: int) -> None:
        self._after = after
        self._behind_middleware = behind_middleware
        self.limit = limit
        self._free = threading.Semaphore(limit)
        self.left, self.kept = Tally(), Tally()  # of the responses that were to leave
        self._told_limit = False
        self._inside: dict[int, float] = {}  # the threads that are in a call, and since when
        self._threads = 0.0  # how many the server has, once that is known
        # A number that a new descriptor must not reach: the system gives the lowest one that is free.
        self._descriptors = _descriptors()

    @property
    def maybe_threads(self) -> int | None:
        """How many requests the server runs at once; None if that is unknown, or has no limit."""
        return int(self._threads) if 0 < self._threads < math.inf else None

    def enter(self, environ: Environ, start_response: StartResponse) -> float:
        """Note that a call begins; return how long its app may take before the response leaves, in seconds."""
        if not self._threads:
            self._threads = maybe_number_of_threads(environ, start_response) or math.inf
        self._inside[threading.get_ident()] = time.monotonic()
        return self._after if len(self._inside) < self._threads else min(self._after, _HURRY)

    def exit(self) -> None:
        """Note that a call has returned."""
        self._inside.pop(threading.get_ident(), None)

    def leave(self, exchange: HTTPExchange, environ: Environ, start_response: StartResponse) -> bool:
        """Take the connection from the server and leave the response to the loop; return False if that cannot be.

        The WSGI thread must not look into the outbox afterwards. Raises what the server raises.
        """
        connection = maybe_connection(environ)
        reason = self._maybe_reason(exchange, connection, environ, start_response)
        if reason is not None:
            self.kept.add()
            _logger.debug("%s: the response keeps its WSGI thread: %s", request_name(exchange.scope), reason)
            return False
        assert connection is not None
        try:
            sock = steal(connection)
        except OSError:  # the server is about to close it, and the thread will notice
            self._free.release()
            self.kept.add()
            return False
        except BaseException:
            self._free.release()
            raise
        chunks = may_send_chunks(environ, start_response)
        writer = ResponseWriter(exchange.scope["method"], exchange.scope["http_version"], chunks)
        request = exchange.scope.get("wsgi_environ") or environ.copy()  # the server may clear its own
        since = self._inside.get(threading.get_ident(), time.monotonic())

        def note(status: str, size: int, whole: bool) -> None:
            seconds = time.monotonic() - since
            access.note(Answered(request, status or access.LEFT, exchange.response.headers, size, seconds, whole))

        environ[access.MARK] = True
        detached = DetachedResponse(exchange, sock, writer, self._free.release, note)
        try:
            exchange.submit(detached)
        except BaseException as error:
            detached.fail(error)
            raise
        self.left.add()
        _logger.debug("%s: the response has left its WSGI thread", request_name(exchange.scope))
        start_response("202 Accepted", [("Content-Length", "0")])  # to a connection that is dead, and for the log
        return True

    def _maybe_reason(
        self,
        exchange: HTTPExchange,
        connection: ClientConnection | None,
        environ: Environ,
        start_response: StartResponse,
    ) -> str | None:
        """Return why a response cannot leave; if it can, a place is taken for it."""
        if not exchange.body_ended:
            return "the request body has not been read to its end"
        if not (self._behind_middleware or is_start_response_of_server(start_response)):
            return "middleware, or an unknown server, passes a start_response of its own"
        if connection is None or not connection.stealable or not may_answer_by_itself(environ, start_response):
            return "the server's connection cannot be taken"
        if connection.unsent():
            return "an earlier response is still being sent on its connection"
        if not self._has_descriptors(connection):
            return "descriptors are scarce"
        if not self._free.acquire(blocking=False):
            return f"{self.limit} responses have left theirs (max_detached)"
        return None

    def _has_descriptors(self, connection: ClientConnection) -> bool:
        try:
            number = os.dup(connection.sock.fileno())
        except OSError:
            return False
        os.close(number)
        if number < self._descriptors:
            return True
        if not self._told_limit:
            self._told_limit = True
            _logger.warning(
                "%d descriptors are open, so more responses keep their WSGI threads until some are closed: raise the "
                "limit (ulimit -n, systemd's LimitNOFILE=) to detach more",
                number,
            )
        return False


def _descriptors() -> float:
    """Return how many descriptors the process may have, less a reserve for the server and the app."""
    if resource is None:
        return math.inf
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else soft - min(soft // _RESERVED_SHARE, _MOST_RESERVED)
