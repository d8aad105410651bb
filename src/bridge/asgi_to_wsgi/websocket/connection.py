"""One open WebSocket: a transport's bytes on one side, whole messages on the other. It knows no app."""

import asyncio
import logging
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

from bridge.asgi_to_wsgi.servers import maybe_hang_up_check
from bridge.asgi_to_wsgi.websocket.options import WebSocketOptions
from bridge.asgi_to_wsgi.websocket.transport import StreamTransport
from bridge.errors import ClientDisconnected
from bridge.runtime import Event, Loop

_logger = logging.getLogger("bridge")

# How much may wait to be received, in bytes; a message counts for what is around it as well. Then
# nothing more is read until half of it is gone, and TCP slows the client down.
_LIMIT = 256 * 1024
_MESSAGE_SIZE = 256
# How much is parsed at once where it may be compressed: deflate makes up to a thousand times of it.
_COMPRESSED_SLICE = 4 * 1024
# How many messages are sent or received before others get their turn, where none of them waits.
_TURN = 32
# How many frames are parsed before that, some 2 ms; one counts once more for each so many bytes.
_FRAMES = 128
_FRAME_SIZE = 16 * 1024
# How often a client whose messages wait is looked after, in seconds: it may have hung up behind them.
_LOOK_AROUND = 1.0
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
        self._turn_due = False  # `_parse` will be called again
        self._beginning = bytearray()  # of a message in several frames
        self._inbox: deque[bytes | str] = deque()
        self._inbox_size = 0
        self._full = False  # and nothing is read until the app has received enough
        self._paused = False
        self._received = False  # the app has received something of late
        self._left = False  # the client has hung up behind what is not read
        self._socket: socket.socket | None = None
        self._writable = True
        self._turn = 0
        self._pong_due: Pong | None = None
        self._heard = False  # the client has said something of late
        self._deaf = False  # what the client says means nothing now
        self._closing = False  # the transport is

    async def run(self, sock: socket.socket, response: bytes, opened: Callable[[], object]) -> None:
        """Answer the handshake on `sock`, which is ours from now on, and keep the connection until it has ended."""
        self._socket = sock
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

    @property
    def over(self) -> bool:
        """Whether there is nobody to send to any more, though there may be something to receive."""
        return self.end is not None or self.lost

    async def receive(self) -> bytes | str | None:
        """Wait for the next message; return None at the end."""
        self._received = True
        self._turn = (self._turn + 1) % _TURN
        if self._turn == 0:
            await anyio.lowlevel.checkpoint()
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
        if self.over or self._left:
            raise ClientDisconnected
        self._write(TextMessage(payload) if isinstance(payload, str) else BytesMessage(payload))
        self._turn = (self._turn + 1) % _TURN
        if self._turn == 0:
            await anyio.lowlevel.checkpoint()
        while not (self._writable or self.over or self._left):
            await self.change.wait()

    def note_that_client_left(self) -> None:
        """Have sends fail, though the app may still receive what the client said last."""
        self._left = True
        self.change.tell()

    def close(self, code: int, reason: str = "") -> None:
        """Send a Close frame, if it is open; the answer to it, or the lack of one, ends the connection."""
        if self.end is not None:
            return
        if self.lost:
            self._deaf = True
        else:
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
        self._beginning = bytearray()
        if self.lost:
            return
        self._transport.write_eof()  # which reaches the client even if a child process holds a copy of the connection
        if at_once:
            self._closing = True
            self._transport.close()

    async def _keep_alive(self) -> None:
        """End what is silent, or has left: the last resort of every wait."""
        while not self.over:
            if self._full:
                await self._look_after_unread()
            elif not await self._within(self._options.ping_interval, lambda: self.over or self._full):
                await self._ping()
        await self._within(_CLOSE_TIMEOUT, lambda: self.lost)

    async def _ping(self) -> None:
        """Ping a client that was silent, and end it if it does not answer."""
        if not self._heard:
            self._write(Ping())
            if not await self._within(self._options.pong_timeout, lambda: self._heard or self.over):
                self.close(1011, "keepalive ping timeout")
        self._heard = False

    async def _look_after_unread(self) -> None:
        """Look out for a client that leaves while its messages wait: its pongs and its end stand behind them.

        Once it has, the app may receive what is there, but the connection does not wait for an app that does not.
        """
        has_hung_up = maybe_hang_up_check(self._socket)
        while not self.over and self._full:
            had_left = self._left
            self._received = False
            timeout = self._options.pong_timeout if had_left else _LOOK_AROUND
            if await self._within(timeout, lambda: self.over or not self._full):
                return
            if had_left and not self._received:
                self._transport.abort()
            elif not had_left and has_hung_up is not None and has_hung_up():
                self.note_that_client_left()

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
        self.lost = self._left = self._closing = True
        self.change.tell()
        self._parse()  # if that is the end of what there is, it is told

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
        """Parse what has come, as far as there is room for its messages; if that takes long, go on in another turn."""
        if self._turn_due:
            return
        more = not self._deaf and self._parse_for_a_turn()
        self._full = self._inbox_size >= _LIMIT and not self._deaf
        if self._full:
            self.change.tell()  # to look after it
        elif more:
            self._turn_due = True
            self._loop.call_next_turn(self._parse_on)
        elif self.lost:
            self._end(1006, "")
        paused = self._full or self._turn_due
        if paused != self._paused and not self._closing:
            self._paused = paused
            if paused:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _parse_on(self) -> None:
        self._turn_due = False
        try:
            self._parse()
        except Exception:
            _logger.exception("a WebSocket's frames could not be parsed")
            self._transport.abort()

    def _parse_for_a_turn(self) -> bool:
        """Parse until all is parsed, the inbox is full, or others are to have their turn; return whether there is more.

        A frame may have no payload, and still takes some 20 us: one read can hold a second's worth of them.
        """
        left = _FRAMES
        while True:
            for event in self._frames.events():
                left -= 1 + self._handle(event) // _FRAME_SIZE
                if self._deaf:
                    return False
                if left <= 0 or self._inbox_size >= _LIMIT:
                    return True
            if not self._unparsed:
                return False
            block = self._unparsed[: self._slice] if self._slice else self._unparsed
            self._unparsed = self._unparsed[len(block) :]
            self._frames.receive_data(block)

    def _handle(self, event: Any) -> int:
        """Do what a frame asks for; return how many bytes of a message it has."""
        if isinstance(event, (TextMessage, BytesMessage)):
            if self.end is None:
                self._join(event)
            return len(event.data)
        if isinstance(event, Ping):
            if self._left:
                pass  # to write to it would end the reading, too
            elif self.end is None and self._writable:
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
        return 0

    def _join(self, event: TextMessage | BytesMessage) -> None:
        """Put the frames of a message together as they come, and a whole one into the inbox."""
        part: Any = event.data
        is_text = isinstance(part, str)
        block = part if not is_text or part.isascii() else part.encode()  # as long as its bytes are
        if len(self._beginning) + len(block) > self._options.max_message_size:
            self._fail(1009, f"a message has at most {self._options.max_message_size} bytes here")
            return
        if not event.message_finished or self._beginning:
            self._beginning += part.encode() if is_text else part
            if not event.message_finished:
                return
            part = self._beginning.decode() if is_text else bytes(self._beginning)
            self._beginning = bytearray()
        self._inbox.append(part)
        self._inbox_size += _MESSAGE_SIZE + len(part)
        self._arrival.tell()

    def _write(self, event: Any) -> None:
        block = self._frames.send(event)
        if not self.lost:
            self._transport.write(block)
