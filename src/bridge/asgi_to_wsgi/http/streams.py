"""The two iterables of a WSGI response: blocks as they arrive, and a file."""

import io
import os
from collections.abc import Callable, Iterator

from bridge.errors import AppProtocolError
from bridge.sansio.body_length import BodyLength
from bridge.types import Message


class Blocks:
    """A response of more than one block. The server iterates it, and closes it however that ends.

    `next_block` waits for the next block, and returns None at the end. `stop` ends the response.
    """

    _stop: Callable[[], None] | None = None  # for __del__, if an asynchronous exception cuts __init__ short

    def __init__(self, first: bytes, next_block: Callable[[], bytes | None], stop: Callable[[], None]) -> None:
        self._first: bytes | None = first
        self._next_block = next_block
        self._stop = stop

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        block, self._first = self._first, None
        if block is None:
            block = self._next_block()
            if block is None:
                raise StopIteration
        return block

    def close(self) -> None:
        """End the response, if it has not ended (PEP 3333, Specification Details)."""
        self._first = None
        if self._stop is not None:
            self._stop()

    __del__ = close  # for servers that do not call close()


class _Beginning(io.BufferedReader):
    """A file whose `read` returns at most the first `size` bytes, if `size` is set."""

    size: int | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        if self.size is None:
            return super().read(size)
        left = max(0, self.size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


class File:
    """A file to send (http.response.pathsend), which may change meanwhile. Raises OSError.

    Iterating it raises AppProtocolError if the file has become shorter than the Content-Length.
    """

    BLOCK_SIZE = 64 * 1024  # large, because each block costs the server a turn of its loop

    def __init__(self, path: str) -> None:
        self.file = _Beginning(io.FileIO(path))  # close() is below
        self.whole = True  # the Content-Length, if any, was the file's size when it was opened

    def __iter__(self) -> Iterator[bytes]:
        file = self.file
        while block := file.read(self.BLOCK_SIZE):
            yield block
        if file.size is not None and file.tell() < file.size:
            raise AppProtocolError(
                f"the app declared a Content-Length of {file.size}, but its file has shrunk to {file.tell()} bytes"
            )

    def close(self) -> None:
        self.file.close()


def open_from_pathsend(message: Message, length: BodyLength) -> File | bytes:
    """Open the file that an http.response.pathsend names; return b"" for a response without a body.

    Raises AppProtocolError for a relative path, or for a file that is shorter than the Content-Length, and OSError.
    """
    path = message.get("path")
    if not isinstance(path, str) or not os.path.isabs(path):
        raise AppProtocolError(f"http.response.pathsend needs an absolute path, got {path!r:.200} (docs/extensions)")
    file = File(path)
    size = os.fstat(file.file.fileno()).st_size
    if length.bodiless:
        file.close()
        return b""
    if length.declared is not None and length.declared > size:
        file.close()
        raise AppProtocolError(f"the app declared a Content-Length of {length.declared}, but its file has {size} bytes")
    file.file.size = length.declared
    file.whole = length.declared in (None, size)
    return file
