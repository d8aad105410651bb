"""One call of a WSGI app, in its worker thread: the server's part of PEP 3333, and the way to the loop."""

import abc
import contextlib
import enum
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Iterable
from typing import BinaryIO, Final, TypeAlias

from bridge.errors import AppProtocolError, ClientDisconnected, ClientProtocolError
from bridge.runtime import Loop, LoopClosed, binary_semaphore, set_async_library
from bridge.sansio.request import CGI_TEMPLATE, environ_from_scope
from bridge.sansio.response import ResponseFromWSGI, check_chunk, check_iterable, raw_headers_from_native
from bridge.types import Environ, ExcInfo, Headers, Message, Scope, Write, WSGIApp
from bridge.wsgi_to_asgi.http.streams import Disconnected, ErrorStream, FileWrapper, LateInput, spooled_input
from bridge.wsgi_to_asgi.runner import lend_loop_to_asgiref

# How much of a body may be on the way: more wake-ups with less, and no fewer with more.
_LIMIT = 256 * 1024
# How often a sleeping thread looks whether its loop is still there, in seconds.
_LOOP_CHECK = 5.0


class Mark(enum.Enum):
    """What a thread says to the loop, besides messages and blocks of body."""

    END = "the response is complete"
    WATCH_WANTED = "the app reads on, or asks whether the client is still there"
    FINISHED = "the thread is done with the request"


# Python 3.11 takes ten times as long to find a member in its class.
END: Final = Mark.END
WATCH_WANTED: Final = Mark.WATCH_WANTED
FINISHED: Final = Mark.FINISHED


Item: TypeAlias = Message | bytes | Mark


# What is the same in every environ, and what each has of its own to fill in.
_TEMPLATE: Environ = {
    **CGI_TEMPLATE,
    "wsgi.version": (1, 0),
    "wsgi.input": None,
    "wsgi.input_terminated": True,
    "wsgi.errors": ErrorStream(),
    "wsgi.multithread": True,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
    "wsgi.file_wrapper": FileWrapper,
    "bridge.disconnected": None,
}


def environ_template(multithread: bool, multiprocess: bool) -> Environ:
    """Return what every environ of one adapter begins with."""
    return {**_TEMPLATE, "wsgi.multithread": multithread, "wsgi.multiprocess": multiprocess}


def environ_for_request(scope: Scope, template: Environ, input_stream: BinaryIO, disconnected: Disconnected) -> Environ:
    """Return a new environ; in the thread of the call, where it is used, and made without holding up the loop.

    Raises ClientProtocolError where the request's headers contradict each other.
    """
    environ = environ_from_scope(scope, template)
    environ["wsgi.input"] = input_stream
    environ["bridge.disconnected"] = disconnected
    return environ


# What stands in for a queue that is not made before it is needed; it takes nothing.
_NO_ITEMS: deque[Item] = deque(maxlen=0)
_NO_SLEEPERS: deque[threading.Lock] = deque(maxlen=0)


class Connection(abc.ABC):
    """What a call asks of the request that it answers: a way to the loop, and one to wait for what that does."""

    loop: Loop
    # Written in the thread of the call:
    outbox = _NO_ITEMS
    # Written on the loop:
    gone = False  # nobody is there to send anything to
    finished = False  # all has ended
    transmitted = 0  # bytes of the response body
    # Made by the first thread that has to sleep; the locks of all that do, as each has its own:
    _sleepers = _NO_SLEEPERS

    # ON THE LOOP

    @abc.abstractmethod
    def look(self) -> None:
        """See what is in the outbox."""

    def wake_sleepers(self) -> None:
        """Have each thread that sleeps look again at what it waits for."""
        if sleepers := self._sleepers:
            for _ in range(len(sleepers)):  # and no more, as one that looks may come back
                with contextlib.suppress(IndexError):  # one whose time ran out takes its own lock out
                    sleepers.popleft().release()

    # IN ANY THREAD

    @abc.abstractmethod
    def tell(self) -> None:
        """Have the loop look at the outbox, unless it is about to."""

    @abc.abstractmethod
    def watch(self) -> None:
        """Have the connection watched from now on, if it is not."""

    def knock(self) -> None:
        """Wake the loop; note that the client is as good as gone where that was closed."""
        try:
            self.loop.call_soon(self.look)
        except LoopClosed:
            self.gone = True

    def sleep_while(self, blocked: Callable[[], bool], timeout: float = math.inf) -> None:
        """Sleep while `blocked`, as far as that is for the loop to change, and for `gone`; up to `timeout` seconds.

        Raises WouldBlockLoop on the loop's own thread, if there is anything to sleep for.
        """
        if self.loop.runs_here() and timeout > 0 and blocked():
            self.loop.refuse_to_sleep("a read of wsgi.input, write(), or a wait for bridge.disconnected")
        deadline = time.monotonic() + timeout
        lock = binary_semaphore()
        sleepers = vars(self).setdefault("_sleepers", deque())  # at once, as another thread may be about to as well
        sleepers.append(lock)  # before the look at what may have changed already
        while blocked() and (left := deadline - time.monotonic()) > 0:
            if lock.acquire(timeout=min(left, _LOOP_CHECK)):
                sleepers.append(lock)
            else:
                self.knock()
        with contextlib.suppress(ValueError):  # who woke us took it out
            sleepers.remove(lock)


class WSGICall:
    """One call of the app, and what it makes of the response.

    All of it runs in the worker thread, except that `write()` may come from another one.
    """

    __slots__ = ("_connection", "_early_hints", "_ended", "_outbox", "_pathsend", "_produced", "_response")

    def __init__(self, connection: Connection, scope: Scope, method: str, extensions: Container[str] = ()) -> None:
        self._connection = connection
        self._outbox = connection.outbox
        self._response = ResponseFromWSGI(method, scope)
        self._pathsend = "http.response.pathsend" in extensions
        self._early_hints = "http.response.early_hint" in extensions
        self._ended = False
        self._produced = 0  # bytes of body

    def run(
        self, app: WSGIApp, make_environ: Callable[[], Environ], buffer_body: bool = False, lend_loop: bool = False
    ) -> None:
        """Run `app`, in the context that it is to have. Raises what it raises."""
        try:
            environ = make_environ()
        except ClientProtocolError as error:
            self._refuse(error)
            return
        if self._early_hints:
            environ["wsgi.early_hints"] = self._send_early_hints
        set_async_library(None)
        lend_loop_to_asgiref(self._connection.loop if lend_loop else None)
        wants_length = buffer_body and "CONTENT_LENGTH" not in environ
        if (wants_length or lend_loop) and type(environ["wsgi.input"]) is not LateInput:
            with spooled_input(environ, wants_length):
                self._call_app(app, environ)
        else:
            self._call_app(app, environ)

    def _send_early_hints(self, headers: Headers) -> None:
        """`wsgi.early_hints`, as gunicorn has it: send the Link headers ahead of the response."""
        links = [value for name, value in raw_headers_from_native(headers) if name == b"link"]
        if links and not self._response.begun:
            self._outbox.append({"type": "http.response.early_hint", "links": links})
            self._connection.tell()

    def _refuse(self, error: ClientProtocolError) -> None:
        body = f"Bad request: {error}\n".encode()
        self._start_response(
            "400 Bad Request", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
        )
        self._put(body)

    def _call_app(self, app: WSGIApp, environ: Environ) -> None:
        iterable = app(environ, self._start_response)
        try:
            self._respond(iterable)
        finally:
            close = getattr(iterable, "close", None)
            if close is not None:
                self._connection.tell()  # the end of the response need not wait for close()
                close()

    def _start_response(self, status: str, headers: Headers, exc_info: ExcInfo | None = None, /) -> Write:
        try:
            self._response.start_response(status, headers, exc_info)
        finally:
            exc_info = None  # PEP 3333: "to avoid creating a circular reference"
        return self._write

    def _write(self, chunk: bytes, /) -> None:
        complete = self._ended and self._response.length.reached
        if self._connection.gone and not complete:  # else the client had left no sooner than it had all
            raise ClientDisconnected
        if self._connection.finished or (self._ended and not complete):
            raise AppProtocolError("write() was called after the response had ended")
        self._put(chunk)
        if self._response.length.overrun:
            raise AppProtocolError("write() went beyond Content-Length (PEP 3333, Handling the Content-Length Header)")
        self._connection.tell()

    def _respond(self, iterable: Iterable[bytes]) -> None:
        """Pass on what the app returned, block by block."""
        at_hand = isinstance(iterable, (list, tuple))  # no next() will keep a block waiting
        if not at_hand:
            check_iterable(iterable)
            if self._pathsend and type(iterable) is FileWrapper and self._send_path(iterable):
                return
        iterator = iter(iterable)
        if not self._ended:  # it may be, by write()
            for chunk in iterator:
                self._put(chunk)
                if self._ended or self._connection.gone:
                    break
                if not at_hand:
                    self._connection.tell()
            else:
                self._end()
                return
        if not (at_hand or self._connection.gone or self._response.length.bodiless):
            # A generator may have something to do behind its last block, and does it under servers that ask on.
            self._connection.tell()  # the client does not wait for that
            next(iterator, None)

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
        self._connection.tell()
        self._make_room(0)  # for close(), which may delete the file
        return True

    def _put(self, chunk: bytes) -> None:
        """Pass one block on; wait if there is more on the way than there should be."""
        check_chunk(chunk)
        if not chunk:
            # The headers wait for the first block that is not empty (PEP 3333). An app may wait so, too.
            self._connection.watch()
            return
        response = self._response
        items: list[Item] = [] if response.begun else [response.begin()]
        chunk = response.length.clamp(chunk)
        if chunk:
            items.append(chunk)
        if response.length.reached and not self._ended:
            self._ended = True
            items.append(END)
        self._outbox.extend(items)
        self._produced += len(chunk)
        if self._produced - self._connection.transmitted > _LIMIT:
            self._connection.tell()
            self._make_room(_LIMIT)

    def _make_room(self, limit: int) -> None:
        """Wait until no more than `limit` is on the way."""
        connection = self._connection
        connection.sleep_while(lambda: self._produced - connection.transmitted > limit and not connection.gone)

    def _end(self) -> None:
        """Pass the end of the body on, and the headers if there was no body."""
        response = self._response
        items: list[Item] = [] if response.begun else [response.begin(empty=True)]
        response.length.check_reached()
        self._ended = True
        self._outbox.extend([*items, END])
