"""What an asyncio transport is to its protocol, over an anyio stream: for trio, which has none."""

import asyncio

import anyio
import anyio.abc

from bridge.runtime import Event, Loop

_BLOCK_SIZE = 64 * 1024
# The high-water mark of asyncio's transports, and their low-water mark.
_HIGH, _LOW = 64 * 1024, 16 * 1024


class StreamTransport:
    """The methods of asyncio's transports that a `WebSocketSession` uses; all of it on the loop.

    `run` is its task: it calls the protocol, as asyncio does, and ends after `connection_lost`. Who
    ends its waits: the peer, `close` and `abort`, or whoever cancels the task.
    """

    def __init__(self, stream: anyio.abc.SocketStream, protocol: asyncio.Protocol, loop: Loop) -> None:
        self._stream = stream
        self._protocol = protocol
        self._loop = loop
        self._buffer = bytearray()
        self._scope = anyio.CancelScope()
        self._reading = True
        self._writing = True  # the protocol has not been told to pause
        self._eof = False
        self._closing = False
        self._changed: Event = loop.event()

    async def run(self) -> None:
        """Read and write until the connection has ended."""
        try:
            with self._scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._read)
                    await self._write()
                    tasks.cancel_scope.cancel()
        finally:
            self._closing = True
            try:
                await anyio.aclose_forcefully(self._stream)
            finally:
                self._protocol.connection_lost(None)

    async def _read(self) -> None:
        try:
            while not self._closing:
                if self._reading:
                    self._protocol.data_received(await self._stream.receive(_BLOCK_SIZE))
                else:
                    await self._changed.wait()
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            self.close()

    async def _write(self) -> None:
        try:
            while True:
                if self._buffer:
                    block = bytes(self._buffer[:_BLOCK_SIZE])
                    await self._stream.send(block)
                    del self._buffer[: len(block)]
                    if not self._writing and len(self._buffer) <= _LOW:
                        self._writing = True
                        self._protocol.resume_writing()
                elif self._closing:
                    return
                elif self._eof:
                    self._eof = False
                    await self._stream.send_eof()
                else:
                    await self._changed.wait()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # the peer has gone

    def write(self, block: bytes) -> None:
        self._buffer += block
        if self._writing and len(self._buffer) > _HIGH:
            self._writing = False
            self._protocol.pause_writing()
        self._tell()

    def write_eof(self) -> None:
        self._eof = True
        self._tell()

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._tell()

    def close(self) -> None:
        """End once all is written; read no more."""
        self._closing = True
        self._tell()

    def abort(self) -> None:
        """End at once."""
        self._scope.cancel()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = self._loop.event()
