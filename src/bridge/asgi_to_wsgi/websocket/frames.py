"""The frames of a WebSocket, which wsproto parses and builds."""

from collections.abc import Callable, Iterator
from typing import Any

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.extensions import Extension

# How many bytes to parse at once if they may be compressed, because deflate can expand them a thousandfold.
_COMPRESSED_SLICE = 4 * 1024
# How many frames to parse before other tasks run, about 2 ms; a frame counts once more for each `_FRAME_SIZE` bytes.
_FRAMES = 128
_FRAME_SIZE = 16 * 1024


class Frames:
    """wsproto's connection, which parses what has arrived a part at a time. It waits for nothing."""

    def __init__(self, extensions: list[Extension]) -> None:
        self._connection = Connection(ConnectionType.SERVER, extensions)
        self.build: Callable[[Any], bytes] = self._connection.send  # returns the frame for one of wsproto's events
        self._slice = _COMPRESSED_SLICE if extensions else 0  # how many bytes to parse at once; 0 means all
        self._unparsed = b""

    @property
    def state(self) -> ConnectionState:
        return self._connection.state

    def add(self, data: bytes) -> None:
        """Add what has arrived from the client."""
        self._unparsed += data

    def discard(self) -> None:
        """Drop what has arrived and was not parsed."""
        self._unparsed = b""

    def parse(self) -> Iterator[Any]:
        """Yield wsproto's events until everything is parsed. Yield None before that if other tasks should run first.

        A frame without payload still takes about 20 us, and one read can hold a second's worth of them.
        """
        left = _FRAMES
        while True:
            for event in self._connection.events():
                yield event
                left -= 1 + len(getattr(event, "data", b"")) // _FRAME_SIZE
                if left <= 0:
                    yield None
                    return
            if not self._unparsed:
                return
            block = self._unparsed[: self._slice] if self._slice else self._unparsed
            self._unparsed = self._unparsed[len(block) :]
            self._connection.receive_data(block)
