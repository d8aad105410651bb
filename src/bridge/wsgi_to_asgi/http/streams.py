"""What an environ holds of our own: `wsgi.input`, `wsgi.errors`, `wsgi.file_wrapper`, `bridge.disconnected`."""

import contextlib
import io
import math
import os
import shutil
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, Self

from bridge.runtime import Loop
from bridge.types import Environ
from bridge.wsgi_to_asgi.http.hop import Exchange

# A block costs a hop, so files go out in large ones, whatever block size the app suggests.
_BLOCK_SIZE = 64 * 1024
# Beyond this a spooled body goes to disk.
_SPOOL_LIMIT = 1024 * 1024


class RequestStream(io.RawIOBase):
    """A request body that arrives block by block; `io.BufferedReader` makes `wsgi.input` of it.

    `next_block` waits for the next block and returns b"" at the end; it raises
    ClientDisconnected where the client left before that.
    """

    def __init__(self, next_block: Callable[[], bytes]) -> None:
        self._next_block = next_block
        self._block = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if not self._block:
            self._block = memoryview(self._next_block())
        size = min(len(buffer), len(self._block))
        buffer[:size] = self._block[:size]
        self._block = self._block[size:]
        return size

    def readall(self) -> bytes:
        blocks = [bytes(self._block), *iter(self._next_block, b"")]
        self._block = memoryview(b"")
        return b"".join(blocks)


class LateInput:
    """`wsgi.input` where nothing announces a body: `make` makes the stream when it is first used, as most never are."""

    def __init__(self, make: Callable[[], BinaryIO]) -> None:
        self._make = make

    def _open(self) -> BinaryIO:
        stream: BinaryIO | None = vars(self).get("_stream")
        # At once, as another thread may be about to as well.
        return vars(self).setdefault("_stream", self._make()) if stream is None else stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._open(), name)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._open())

    def __next__(self) -> bytes:
        return next(self._open())

    def __enter__(self) -> BinaryIO:
        return self._open().__enter__()

    def __exit__(self, *exc_info: Any) -> None:
        self._open().close()


class ErrorStream:
    """`wsgi.errors`: sys.stderr, with escapes for what that cannot write (PEP 3333, environ Variables).

    There may be none (pythonw), or another in its place that raises where the interpreter's own escapes.
    """

    def write(self, text: str, /) -> None:
        if sys.stderr is not None:
            encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
            sys.stderr.write(text.encode(encoding, "backslashreplace").decode(encoding))

    def writelines(self, lines: Iterable[str], /) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if sys.stderr is not None:
            sys.stderr.flush()


class FileWrapper:
    """`wsgi.file_wrapper` (PEP 3333, Optional Platform-Specific File Handling).

    Only `read(size)` is asked of the file. `block_size` is a suggestion; blocks are no smaller
    than 64 KiB.

    It is its own iterator, and has the file's `seek`, `tell` and `seekable` if the file does:
    Werkzeug answers a Range header by `iter(wrapper).seek(start)`, and otherwise reads and drops
    all that comes before.
    """

    def __init__(self, filelike: Any, block_size: int = _BLOCK_SIZE, /) -> None:
        self._file = filelike
        self._block_size = max(block_size, _BLOCK_SIZE)
        if hasattr(filelike, "close"):
            self.close = filelike.close
        for name in ("seek", "tell", "seekable"):
            if hasattr(filelike, name):
                setattr(self, name, getattr(filelike, name))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        block: bytes = self._file.read(self._block_size)
        if not block:
            raise StopIteration
        return block

    def maybe_path(self, length: int | None) -> str | None:
        """Return the absolute path to send in the file's stead, if that would send the same.

        It would for a plain file at its start, of which `length`, if given, is the size, and
        whose name still leads to it. A file that decodes, or deletes itself, is not plain.
        """
        file = self._file
        if type(file) is not io.BufferedReader or type(file.raw) is not io.FileIO:
            return None
        try:
            name = os.path.abspath(os.fsdecode(file.name))
            name.encode()
            status = os.fstat(file.fileno())
            same = os.path.samestat(status, os.stat(name))
            at_start = file.tell() == 0
        except (OSError, TypeError, ValueError):  # of a descriptor without a name, say, or a name that is not UTF-8
            return None
        plain = stat.S_ISREG(status.st_mode)
        return name if same and at_start and plain and length in (None, status.st_size) else None


class Spool:
    """A queue of bytes on disk, for one thread that puts and one that takes; it closes once all of it was taken."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # close() is below
        self._lock = threading.Lock()
        self._taken = 0
        self.size = 0  # of the file, with what was taken

    @property
    def closed(self) -> bool:
        return self._file.closed

    def put(self, block: bytes) -> bool:
        """Add a block; return False if it is closed."""
        with self._lock:
            if self._file.closed:
                return False
            self._file.seek(self.size)
            self.size += self._file.write(block)
            return True

    def take(self) -> bytes:
        """Return what there is, up to 64 KiB; b"" if that is nothing."""
        with self._lock:
            if self._file.closed:
                return b""
            self._file.seek(self._taken)
            block = self._file.read(_BLOCK_SIZE)
            self._taken += len(block)
            if block and self._taken == self.size:
                self._file.close()  # which gives the disk space back
            return block

    def close(self) -> None:
        with self._lock:
            self._file.close()


@contextlib.contextmanager
def spooled_input(environ: Environ, wants_length: bool) -> Iterator[None]:
    """Read the body to its end, in memory up to 1 MiB and on disk beyond.

    With `wants_length` for a framework that reads by CONTENT_LENGTH only, which is set; a request
    without a body keeps its environ as it is. Else so that nobody who reads it need wait.
    """
    with tempfile.SpooledTemporaryFile(max_size=_SPOOL_LIMIT) as spool:
        shutil.copyfileobj(environ["wsgi.input"], spool, _BLOCK_SIZE)
        length = spool.tell()
        spool.seek(0)
        environ["wsgi.input"] = spool
        if wants_length and (length or "HTTP_TRANSFER_ENCODING" in environ):
            # What whoever decodes a body does (RFC 9112 7.1.3); Bottle would decode it once more.
            environ.pop("HTTP_TRANSFER_ENCODING", None)
            environ["CONTENT_LENGTH"] = str(length)
        yield


class Disconnected:
    """`environ["bridge.disconnected"]`: a `threading.Event`, as far as one may look at it.

    It is set once the client has left. Any thread may ask. The first to ask has the connection
    watched; a request that never asks pays nothing.
    """

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def is_set(self) -> bool:
        """Return whether the client has left."""
        self._exchange.watch()
        return self._exchange.gone

    def wait(self, timeout: float | None = None) -> bool:
        """Return True once the client has left; False after `timeout` seconds, or with the request."""
        exchange = self._exchange
        exchange.watch()
        exchange.sleep_while(
            lambda: not (exchange.gone or exchange.complete or exchange.finished),
            math.inf if timeout is None else timeout,
        )
        return exchange.gone


class LoopEvent(threading.Event):
    """The same of a WebSocket: an Event that `loop` sets, and on whose thread nobody waits for it."""

    def __init__(self, loop: Loop, name: str) -> None:
        super().__init__()
        self._loop = loop
        self._name = name

    def wait(self, timeout: float | None = None) -> bool:
        """Wait as any Event does. Raises WouldBlockLoop."""
        if (timeout is None or timeout > 0) and not self.is_set():
            self._loop.refuse_to_sleep(f"wait() for {self._name}")
        return super().wait(timeout)
