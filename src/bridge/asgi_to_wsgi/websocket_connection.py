"""One open WebSocket: a transport's bytes on one side, whole messages on the other. It knows no app."""

import asyncio
import math
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import anyio
import anyio.abc
import anyio.lowlevel
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.extensions import Extension

from bridge.asgi_to_wsgi.transport import StreamTransport
from bridge.asgi_to_wsgi.websocket import WebSocketOptions
from bridge.errors import ClientDisconnected
from bridge.runtime import Event, Loop

# How much may wait to be received, in bytes; a message counts for what is around it as well. Then
# nothing more is read until half of it is gone, and TCP slows the client down.
_LIMIT = 256 * 1024
_MESSAGE_SIZE = 256
# How much is parsed at once where it may be compressed: deflate makes up to a thousand times of it.
_COMPRESSED_SLICE = 4 * 1024
# How many messages are sent before others get their turn, where none of them waits.
_TURN = 32
# How long a client may take to answer a Close frame, and to hang up, in seconds.
_CLOSE_TIMEOUT = 5.0


class Transport(Protocol):
    """What is asked of a connection: a part of what asyncio's transports do."""

    def write(self, block: bytes) -> None: ...

    def write_eof(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


class Change:
    """What tasks wait on until something has changed; on the loop."""

    def __init__(self, loop: Loop) -> None:
        self._event = loop.event
        self._waiters: list[Event] = []

    async def wait(self) -> None:
        event = self._event()
        self._waiters.append(event)
        try:
            await event.wait()
        except BaseException:  # given up: a receive() in a task of its own, say
            if event in self._waiters:
                self._waiters.remove(event)
            raise

    def tell(self) -> None:
        for event in self._waiters:
            event.set()
        self._waiters.clear()


class WebSocketConnection(asyncio.Protocol):
    """One WebSocket whose handshake is answered; all of it on the loop.

    `run` is its task, and the transport calls the methods of `asyncio.Protocol`. `end` is the code
    and reason that it ended with, None while it is open; `lost` tells whether the connection is
    gone as well.

    Who ends each wait: the client, by its frames or by leaving; `close`; and `_keep_alive`, which
    ends what is silent for too long.
    """

    def __init__(self, loop: Loop, options: WebSocketOptions, extensions: list[Extension]) -> None:
        self.lost = False
        self.end: tuple[int, str] | None = None
        self.change = Change(loop)  # of the two above, and of whether there is room to send
        self._arrival = Change(loop)
        self._loop = loop
        self._options = options
        self._transport: Transport
        self._made = False  # there is a transport
        self._frames = Connection(ConnectionType.SERVER, extensions)
        self._slice = _COMPRESSED_SLICE if extensions else 0  # how much is parsed at once; 0 is all
        self._unparsed = b""
        self._parts: list[Any] = []  # of a message in several frames
        self._size = 0
        self._inbox: deque[bytes | str] = deque()
        self._inbox_size = 0
        self._paused = False
        self._writable = True
        self._turn = 0
        self._pong_due: Pong | None = None
        self._heard = False  # the client has said something of late
        self._deaf = False  # what the client says means nothing now
        self._closing = False  # the transport is

    async def run(self, sock: socket.socket, response: bytes, opened: Callable[[], object]) -> None:
        """Answer the handshake on `sock`, which is ours from now on, and keep the connection until it has ended."""
        try:
            if self._loop.asyncio_loop is not None:
                await self._loop.asyncio_loop.connect_accepted_socket(lambda: self, sock)
                self._transport.write(response)
                opened()
                await self._keep_alive()
            else:
                stream = StreamTransport(await anyio.abc.SocketStream.from_socket(sock), self, self._loop)
                self.connection_made(stream)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(stream.run)
                    stream.write(response)
                    opened()
                    await self._keep_alive()
                    stream.abort()
        except OSError:
            pass  # the client has left
        finally:
            if self._made:
                self._transport.abort()
            else:
                sock.close()
            self.connection_lost(None)

    async def receive(self) -> bytes | str | None:
        """Wait for the next message; return None at the end."""
        while not self._inbox:
            if self.end is not None:
                return None
            await self._arrival.wait()
        payload = self._inbox.popleft()
        self._inbox_size -= _MESSAGE_SIZE + len(payload)
        if self._paused and self._inbox_size <= _LIMIT // 2:
            self._parse()
        return payload

    async def send(self, payload: bytes | str) -> None:
        """Send a message; wait while the client does not read. Raises ClientDisconnected after the end."""
        if self.end is not None:
            raise ClientDisconnected
        self._write(TextMessage(payload) if isinstance(payload, str) else BytesMessage(payload))
        self._turn = (self._turn + 1) % _TURN
        if self._turn == 0:
            await anyio.lowlevel.checkpoint()
        while not self._writable and self.end is None:
            await self.change.wait()

    def close(self, code: int, reason: str = "") -> None:
        """Send a Close frame, if it is open; the answer to it, or the lack of one, ends the connection."""
        if self.end is None:
            self._write(CloseConnection(code, reason))
            self._end(code, reason)
            self._inbox.clear()
            self._inbox_size = 0
            self._parse()  # the answer may stand behind what nobody has received

    def _end(self, code: int, reason: str) -> None:
        if self.end is None:
            self.end = (int(code), reason)
        self.change.tell()
        self._arrival.tell()

    def _fail(self, code: int, reason: str) -> None:
        """End a connection on which the client broke the protocol (RFC 6455 7.1.7)."""
        if self._frames.state is ConnectionState.OPEN:
            self._write(CloseConnection(code, reason))
        self._end(code, reason)
        self._hang_up()

    def _hang_up(self, at_once: bool = False) -> None:
        """Have the client hang up, or do so at once, when all is written; what it still says means nothing."""
        self._deaf = True
        self._unparsed = b""
        self._parts.clear()
        self._transport.write_eof()  # which reaches the client even if a child process holds a copy of the connection
        if at_once:
            self._closing = True
            self._transport.close()

    async def _keep_alive(self) -> None:
        """Ping a client that is silent, and end what does not answer: the last resort of every wait."""
        options = self._options
        while not await self._within(options.ping_interval, lambda: self.end):
            if self._heard or self._paused:  # while paused, a pong would stand behind what is not received
                self._heard = False
                continue
            self._write(Ping())
            if not await self._within(options.pong_timeout, lambda: self._heard or self.end):
                self.close(1011, "keepalive ping timeout")
            self._heard = False
        await self._within(_CLOSE_TIMEOUT, lambda: self.lost)

    async def _within(self, timeout: float | None, condition: Callable[[], object]) -> bool:
        """Wait up to `timeout` seconds for a change that makes `condition` true; return whether it is."""
        with anyio.move_on_after(math.inf if timeout is None else timeout):
            while not condition():
                await self.change.wait()
        return bool(condition())

    # WHAT THE TRANSPORT TELLS

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._made = True

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self._end(1006, "")

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        if self._pong_due is not None and self.end is None:
            self._write(self._pong_due)
        self._pong_due = None
        self.change.tell()

    def data_received(self, data: bytes) -> None:
        if not self._heard:
            self._heard = True
            self.change.tell()
        if not self._deaf:
            self._unparsed += data
            self._parse()

    def _parse(self) -> None:
        """Parse what has come, as far as there is room for its messages."""
        while self._unparsed and self._inbox_size < _LIMIT:
            block = self._unparsed[: self._slice] if self._slice else self._unparsed
            self._unparsed = self._unparsed[len(block) :]
            self._frames.receive_data(block)
            for event in self._frames.events():
                self._handle(event)
        paused = self._inbox_size >= _LIMIT
        if paused != self._paused and not self._closing:
            self._paused = paused
            if paused:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _handle(self, event: Any) -> None:
        if isinstance(event, (TextMessage, BytesMessage)):
            if self.end is None:
                self._join(event)
        elif isinstance(event, Ping):
            if self.end is None and self._writable:
                self._write(event.response())
            else:
                self._pong_due = event.response()  # the latest is enough (RFC 6455 5.5.3)
        elif isinstance(event, CloseConnection):
            if self._frames.state is ConnectionState.REMOTE_CLOSING:
                self._write(event.response())
                self._end(event.code, event.reason or "")
            if self._frames.state is ConnectionState.CLOSED:
                self._hang_up(at_once=True)
            else:  # this is how wsproto tells of a client that broke the protocol
                self._fail(event.code, event.reason or "")

    def _join(self, event: TextMessage | BytesMessage) -> None:
        """Put the frames of a message together, and a whole one into the inbox."""
        part: Any = event.data
        self._size += len(part) if isinstance(part, bytes) or part.isascii() else len(part.encode())
        if self._size > self._options.max_message_size:
            self._fail(1009, f"a message has at most {self._options.max_message_size} bytes here")
            return
        if not event.message_finished:
            self._parts.append(part)
            return
        if self._parts:
            self._parts.append(part)
            part = type(part)().join(self._parts)
            self._parts.clear()
        self._size = 0
        self._inbox.append(part)
        self._inbox_size += _MESSAGE_SIZE + len(part)
        self._arrival.tell()

    def _write(self, event: Any) -> None:
        self._transport.write(self._frames.send(event))
