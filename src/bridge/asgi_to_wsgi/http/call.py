"""One call by a WSGI server, in the thread that it calls in: the app's side of PEP 3333."""

from collections.abc import Callable, Iterable

from bridge.asgi_to_wsgi.http.body import RequestBody
from bridge.asgi_to_wsgi.http.exchange import HTTPExchange
from bridge.asgi_to_wsgi.http.hop import LIMIT, Leave, Trailers
from bridge.asgi_to_wsgi.http.streams import Blocks, File
from bridge.asgi_to_wsgi.loop import LoopThread
from bridge.asgi_to_wsgi.servers import maybe_client_check
from bridge.errors import ClientDisconnected, WouldBlockLoop
from bridge.runtime import LoopClosed
from bridge.sansio.trailers import accepts_trailers, maybe_send_trailers
from bridge.types import Environ, Headers, StartResponse

# How often a waiting WSGI thread checks whether its client is still there, in seconds.
CLIENT_CHECK = 1.0
# Joining blocks below this size costs less than the server's turn for each.
_SMALL_BLOCK = 16 * 1024


class WSGICall:
    """One call of the adapter. It sleeps until the app sends something, and reads the body when the app asks.

    All of it runs in the request's WSGI thread. No other thread touches the environ, wsgi.input or start_response.
    """

    _in_sight = True  # False once we know that the server does not tell whether its client has left
    _client_has_left: Callable[[], bool] | None = None

    def __init__(self, exchange: HTTPExchange, environ: Environ, body: RequestBody) -> None:
        self._exchange = exchange
        self._environ = environ
        self._body = body
        self._read = 0  # how many blocks of the request body have been read
        self._over = False

    def serve(self, loop_thread: LoopThread, start_response: StartResponse) -> Iterable[bytes]:
        """Have the app run on its loop, and return its response."""
        try:
            try:
                at_once = self._body.maybe_at_once()
                if at_once is not None:
                    self._exchange.accept(*at_once)
            finally:
                # Even if the body failed, so that the app hears that its client has left.
                loop_thread.submit(self._exchange)
            return self.respond(start_response)
        except BaseException:
            self.leave()
            raise

    def respond(self, start_response: StartResponse) -> Iterable[bytes]:
        """Wait for the first block, call `start_response`, and return the iterable of blocks."""
        first = self._next_item()
        assert not isinstance(first, Leave)  # only a LeavableCall gets one
        response = self._exchange.response
        if isinstance(first, File):
            try:
                start_response(response.status, response.headers)
            except BaseException:
                first.close()
                raise
            if self._exchange.trailing:
                return self._file_and_trailers(first)
            file_wrapper = self._environ.get("wsgi.file_wrapper")
            return file_wrapper(first.file, first.BLOCK_SIZE) if first.whole and file_wrapper is not None else first
        start_response(response.status, response.headers)
        outbox = self._exchange.outbox
        if first is None or (outbox and outbox[0] is None):
            self._over = True
            return [first] if first else []
        return Blocks(first, self.next_block, self.stop)

    def _file_and_trailers(self, file: File) -> Blocks:
        """Return the blocks of a file, and tell the server the trailers after the last one."""
        blocks = iter(file)

        def stop() -> None:
            file.close()
            self.stop()

        return Blocks(b"", lambda: next(blocks, None) or self.next_block(), stop)

    def next_block(self) -> bytes | None:
        """Wait for the next block; return None at the end."""
        if self._over:
            return None
        # The first block needs no such check: `submit` has one.
        if not self._exchange.outbox and self._exchange.loop.runs_here():
            raise WouldBlockLoop(
                "the response of an ASGI app was iterated on the app's own event loop, which would wait for itself: "
                "iterate it in a worker thread (anyio.to_thread.run_sync)"
            )
        try:
            item = self._next_item()
        except BaseException:
            self.leave()
            raise
        if item is None:
            self._over = True
        assert not isinstance(item, (File, Leave))  # `sansio.messages` allows a file only in place of a body
        return item

    def stop(self) -> None:
        """End the response, because the server takes no more of it. Idempotent."""
        outbox = self._exchange.outbox
        if outbox and outbox[0] is None:  # the server has taken every byte, so the response is complete
            self._over = True
        self.leave()

    def leave(self) -> None:
        """Tell the app that the client has left, or that the response has failed. Idempotent."""
        if not self._over:
            self._exchange.left = True
            self._call_on_loop(self._exchange.leave)
            self._over = True  # last, so that `leave` starts over if an asynchronous exception cuts it short

    def _next_item(self) -> bytes | File | Leave | None:
        """Wait for the app's next item, and read the body meanwhile if the app asks. Raises what the app raised."""
        exchange = self._exchange
        outbox = exchange.outbox
        while True:
            if outbox:
                item = outbox.popleft()
                if isinstance(item, bytes):
                    return self._take_blocks(item)
                if isinstance(item, list):
                    self._environ["wsgi.early_hints"](item)
                elif isinstance(item, Trailers):
                    self._send_trailers(item.headers)
                elif isinstance(item, BaseException):
                    self._over = True
                    try:
                        raise item
                    finally:
                        del item  # its traceback refers to this frame, which would be a cycle
                else:
                    return item
            elif exchange.wanted > self._read:
                try:
                    block, more_body = self._body.read()
                except BaseException:
                    self.leave()
                    raise
                self._read += 1
                self._call_on_loop(exchange.deliver, block, more_body)
            else:
                self._sleep()

    def _send_trailers(self, trailers: Headers) -> None:
        """Tell the server the trailers before the end of the body, if the client takes them."""
        send_trailers = maybe_send_trailers(self._environ)
        if send_trailers is not None and accepts_trailers(self._environ):
            send_trailers(trailers)

    def _take_blocks(self, block: bytes) -> bytes:
        """Count `block` as taken. If it is small, join it with the blocks that follow."""
        exchange = self._exchange
        outbox = exchange.outbox
        if len(block) < _SMALL_BLOCK and outbox and isinstance(outbox[0], bytes):
            blocks = [block]
            while outbox and isinstance(outbox[0], bytes):
                blocks.append(outbox.popleft())  # type: ignore[arg-type]  # checked in the condition
            block = b"".join(blocks)
        exchange.taken += len(block)
        if exchange.full and exchange.produced - exchange.taken <= LIMIT // 2:
            self._call_on_loop(exchange.make_room)
        return block

    def _sleep(self) -> None:
        """Sleep until the loop wakes this thread. Raises ClientDisconnected if the client is seen to leave."""
        while not self._exchange.lock.acquire(timeout=CLIENT_CHECK if self._in_sight else -1):
            self._check_client()

    def _check_client(self) -> None:
        """Raise ClientDisconnected if the client is known to have left."""
        # Looked up only now, because most apps answer before the first check.
        if self._client_has_left is None and self._in_sight:
            self._client_has_left = maybe_client_check(self._environ)
            self._in_sight = self._client_has_left is not None
        if self._client_has_left is not None and self._client_has_left():
            self.leave()
            raise ClientDisconnected

    def _call_on_loop(self, function: Callable[..., object], *args: object) -> None:
        try:
            self._exchange.loop.call_soon(function, *args)
        except LoopClosed:
            pass  # the loop has ended, and has failed the exchange
