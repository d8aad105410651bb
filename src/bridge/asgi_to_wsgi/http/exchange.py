"""One HTTP request to an ASGI app: its body in, its response out.

Each method runs either on the loop or in the request's WSGI thread, as the banner above it says. The
two sides pass data through deques and wake each other; no attribute is written by both.
"""

import contextvars
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import anyio
import anyio.lowlevel

from bridge.asgi_to_wsgi.http.hop import LEAVE, LIMIT, Item, Trailers
from bridge.asgi_to_wsgi.http.late import log_late_error
from bridge.asgi_to_wsgi.http.streams import File, open_from_pathsend
from bridge.asgi_to_wsgi.loop import LoopThread
from bridge.errors import AdapterClosed, AppProtocolError, ClientDisconnected
from bridge.runtime import Change, binary_semaphore
from bridge.sansio.messages import DONE, RESPONSE, event_from_message, next_state
from bridge.sansio.response import ResponseFromASGI
from bridge.sansio.response_headers import native_from_raw_headers
from bridge.sansio.trailers import EXTENSION as TRAILERS
from bridge.sansio.trailers import native_trailers_from_raw
from bridge.types import ASGIApp, Headers, Message

# How long an app may go on sending the body of a response that has none (to HEAD, for example), in seconds.
_SURPLUS_TIME = 1.0


class HTTPExchange:
    """One request and its response, between the loop and the WSGI thread, where a `WSGICall` runs.

    The app's `send` appends blocks to `outbox` and releases the lock that the WSGI thread sleeps on.
    The app's `receive` asks that thread for a block of the request body.

    The answer of the other side ends each wait. So does `_finish`, when the app ends, answered or not; `fail`, when the
    loop ends; and `leave`, when the server closes the response or the client has left.
    """

    begin = None  # the app always needs a task
    # Written on the loop:
    wanted = 0  # how many blocks of the request body the app has asked for
    full = False  # a send() waits until the outbox has room
    produced = 0  # bytes of the response body
    _delivered = 0
    body_ended = False  # the app has all of the request body, or can have it
    trailing = False  # the app has promised trailers, and the server has a way to send them
    may_detach = False  # the response may leave its WSGI thread; set before the app runs
    detached = False  # it has left its WSGI thread, or is about to
    _state = "nothing sent"
    _ended = False  # the client has the whole response, although the app may send more
    _ended_at = 0.0
    _told_end = False  # receive() has told the app that the response has ended
    _gone = False
    _trailers: Headers = []  # noqa: RUF012  # replaced, never changed
    # Written in the WSGI thread:
    left = False  # set just before the loop hears that the client has left
    taken = 0  # bytes of the response body
    begun = 0.0  # when the call began, by time.monotonic(); 0 until somebody needs to know

    def __init__(self, app: ASGIApp, loop_thread: LoopThread, scope: dict[str, Any]) -> None:
        self.context = contextvars.copy_context()
        self.loop = loop_thread.loop
        self.lock = binary_semaphore()  # the WSGI thread sleeps on it
        self.outbox: deque[Item] = deque()
        self.response = ResponseFromASGI(scope["method"], scope)
        self.scope = scope
        # Read now, because the app may change the scope:
        self.method, self.path, self.http_version = scope["method"], scope["path"], scope["http_version"]
        self._offered = tuple(scope["extensions"])
        self.wake: Callable[[], object] = self.lock.release  # or a method of what takes from the outbox instead
        self.app = app
        self.loop_thread = loop_thread
        self._inbox: deque[tuple[bytes, bool]] = deque()
        self._change: Change | None = None  # created by the first wait, because most requests never wait

    # ON THE LOOP

    async def run(self) -> None:
        """Run the app, and end the WSGI thread's wait however the app ends."""
        try:
            await self.app(self.scope, self._receive, self._send)
        except anyio.get_cancelled_exc_class() as cancelled:
            self._finish(cancelled)
            raise
        except BaseException as error:
            self._finish(error)
        else:
            self._finish(None)

    def _finish(self, error: BaseException | None) -> None:
        """End the WSGI thread's wait, because the app has ended: with its error, or one that says what is missing."""
        if self._ended or self._gone or self.left:
            if error is not None and not isinstance(error, anyio.get_cancelled_exc_class()):
                log_late_error(self.scope, self.response.status, self._ended, error)
        elif error is None:
            self.fail(AppProtocolError(f"the ASGI app returned without a whole response ({self._state})"))
        elif isinstance(error, Exception):
            self.fail(error)
        else:  # CancelledError or SystemExit, which would mean something else in the WSGI thread
            failure = AppProtocolError(f"the ASGI app ended by {error!r:.200} ({self._state})")
            failure.__cause__ = error
            self.fail(failure)

    async def _receive(self) -> Message:
        while self._state != DONE and not (self._gone or self.left or self._told_end):
            if self._inbox:
                body, more_body = self._inbox.popleft()
                return {"type": "http.request", "body": body, "more_body": more_body}
            if not self.body_ended and self.wanted == self._delivered:
                self.wanted += 1
                self._wake_thread()
            if not self._ended:
                await self._changed()
                continue
            with anyio.move_on_after(_SURPLUS_TIME):
                await self._changed()
                continue
            self._told_end = True
            self._notify()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._state == DONE:
            return  # "If the response is complete, further messages are ignored": ASGI HTTP spec
        if self._gone or self.left:
            is_end = event_from_message(message) == "http.response.body" and not message.get("body")
            if is_end and self.response.is_event_stream:
                self._state = DONE  # its client may leave at any time, and misses nothing
                return
            raise ClientDisconnected
        event = event_from_message(message)
        state = next_state(RESPONSE, self._state, event)
        message_type = message["type"]
        items: list[Item] = []
        if message_type == "http.response.start":
            trailing = event != message_type and TRAILERS in self._offered
            self.response.start(message, trailing)
            self.trailing = trailing and not self.response.length.bodiless
            if (self.may_detach or self.detached) and self.response.head_is_due and not self.loop_thread.stopping:
                if self.may_detach:
                    self._leave_thread()
                else:
                    self._wake_thread()
        elif message_type == "http.response.body":
            if self._ended and message.get("body") and message.get("more_body"):
                await self._pass_surplus()
            block = self.response.pass_on(message)
            if not self.response.held:
                items.append(block)
        elif message_type == "http.response.pathsend":
            self._check_offered(message_type, "ASGIToWSGI(pathsend=True) offers it")
            items.append(open_from_pathsend(message, self.response.length))
        elif message_type == "http.response.early_hint":
            self._check_offered(message_type, "the server has no wsgi.early_hints")
            links = message.get("links") or ()
            if not isinstance(links, Iterable):
                kind = type(links).__name__
                raise AppProtocolError(f"'links' must be an iterable of bytes, got {kind} (docs/extensions)")
            links = native_from_raw_headers([(b"Link", link) for link in links])
            if not state.startswith("streaming"):  # by then the server has sent its headers
                items.append(links)
        elif message_type == TRAILERS:
            self._trailers = [*self._trailers, *native_trailers_from_raw(message.get("headers") or ())]
            if self.trailing and state == DONE:
                items.append(Trailers(self._trailers))
        self._state = state
        if not self._ended and (
            state == DONE
            or (message_type == "http.response.body" and self.response.length.reached and not self.trailing)
        ):
            # Nothing may follow a response to HEAD, a 204, a 304, or a body that has reached its Content-Length.
            self._ended = True
            self._ended_at = time.monotonic()
            items.append(None)
        if self._ended:
            self._notify()  # a receive() that waits returns http.disconnect
        if items:
            self.outbox.extend(items)
            self._wake_thread()
            if isinstance(items[0], bytes):
                self.produced += len(items[0])
                await self._await_room()
        elif self.loop_thread.stopping:
            self.stop()

    async def _pass_surplus(self) -> None:
        """Raise ClientDisconnected if the app goes on sending what its client cannot get, after a short grace."""
        if not self.response.length.bodiless or time.monotonic() - self._ended_at > _SURPLUS_TIME:
            self._gone = True
            self._notify()
            raise ClientDisconnected("the response has no room for more")
        await anyio.lowlevel.checkpoint()  # so that other tasks run, too

    def _check_offered(self, extension: str, hint: str) -> None:
        if extension not in self._offered:
            raise AppProtocolError(f"{extension} is not in the scope's extensions: {hint} (ASGI spec, Extensions)")

    async def _await_room(self) -> None:
        while self.produced - self.taken > LIMIT:
            if self._gone:
                raise ClientDisconnected
            self.full = True  # before the second check: either the thread sees it, or it has already made room
            if self.produced - self.taken > LIMIT:
                await self._changed()

    async def _changed(self) -> None:
        """Wait for the next change of any kind."""
        if self._change is None:
            self._change = Change(self.loop.event)
        await self._change.wait()

    def _notify(self) -> None:
        """Wake every `receive` and `send` that waits, so that they check again."""
        if self._change is not None:
            self._change.notify_all()

    def deliver(self, block: bytes, more_body: bool) -> None:
        """Pass on a block that the app has asked for."""
        self._delivered += 1
        self.accept(block, more_body)
        self._notify()

    def accept(self, block: bytes, more_body: bool) -> None:
        """Add a block of the request body. Before the app runs, the WSGI thread may call this."""
        self.body_ended = not more_body
        if block and not more_body and self._delivered > 1:
            # End a body of several messages with an empty one, because Sanic's request.stream.read() waits for ever
            # after a non-empty block that says more_body=False.
            self._inbox.append((block, True))
            block = b""
        self._inbox.append((block, more_body))

    def make_room(self) -> None:
        """Let each `send` that waits check for room."""
        self.full = False  # here, because this wakes all of them
        self._notify()

    @property
    def in_flight(self) -> bool:
        """Whether a client waits for what the app has yet to send. From any thread."""
        return not (self._ended or self._gone or self.left)

    def consider_leaving(self, *, for_thread: bool) -> bool:
        """Tell the WSGI thread to leave the response to the loop, if the app waits and has nothing for it.

        Return whether it was told. `for_thread` says whether waiting for a thread of a pool counts as waiting.
        """
        if not self.may_detach or self.outbox or self._ended or self._gone or self.left or not self.body_ended:
            return False
        if not (self._state.startswith(("nothing", "started")) and self.loop_thread.waits(self, for_thread)):
            return False
        self._leave_thread()
        return True

    def _leave_thread(self) -> None:
        self.may_detach = False  # it is told once
        self.outbox.append(LEAVE)
        self._wake_thread()

    def stop(self) -> None:
        """End an event stream, because the loop is about to end; tell the app that its client has left."""
        if not self._ended and self.response.is_event_stream:
            self._ended = self._gone = True
            self._notify()
            self.outbox.append(None)
            self._wake_thread()

    def leave(self) -> None:
        """Tell the app that its client has left: `receive` says so, and `send` raises."""
        self._gone = True
        self._notify()
        while self.outbox:
            item = self.outbox.popleft()
            if isinstance(item, File):
                item.close()
            elif isinstance(item, BaseException) and not isinstance(item, AdapterClosed):  # nobody has seen it yet
                log_late_error(self.scope, self.response.status, self._ended, item)

    # IN ANY THREAD

    def fail(self, error: BaseException) -> None:
        """End the WSGI thread's wait with `error`, unless the response is complete.

        A detached response is woken only from the loop's own thread. When the loop ends, its own `fail` tells it, so
        AdapterClosed does not wake it here.
        """
        if not self._ended:
            self.outbox.append(error)
            if not self.detached or (self.loop.runs_here() and not isinstance(error, AdapterClosed)):
                self._wake_thread()

    def _wake_thread(self) -> None:
        try:
            self.wake()
        except RuntimeError:
            pass  # it has been woken already, and has not looked yet
