"""One HTTP request to an ASGI app: its body in, its response out.

Everything here has one home, the loop or the request's WSGI thread, and a banner says which. What
one side tells the other goes through a deque and a wake-up; no attribute is written from both.
"""

import contextvars
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import anyio
import anyio.lowlevel

from bridge.asgi_to_wsgi.runner import LoopThread
from bridge.asgi_to_wsgi.servers import maybe_client_check
from bridge.asgi_to_wsgi.streams import Blocks, File
from bridge.errors import AppProtocolError, ClientDisconnected, ClientProtocolError
from bridge.runtime import Event, Loop, binary_semaphore
from bridge.sansio.messages import DONE, RESPONSE, event_from_message, next_state
from bridge.sansio.request import scope_from_environ
from bridge.sansio.response import ResponseFromASGI, native_from_raw_headers
from bridge.types import ASGIApp, Environ, Headers, Message, StartResponse

_logger = logging.getLogger("bridge")

# How much of a body may be on the way: the high-water mark of asyncio's transports and of uvicorn.
# A request body up to this size is read before the app starts, which saves a hop.
_LIMIT = 64 * 1024
# How long an app may go on with the body of a response that has none (to HEAD, say), in seconds.
_SURPLUS_TIME = 1.0
# How often a WSGI thread that waits looks whether its client is still there, in seconds.
_CLIENT_CHECK = 1.0


def serve_http(
    app: ASGIApp, loop_thread: LoopThread, environ: Environ, start_response: StartResponse
) -> Iterable[bytes]:
    """Answer one request with `app`, as a WSGI app would; in the request's WSGI thread."""
    try:
        scope = scope_from_environ(environ)
    except ClientProtocolError as error:
        body = f"Bad request: {error}\n".encode()
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
        start_response("400 Bad Request", headers)
        return [body]
    if loop_thread.state is not None:
        scope["state"] = loop_thread.state.copy()
    exchange = HTTPExchange(app, loop_thread.loop, scope, environ)
    try:
        try:
            exchange.read_at_once()
        finally:
            loop_thread.submit(exchange)  # even so: the app is told that its client left
        return exchange.respond(start_response)
    except BaseException:
        exchange.leave()
        raise


class HTTPExchange:
    """One request and its response, between its WSGI thread and the loop.

    The app's `send` puts blocks in `_outbox` and releases the lock that the WSGI thread sleeps
    on; its `receive` asks that thread for a block of the request body. Nobody else touches
    `wsgi.input` and what else the server gave.

    Who ends each wait: the other side, by its answer; `_finish`, on the loop, when the app ends,
    whether it has answered or not; `fail`, when the loop ends; `leave`, when the server closes
    the response or the client has left.
    """

    def __init__(self, app: ASGIApp, loop: Loop, scope: dict[str, Any], environ: Environ) -> None:
        self.context = contextvars.copy_context()
        self._app = app
        self._loop = loop
        self._scope = scope
        self._outbox: deque[bytes | File | Headers | None] = deque()  # None is the end
        # Written on the loop:
        self._inbox: deque[tuple[bytes, bool]] = deque()
        self._response = ResponseFromASGI(scope["method"])
        self._state = "nothing sent"
        self._ended_at = 0.0
        self._ended = False  # the client has all of it, though the app may have more to say
        self._gone = False
        self._produced = 0
        self._full = False  # a send() waits for room in the outbox
        self._wanted = 0  # how many blocks of the request body the app has asked for
        self._delivered = 0
        self._body_ended = False
        self._waiters: list[Event] = []
        self._error: BaseException | None = None
        # Written in the WSGI thread:
        self._lock = binary_semaphore()
        self._environ = environ
        self._input: Any = environ.get("wsgi.input")
        self._remaining = _maybe_content_length(environ)
        self._client_has_left = maybe_client_check(environ)
        self._read = 0
        self._taken = 0
        self._over = False
        scope["extensions"]["http.response.pathsend"] = {}
        self._hints = callable(environ.get("wsgi.early_hints"))
        if self._hints:
            scope["extensions"]["http.response.early_hint"] = {}

    # ON THE LOOP

    async def run(self) -> None:
        """Run the app, whatever happens."""
        try:
            await self._app(self._scope, self._receive, self._send)
        except anyio.get_cancelled_exc_class() as cancelled:
            self._finish(cancelled)
            raise
        except BaseException as error:
            self._finish(error)
        else:
            self._finish(None)

    def _finish(self, error: BaseException | None) -> None:
        """Note that the app has ended: the thread's wait ends with its error, or with what it owes."""
        if self._ended or self._gone:
            if isinstance(error, Exception):
                self._log(error)
        elif error is None:
            self.fail(AppProtocolError(f"the ASGI app returned without a whole response ({self._state})"))
        elif isinstance(error, Exception):
            self.fail(error)
        else:  # CancelledError, SystemExit: in the WSGI thread they would mean something else
            failure = AppProtocolError(f"the ASGI app ended by {error!r:.200} ({self._state})")
            failure.__cause__ = error
            self.fail(failure)

    def _log(self, error: BaseException) -> None:
        """Log what the app raised when there is nobody to raise it to."""
        if not _is_of_disconnect(error):
            when = "its response was complete" if self._ended else "its client had left"
            _logger.error("the ASGI app raised after %s", when, exc_info=error)

    async def _receive(self) -> Message:
        while self._state != DONE and not self._gone:
            if self._inbox:
                body, more_body = self._inbox.popleft()
                return {"type": "http.request", "body": body, "more_body": more_body}
            if not self._body_ended and self._wanted == self._delivered:
                self._wanted += 1
                self._wake_thread()
            await self._changed()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._state == DONE:
            return  # "If the response is complete, further messages are ignored": ASGI HTTP spec
        if self._gone:
            raise ClientDisconnected
        event = event_from_message(message)
        state = next_state(RESPONSE, self._state, event)
        message_type = message["type"]
        items: list[bytes | File | Headers | None] = []
        if message_type == "http.response.start":
            self._response.start(message)
        elif message_type == "http.response.body":
            if self._ended and message.get("body") and message.get("more_body"):
                await self._pass_surplus()
            items.append(self._response.pass_on(message))
        elif message_type == "http.response.pathsend":
            items.append(self._open(message))
        elif message_type == "http.response.early_hint":
            if not self._hints:
                raise AppProtocolError("http.response.early_hint was not offered (docs/extensions, Early Hints)")
            items.append(native_from_raw_headers([(b"Link", link) for link in message.get("links") or ()]))
        self._state = state
        if not self._ended and (
            state == DONE or (message_type == "http.response.body" and self._response.length.reached)
        ):
            # Of HEAD, 204, 304 and a body that has its Content-Length the client has all, whatever follows.
            self._ended = True
            self._ended_at = time.monotonic()
            items.append(None)
        if state == DONE:
            self._wake_waiters()  # who waits in receive() hears of the end
        if items:
            self._outbox.extend(items)
            self._wake_thread()
            if isinstance(items[0], bytes):
                self._produced += len(items[0])
                await self._make_room()

    async def _pass_surplus(self) -> None:
        """Stop an app that goes on beyond what its client can get; one that does so for a moment may."""
        if not self._response.length.bodiless or time.monotonic() - self._ended_at > _SURPLUS_TIME:
            self._gone = True
            self._wake_waiters()
            raise ClientDisconnected("the response has no room for more")
        await anyio.lowlevel.checkpoint()  # or the loop would do nothing else

    def _open(self, message: Message) -> bytes | File:
        """Open the file of an http.response.pathsend; OSError reaches the app."""
        path = message.get("path")
        if not isinstance(path, str) or not os.path.isabs(path):
            raise AppProtocolError(
                f"http.response.pathsend needs an absolute path, got {path!r:.200} (docs/extensions)"
            )
        length = self._response.length
        file = File(path)
        size = os.fstat(file.file.fileno()).st_size
        if length.bodiless:
            file.close()
            return b""
        if length.declared is not None and length.declared > size:
            file.close()
            raise AppProtocolError(f"the app declared a Content-Length of {length.declared}, and its file has {size}")
        if length.declared is not None and length.declared < size:
            file.size = length.declared
        return file

    async def _make_room(self) -> None:
        while self._produced - self._taken > _LIMIT:
            if self._gone:
                raise ClientDisconnected
            self._full = True  # before the second look, so that the thread either sees it or has taken
            if self._produced - self._taken > _LIMIT:
                await self._changed()
        self._full = False

    async def _changed(self) -> None:
        """Wait until anything has changed."""
        event = self._loop.event()
        self._waiters.append(event)
        try:
            await event.wait()
        except BaseException:  # given up, as Starlette's is_disconnected() does each time
            if event in self._waiters:
                self._waiters.remove(event)
            raise

    def _wake_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for event in waiters:
            event.set()

    def _deliver(self, block: bytes, more_body: bool) -> None:
        """Take a block that the app has asked for."""
        self._delivered += 1
        self._accept(block, more_body)
        self._wake_waiters()

    def _accept(self, block: bytes, more_body: bool) -> None:
        self._body_ended = not more_body
        self._inbox.append((block, more_body))

    def _leave(self) -> None:
        """Let the app know that its client has left: `receive` says so, and `send` raises."""
        self._gone = True
        self._wake_waiters()
        if self._error is not None:  # it came while the thread was leaving, who so has not taken it
            self._log(self._error)
        while self._outbox:
            item = self._outbox.popleft()
            if isinstance(item, File):
                item.close()

    def _wake_thread(self) -> None:
        if self._lock.locked():  # else it has been woken already, and has yet to look
            self._lock.release()

    # IN THE WSGI THREAD

    def read_at_once(self) -> None:
        """Read what there is of the body before the app starts, if that takes no waiting.

        Nothing of the exchange is on the loop yet.
        """
        if self._remaining == 0:
            self._accept(b"", False)
        elif self._environ.get("HTTP_EXPECT", "").lower() == "100-continue":
            pass  # the client waits for the app to ask (RFC 9110 10.1.1)
        elif self._remaining is None:
            # A stream that knows its end, and by that says nothing of whether there is a body.
            if "HTTP_TRANSFER_ENCODING" not in self._environ:
                block = self._read_input(_LIMIT)
                self._accept(block, bool(block))
        elif self._remaining <= _LIMIT:
            blocks = []
            while self._remaining:
                blocks.append(self._read_input(self._remaining))
            self._accept(b"".join(blocks), False)

    def respond(self, start_response: StartResponse) -> Iterable[bytes]:
        """Wait for the first block; call `start_response`; return the blocks."""
        first = self._next_item()
        status, headers = self._response.status, self._response.headers
        if isinstance(first, File):
            try:
                start_response(status, headers)
            except BaseException:
                first.close()
                raise
            file_wrapper = self._environ.get("wsgi.file_wrapper")
            return first if file_wrapper is None or first.size is not None else file_wrapper(first.file, _LIMIT)
        start_response(status, headers)
        if first is None or (self._outbox and self._outbox[0] is None):
            self._over = True
            return [first] if first else []
        return Blocks(first, self.next_block, self.leave)

    def next_block(self) -> bytes | None:
        """Wait for the next block; return None at the end."""
        if self._over:
            return None
        try:
            item = self._next_item()
        except BaseException:
            self.leave()
            raise
        if item is None:
            self._over = True
        assert not isinstance(item, File)  # the order table has files only in place of a body
        return item

    def leave(self) -> None:
        """The client has left, or the server has no more use for the response. Idempotent."""
        if not self._over:
            self._over = True
            self._call_on_loop(self._leave)

    def fail(self, error: BaseException) -> None:
        """End the thread's wait with `error`, unless the response is complete. From any thread."""
        if not self._ended and self._error is None:
            self._error = error
            self._wake_thread()

    def _next_item(self) -> bytes | File | None:
        """Wait for what the app says next, and read for it meanwhile; raise what it raised."""
        while True:
            error = self._error  # before the look at the outbox: what was sent comes first
            if self._outbox:
                item = self._outbox.popleft()
                if isinstance(item, list):
                    self._environ["wsgi.early_hints"](item)
                    continue
                return self._take_blocks(item) if isinstance(item, bytes) else item
            if error is not None:
                self._over = True
                try:
                    raise error
                finally:
                    self._error = error = None  # each refers to this frame by its traceback
            if self._wanted > self._read:
                block = self._read_input(_LIMIT)
                more_body = bool(block) if self._remaining is None else self._remaining > 0
                self._read += 1
                self._call_on_loop(self._deliver, block, more_body)
            else:
                self._sleep()

    def _take_blocks(self, block: bytes) -> bytes:
        """Take `block`, and what waits behind it: they leave as one."""
        outbox = self._outbox
        if outbox and isinstance(outbox[0], bytes):
            blocks = [block]
            while outbox and isinstance(outbox[0], bytes):
                blocks.append(outbox.popleft())  # type: ignore[arg-type]  # just looked at
            block = b"".join(blocks)
        self._taken += len(block)
        if self._full:
            self._call_on_loop(self._wake_waiters)
        return block

    def _read_input(self, limit: int) -> bytes:
        """Read from `wsgi.input`, never beyond the body's end (PEP 3333, Input and Error Streams)."""
        try:
            remaining = self._remaining
            block: bytes = self._input.read(limit if remaining is None else min(limit, remaining))
            if remaining is not None:
                if not block:
                    raise ClientDisconnected("the client left before its request body was through")
                self._remaining = remaining - len(block)
            return bytes(block)
        except BaseException:
            self.leave()
            raise

    def _sleep(self) -> None:
        """Sleep until the loop has something to tell; where the client is in sight, until it leaves."""
        if self._client_has_left is None:
            self._lock.acquire()
        else:
            while not self._lock.acquire(timeout=_CLIENT_CHECK):
                if self._client_has_left():
                    self.leave()
                    raise ClientDisconnected

    def _call_on_loop(self, function: Callable[..., object], *args: object) -> None:
        try:
            self._loop.call_soon(function, *args)
        except RuntimeError:
            pass  # the loop has ended, and the exchange was failed with that


def _maybe_content_length(environ: Environ) -> int | None:
    """Return the body's length in bytes; None for a stream that knows its own end.

    Without CONTENT_LENGTH there is no body, unless the server sets `wsgi.input_terminated`.
    """
    if environ.get("CONTENT_LENGTH"):
        return int(environ["CONTENT_LENGTH"])
    return None if environ.get("wsgi.input_terminated") else 0


def _is_of_disconnect(error: BaseException | None, seen: frozenset[int] = frozenset()) -> bool:
    """Return whether `error` is our ClientDisconnected, or was raised because of it."""
    if error is None or id(error) in seen:  # an exception may refer to a group that holds it
        return False
    seen |= {id(error)}
    if isinstance(error, BaseExceptionGroup):
        return all(_is_of_disconnect(inner, seen) for inner in error.exceptions)
    return isinstance(error, ClientDisconnected) or _is_of_disconnect(error.__cause__ or error.__context__, seen)
