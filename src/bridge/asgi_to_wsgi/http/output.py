"""What a detached response sends to its client: the head, the blocks of the body, files, and errors."""

import contextlib
import logging
import threading
import time

import anyio

from bridge.asgi_to_wsgi.http.client import Client
from bridge.asgi_to_wsgi.http.exchange import HTTPExchange
from bridge.asgi_to_wsgi.http.hop import LIMIT
from bridge.asgi_to_wsgi.http.place import Place
from bridge.asgi_to_wsgi.http.streams import File
from bridge.errors import AdapterClosed
from bridge.sansio.http1 import ResponseWriter, date_from_time
from bridge.sansio.request_name import request_name
from bridge.types import Headers

_logger = logging.getLogger("bridge")

# How many parts go into one system call at most: IOV_MAX is 1,024 on Linux.
_WRITE_PARTS = 1000
_ERROR_STATUS = "500 Internal Server Error"
_ERROR_BODY = b"Internal Server Error\n"
_ERROR_HEADERS: Headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(_ERROR_BODY)))]


class Output:
    """Takes what the app puts into the exchange's outbox, and writes it to the client; on the loop."""

    _status = ""  # of the head that was sent
    _size = 0  # bytes of body that the system has taken
    _unsent_size = 0  # of those of the outbox that it has not taken yet
    _complete = False
    _cut = False

    def __init__(
        self, exchange: HTTPExchange, client: Client, writer: ResponseWriter, place: Place, is_last: bool
    ) -> None:
        self.exchange = exchange  # whose response this is
        self._client = client
        self._writer = writer
        self._place = place
        self._is_last = is_last
        # Guards the head and the connection's end, because `fail` may come from a thread while the loop answers:
        self._lock = threading.Lock()

    def _lose(self) -> None:
        """Give up on the client; tell the app, unless the client has everything."""
        raise NotImplementedError

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
        """Count what has been sent; if it is enough, let the app send more."""
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
        if isinstance(error, AdapterClosed):
            what = "the event loop ended"
        when = f"in mid-response ({status[:3]})" if status else "before it answered"
        _logger.error("%s: %s %s", name, what, when, exc_info=error)
        if not self._begin(_ERROR_STATUS):
            self._cut = True
            return []
        self._complete = True
        self._is_last |= not isinstance(error.__cause__ or error, Exception)  # the loop may be dying: no time to wait
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

    def _answer_with_error(self) -> None:
        """Send 500 if nothing was sent, so that the client need not wait."""
        if not (self._status or self._client.gone):
            self._status = _ERROR_STATUS
            with contextlib.suppress(OSError):
                self._client.send_last(self._error())
