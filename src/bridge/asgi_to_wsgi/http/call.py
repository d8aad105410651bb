"""One call by a WSGI server, in the thread that it calls in: the app's side of PEP 3333."""

import time
from collections.abc import Callable, Iterable

from bridge.asgi_to_wsgi.http.body import RequestBody
from bridge.asgi_to_wsgi.http.detached import DetachedResponse
from bridge.asgi_to_wsgi.http.detaching import Detaching
from bridge.asgi_to_wsgi.http.exchange import HTTPExchange
from bridge.asgi_to_wsgi.http.hop import LIMIT, Leave, Trailers
from bridge.asgi_to_wsgi.http.patience import Patience
from bridge.asgi_to_wsgi.http.streams import Blocks, File
from bridge.asgi_to_wsgi.loop import LoopThread
from bridge.asgi_to_wsgi.servers import decode_path, maybe_client_check
from bridge.errors import ClientDisconnected, ClientProtocolError, WouldBlockLoop
from bridge.runtime import LoopClosed
from bridge.sansio.request import scope_from_environ
from bridge.sansio.trailers import EXTENSION as TRAILERS
from bridge.sansio.trailers import GUNICORNS_SEND_TRAILERS, SEND_TRAILERS, accepts_trailers, maybe_send_trailers
from bridge.types import ASGIApp, Environ, Headers, StartResponse

# How often a waiting WSGI thread checks whether its client is still there, in seconds.
_CLIENT_CHECK = 1.0
# Joining blocks below this size costs less than the server's turn for each.
_SMALL_BLOCK = 16 * 1024

# How long a stream that has begun may take to end, so that it is no longer than others, in seconds: middleware such as
# Starlette's BaseHTTPMiddleware makes streams of short responses.
_SHORT_STREAM = 0.002


def serve_http(
    app: ASGIApp,
    loop_thread: LoopThread,
    environ: Environ,
    start_response: StartResponse,
    pathsend: bool = False,
    detaching: Detaching | None = None,
) -> Iterable[bytes]:
    """Answer one request with `app`, as a WSGI app would; in the request's WSGI thread.

    `pathsend` offers http.response.pathsend. Starlette uses it for every file if it is offered. Middleware that knows
    only http.response.body then loses the response, or fails.
    """
    decode_path(environ)
    try:
        scope = scope_from_environ(environ)
    except ClientProtocolError as error:
        text = f"Bad request: {error}\n".encode()
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(text)))]
        start_response("400 Bad Request", headers)
        return [text]
    if pathsend:
        scope["extensions"]["http.response.pathsend"] = {}
    if callable(environ.get("wsgi.early_hints")):
        scope["extensions"]["http.response.early_hint"] = {}
    if (SEND_TRAILERS in environ or GUNICORNS_SEND_TRAILERS in environ) and maybe_send_trailers(environ) is not None:
        scope["extensions"][TRAILERS] = {}
    if loop_thread.state is not None:
        scope["state"] = loop_thread.state.copy()
    exchange = HTTPExchange(app, loop_thread, scope)
    body = RequestBody(environ)
    call = WSGICall(exchange, environ, body)
    if detaching is not None:
        call.begin(detaching, start_response)
    try:
        try:
            at_once = body.maybe_at_once()
            if at_once is not None:
                exchange.accept(*at_once)
            if call.grace is None and exchange.body_ended:
                call.take_connection(start_response)
        finally:
            call.submit()  # even if the body failed, so that the app hears that its client has left
        return call.respond(start_response)
    except BaseException as error:
        call.fail(error)
        raise
    finally:
        if detaching is not None and not call.holds_thread:
            detaching.patience.exit(exchange)


class WSGICall:
    """One call of the adapter. It sleeps until the app sends something, and reads the body when the app asks.

    All of it runs in the request's WSGI thread. No other thread touches the environ, wsgi.input or start_response.
    """

    _in_sight = True  # False once we know that the server does not tell whether its client has left
    _client_has_left: Callable[[], bool] | None = None
    detaching: Detaching | None = None  # while the response may leave this thread
    grace: float | None = 0.0  # how long the app may take until then, in seconds; None if it is to leave at once
    holds_thread = False  # the server iterates the response, while its connection is there
    _patience: Patience | None = None  # to be told when nothing holds this thread any more
    _detached: DetachedResponse | None = None  # answers in our place

    def __init__(self, exchange: HTTPExchange, environ: Environ, body: RequestBody) -> None:
        self._exchange = exchange
        self._environ = environ
        self._body = body
        self._read = 0  # how many blocks of the request body have been read
        self._over = False

    def begin(self, detaching: Detaching, start_response: StartResponse) -> None:
        """Prepare a response that may leave this thread."""
        self.detaching, self._patience = detaching, detaching.patience
        self._exchange.may_detach = True
        self.grace = self._patience.enter(self._exchange, self._environ, start_response)

    def respond(self, start_response: StartResponse) -> Iterable[bytes]:
        """Wait for the first block, call `start_response`, and return the iterable of blocks."""
        if self._detached is not None:
            return self._leave_thread(start_response)
        first = self._next_item()
        if self.detaching is not None and (isinstance(first, Leave) or self._takes_long(first)):
            if self._leave_to_loop(first, start_response):
                return self._leave_thread(start_response)
            if isinstance(first, Leave):
                first = self._next_item()
        assert not isinstance(first, Leave)  # it is put before all else, and once
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
            return (
                first if file_wrapper is None or first.size is not None else file_wrapper(first.file, first.BLOCK_SIZE)
            )
        start_response(response.status, response.headers)
        outbox = self._exchange.outbox
        if first is None or (outbox and outbox[0] is None):
            self._over = True
            return [first] if first else []
        self.holds_thread = True
        return Blocks(first, self.next_block, self.stop)

    def _file_and_trailers(self, file: File) -> Blocks:
        """Return the blocks of a file, at whose end the server is told the trailers."""
        blocks = iter(file)

        def stop() -> None:
            file.close()
            self.stop()

        return Blocks(b"", lambda: next(blocks, None) or self.next_block(), stop)

    def take_connection(self, start_response: StartResponse) -> bool:
        """Take the connection from the server, for the loop to answer on; return whether that can be."""
        assert self.detaching is not None
        detaching, self.detaching = self.detaching, None  # it is tried once
        self._exchange.may_detach = False
        self._detached = detaching.maybe_take(self._exchange, self._environ, start_response)
        return self._detached is not None

    def submit(self) -> None:
        """Have the loop run the app, and answer if the connection was taken."""
        if self._detached is not None:
            self._exchange.submit(self._detached, self._exchange)
        else:
            self._exchange.submit(self._exchange)

    def _leave_thread(self, start_response: StartResponse) -> Iterable[bytes]:
        """Let the server continue, which writes this to a connection that is dead, and to its log."""
        start_response("202 Accepted", [("Content-Length", "0")])
        self._over = True
        return []

    def _takes_long(self, first: bytes | File | None) -> bool:
        """Return whether a response that begins with `first` would hold the thread for as long as its client reads."""
        if not isinstance(first, bytes):
            return first is not None
        exchange, outbox = self._exchange, self._exchange.outbox
        deadline = time.monotonic() + _SHORT_STREAM
        while len(first) <= LIMIT and exchange.produced <= LIMIT:
            if outbox and not isinstance(outbox[-1], bytes):
                return False  # its end
            left = deadline - time.monotonic()
            if left <= 0:
                return True
            exchange.lock.acquire(timeout=left)
        return True

    def _leave_to_loop(self, first: bytes | File | Leave | None, start_response: StartResponse) -> bool:
        """Leave the response, of which `first` was taken, to the loop; return whether that can be."""
        exchange = self._exchange
        if not isinstance(first, Leave):
            exchange.outbox.appendleft(first)
            exchange.taken -= len(first) if isinstance(first, bytes) else 0
        if self.take_connection(start_response):
            assert self._detached is not None
            exchange.submit(self._detached)
            return True
        if not isinstance(first, Leave):
            exchange.outbox.popleft()
            exchange.taken += len(first) if isinstance(first, bytes) else 0
        return False

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
            self._release_thread()
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
            self._over = True  # last, so that a call that an asynchronous exception cuts short is repeated
        self._release_thread()

    def fail(self, error: BaseException) -> None:
        """End a call that raises `error`; the client of a response that has left is told."""
        if self._detached is not None:
            self._detached.fail(error)
        self.leave()

    def _release_thread(self) -> None:
        if self.holds_thread:
            self.holds_thread = False
            if self._patience is not None:
                self._patience.exit(self._exchange)

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
        """Count `block` as taken. If it is small, join it with the blocks behind it."""
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
        """Sleep until the loop wakes this thread. Raises ClientDisconnected if the client leaves, where that shows."""
        if self.detaching is not None:
            self._sleep_before_leaving()
            return
        while not self._exchange.lock.acquire(timeout=_CLIENT_CHECK if self._in_sight else -1):
            self._check_client()

    def _sleep_before_leaving(self) -> None:
        """Sleep until the loop has something to tell; ask it now and then whether the response is to leave."""
        assert self._patience is not None
        grace = self.grace or 0.0
        while not self._exchange.lock.acquire(timeout=grace):
            self._check_client()
            grace = min(max(2 * grace, _SHORT_STREAM), _CLIENT_CHECK)
            self._patience.ask(self._exchange)

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
