"""A response that has left its WSGI thread: the private loop answers the client, on the server's connection."""

import contextlib
import contextvars
import logging
import socket
import threading
import time

import anyio

from bridge.asgi_to_wsgi.http.client import Client
from bridge.asgi_to_wsgi.http.exchange import HTTPExchange
from bridge.asgi_to_wsgi.http.hop import LIMIT
from bridge.asgi_to_wsgi.http.place import Place
from bridge.asgi_to_wsgi.http.streams import File
from bridge.runtime import Event
from bridge.sansio.http1 import ResponseWriter, date_from_time
from bridge.sansio.request_name import request_name
from bridge.types import Headers

_logger = logging.getLogger("bridge")

# How many parts go into one system call at most: IOV_MAX is 1,024 on Linux.
_WRITE_PARTS = 1000
# What the system of any client takes before the client has read it, in bytes.
_SMALL_BODY = 16 * 1024
_ERROR_STATUS = "500 Internal Server Error"
_ERROR_BODY = b"Internal Server Error\n"
_ERROR_HEADERS: Headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(_ERROR_BODY)))]


class DetachedResponse:
    """One response on its way from the app to the client, on the private loop.

    It replaces the WSGI thread: it takes what the app puts into the exchange's outbox. The app's `send`
    writes it to the connection; the task of this job does what has to wait: for a client that reads
    slowly, for a file, and for the client's hanging up.
    """

    _status = ""  # of the head that was sent
    _size = 0  # bytes of body that the system has taken
    _unsent_size = 0  # of those of the outbox that it has not taken yet
    _complete = False
    _cut = False
    _running = False
    _closed = False
    _event: Event | None = None  # while the task waits for the app

    def __init__(
        self,
        exchange: HTTPExchange,
        sock: socket.socket,
        writer: ResponseWriter,
        place: Place,
        is_last: bool = False,
    ) -> None:
        """`sock` is ours from now on, and does not block; `is_last` says that the client wants it closed."""
        self.context = contextvars.Context()
        self.exchange = exchange  # that this is the response of
        self._client = Client(sock, exchange.loop)
        self._writer = writer
        self._place = place
        self._is_last = is_last
        # Guards the head and the connection's end, because `fail` may come from a thread while the loop answers:
        self._lock = threading.Lock()
        exchange.detached = True

    # IN ANY THREAD

    @property
    def is_to_finish(self) -> bool:
        """Whether its client is to get more of it, even if the loop is about to end: it is no event stream."""
        return bool(self._place.requests) and not self.exchange.response.is_event_stream

    def fail(self, error: BaseException) -> None:
        """End a response whose loop ends."""
        with self._lock:
            if self._closed:
                return
            self._answer_with_error()
            if self._writer.ends_by_close:
                self._client.cut_before_reset()
            else:
                self._client.cut()
            if not self._running:
                self._close()

    def _answer_with_error(self) -> None:
        """Send 500 if nothing was sent, so that the client need not wait."""
        if not (self._status or self._client.gone):
            self._status = _ERROR_STATUS
            with contextlib.suppress(OSError):
                self._client.send_last(self._error())

    def _close(self, reset: bool = False) -> None:
        self._closed = True
        self._client.close(reset)
        self._place.free()
        self._place.note(self._status, self._size, False)

    # ON THE LOOP

    def stop(self) -> None:
        """The loop is about to end: the exchange ends its event stream, and other responses may finish."""

    async def run(self) -> None:
        """Answer the client, and close the connection."""
        with self._lock:
            if self._closed:
                return  # `fail` was faster
            self._running = True
        self.exchange.wake = self.wake
        try:
            async with self._client.reading(self._lose):
                try:
                    await self._answer()
                except OSError:  # the client has left, or does not read
                    self._lose()
        finally:
            self.exchange.wake = _nothing
            is_whole = self._complete and not self._client.unsent
            if not (is_whole or any(isinstance(item, BaseException) for item in self.exchange.outbox)):
                self.exchange.leave()  # only this task was cancelled, and the app may wait
            with self._lock:
                self._answer_with_error()  # if this task was cancelled before it sent anything
                # An ordinary close would look like the body's end, also to a client that has only ended its own side.
                self._close(reset=self._writer.ends_by_close and not is_whole)

    def wake(self) -> None:
        """Send what is in the outbox, as far as the system takes it; wake the task if there is more to do."""
        if self._event is not None:  # otherwise the task is about to look
            self._pump()
            client = self._client
            if client.unsent or client.gone or self._complete or self._cut or self.exchange.outbox:
                self._event.set()

    async def _answer(self) -> None:
        """Do what has to wait, until the response has ended and its client has hung up."""
        client = self._client
        while True:
            self._pump()
            if client.gone or self._cut:
                return
            if client.unsent:
                await client.await_room()
            elif self._complete:
                self._place.note(self._status, self._size, True)
                if not (self._is_last and self._size <= _SMALL_BODY):
                    await client.let_hang_up()
                return
            elif self.exchange.outbox:
                await self._send_file()
            else:
                self._event = self.exchange.loop.event()
                await self._event.wait()
                self._event = None

    def _lose(self) -> None:
        """Tell the app that its client has left, or is given up, unless it has everything."""
        self._client.give_up()
        if not self._complete or self._client.unsent:
            self.exchange.leave()
        if self._event is not None:
            self._event.set()

    def _pump(self) -> None:
        """Send what is in the outbox until there is something to wait for."""
        client = self._client
        try:
            client.flush()
            self._count()
            if not self._status and self.exchange.response.head_is_due:
                client.write(self._maybe_head())
            while not (client.unsent or self._complete or self._cut or client.gone) and self._take():
                self._count()
        except OSError:
            self._lose()
        except Exception:
            _logger.exception("%s: the detached response failed", request_name(self.exchange.scope))
            self._cut = True
            self.exchange.leave()

    def _count(self) -> None:
        """Count what was sent; make room for more if enough was."""
        if self._unsent_size and not self._client.unsent:
            exchange = self.exchange
            exchange.taken += self._unsent_size
            self._size += self._unsent_size
            self._unsent_size = 0
            if exchange.full and exchange.produced - exchange.taken <= LIMIT // 2:
                exchange.make_room()

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
        self._client.write(parts)
        return bool(parts)

    def _maybe_head(self) -> list[bytes]:
        """Return the head of the response, once."""
        if self._status:
            return []
        response = self.exchange.response
        if not self._begin(response.status):
            return []
        return [self._writer.head(response.status, response.headers, date_from_time(int(time.time())))]

    def _begin(self, status: str) -> bool:
        """Claim the head of the response; return False if it was sent, perhaps by `fail`."""
        with self._lock:
            if self._status:
                return False
            self._status = status
        self._place.answered()
        return True

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

    def _error(self) -> bytes:
        """Return the whole response to a request that the app has not answered."""
        head = self._writer.head(_ERROR_STATUS, _ERROR_HEADERS, date_from_time(int(time.time())))
        if self.exchange.method == "HEAD":
            return head
        self._size = len(_ERROR_BODY)
        return head + _ERROR_BODY

    async def _send_file(self) -> None:
        """Send the file that is next in the outbox. Raises OSError if the client has left."""
        client, file = self._client, self.exchange.outbox.popleft()
        assert isinstance(file, File)
        try:
            blocks = iter(file)
            while not client.gone:
                try:
                    block = await anyio.to_thread.run_sync(next, blocks, b"")
                except Exception as error:  # from the disk, not the client
                    client.write(self._fail(error, "a file could not be read"))
                    return
                if not block:
                    return
                client.write(self._writer.block(block))
                while client.unsent and not client.gone:
                    await client.await_room()
                    client.flush()
                self._size += 0 if client.unsent else len(block)
        finally:
            file.close()


def _nothing() -> None:
    pass
