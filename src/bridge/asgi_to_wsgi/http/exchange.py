"""One HTTP request to an ASGI app: its body in, its response out.

Everything here has one home, the loop or the request's WSGI thread, and a banner says which. What
one side tells the other goes through a deque and a wake-up; no attribute is written from both.
"""

import contextvars
import logging
import os
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

import anyio
import anyio.lowlevel

from bridge.asgi_to_wsgi.http.body import RequestBody
from bridge.asgi_to_wsgi.http.call import LIMIT, Item, WSGICall
from bridge.asgi_to_wsgi.http.streams import File
from bridge.asgi_to_wsgi.loop import LoopThread
from bridge.asgi_to_wsgi.servers import decode_path
from bridge.errors import AppProtocolError, ClientDisconnected, ClientProtocolError, is_of_disconnect
from bridge.runtime import Event, binary_semaphore
from bridge.sansio.messages import DONE, RESPONSE, event_from_message, next_state
from bridge.sansio.request import scope_from_environ
from bridge.sansio.request_name import request_name
from bridge.sansio.response import ResponseFromASGI
from bridge.sansio.response_headers import native_from_raw_headers
from bridge.types import ASGIApp, Environ, Message, StartResponse

_logger = logging.getLogger("bridge")

# How long an app may go on with the body of a response that has none (to HEAD, say), in seconds.
_SURPLUS_TIME = 1.0


def serve_http(
    app: ASGIApp, loop_thread: LoopThread, environ: Environ, start_response: StartResponse, pathsend: bool = False
) -> Iterable[bytes]:
    """Answer one request with `app`, as a WSGI app would; in the request's WSGI thread.

    `pathsend` is whether to offer http.response.pathsend. Starlette sends each file by it where it is offered, and
    middleware that knows only of http.response.body then loses the response, or fails.
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
    if loop_thread.state is not None:
        scope["state"] = loop_thread.state.copy()
    exchange = HTTPExchange(app, loop_thread, scope)
    body = RequestBody(environ)
    call = WSGICall(exchange, environ, body)
    try:
        try:
            at_once = body.maybe_at_once()
            if at_once is not None:
                exchange.accept(*at_once)
        finally:
            loop_thread.submit(exchange)  # even so: the app is told that its client left
        return call.respond(start_response)
    except BaseException:
        call.leave()
        raise


class HTTPExchange:
    """One request and its response, between the loop and the thread of a `WSGICall`.

    The app's `send` puts blocks in `outbox` and releases the lock that the WSGI thread sleeps on;
    its `receive` asks that thread for a block of the request body.

    Who ends each wait: the other side, by its answer; `_finish`, on the loop, when the app ends,
    whether it has answered or not; `fail`, when the loop ends; `leave`, when the server closes
    the response or the client has left.
    """

    # Written on the loop:
    wanted = 0  # how many blocks of the request body the app has asked for
    full = False  # a send() waits for room in the outbox
    produced = 0  # bytes of the response body
    _delivered = 0
    _body_ended = False
    _state = "nothing sent"
    _ended = False  # the client has all of it, though the app may have more to say
    _ended_at = 0.0
    _told_end = False  # the app has received that this is so
    _gone = False
    # Written in the WSGI thread:
    left = False  # the loop is about to hear that the client has gone
    taken = 0  # bytes of the response body

    def __init__(self, app: ASGIApp, loop_thread: LoopThread, scope: dict[str, Any]) -> None:
        self.context = contextvars.copy_context()
        self.loop = loop_thread.loop
        self.lock = binary_semaphore()  # the WSGI thread sleeps on it
        self.outbox: deque[Item] = deque()
        self.response = ResponseFromASGI(scope["method"], scope)
        self._app = app
        self._loop_thread = loop_thread
        self._scope = scope
        self._offered = tuple(scope["extensions"])  # now, as the app may change the scope
        self._inbox: deque[tuple[bytes, bool]] = deque()
        self._waiters: list[Event] = []

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
        if self._ended or self._gone or self.left:
            if error is not None and not isinstance(error, anyio.get_cancelled_exc_class()):
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
        if is_of_disconnect(error):
            if error.__context__ is not None and not is_of_disconnect(error.__context__):
                # An answer to it came too late: it may be a bug, as in Starlette's 500, or as harmless as a 404.
                text = "%s: the client had left before the ASGI app answered an error"
                _logger.info(text, request_name(self._scope), exc_info=error.__context__)
        else:
            status = self.response.status[:3]
            when = f"it had answered with {status}" if self._ended else "its client had left"
            if status and not self._ended:
                when += f" in mid-response ({status})"
            _logger.error("%s: the ASGI app raised after %s", request_name(self._scope), when, exc_info=error)

    async def _receive(self) -> Message:
        while self._state != DONE and not (self._gone or self.left or self._told_end):
            if self._inbox:
                body, more_body = self._inbox.popleft()
                return {"type": "http.request", "body": body, "more_body": more_body}
            if not self._body_ended and self.wanted == self._delivered:
                self.wanted += 1
                self._wake_thread()
            if not self._ended:
                await self._changed()
                continue
            with anyio.move_on_after(_SURPLUS_TIME):
                await self._changed()
                continue
            self._told_end = True  # the WSGI thread has gone, and will not tell
            self._wake_waiters()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._state == DONE:
            return  # "If the response is complete, further messages are ignored": ASGI HTTP spec
        if self._gone or self.left:
            raise ClientDisconnected
        event = event_from_message(message)
        state = next_state(RESPONSE, self._state, event)
        message_type = message["type"]
        items: list[Item] = []
        if message_type == "http.response.start":
            self.response.start(message)
        elif message_type == "http.response.body":
            if self._ended and message.get("body") and message.get("more_body"):
                await self._pass_surplus()
            block = self.response.pass_on(message)
            if not self.response.held:
                items.append(block)
        elif message_type == "http.response.pathsend":
            self._check_offered(message_type, "ASGIToWSGI(pathsend=True) offers it")
            items.append(self._open(message))
        elif message_type == "http.response.early_hint":
            self._check_offered(message_type, "the server has no wsgi.early_hints")
            links = message.get("links") or ()
            if not isinstance(links, Iterable):
                raise AppProtocolError(
                    f"'links' must be an iterable of bytes, got {type(links).__name__} (docs/extensions)"
                )
            links = native_from_raw_headers([(b"Link", link) for link in links])
            if not state.startswith("streaming"):  # by then the server has sent its headers
                items.append(links)
        self._state = state
        if not self._ended and (
            state == DONE or (message_type == "http.response.body" and self.response.length.reached)
        ):
            # Of HEAD, 204, 304 and a body that has its Content-Length the client has all, whatever follows.
            self._ended = True
            self._ended_at = time.monotonic()
            items.append(None)
        if self._ended:
            self._wake_waiters()  # who waits in receive() hears of it
        if items:
            self.outbox.extend(items)
            self._wake_thread()
            if isinstance(items[0], bytes):
                self.produced += len(items[0])
                await self._await_room()
        elif self._loop_thread.stopping:
            self.stop()

    async def _pass_surplus(self) -> None:
        """Stop an app that goes on beyond what its client can get; one that does so for a moment may."""
        if not self.response.length.bodiless or time.monotonic() - self._ended_at > _SURPLUS_TIME:
            self._gone = True
            self._wake_waiters()
            raise ClientDisconnected("the response has no room for more")
        await anyio.lowlevel.checkpoint()  # or the loop would do nothing else

    def _check_offered(self, extension: str, hint: str) -> None:
        if extension not in self._offered:
            raise AppProtocolError(f"{extension} is not in the scope's extensions: {hint} (ASGI spec, Extensions)")

    def _open(self, message: Message) -> bytes | File:
        """Open the file of an http.response.pathsend; OSError reaches the app."""
        path = message.get("path")
        if not isinstance(path, str) or not os.path.isabs(path):
            raise AppProtocolError(
                f"http.response.pathsend needs an absolute path, got {path!r:.200} (docs/extensions)"
            )
        length = self.response.length
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

    async def _await_room(self) -> None:
        while self.produced - self.taken > LIMIT:
            if self._gone:
                raise ClientDisconnected
            self.full = True  # before the second look, so that the thread either sees it or has taken
            if self.produced - self.taken > LIMIT:
                await self._changed()

    async def _changed(self) -> None:
        """Wait until anything has changed."""
        event = self.loop.event()
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

    def deliver(self, block: bytes, more_body: bool) -> None:
        """Take a block that the app has asked for."""
        self._delivered += 1
        self.accept(block, more_body)
        self._wake_waiters()

    def accept(self, block: bytes, more_body: bool) -> None:
        """Take a block of the request body; before the app runs, from the WSGI thread."""
        self._body_ended = not more_body
        if block and not more_body and self._delivered > 1:
            # A body of several messages ends with an empty one: behind a last block that says more_body False, Sanic's
            # request.stream.read() waits for ever.
            self._inbox.append((block, True))
            block = b""
        self._inbox.append((block, more_body))

    def make_room(self) -> None:
        """Have a `send` that waits look whether there is room."""
        self.full = False  # here, where all of them are woken
        self._wake_waiters()

    def stop(self) -> None:
        """End an event stream, as the loop is about to end: to the app its client has left."""
        if not self._ended and self.response.is_event_stream:
            self._ended = self._gone = True
            self._wake_waiters()
            self.outbox.append(None)
            self._wake_thread()

    def leave(self) -> None:
        """Let the app know that its client has left: `receive` says so, and `send` raises."""
        self._gone = True
        self._wake_waiters()
        while self.outbox:
            item = self.outbox.popleft()
            if isinstance(item, File):
                item.close()
            elif isinstance(item, BaseException):  # it came while the thread was leaving, who so has not taken it
                self._log(item)

    # IN ANY THREAD

    def fail(self, error: BaseException) -> None:
        """End the WSGI thread's wait with `error`, unless the response is complete."""
        if not self._ended:
            self.outbox.append(error)
            self._wake_thread()

    def _wake_thread(self) -> None:
        try:
            self.lock.release()
        except RuntimeError:
            pass  # it has been woken already, and has yet to look
