"""Read the request body from a WSGI server, for the app on the loop."""

import time
from typing import Any

from bridge.errors import ClientDisconnected, ServerProtocolError
from bridge.types import Environ

# How many bytes of a body to read at once, which is the high-water mark of asyncio's transports and of uvicorn.
_BLOCK_SIZE = 64 * 1024
# The size doubles up to this while each block takes less than `_WITHOUT_WAITING` seconds, because each costs a hop.
_LARGEST_BLOCK = 512 * 1024
_WITHOUT_WAITING = 0.002


class RequestBody:
    """Reads `wsgi.input`, but never beyond the body's end (PEP 3333, Input and Error Streams).

    All of it runs in the request's WSGI thread. `remaining` is how many bytes are left, or None for a
    stream that ends by itself. Without CONTENT_LENGTH there is no body, unless the server sets
    `wsgi.input_terminated`.
    """

    def __init__(self, environ: Environ) -> None:
        self.remaining: int | None = None
        self._block_size = _BLOCK_SIZE
        self._environ = environ
        self._input: Any = environ.get("wsgi.input")
        length = environ.get("CONTENT_LENGTH")
        if length not in (None, ""):
            self.remaining = self._length = int(length)
        elif not environ.get("wsgi.input_terminated"):
            self.remaining = 0

    def maybe_at_once(self) -> tuple[bytes, bool] | None:
        """Read a small body before the app starts, because that saves a hop.

        Return the first block and whether more may follow, or None if the app has to ask for the body.
        Raises like `read`.
        """
        remaining = self.remaining
        if remaining == 0:
            return b"", False
        if str(self._environ.get("HTTP_EXPECT")).lower() == "100-continue":
            return None  # the client sends the body only once the app asks (RFC 9110 10.1.1)
        if not hasattr(self._input, "read"):
            raise ServerProtocolError("environ has no wsgi.input to read the body from (PEP 3333, environ Variables)")
        if remaining is None:
            # The stream ends by itself, which does not tell whether there is a body. Only for a chunked one do we wait.
            return None if "HTTP_TRANSFER_ENCODING" in self._environ else self.read()
        if remaining > _BLOCK_SIZE:
            return None
        blocks = []
        while self.remaining:
            blocks.append(self.read()[0])
        return b"".join(blocks), False

    def read(self) -> tuple[bytes, bool]:
        """Wait for a block; return it and whether more may follow.

        Raises ClientDisconnected if the body ends too early, ServerProtocolError if it is not bytes, and what the
        server raises.
        """
        remaining = self.remaining
        size = self._block_size
        start = time.monotonic()
        block: bytes = self._input.read(size if remaining is None else min(size, remaining))
        if not isinstance(block, (bytes, bytearray, memoryview)):
            raise ServerProtocolError(
                f"wsgi.input.read() must return bytes, got {type(block).__name__} (PEP 3333, Input and Error Streams)"
            )
        at_once = time.monotonic() - start < _WITHOUT_WAITING
        self._block_size = min(2 * size, _LARGEST_BLOCK) if at_once else _BLOCK_SIZE
        if remaining is None:
            return bytes(block), bool(block)
        if not block:
            raise ClientDisconnected(
                f"the request body ended after {self._length - remaining} of {self._length} bytes: "
                "the client left, or the body was read before"
            )
        self.remaining = remaining - len(block)
        return bytes(block), self.remaining > 0
