"""A response that has left its WSGI thread: the private loop answers the client, on the server's connection."""

import array
import contextlib
import contextvars
import email.utils
import functools
import logging
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import anyio

from bridge.asgi_to_wsgi.http.exchange import HTTPExchange
from bridge.asgi_to_wsgi.http.hop import LIMIT
from bridge.asgi_to_wsgi.http.streams import File
from bridge.errors import ClientDisconnected
from bridge.runtime import Event
from bridge.sansio.http1 import ResponseWriter
from bridge.sansio.request_name import request_name
from bridge.types import Headers

try:
    import fcntl
    import termios
except ModuleNotFoundError:  # Windows, where no connection is taken
    fcntl = termios = None  # type: ignore[assignment]

_logger = logging.getLogger("bridge")

# How long a client may read nothing of what waits for it, in seconds; after that it counts as gone.
STALL_TIMEOUT = 60.0
# How long a client that has everything may take to hang up, in seconds.
_LINGER = 2.0
_BLOCK_SIZE = 64 * 1024
# How many parts go into one system call at most: IOV_MAX is 1,024 on Linux.
_WRITE_PARTS = 1000
_ERROR_STATUS = "500 Internal Server Error"
_ERROR_BODY = b"Internal Server Error\n"
_ERROR_HEADERS: Headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(_ERROR_BODY)))]


class DetachedResponse:
    """One response on its way from the app to the client, in a task of its own on the private loop.

    It replaces the WSGI thread: it takes what the app puts into the exchange's outbox.

    Who ends each wait: the app, by what it sends or by its end; the client, by reading or by leaving;
    `STALL_TIMEOUT`, if it does neither; and the loop, which cancels the task when it ends.
    """

    def __init__(
        self,
        exchange: HTTPExchange,
        sock: socket.socket,
        writer: ResponseWriter,
        release: Callable[[], object],
        note: Callable[[str, int, bool], object],
    ) -> None:
        """`sock` is ours from now on, and does not block.

        Both functions are called once. `note` is called when the system has taken the whole response, or it was cut:
        with its status, the number of bytes of body that the system has taken, and whether that is all. `release` is
        called when the connection is closed.
        """
        self.context = contextvars.Context()
        self._exchange = exchange
        self._socket = sock
        self._writer = writer
        self._releases = [release]
        self._notes = [note]
        self._running = False
        self._status = ""  # of the head that was sent
        self._size = 0  # bytes of body that the system has taken
        self._complete = False
        self._gone = False
        self._event: Event

    # IN ANY THREAD

    @property
    def exchange(self) -> HTTPExchange:
        """The exchange that this is the response of."""
        return self._exchange

    def fail(self, error: BaseException) -> None:
        """End a response whose loop ends: with 500, if nothing of it was sent, so that the client need not wait."""
        with contextlib.suppress(OSError):
            if not self._status:
                self._socket.send(self._error())
            self._socket.shutdown(socket.SHUT_RDWR)
        if not self._running:
            self._end()

    def _end(self) -> None:
        """Close the connection and free the place. Idempotent."""
        if not self._complete and self._writer.ends_by_close and not self._gone:
            with contextlib.suppress(OSError):  # a reset, because an ordinary close would look like the body's end
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()
        with contextlib.suppress(IndexError):
            self._releases.pop()()
        self._note(False)

    def _note(self, whole: bool) -> None:
        """Tell of the end of the response. Idempotent."""
        with contextlib.suppress(IndexError):
            self._notes.pop()(self._status, self._size, whole)

    # ON THE LOOP

    def stop(self) -> None:
        """The loop is about to end: the exchange ends its event stream, and other responses may finish."""

    def wake(self) -> None:
        """Look at the outbox."""
        self._event.set()

    async def run(self) -> None:
        """Answer the client, and close the connection."""
        exchange = self._exchange
        if not self._releases:
            return  # `fail` was faster
        self._running = True
        self._event = exchange.loop.event()
        exchange.wake = self.wake
        try:
            async with exchange.loop.beside(self._watch):
                await self._answer_or_leave()
        finally:
            exchange.wake = _nothing
            self._end()

    async def _answer_or_leave(self) -> None:
        try:
            await self._answer()
        except OSError:  # the client has left, or does not read
            self._exchange.leave()
        except Exception:
            _logger.exception("%s: the detached response failed", request_name(self._exchange.scope))
            self._exchange.leave()

    async def _answer(self) -> None:
        """Send what the app says, to its end; then let the client hang up first."""
        exchange = self._exchange
        while not self._complete:
            self._event = exchange.loop.event()  # before the look, so that nothing is missed
            parts: list[bytes] = []
            if exchange.head_is_due:
                parts += self._maybe_head()
            if not await self._take(parts):
                return
            if not (self._complete or exchange.outbox):
                await self._event.wait()
            if self._gone and not self._complete:
                raise ClientDisconnected
        self._note(True)
        await self._let_hang_up()

    async def _take(self, parts: list[bytes]) -> bool:
        """Send `parts`, and what is in the outbox; return False for a response that has to be cut."""
        exchange = self._exchange
        outbox = exchange.outbox
        size = 0
        while outbox and size < LIMIT and len(parts) < _WRITE_PARTS - 3 and not self._complete:
            item = outbox.popleft()
            if isinstance(item, bytes):
                parts += self._maybe_head()
                parts += self._writer.block(item)
                size += len(item)
            elif item is None:
                parts += [*self._maybe_head(), self._writer.end()]
                self._complete = True
            elif isinstance(item, list):
                parts.append(b"" if self._status else self._writer.early_hints(item))
            elif isinstance(item, BaseException):
                self._size += size
                return await self._fail(item, parts)
            elif isinstance(item, File):
                await self._write([*parts, *self._maybe_head()])
                parts = []
                await self._send_file(item)
        await self._write(parts)
        self._size += size
        exchange.taken += size
        if exchange.full and exchange.produced - exchange.taken <= LIMIT // 2:
            exchange.make_room()
        return True

    def _maybe_head(self) -> list[bytes]:
        """Return the head of the response, once."""
        if self._status:
            return []
        response = self._exchange.response
        self._status = response.status
        return [self._writer.head(self._status, response.headers, _date())]

    async def _fail(self, error: BaseException, parts: list[bytes]) -> bool:
        """Log what the app raised; answer with 500, or cut a response that has begun, so that it looks incomplete."""
        name, status = request_name(self._exchange.scope), self._status
        when = f"in mid-response ({status[:3]})" if status else "before it answered"
        _logger.error("%s: the ASGI app raised %s", name, when, exc_info=error)
        if status:
            await self._write(parts)
            return False
        await self._write([*parts, self._error()])
        self._complete = True
        return True

    def _error(self) -> bytes:
        """Return the whole response to a request that the app has not answered."""
        self._status = _ERROR_STATUS
        head = self._writer.head(_ERROR_STATUS, _ERROR_HEADERS, _date())
        if self._exchange.scope["method"] == "HEAD":
            return head
        self._size = len(_ERROR_BODY)
        return head + _ERROR_BODY

    async def _send_file(self, file: File) -> None:
        try:
            blocks = iter(file)
            while block := await anyio.to_thread.run_sync(next, blocks, b""):
                await self._write([*self._writer.block(block)])
                self._size += len(block)
        finally:
            file.close()

    async def _write(self, parts: list[bytes]) -> None:
        """Have the system take all of `parts`; wait while the client is slow. Raises OSError if it has left."""
        left = deque(memoryview(part) for part in parts if part)
        while left:
            try:
                sent = self._socket.sendmsg(left)
            except BlockingIOError:
                await self._await_room()
                continue
            while left and sent >= len(left[0]):
                sent -= len(left.popleft())
            if left:
                left[0] = left[0][sent:]

    async def _await_room(self) -> None:
        """Wait until there is room to write; raise ClientDisconnected if the client reads nothing for too long.

        The system reports room only once there is much of it, so a client that reads slowly is told by what is unsent.
        """
        unsent = _unsent(self._socket)
        while True:
            with anyio.move_on_after(STALL_TIMEOUT):
                await anyio.wait_writable(self._socket)
                return
            before, unsent = unsent, _unsent(self._socket)
            if unsent >= before:
                raise ClientDisconnected(f"the client has read nothing for {STALL_TIMEOUT:g} seconds")

    async def _let_hang_up(self) -> None:
        """Wait until the client has everything, and then a moment for it to close.

        Closing with something unread resets the connection, and the client loses what it has not read by then.
        """
        self._socket.shutdown(socket.SHUT_WR)
        unsent, since = _unsent(self._socket), time.monotonic()
        while not self._gone:
            self._event = self._exchange.loop.event()
            with anyio.move_on_after(_LINGER):
                await self._event.wait()
                continue
            before, unsent = unsent, _unsent(self._socket)
            if unsent < before:
                since = time.monotonic()
            if not before or time.monotonic() - since > STALL_TIMEOUT:
                return

    async def _watch(self) -> None:
        """Notice that the client has left; one that only half-closes counts as gone. Drop what it sends."""
        with contextlib.suppress(OSError):
            while True:
                await anyio.wait_readable(self._socket)
                try:
                    if not self._socket.recv(_BLOCK_SIZE):
                        break
                except BlockingIOError:
                    pass  # woken for nothing
        self._gone = True
        if not self._complete:
            self._exchange.leave()
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # so that a write that waits fails
        self._event.set()


def _nothing() -> None:
    pass


def _unsent(sock: socket.socket) -> int:
    """Return how many bytes the client has not acknowledged; 0 where the system does not tell."""
    number: Any = array.array("i", [0])
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.ioctl(sock, termios.TIOCOUTQ, number)
    return int(number[0])


def _date() -> str:
    return _date_of(int(time.time()))


@functools.lru_cache(maxsize=2)
def _date_of(second: int) -> str:
    return email.utils.formatdate(second, usegmt=True)
