"""The two iterables of a WSGI response: of blocks as they come, and of a file."""

from collections.abc import Callable, Iterator


class Blocks:
    """A response of more than one block; the server iterates it, and closes it whatever became of it.

    `next_block` waits for the next block, and returns None at the end.
    """

    _stop: Callable[[], None] | None = None  # until it is made, which an exception from without may cut short

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
        """End the response here, if it has not ended (PEP 3333, Specification Details)."""
        self._first = None
        if self._stop is not None:
            self._stop()

    __del__ = close  # for a server that forgets to


class File:
    """A file to send (http.response.pathsend): all of it, or the first `size` bytes. Raises OSError."""

    BLOCK_SIZE = 64 * 1024  # a block costs the server a turn of its loop

    def __init__(self, path: str) -> None:
        self.file = open(path, "rb")  # noqa: SIM115  # close() is below
        self.size: int | None = None

    def __iter__(self) -> Iterator[bytes]:
        left = self.size
        while block := self.file.read(self.BLOCK_SIZE if left is None else min(left, self.BLOCK_SIZE)):
            if left is not None:
                left -= len(block)
            yield block

    def close(self) -> None:
        self.file.close()
