"""A response that has left its WSGI thread: the private loop answers the client, on the server's connection."""

import array
import contextlib
import contextvars
import email.utils
import functools
import logging
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import anyio

from bridge.asgi_to_wsgi.http.exchange import HTTPExchange
from bridge.asgi_to_wsgi.http.hop import LIMIT
from bridge.asgi_to_wsgi.http.streams import File
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
        answered: Callable[[HTTPExchange], object],
        note: Callable[[str, int, bool], object],
    ) -> None:
        """`sock` is ours from now on, and does not block.

        Each function is called once. `answered` is called on the loop when the head is sent. `note` is called when the
        system has taken the whole response, or it was cut: with its status, the number of bytes of body that the system
        has taken, and whether that is all. `release` is called when the connection is closed.
        """
        self.context = contextvars.Context()
        self.exchange = exchange  # that this is the response of
        self._socket = sock
        self._writer = writer
        self._release = release
        self._answered = answered
        self._notes = [note]
        self._status = ""  # of the head that was sent
        self._size = 0  # bytes of body that the system has taken
        self._unsent: deque[memoryview] = deque()  # what it has not taken yet
        self._unsent_size = 0  # of the blocks in it
        self._busy = False  # the task sends a file
        self._complete = False
        self._cut = False
        self._gone = False
        self._event: Event
        # Guards these, because `fail` may come from a thread while the loop answers after all:
        self._lock = threading.Lock()
        self._running = False
        self._closed = False
        exchange.detached = True

    # IN ANY THREAD

    @property
    def is_to_finish(self) -> bool:
        """Whether its client is to get more of it, even if the loop is about to end: it is no event stream."""
        return bool(self._notes) and not self.exchange.response.is_event_stream

    def fail(self, error: BaseException) -> None:
        """End a response whose loop ends: with 500, if nothing of it was sent, so that the client need not wait."""
        with self._lock:
            if self._closed:
                return
            with contextlib.suppress(OSError):
                if not self._status:
                    self._status = _ERROR_STATUS
                    self._socket.send(self._error())
                self._socket.shutdown(socket.SHUT_RDWR)
            if not self._running:
                self._close()

    def _close(self) -> None:
        self._closed = True
        self._socket.close()
        self._release()
        self._note(False)

    def _note(self, whole: bool) -> None:
        """Tell of the end of the response. Idempotent."""
        with contextlib.suppress(IndexError):
            self._notes.pop()(self._status, self._size, whole)

    # ON THE LOOP

    def stop(self) -> None:
        """The loop is about to end: the exchange ends its event stream, and other responses may finish."""

    async def run(self) -> None:
        """Answer the client, and close the connection."""
        with self._lock:
            if self._closed:
                return  # `fail` was faster
            self._running = True
        exchange = self.exchange
        self._event = exchange.loop.event()
        exchange.wake = self.wake
        try:
            async with exchange.loop.reading(self._socket, self._read):
                await self._answer()
        finally:
            exchange.wake = _nothing
            self._end()

    def _end(self) -> None:
        with self._lock:
            if not self._complete and self._writer.ends_by_close and not self._gone:
                with contextlib.suppress(OSError):  # a reset, because an ordinary close would look like the body's end
                    self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._close()

    def wake(self) -> None:
        """Send what is in the outbox, as far as the system takes it; wake the task if there is more to do."""
        if not self._busy:
            self._pump()
            if self._unsent or self._complete or self._cut or self._gone or self.exchange.outbox:
                self._event.set()

    async def _answer(self) -> None:
        """Do what has to wait, until the response has ended and its client has hung up."""
        while True:
            self._event = self.exchange.loop.event()  # before the look, so that nothing is missed
            self._pump()
            if self._gone or self._cut:
                break
            if self._unsent:
                await self._await_room()
            elif self._complete:
                self._note(True)
                await self._let_hang_up()
                break
            elif self.exchange.outbox:
                await self._send_file()
            else:
                await self._event.wait()

    def _pump(self) -> None:
        """Send what is in the outbox until there is something to wait for."""
        try:
            self._flush()
            if not self._status and self.exchange.head_is_due:
                self._write(self._maybe_head())
            while not (self._unsent or self._complete or self._cut or self._gone) and self._take():
                pass
        except OSError:
            self._lose()
        except Exception:
            _logger.exception("%s: the detached response failed", request_name(self.exchange.scope))
            self._lose()

    def _lose(self) -> None:
        """The client has left, or is given up."""
        self._gone = True
        if not self._complete:
            self.exchange.leave()

    def _take(self) -> bool:
        """Send what is in the outbox, up to a limit; return False if there is nothing, or a file comes first."""
        outbox = self.exchange.outbox
        parts: list[bytes] = []
        while outbox and not (self._complete or self._cut):
            if self._unsent_size >= LIMIT or len(parts) >= _WRITE_PARTS - 3:
                break
            if isinstance(outbox[0], File):
                parts += self._maybe_head()
                break
            item = outbox.popleft()
            if isinstance(item, bytes):
                parts += self._maybe_head()
                parts += self._writer.block(item)
                self._unsent_size += len(item)
            elif item is None:
                parts += [*self._maybe_head(), self._writer.end()]
                self._complete = True
            elif isinstance(item, list):
                parts.append(b"" if self._status else self._writer.early_hints(item))
            elif isinstance(item, BaseException):
                parts += self._fail(item)
        self._write(parts)
        return bool(parts)

    def _write(self, parts: list[bytes]) -> None:
        """Have the system take `parts`, or as much of them as it has room for. Raises OSError."""
        self._unsent.extend(memoryview(part) for part in parts if part)
        self._flush()

    def _flush(self) -> None:
        unsent = self._unsent
        while unsent:
            try:
                sent = self._socket.sendmsg(unsent)
            except BlockingIOError:
                return
            while unsent and sent >= len(unsent[0]):
                sent -= len(unsent.popleft())
            if unsent:
                unsent[0] = unsent[0][sent:]
        exchange = self.exchange
        if not self._busy:  # a file is not among what the app has produced
            exchange.taken += self._unsent_size
        self._size += self._unsent_size
        self._unsent_size = 0
        if exchange.full and exchange.produced - exchange.taken <= LIMIT // 2:
            exchange.make_room()

    def _maybe_head(self) -> list[bytes]:
        """Return the head of the response, once."""
        if self._status:
            return []
        response = self.exchange.response
        if not self._begin(response.status):
            return []
        return [self._writer.head(response.status, response.headers, _date())]

    def _fail(self, error: BaseException, what: str = "the ASGI app raised") -> list[bytes]:
        """Log `error`; answer with 500, or cut a response that has begun, so that it looks incomplete."""
        name, status = request_name(self.exchange.scope), self._status
        when = f"in mid-response ({status[:3]})" if status else "before it answered"
        _logger.error("%s: %s %s", name, what, when, exc_info=error)
        if not self._begin(_ERROR_STATUS):
            self._cut = True
            return []
        self._complete = True
        return [self._error()]

    def _begin(self, status: str) -> bool:
        """Claim the head of the response; return False if it was sent, perhaps by `fail`."""
        with self._lock:
            if self._status:
                return False
            self._status = status
        self._answered(self.exchange)
        return True

    def _error(self) -> bytes:
        """Return the whole response to a request that the app has not answered."""
        head = self._writer.head(_ERROR_STATUS, _ERROR_HEADERS, _date())
        if self.exchange.scope["method"] == "HEAD":
            return head
        self._size = len(_ERROR_BODY)
        return head + _ERROR_BODY

    async def _send_file(self) -> None:
        """Send the file that is next in the outbox."""
        file = self.exchange.outbox.popleft()
        assert isinstance(file, File)
        self._busy = True
        try:
            blocks = iter(file)
            while not self._gone:
                try:
                    block = await anyio.to_thread.run_sync(next, blocks, b"")
                except Exception as error:  # from the disk, not the client
                    self._write(self._fail(error, "a file could not be read"))
                    return
                if not block:
                    return
                self._unsent_size += len(block)
                self._write([*self._writer.block(block)])
                while self._unsent and not self._gone:
                    await self._await_room()
                    self._flush()
        except OSError:
            self._lose()
        finally:
            self._busy = False
            file.close()

    async def _await_room(self) -> None:
        """Wait until there is room to write; give the client up if it reads nothing for too long.

        The system reports room only once there is much of it, so a client that reads slowly is told by what is unsent.
        """
        unsent = _unsent(self._socket)
        while True:
            with anyio.move_on_after(STALL_TIMEOUT):
                await anyio.wait_writable(self._socket)
                return
            before, unsent = unsent, _unsent(self._socket)
            if unsent >= before:
                self._lose()
                return

    async def _let_hang_up(self) -> None:
        """Wait until the client has everything, and then a moment for it to close.

        Closing with something unread resets the connection, and the client loses what it has not read by then.
        """
        with contextlib.suppress(OSError):  # it has hung up
            self._socket.shutdown(socket.SHUT_WR)
        unsent, since = _unsent(self._socket), time.monotonic()
        while True:
            self._event = self.exchange.loop.event()
            await self.exchange.loop.wait(self._event, _LINGER)
            if self._gone:
                return
            before, unsent = unsent, _unsent(self._socket)
            if unsent < before:
                since = time.monotonic()
            if not before or time.monotonic() - since > STALL_TIMEOUT:
                return

    def _read(self) -> bool:
        """Drop what the client sends; notice that it has left. One that only half-closes counts as gone."""
        try:
            if self._socket.recv(_BLOCK_SIZE):
                return True
        except BlockingIOError:
            return True  # woken for nothing
        except OSError:
            pass
        self._lose()
        if not self._complete:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # so that a write that waits fails
        self._event.set()
        return False


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
