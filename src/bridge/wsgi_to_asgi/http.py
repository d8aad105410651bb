"""One HTTP request to a WSGI app: its body in, its response out.

Everything here has one home, the loop or a worker thread, and a banner says which. What one side
tells the other goes through a deque and a wake-up; but for flags that only ever get set, no
attribute is written from both.
"""

import contextlib
import contextvars
import functools
import io
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import BinaryIO

import anyio

from bridge.errors import AppProtocolError, ClientDisconnected, ClientProtocolError, ServerProtocolError
from bridge.runtime import Event, binary_semaphore, running_loop
from bridge.sansio.request import environ_from_scope
from bridge.types import Receive, Scope, Send, WSGIApp
from bridge.wsgi_to_asgi.body import RequestBody
from bridge.wsgi_to_asgi.call import Item, Mark, WSGICall
from bridge.wsgi_to_asgi.runner import WorkerThreads
from bridge.wsgi_to_asgi.streams import Disconnected, ErrorStream, FileWrapper, RequestStream

_logger = logging.getLogger("bridge")

# How often a sleeping worker thread looks whether its loop is still there, in seconds.
_LOOP_CHECK = 5.0
# A block of body below this is worth copying, to save the server a message.
_SMALL_BLOCK = 16 * 1024


async def serve_http(
    app: WSGIApp, workers: WorkerThreads, buffer_body: bool, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer one request with `app`; return when the app is done with it, `close()` included."""
    try:
        environ = environ_from_scope(scope)
    except ClientProtocolError as error:
        await _send_bad_request(send, f"Bad request: {error}\n".encode())
        return
    exchange = HTTPExchange(receive, send)
    # The first message is what starts a request (ASGI HTTP spec, Request), and to await it here
    # keeps slow clients out of the threads. A client that expects 100 Continue, though, gets that
    # when the app reads, and not before (RFC 9110 10.1.1).
    if environ.get("HTTP_EXPECT", "").lower() != "100-continue":
        await exchange.fetch_body()
        if exchange.gone:
            exchange.raise_outcome(None)
            return
    call = WSGICall(exchange, scope)
    environ["wsgi.version"] = (1, 0)
    environ["wsgi.input"] = exchange.input_stream()
    environ["wsgi.input_terminated"] = True
    environ["wsgi.errors"] = ErrorStream()
    environ["wsgi.multithread"] = workers.limit > 1
    environ["wsgi.multiprocess"] = True
    environ["wsgi.run_once"] = False
    environ["wsgi.file_wrapper"] = FileWrapper
    environ["bridge.disconnected"] = Disconnected(exchange)
    if "http.response.early_hint" in (scope.get("extensions") or ()):
        environ["wsgi.early_hints"] = call.send_early_hints
    context = contextvars.copy_context()
    try:
        await exchange.serve(workers, lambda: call.run(context, app, environ, buffer_body))
    except BaseException:
        call.log_error()
        raise
    exchange.raise_outcome(call.take_error())


async def _send_bad_request(send: Send, body: bytes) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class HTTPExchange:
    """One request and its response, between the loop and the thread of a `WSGICall`.

    The thread puts what it has to say in `outbox`, wakes the loop unless that is about to look
    anyway, and sleeps on a lock when it must wait: on one for the outbox to empty, on the other
    for more of the request body. The app may read its body in a second thread.

    Who ends each wait: the loop, by its answer; `_leave`, on the loop, when the client has left,
    `send` failed or the task was cancelled; the thread itself, where the loop was closed.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self.loop = running_loop()
        # Written in the worker thread:
        self.outbox: deque[Item] = deque()
        # Written on the loop:
        self.gone = False  # nobody is there to send anything to
        self.complete = False  # the response has ended
        self.finished = False  # all has ended
        self.transmitted = 0  # bytes of the response body
        self.sent_lock = binary_semaphore()  # the worker thread sleeps on it
        self._body = RequestBody(self.loop.event)
        self._receive = receive
        self._send = send
        self._event: Event | None = None  # tells `_work` that something is in the outbox
        self._streaming = False  # the response has begun, and its end is not in sight
        self._failure: Exception | None = None
        # Set by a thread that wakes the loop, cleared on the loop before it looks:
        self._told = False
        # For the threads that wait for `bridge.disconnected`:
        self._watch_asked = False
        self._waiting: deque[threading.Lock] = deque()

    # ON THE LOOP

    def input_stream(self) -> BinaryIO:
        """Return `wsgi.input`: all of a body that is here by now, else a stream of what comes."""
        if self._body.ended:
            return io.BytesIO(self._body.take_all())
        return io.BufferedReader(RequestStream(functools.partial(self._body.next_block, self)), 64 * 1024)

    async def serve(self, workers: WorkerThreads, run: Callable[[], None]) -> None:
        """Have a worker thread `run` the app, and send what that says, until it says FINISHED."""
        # One that waits its turn is watched from the start, as its client may leave before that comes; but not
        # where to receive would be to say 100 Continue.
        waits = not workers.submit(run) and self._body.begun
        try:
            if waits or not await self._work(watched=False):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._watch)
                    await self._work(watched=True)
                    tasks.cancel_scope.cancel()
        except BaseException:
            # Cancelled, or dropped together with the loop: to the app, the client has left.
            self._leave()
            raise
        finally:
            self.finished = True
            self._wake_threads()
            self._body.close()

    async def fetch_body(self) -> None:
        """Take one message from the server, once there is room: a block of the body, or that the client has left."""
        try:
            if self._body.full:
                await self._body.wait_for_room()
            if self.gone or self.complete:
                return
            try:
                message = await self._receive()
            except OSError:
                self._leave()
                return
            if message["type"] == "http.request":
                self._body.put(message)
                _wake(self._body.lock)
            elif message["type"] == "http.disconnect":
                if not self.complete:  # after that it says so of any client
                    self._leave()
            else:
                raise ServerProtocolError(f"expected http.request or http.disconnect, got {message!r:.200}")
        except Exception as error:
            self._failure = error
            self._leave()

    def raise_outcome(self, error: BaseException | None) -> None:
        """Raise what went wrong, if anything did and the server should know; `error` is what the app raised."""
        failure, self._failure = self._failure, None
        try:
            if failure is not None:
                raise failure from error
            if error is None or (self.gone and isinstance(error, ClientDisconnected)):
                return
            if self.complete:
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
        outbox = self.outbox
        while True:
            while outbox:
                item = outbox.popleft()
                if item is Mark.FINISHED:
                    return True
                if item is Mark.WATCH_WANTED:
                    self._body.wake_loop()
                    if not watched and not self.gone:
                        return False
                elif not self.gone:
                    await self._transmit(item)
                    if not watched and self._streaming and isinstance(item, bytes) and outbox:
                        return False  # an app that is always ahead would keep us here
            if not watched and not self.gone and self._streaming:
                return False
            self._told = False  # from here on, a thread that adds to the outbox wakes us
            if not outbox:  # else it did before that
                self._event = self.loop.event()
                await self._event.wait()

    async def _transmit(self, item: Item) -> None:
        """Send one message; small blocks that wait together leave as one."""
        outbox = self.outbox
        try:
            if isinstance(item, bytes):
                if len(item) < _SMALL_BLOCK and outbox and isinstance(outbox[0], bytes):
                    item = b"".join([item, *self._pop_blocks()])
                self._streaming = not (outbox and outbox[0] is Mark.END)
                if not self._streaming:
                    outbox.popleft()
                    self._set_complete()
                await self._send({"type": "http.response.body", "body": item, "more_body": self._streaming})
                self.transmitted += len(item)
                _wake(self.sent_lock)
            elif isinstance(item, Mark):  # END, behind blocks that have left
                self._streaming = False
                self._set_complete()
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                self._streaming = item["type"] == "http.response.start"
                await self._send(item)
                if item["type"] == "http.response.pathsend":
                    self._set_complete()
                    self.transmitted += 1
                    _wake(self.sent_lock)
        except OSError:
            self._leave()  # ASGI HTTP spec 2.4: that is how a server says that the client left
        except Exception as error:
            self._failure = error
            self._leave()

    def _pop_blocks(self) -> Iterable[bytes]:
        outbox = self.outbox
        while outbox and isinstance(block := outbox[0], bytes):
            outbox.popleft()
            yield block

    async def _watch(self) -> None:
        """Receive beside the response: the request's body, and `http.disconnect`, which is all that some servers say.

        What the app leaves unread is taken up to a limit, behind which a client that leaves would
        go unnoticed. So after a while the rest goes to disk.
        """
        ended = False
        while not (ended or self.gone or self.complete):
            ended = self._body.ended  # what comes behind that is a client that left, or a server's slip
            await self.fetch_body()

    def _set_complete(self) -> None:
        """Note that the response has ended: the server gives no more of the request."""
        self.complete = True
        self._wake_threads()

    def _leave(self) -> None:
        """Let everybody know that there is no client any more."""
        self.gone = True
        self._wake_threads()

    def _wake_threads(self) -> None:
        _wake(self.sent_lock)
        _wake(self._body.lock)
        while self._waiting:
            with contextlib.suppress(IndexError):  # empty by now: a wait that runs out takes its own lock out
                self._waiting.popleft().release()

    def _look(self) -> None:
        if self._event is not None:
            self._event.set()

    # IN ANY THREAD

    def tell(self) -> None:
        """Have the loop look at the outbox, unless it is about to."""
        if not self._told:
            self._told = True
            self._is_loop_there()

    def sleep(self, lock: threading.Lock) -> None:
        """Sleep until the loop has something to tell, or is closed."""
        while not lock.acquire(timeout=_LOOP_CHECK):
            if not self._is_loop_there():
                return

    def _is_loop_there(self) -> bool:
        """Wake the loop; note that the client is as good as gone where the loop was closed."""
        try:
            self.loop.call_soon(self._look)
        except RuntimeError:
            self.gone = True
        return not self.gone

    def read_on(self) -> None:
        """Have more of the body taken, and the connection watched from now on."""
        self.outbox.append(Mark.WATCH_WANTED)
        self.tell()

    def watch(self) -> None:
        """Have the connection watched from now on, if it is not."""
        if not self._watch_asked:
            self._watch_asked = True
            self.read_on()

    def is_gone(self) -> bool:
        """Return whether the client has left."""
        self.watch()
        return self.gone

    def wait_until_gone(self, timeout: float | None) -> bool:
        """Return whether the client has left, after waiting up to `timeout` seconds for that."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        lock = binary_semaphore()
        self._waiting.append(lock)
        self.watch()
        while not (self.gone or self.complete or self.finished) and (left := deadline - time.monotonic()) > 0:
            if not lock.acquire(timeout=min(left, _LOOP_CHECK)):
                self._is_loop_there()
        with contextlib.suppress(ValueError):  # who woke us took it out
            self._waiting.remove(lock)
        return self.gone


def _wake(lock: threading.Lock) -> None:
    """Wake the thread that sleeps on `lock`; on the loop, the one place where that is released."""
    if lock.locked():  # else it has been woken already, and has yet to look
        lock.release()
