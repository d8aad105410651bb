"""One HTTP request to a WSGI app: its body in, its response out.

Everything here has one home, the loop or a worker thread, and a banner says which. What one side
tells the other goes through a deque and a wake-up; no attribute is written from both.
"""

import contextlib
import contextvars
import enum
import io
import logging
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import BinaryIO

import anyio

from bridge.errors import AppProtocolError, ClientDisconnected, ClientProtocolError, ServerProtocolError
from bridge.runtime import binary_semaphore, running_loop, set_async_library
from bridge.sansio.request import environ_from_scope
from bridge.sansio.response import ResponseFromWSGI, check_chunk, check_iterable, native_from_app_headers
from bridge.types import Environ, ExcInfo, Headers, Message, Receive, Scope, Send, Write, WSGIApp
from bridge.wsgi_to_asgi.runner import WorkerThreads, lend_loop_to_asgiref
from bridge.wsgi_to_asgi.streams import Disconnected, FileWrapper, RequestStream, Spool, spool_input

_logger = logging.getLogger("bridge")

# How much of a body may be on the way: the high-water mark of asyncio's transports and of uvicorn.
_LIMIT = 64 * 1024
# How much of a body is taken before the app reads it, as only behind it stands that the client has left.
_READ_AHEAD = 1024 * 1024
# How long a body beyond that waits for the app to read on, in seconds, before the rest of it goes to disk.
_PATIENCE = 5.0
# How often a sleeping worker thread looks whether its loop is still there, in seconds.
_LOOP_CHECK = 5.0


class _Mark(enum.Enum):
    """What a worker thread says to the loop, besides messages and blocks of body."""

    END = "the response is complete"
    WATCH_WANTED = "the app reads on, or asks whether the client is still there"
    FINISHED = "the thread is done with the request"


async def serve_http(
    app: WSGIApp, workers: WorkerThreads, buffer_body: bool, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer one request with `app`; return when the app is done with it, `close()` included."""
    try:
        environ = environ_from_scope(scope)
    except ClientProtocolError as error:
        await _send_bad_request(send, f"Bad request: {error}\n".encode())
        return
    exchange = HTTPExchange(scope, receive, send)
    # The first message is what starts a request (ASGI HTTP spec, Request), and to await it here
    # keeps slow clients out of the threads. A client that expects 100 Continue, though, gets that
    # when the app reads, and not before (RFC 9110 10.1.1).
    if environ.get("HTTP_EXPECT", "").lower() != "100-continue":
        await exchange.fetch_body()
        if exchange.gone:
            exchange.raise_outcome()
            return
    environ["wsgi.version"] = (1, 0)
    environ["wsgi.input"] = exchange.input_stream()
    environ["wsgi.input_terminated"] = True
    environ["wsgi.errors"] = sys.stderr
    environ["wsgi.multithread"] = workers.limit > 1
    environ["wsgi.multiprocess"] = True
    environ["wsgi.run_once"] = False
    environ["wsgi.file_wrapper"] = FileWrapper
    environ["bridge.disconnected"] = Disconnected(exchange.is_gone, exchange.wait_until_gone)
    if "http.response.early_hint" in (scope.get("extensions") or ()):
        environ["wsgi.early_hints"] = exchange.send_early_hints
    await exchange.serve(app, workers, environ, buffer_body)


async def _send_bad_request(send: Send, body: bytes) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class HTTPExchange:
    """One request and its response, between the loop and a worker thread.

    The thread puts what it has to say in `_outbox`, wakes the loop unless that is about to look
    anyway, and sleeps on a lock when it must wait: on one for the outbox to empty, on the other
    for more of the request body, which the loop puts in `_inbox`. The app may read its body in a
    second thread.

    Who ends each wait: the loop, by its answer; `_leave`, on the loop, when the client has left,
    `send` failed or the task was cancelled; the thread itself, where the loop was closed.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._loop = running_loop()
        self._outbox: deque[Message | bytes | _Mark] = deque()
        self._inbox: deque[bytes] = deque()
        # Written on the loop:
        self.gone = False
        self._receive = receive
        self._send = send
        self._event = self._loop.event()  # something is in the outbox
        self._room = self._loop.event()  # more is wanted in the inbox
        self._body_ended = False
        self._arrived = 0  # bytes of the request body
        self._spool: Spool | None = None  # for what comes of it now
        self._streaming = False  # the response has begun, and its end is not in sight
        self._complete = False  # the response has ended
        self._transmitted = 0
        self._failure: Exception | None = None
        # Written in the worker thread:
        self._sent_lock = binary_semaphore()
        self._response = ResponseFromWSGI(scope["method"])
        self._pathsend = "http.response.pathsend" in (scope.get("extensions") or ())
        self._ended = False
        self._produced = 0
        self._error: BaseException | None = None
        # Written in the thread that reads the body:
        self._body_lock = binary_semaphore()
        self._consumed = 0
        # Set by a thread that wakes the loop, cleared on the loop before it looks:
        self._told = False
        # For the threads that wait for `bridge.disconnected`:
        self._finished = False
        self._watch_asked = False
        self._waiting: deque[threading.Lock] = deque()

    # ON THE LOOP

    async def serve(self, app: WSGIApp, workers: WorkerThreads, environ: Environ, buffer_body: bool) -> None:
        """Run `app` in a worker thread, and send what it says."""
        context = contextvars.copy_context()
        workers.submit(lambda: self._run(context, app, environ, buffer_body))
        try:
            if not await self._work(watched=False):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._watch)
                    await self._work(watched=True)
                    tasks.cancel_scope.cancel()
        except BaseException:
            # Cancelled, or dropped together with the loop: to the app, the client has left.
            self._leave()
            raise
        finally:
            self._finished = True
            self._wake_threads()
            if self._spool is not None:
                self._spool.close()
        self.raise_outcome()

    async def fetch_body(self) -> None:
        """Take one message from the server: a block of the body, or that the client has left."""
        try:
            message = await self._receive()
            if message["type"] == "http.request":
                if not self._body_ended:
                    body = message.get("body") or b""
                    if not isinstance(body, bytes):
                        raise ServerProtocolError(f"the body of http.request must be bytes, got {body!r:.80}")
                    if self._spool is None:
                        self._inbox.append(body)
                    else:
                        self._spool.put(body)
                    self._arrived += len(body)
                    self._body_ended = not message.get("more_body")
                    _wake(self._body_lock)
            elif message["type"] == "http.disconnect":
                if not self._complete:  # after that it says so of any client
                    self._leave()
            else:
                raise ServerProtocolError(f"expected http.request or http.disconnect, got {message!r:.200}")
        except OSError:
            self._leave()
        except Exception as error:
            self._failure = error
            self._leave()

    def raise_outcome(self) -> None:
        """Raise what went wrong, if anything did and the server should know."""
        failure, error = self._failure, self._error
        self._failure = self._error = None
        try:
            if failure is not None:
                raise failure from error
            if error is None or (self.gone and isinstance(error, ClientDisconnected)):
                return
            if self._complete and isinstance(error, Exception):
                # To raise it would have the server cut the connection, and with it the client's next request.
                _logger.error("the WSGI app raised after its response was complete", exc_info=error)
                return
            if not isinstance(error, Exception):
                # SystemExit would stop the server's loop, CancelledError mean something else to it.
                raise AppProtocolError(f"the WSGI app raised {error!r:.200}") from error
            raise error
        finally:
            del failure, error  # each refers to this frame by its traceback

    async def _work(self, watched: bool) -> bool:
        """Do what the outbox says, until the thread is done; or return False if a watcher is needed.

        A small request whose response ends with its first block needs none, and costs no second task.
        """
        outbox = self._outbox
        watch_wanted = False
        while True:
            while outbox:
                item = outbox.popleft()
                if item is _Mark.FINISHED:
                    return True
                if item is _Mark.WATCH_WANTED:
                    watch_wanted = True
                    self._room.set()
                elif not self.gone:
                    await self._transmit(item)
            if not watched and not self.gone and (self._streaming or watch_wanted):
                return False
            self._told = False  # from here on, a thread that adds to the outbox wakes us
            if not outbox:  # else it did before that
                await self._event.wait()
                self._event = self._loop.event()

    async def _transmit(self, item: Message | bytes | _Mark) -> None:
        """Send one message; blocks that wait together leave as one."""
        outbox = self._outbox
        try:
            if isinstance(item, bytes):
                if outbox and isinstance(outbox[0], bytes):
                    item = b"".join([item, *self._pop_blocks()])
                self._streaming = not (outbox and outbox[0] is _Mark.END)
                if not self._streaming:
                    outbox.popleft()
                    self._set_complete()
                await self._send({"type": "http.response.body", "body": item, "more_body": self._streaming})
                self._transmitted += len(item)
                _wake(self._sent_lock)
            elif isinstance(item, _Mark):  # END, behind blocks that have left
                self._streaming = False
                self._set_complete()
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                self._streaming = item["type"] == "http.response.start"
                await self._send(item)
                if item["type"] == "http.response.pathsend":
                    self._set_complete()
                    self._transmitted += 1
                    _wake(self._sent_lock)
        except OSError:
            self._leave()  # ASGI HTTP spec 2.4: that is how a server says that the client left
        except Exception as error:
            self._failure = error
            self._leave()

    def _pop_blocks(self) -> Iterable[bytes]:
        outbox = self._outbox
        while outbox and isinstance(block := outbox[0], bytes):
            outbox.popleft()
            yield block

    async def _watch(self) -> None:
        """Receive beside the response: the request's body, and `http.disconnect`, which is all that some servers say.

        What the app leaves unread is taken up to a limit, behind which a client that leaves would
        go unnoticed. So after a while the rest goes to disk.
        """
        while not self.gone and not self._complete:
            if self._body_ended or self._spool is not None or self._arrived - self._consumed < _READ_AHEAD:
                ended = self._body_ended
                await self.fetch_body()
                if ended:
                    return  # the client has left, or the server goes on about a body that has ended
            else:
                consumed = self._consumed
                with anyio.move_on_after(_PATIENCE) as patience:
                    await self._room.wait()
                    self._room = self._loop.event()
                if patience.cancelled_caught and self._consumed == consumed:
                    self._spool = Spool()

    def _set_complete(self) -> None:
        """Note that the response has ended: the server gives no more of the request."""
        self._complete = True
        self._wake_threads()

    def _leave(self) -> None:
        """Let everybody know that there is no client any more."""
        self.gone = True
        self._wake_threads()

    def _wake_threads(self) -> None:
        _wake(self._sent_lock)
        _wake(self._body_lock)
        while self._waiting:
            self._waiting.popleft().release()

    def _look(self) -> None:
        self._event.set()

    # IN THE WORKER THREAD

    def input_stream(self) -> BinaryIO:
        """Return `wsgi.input`: all of a body that is here by now, else a stream of what comes.

        Built on the loop, before there is a thread.
        """
        if self._body_ended:
            return io.BytesIO(self._inbox.popleft())
        return io.BufferedReader(RequestStream(self._next_block), _LIMIT)

    def send_early_hints(self, headers: Headers) -> None:
        """`wsgi.early_hints`, as gunicorn has it: send the Link headers ahead of the response."""
        links = [value.encode("latin-1") for name, value in native_from_app_headers(headers) if name.lower() == "link"]
        if links and not self._response.begun:
            self._outbox.append({"type": "http.response.early_hint", "links": links})
            self._tell()

    def _run(self, context: contextvars.Context, app: WSGIApp, environ: Environ, buffer_body: bool) -> None:
        """Run `app`, whatever happens; the worker thread's job."""
        try:
            if not self.gone:
                context.run(self._call, app, environ, buffer_body)
        except BaseException as error:
            self._error = error
        self._outbox.append(_Mark.FINISHED)
        self._tell()

    def _call(self, app: WSGIApp, environ: Environ, buffer_body: bool) -> None:
        set_async_library(None)
        lend_loop_to_asgiref(self._loop)
        with contextlib.ExitStack() as stack:
            if buffer_body and "CONTENT_LENGTH" not in environ:
                spool_input(environ, stack)
            iterable = app(environ, self._start_response)
            try:
                self._respond(iterable)
            finally:
                close = getattr(iterable, "close", None)
                if close is not None:
                    self._tell()  # the end of the response need not wait for close()
                    close()

    def _respond(self, iterable: Iterable[bytes]) -> None:
        check_iterable(iterable)
        if self._pathsend and type(iterable) is FileWrapper and self._send_path(iterable):
            return
        at_hand = isinstance(iterable, (list, tuple))  # no next() will keep a block waiting
        if not self._ended:  # it may be, by write()
            for chunk in iterable:
                self._put(chunk)
                if self._ended or self.gone:
                    return
                if not at_hand:
                    self._tell()
            self._end()

    def _send_path(self, wrapper: FileWrapper) -> bool:
        """Have the server send the file by itself, if it can and the file is fit for it."""
        response = self._response
        if response.begun or not response.ready or response.length.bodiless:
            return False
        path = wrapper.maybe_path(response.length.declared)
        if path is None:
            return False
        self._outbox.extend([response.begin(), {"type": "http.response.pathsend", "path": path}])
        self._ended = True
        self._produced += 1
        self._tell()
        self._make_room(0)  # for close(), which may delete the file
        return True

    def _start_response(self, status: str, headers: Headers, exc_info: ExcInfo | None = None, /) -> Write:
        try:
            self._response.start_response(status, headers, exc_info)
        finally:
            exc_info = None  # PEP 3333: "to avoid creating a circular reference"
        return self._write

    def _write(self, chunk: bytes, /) -> None:
        if self.gone:
            raise ClientDisconnected
        if self._finished:
            raise AppProtocolError("write() was called after the request had ended")
        self._put(chunk)
        if self._response.length.overrun:
            raise AppProtocolError("write() went beyond Content-Length (PEP 3333, Handling the Content-Length Header)")
        self._tell()

    def _put(self, chunk: bytes) -> None:
        """Pass one block on; wait if there is more on the way than there should be."""
        check_chunk(chunk)
        if not chunk:
            # The headers wait for the first block that is not empty (PEP 3333). An app may wait so, too.
            self._watch_wanted()
            return
        response = self._response
        items: list[Message | bytes | _Mark] = [] if response.begun else [response.begin()]
        chunk = response.length.clamp(chunk)
        if chunk:
            items.append(chunk)
        if response.length.reached and not self._ended:
            self._ended = True
            items.append(_Mark.END)
        self._outbox.extend(items)
        self._produced += len(chunk)
        if self._produced - self._transmitted > _LIMIT:
            self._tell()
            self._make_room(_LIMIT)

    def _make_room(self, limit: int) -> None:
        """Wait until no more than `limit` is on the way."""
        while self._produced - self._transmitted > limit and not self.gone:
            self._sleep(self._sent_lock)

    def _end(self) -> None:
        """Pass the end of the body on, and the headers if there was no body."""
        response = self._response
        items: list[Message | bytes | _Mark] = [] if response.begun else [response.begin()]
        response.length.check_reached()
        self._ended = True
        self._outbox.extend([*items, _Mark.END])

    # IN THE THREAD THAT READS THE BODY, the worker thread most likely

    def _next_block(self) -> bytes:
        """Return the next block of the request body, b"" at its end; wait for it."""
        asked = False
        while True:
            ended = self._body_ended  # before the look at the inbox, where the last block comes first
            if self._inbox:
                if block := self._inbox.popleft():
                    self._consumed += len(block)
                    return block
            elif self._spool is not None and (block := self._spool.take()):
                self._consumed += len(block)
                return block
            elif ended:
                return b""
            elif self._complete and not self.gone:
                raise ClientDisconnected("the response has ended, and with it the request body")
            elif self.gone or self._finished:
                raise ClientDisconnected
            else:
                if not asked:
                    asked = True
                    self._outbox.append(_Mark.WATCH_WANTED)
                    self._tell()
                self._sleep(self._body_lock)

    # IN ANY THREAD

    def _sleep(self, lock: threading.Lock) -> None:
        """Sleep until the loop has something to tell, or is closed."""
        while not lock.acquire(timeout=_LOOP_CHECK):
            if not self._is_loop_there():
                return

    def _tell(self) -> None:
        """Have the loop look at the outbox, unless it is about to."""
        if not self._told:
            self._told = True
            self._is_loop_there()

    def _is_loop_there(self) -> bool:
        """Wake the loop; note that the client is as good as gone where the loop was closed."""
        try:
            self._loop.call_soon(self._look)
        except RuntimeError:
            self.gone = True
        return not self.gone

    def is_gone(self) -> bool:
        """Return whether the client has left."""
        self._watch_wanted()
        return self.gone

    def wait_until_gone(self, timeout: float | None) -> bool:
        """Return whether the client has left, after waiting up to `timeout` seconds for that."""
        self._watch_wanted()
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        lock = binary_semaphore()
        self._waiting.append(lock)
        while not (self.gone or self._complete or self._finished) and (left := deadline - time.monotonic()) > 0:
            if not lock.acquire(timeout=min(left, _LOOP_CHECK)):
                self._is_loop_there()
        with contextlib.suppress(ValueError):  # who woke us took it out
            self._waiting.remove(lock)
        return self.gone

    def _watch_wanted(self) -> None:
        """Have the connection watched from now on, if it is not."""
        if not self._watch_asked:
            self._watch_asked = True
            self._outbox.append(_Mark.WATCH_WANTED)
            self._tell()


def _wake(lock: threading.Lock) -> None:
    """Wake the thread that sleeps on `lock`; on the loop, the one place where that is released."""
    if lock.locked():  # else it has been woken already, and has yet to look
        lock.release()
