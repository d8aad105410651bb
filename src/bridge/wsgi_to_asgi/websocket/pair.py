"""The socket pair between a WSGI app and the bridge, and the WebSocket client that the bridge plays on its end."""

import contextlib
import re
import selectors
import socket
import struct
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import anyio
from wsproto import ConnectionType, WSConnection
from wsproto import events as ws
from wsproto.connection import ConnectionState
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import RemoteProtocolError

from bridge.errors import AppProtocolError
from bridge.runtime import Loop

# How many bytes are read at once. Two such blocks may wait here, and about 200 KiB in the kernel's buffers.
_BLOCK_SIZE = 64 * 1024
_AT_ONCE: int = getattr(socket, "MSG_DONTWAIT", 0)  # Windows does not have it
_TEN_YEARS = 10 * 365 * 86400.0


class AppSocket(socket.socket):
    """The app's end: a blocking socket whose `send` and `sendall` are atomic between threads.

    When the kernel's buffers are full, parts of two calls may mix: simple-websocket's ping would land
    inside a message. The bridge closes this socket only when nobody refers to it any more, because a
    thread may be about to read, and the descriptor's number may by then be another file's.
    """

    def __init__(self, fileno: int, loop: Loop) -> None:
        super().__init__(fileno=fileno)
        self._loop = loop
        self._sending = threading.Lock()

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        self._refuse_to_sleep("recv", selectors.EVENT_READ)
        return super().recv(size, flags)

    def recv_into(self, buffer: Any, size: int = 0, flags: int = 0) -> int:
        self._refuse_to_sleep("recv_into", selectors.EVENT_READ)
        return super().recv_into(buffer, size, flags)

    def send(self, block: Any, flags: int = 0, /) -> int:
        self.sendall(block, flags)
        return memoryview(block).nbytes

    def sendall(self, block: Any, flags: int = 0, /) -> None:
        if not self._sending.acquire(blocking=False):
            self._loop.refuse_to_sleep("sendall() on a WebSocket's socket")
            self._sending.acquire()
        try:
            if self._loop.runs_here():
                self._send_or_refuse(block, flags)
            else:
                super().sendall(block, flags)
        finally:
            self._sending.release()

    def _send_or_refuse(self, block: Any, flags: int) -> None:
        rest = memoryview(block).cast("B")
        while rest:
            self._refuse_to_sleep("sendall", selectors.EVENT_WRITE)
            rest = rest[super().send(rest, flags | _AT_ONCE) :]

    def _refuse_to_sleep(self, method: str, event: int) -> None:
        """Raise WouldBlockLoop if the call would sleep on the loop's own thread."""
        if self._loop.runs_here() and self.gettimeout() != 0:
            with selectors.DefaultSelector() as selector:
                selector.register(self, event)
                if not selector.select(0):
                    self._loop.refuse_to_sleep(f"{method}() on a WebSocket's socket")

    def __del__(self) -> None:
        self.close()


def call_when_closed(loop: Loop, callback: Callable[[], None]) -> Callable[[], None]:
    """Call `callback` when the loop is closed, even if its tasks are dropped; return a function that cancels this.

    A closed asyncio loop drops its timers, and only a timer refers to `never`. Trio cancels its tasks instead.
    """
    if loop.asyncio_loop is None:
        return lambda: None

    def never() -> None: ...

    dropped = weakref.finalize(never, callback)
    dropped.atexit = False
    timer = weakref.ref(loop.asyncio_loop.call_later(_TEN_YEARS, never))

    def take_back() -> None:
        dropped.detach()
        if (handle := timer()) is not None:
            handle.cancel()

    return take_back


class BridgeSocket:
    """The bridge's end. All of it runs on the loop. One task may read, and any task may write.

    An asyncio loop watches the socket all the time, because starting and stopping that for each block
    makes an echo a third slower. A task that is cancelled in `read` loses nothing.
    """

    def __init__(self, sock: socket.socket, loop: Loop) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._loop = loop
        self._writing = anyio.Lock(fast_acquire=True)
        self._mid_block = False
        self._blocks: deque[bytes] = deque()
        self._event = loop.event()
        self._watched = self._watch()

    @property
    def mid_block(self) -> bool:
        """Whether a block is only partly written, so that nothing else may be written."""
        return self._mid_block

    async def read(self) -> bytes:
        """Wait for a block and return it; b"" at the end."""
        while not self._blocks:
            if self._watched:
                self._event = self._loop.event()
                await self._event.wait()
            else:
                await anyio.wait_readable(self._socket)
                self._take()
        block = self._blocks[0]
        if block:  # b"" stays, as the end
            self._blocks.popleft()
            if self._watched and len(self._blocks) == 1:
                self._watch()
        return block

    async def write(self, block: bytes) -> None:
        """Write all of `block`; wait while the app does not read."""
        rest = memoryview(block)
        if self._mid_block or (rest := self._send(rest)):
            async with self._writing:
                self._mid_block = True
                while rest := self._send(rest):
                    await anyio.wait_writable(self._socket)
                self._mid_block = False

    def _send(self, block: memoryview) -> memoryview:
        """Send what fits, and return the rest; b"" if the app can no longer read."""
        try:
            return block[self._socket.send(block) :]
        except BlockingIOError:
            return block
        except OSError:
            return block[:0]

    def write_eof(self) -> None:
        """End the stream to the app, which still reads what was written."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self, last: bytes) -> None:
        """Send `last` if it fits, then end both directions, which wakes all threads that sleep on the app's end."""
        if self._watched:
            self._unwatch()
            self._watched = False
        with contextlib.suppress(OSError):
            self._socket.send(last)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # close() alone would not, if a forked child holds a copy
        self._socket.close()

    def _watch(self) -> bool:
        """Make an asyncio loop call `_arrived` when there is something to read; return whether it can."""
        try:
            if self._loop.asyncio_loop is not None:
                self._loop.asyncio_loop.add_reader(self._socket, self._arrived)
                return True
        except NotImplementedError:  # from the proactor loop of Windows
            pass
        return False

    def _unwatch(self) -> None:
        if self._loop.asyncio_loop is not None and not self._loop.asyncio_loop.is_closed():
            self._loop.asyncio_loop.remove_reader(self._socket)

    def _arrived(self) -> None:
        self._take()
        self._event.set()
        if len(self._blocks) > 1 or (self._blocks and not self._blocks[-1]):
            self._unwatch()

    def _take(self) -> None:
        try:
            self._blocks.append(self._socket.recv(_BLOCK_SIZE))
        except BlockingIOError:
            pass
        except OSError:  # the app has closed its end before it read everything
            self._blocks.append(b"")


class PairClient:
    """The WebSocket client that the bridge plays on its end (RFC 6455)."""

    def __init__(self, subprotocols: list[str]) -> None:
        self._connection = WSConnection(ConnectionType.CLIENT)
        opening = self._connection.send(ws.Request("bridge", "/", subprotocols=subprotocols))
        key = re.search(rb"\r\nsec-websocket-key: *(\S+)\r\n", opening, re.IGNORECASE)
        assert key is not None
        self.key = key[1].decode()
        self._parts: list[str | bytes | bytearray] = []

    @property
    def is_open(self) -> bool:
        """Whether the handshake is done and no close frame was sent or received."""
        return self._connection.state is ConnectionState.OPEN

    def receive(self, block: bytes) -> Iterator[ws.Event | str | bytes]:
        """Yield the messages in `block` as str or bytes, and other events. Raises AppProtocolError."""
        try:
            self._connection.receive_data(block)
        except RemoteProtocolError as error:
            raise AppProtocolError(f"the app's WebSocket handshake is invalid: {error} (RFC 6455 4.2.2)") from error
        for event in self._connection.events():
            if isinstance(event, ws.Message):
                self._parts.append(event.data)
                if event.message_finished:
                    parts, self._parts = self._parts, []
                    yield _joined(parts)
            elif isinstance(event, ws.CloseConnection) and self.is_open:  # wsproto reports a violation as this
                raise AppProtocolError(f"the app broke the WebSocket protocol: {event.reason} (RFC 6455)")
            else:
                yield event

    def pong(self, ping: ws.Ping) -> bytes:
        """Return the frame that answers `ping`; b"" after a close frame."""
        return self._connection.send(ping.response()) if self.is_open else b""

    def closing_frame(self, code: int, reason: str) -> bytes:
        """Return a close frame, or b"" if none may be sent."""
        if self._connection.state not in (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING):
            return b""
        if code == CloseReason.NO_STATUS_RCVD:
            return self._connection.send(ws.CloseConnection(CloseReason.NO_STATUS_RCVD))
        return self._connection.send(ws.CloseConnection(code, reason or None))


def _joined(parts: list[str | bytes | bytearray]) -> str | bytes:
    """Join the parts of one message."""
    if isinstance(parts[0], str):
        return "".join(part for part in parts if isinstance(part, str))
    return b"".join(part for part in parts if not isinstance(part, str))


def client_frame(message: str | bytes) -> bytes:
    """Return a message as one client frame (RFC 6455 5.2).

    Clients must mask their frames (5.3), to protect proxies. There are none here, so the masking key is 0, which saves
    time and random numbers.
    """
    opcode, content = (1, message.encode()) if isinstance(message, str) else (2, message)
    if len(content) < 126:
        head = struct.pack("!BBI", 0x80 | opcode, 0x80 | len(content), 0)
    elif len(content) < 65536:
        head = struct.pack("!BBHI", 0x80 | opcode, 0x80 | 126, len(content), 0)
    else:
        head = struct.pack("!BBQI", 0x80 | opcode, 0x80 | 127, len(content), 0)
    return head + content
