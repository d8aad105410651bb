"""The objects in an environ: `wsgi.input`, `wsgi.errors`, `wsgi.file_wrapper`, `bridge.disconnected`."""

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

# The smallest block of a file, in bytes, because each block costs a hop.
_BLOCK_SIZE = 64 * 1024
# A spooled body above this size goes to disk, in bytes.
_SPOOL_LIMIT = 1024 * 1024


class RequestStream(io.RawIOBase):
    """A request body that arrives block by block, as a raw stream for `io.BufferedReader`.

    `next_block` waits for the next block, and returns b"" at the end. It raises ClientDisconnected if
    the client leaves before the end.
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
    """`wsgi.input` if no header announces a body: `make` makes the stream when the app first uses it, which few do."""

    def __init__(self, make: Callable[[], BinaryIO]) -> None:
        self._make = make

    def _open(self) -> BinaryIO:
        stream: BinaryIO | None = vars(self).get("_stream")
        # Atomic, because another thread may do the same.
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
    """`wsgi.errors`: sys.stderr, with escapes for characters that it cannot encode (PEP 3333, environ Variables).

    sys.stderr may be None (pythonw), or replaced by a stream that raises instead of escaping.
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

    The file needs only `read(size)`. `block_size` is a suggestion, in bytes; blocks are at least 64 KiB.

    It is its own iterator, and has `seek`, `tell` and `seekable` if the file has them, because Werkzeug
    answers a Range header by `iter(wrapper).seek(start)`, and otherwise reads all that comes before.
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
        """Return an absolute path that the server can send instead of the file, or None.

        The file must be a plain one at its start, its name must still refer to it, and its size must be
        `length`, if that is given. A file that decodes its content, or deletes itself, is not plain.
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
        except (OSError, TypeError, ValueError):  # the file may have no name, or one that is not UTF-8
            return None
        plain = stat.S_ISREG(status.st_mode)
        return name if same and at_start and plain and length in (None, status.st_size) else None


class Spool:
    """A queue of bytes on disk, for one thread that adds and one that takes. It closes once all of it is taken."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # close() is below
        self._lock = threading.Lock()
        self._taken = 0
        self.size = 0  # of the file in bytes, including what was taken

    @property
    def closed(self) -> bool:
        return self._file.closed

    def put(self, block: bytes) -> bool:
        """Add a block; return False if the spool is closed."""
        with self._lock:
            if self._file.closed:
                return False
            self._file.seek(self.size)
            self.size += self._file.write(block)
            return True

    def take(self) -> bytes:
        """Return up to 64 KiB, or b"" if there is nothing."""
        with self._lock:
            if self._file.closed:
                return b""
            self._file.seek(self._taken)
            block = self._file.read(_BLOCK_SIZE)
            self._taken += len(block)
            if block and self._taken == self.size:
                self._file.close()  # which frees the disk space
            return block

    def close(self) -> None:
        with self._lock:
            self._file.close()


@contextlib.contextmanager
def spooled_input(environ: Environ, wants_length: bool) -> Iterator[None]:
    """Read the whole request body, and make `wsgi.input` a file with it: in memory up to 1 MiB, on disk above.

    `wants_length` sets CONTENT_LENGTH as well, unless there is no body, for frameworks that read nothing
    without it.
    """
    with tempfile.SpooledTemporaryFile(max_size=_SPOOL_LIMIT) as spool:
        shutil.copyfileobj(environ["wsgi.input"], spool, _BLOCK_SIZE)
        length = spool.tell()
        spool.seek(0)
        environ["wsgi.input"] = spool
        if wants_length and (length or "HTTP_TRANSFER_ENCODING" in environ):
            # A recipient that decodes a body removes this header (RFC 9112 7.1.3); Bottle would decode it again.
            environ.pop("HTTP_TRANSFER_ENCODING", None)
            environ["CONTENT_LENGTH"] = str(length)
        yield


class Disconnected:
    """`environ["bridge.disconnected"]`: the `is_set` and `wait` of a `threading.Event`, for any thread.

    It is set once the client has left. The first call starts watching the client, so requests that never
    ask cost nothing extra.
    """

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def is_set(self) -> bool:
        """Return whether the client has left."""
        self._exchange.watch()
        return self._exchange.gone

    def wait(self, timeout: float | None = None) -> bool:
        """Return True once the client has left, or False after `timeout` seconds or at the end of the request."""
        exchange = self._exchange
        exchange.watch()
        exchange.sleep_while(
            lambda: not (exchange.gone or exchange.complete or exchange.finished),
            math.inf if timeout is None else timeout,
        )
        return exchange.gone


class LoopEvent(threading.Event):
    """An Event that `loop` sets, and that refuses to wait on that loop's thread; for WebSockets."""

    def __init__(self, loop: Loop, name: str) -> None:
        super().__init__()
        self._loop = loop
        self._name = name

    def wait(self, timeout: float | None = None) -> bool:
        """Wait as an Event does. Raises WouldBlockLoop on the loop's own thread."""
        if (timeout is None or timeout > 0) and not self.is_set():
            self._loop.refuse_to_sleep(f"wait() for {self._name}")
        return super().wait(timeout)
