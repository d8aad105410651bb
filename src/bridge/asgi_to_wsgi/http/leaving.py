"""A call whose response may leave its WSGI thread, because the app waits or the client reads slowly."""

import time
from collections.abc import Iterable

from bridge.asgi_to_wsgi.http.call import CLIENT_CHECK, WSGICall
from bridge.asgi_to_wsgi.http.detached import DetachedResponse
from bridge.asgi_to_wsgi.http.detaching import Detaching
from bridge.asgi_to_wsgi.http.hop import LIMIT, Leave
from bridge.asgi_to_wsgi.http.streams import Blocks, File
from bridge.asgi_to_wsgi.loop import LoopThread
from bridge.types import StartResponse

# A stream that ends within this many seconds of its first block is treated like a short response, and keeps its thread:
# middleware such as Starlette's BaseHTTPMiddleware makes streams of short responses.
_SHORT_STREAM = 0.002


class LeavableCall(WSGICall):
    """A `WSGICall` that may leave its response to the loop. All of it runs in the request's WSGI thread."""

    detaching: Detaching  # set before anything else, because an __init__ of its own would cost more
    _may_leave = True  # until it has been tried
    _counted = False  # `Patience` counts this thread as held
    _streams = False  # the server iterates the response
    _detached: DetachedResponse | None = None  # answers instead of us

    def serve(self, loop_thread: LoopThread, start_response: StartResponse) -> Iterable[bytes]:
        """Have the app run on its loop, and return its response, or nothing if that has left."""
        exchange = self._exchange
        if self._body.remaining != 0:
            exchange.begun = time.monotonic()  # otherwise whoever needs it sets it later, as few do
        try:
            try:
                at_once = self._body.maybe_at_once()
                if at_once is not None:
                    exchange.accept(*at_once)
                patience = self.detaching.patience
                if patience.waiting_since and exchange.body_ended and patience.is_of_waiting_kind(exchange):
                    self._maybe_take_connection(start_response)
            finally:
                if self._detached is None:
                    loop_thread.submit(exchange)
                else:
                    loop_thread.submit(self._detached, exchange)
            return self.respond(start_response)
        except BaseException as error:
            if self._detached is not None:
                self._detached.fail(error)
            self.leave()
            raise
        finally:
            if self._counted and not self._streams:
                self._let_go()

    def respond(self, start_response: StartResponse) -> Iterable[bytes]:
        """Wait for the first block, or until the response is to leave, and return what the server is to send."""
        if self._detached is not None:
            return self._leave_thread(start_response)
        first = self._next_item()
        exchange, outbox = self._exchange, self._exchange.outbox
        if isinstance(first, bytes) and outbox and outbox[0] is None and len(first) <= LIMIT:
            start_response(exchange.response.status, exchange.response.headers)  # whole by now, as most are
            self._over = True
            return [first] if first else []
        takes_long = isinstance(first, Leave) or self._takes_long(first)
        if not isinstance(first, Leave):
            outbox.appendleft(first)
            exchange.taken -= len(first) if isinstance(first, bytes) else 0
        if takes_long and (detached := self._maybe_take_connection(start_response)) is not None:
            exchange.loop_thread.submit(detached)
            return self._leave_thread(start_response)
        self._may_leave = exchange.may_detach = False
        iterable = super().respond(start_response)
        if isinstance(iterable, Blocks):
            self._streams = True
            self._hold()
        return iterable

    def _takes_long(self, first: bytes | File | None) -> bool:
        """Return whether a response that begins with `first` could hold the thread for as long as its client reads."""
        if not isinstance(first, bytes):
            return first is not None
        exchange, outbox = self._exchange, self._exchange.outbox
        if outbox and outbox[0] is None and len(first) <= LIMIT:
            return False  # whole by now, as most are
        deadline = time.monotonic() + _SHORT_STREAM
        while len(first) <= LIMIT and exchange.produced <= LIMIT:
            if outbox and not isinstance(outbox[-1], bytes):
                return False  # the response has ended
            left = deadline - time.monotonic()
            if left <= 0:
                return True
            exchange.lock.acquire(timeout=left)
        return True

    def _maybe_take_connection(self, start_response: StartResponse) -> DetachedResponse | None:
        """Take the connection from the server, and return what answers on it; return None if that cannot be."""
        self._may_leave = self._exchange.may_detach = False  # try it only once
        self._detached = self.detaching.maybe_take(self._exchange, self._environ, start_response)
        return self._detached

    def _leave_thread(self, start_response: StartResponse) -> Iterable[bytes]:
        """Let the server continue. It writes this response to the dead connection, and to its log."""
        start_response("202 Accepted", [("Content-Length", "0")])
        self._over = True
        return []

    def next_block(self) -> bytes | None:
        """Wait for the next block; return None at the end."""
        block = super().next_block()
        if block is None:
            self._let_go()
        return block

    def leave(self) -> None:
        """Tell the app that the client has left, or that the response has failed. Idempotent."""
        super().leave()
        self._let_go()

    def _hold(self) -> float:
        self._counted = True
        return self.detaching.patience.hold(self._exchange)

    def _let_go(self) -> None:
        if self._counted:
            self.detaching.patience.let_go(self._exchange)
            self._counted = False

    def _sleep(self) -> None:
        """Sleep until the loop wakes this thread; now and then, ask the loop whether the response is to leave."""
        exchange, patience = self._exchange, self.detaching.patience
        if not self._counted and exchange.lock.acquire(timeout=patience.short):
            return
        if not self._may_leave:
            super()._sleep()
            return
        wait = self._hold()
        hurried = not wait
        while not exchange.lock.acquire(timeout=min(wait, CLIENT_CHECK)):
            if wait > CLIENT_CHECK:
                wait -= CLIENT_CHECK
            else:
                patience.ask(exchange, hurried)
                wait = min(max(2 * wait, _SHORT_STREAM), CLIENT_CHECK)
            if wait >= CLIENT_CHECK:
                self._check_client()
