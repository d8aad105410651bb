"""Run an asyncio protocol on a socket; on trio, by a transport over an anyio stream."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import anyio
import anyio.abc

from bridge.runtime import Change, Loop

_BLOCK_SIZE = 64 * 1024
# The high-water and low-water marks of asyncio's transports, in bytes.
_HIGH, _LOW = 64 * 1024, 16 * 1024


class Transport(Protocol):
    """The methods of asyncio's transports that a `WebSocketConnection` uses."""

    def write(self, block: bytes) -> None: ...

    def write_eof(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


class StreamTransport(Transport):
    """A `Transport` over an anyio stream. All of it runs on the loop.

    `run`, in a task, calls the protocol as asyncio does, and returns after `connection_lost`. The peer,
    `close`, `abort` and cancelling the task end its waits.
    """

    def __init__(self, stream: anyio.abc.SocketStream, protocol: asyncio.Protocol, loop: Loop) -> None:
        self._stream = stream
        self._protocol = protocol
        self._buffer = bytearray()
        self._scope = anyio.CancelScope()
        self._reading = True
        self._writing = True  # the protocol has not been told to pause writing
        self._eof = False
        self._closing = False
        self._change = Change(loop.event)

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
                    await self._change.wait()
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
                    await self._change.wait()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # the peer has left

    def write(self, block: bytes) -> None:
        self._buffer += block
        if self._writing and len(self._buffer) > _HIGH:
            self._writing = False
            self._protocol.pause_writing()
        self._change.notify_all()

    def write_eof(self) -> None:
        self._eof = True
        self._change.notify_all()

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._change.notify_all()

    def close(self) -> None:
        """Stop reading, and end once everything is written."""
        self._closing = True
        self._change.notify_all()

    def abort(self) -> None:
        """End at once."""
        self._scope.cancel()


async def run_on_socket(
    sock: socket.socket, protocol: asyncio.Protocol, loop: Loop, converse: Callable[[], Awaitable[None]]
) -> None:
    """Connect `protocol` with `sock`, and await `converse` while bytes move between the two.

    Raises OSError if the client has already left. The caller aborts the transport afterwards, which may still be open.
    """
    if loop.asyncio_loop is not None:
        await loop.asyncio_loop.connect_accepted_socket(lambda: protocol, sock)
        await converse()
    else:
        stream: Any = StreamTransport(await anyio.abc.SocketStream.from_socket(sock), protocol, loop)
        async with anyio.create_task_group() as tasks:
            protocol.connection_made(stream)
            tasks.start_soon(stream.run)
            await converse()
            stream.abort()
