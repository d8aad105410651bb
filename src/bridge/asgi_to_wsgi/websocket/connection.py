"""One open WebSocket, which turns the bytes of a transport into whole messages, and back. It knows nothing of apps."""

import asyncio
import logging
import math
import socket
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.extensions import Extension

from bridge.asgi_to_wsgi.servers import maybe_hang_up_check
from bridge.asgi_to_wsgi.websocket.frames import Frames
from bridge.asgi_to_wsgi.websocket.inbox import Inbox
from bridge.asgi_to_wsgi.websocket.options import WebSocketOptions
from bridge.asgi_to_wsgi.websocket.transport import Transport, run_on_socket
from bridge.errors import ClientDisconnected
from bridge.runtime import Change, Loop

_logger = logging.getLogger("bridge")

# How many messages the app may send or receive without waiting before other tasks run.
_TURN = 32
# How often to check whether a client has hung up behind unread messages, in seconds.
_LOOK_AROUND = 1.0
# How long a client may take to answer a Close frame and to hang up, in seconds.
_CLOSE_TIMEOUT = 5.0


class WebSocketConnection(asyncio.Protocol):
    """One WebSocket after its handshake. All of it runs on the loop.

    `run` needs a task, and the transport calls the methods of `asyncio.Protocol`. `end` is the code
    and reason that the WebSocket ended with, or None while it is open. `lost` tells whether the
    connection has ended as well.

    The client ends each wait, by a frame or by leaving. So do `close`, and `_keep_alive`, which ends
    a connection that is silent for too long.
    """

    def __init__(self, loop: Loop, options: WebSocketOptions, extensions: list[Extension]) -> None:
        self.lost = False
        self.end: tuple[int, str] | None = None
        self.change = Change(loop.event)  # of `lost`, of `end`, and of whether there is room to send
        self._loop = loop
        self._options = options
        self._transport: Transport
        self._made = False  # there is a transport
        self._frames = Frames(extensions)
        self._inbox = Inbox(options.max_message_size, loop.event)
        self._turn_due = False  # `_parse` will be called again
        self._full = False  # the inbox is full, so nothing is read until the app has received enough
        self._paused = False
        self._received = False  # the app has received something since the last check
        self._left = False  # the client has hung up, although not everything has been read
        self._socket: socket.socket | None = None
        self._writable = True
        self._turn = 0
        self._pong_due: Pong | None = None
        self._heard = False  # the client has sent something since the last ping
        self._deaf = False  # ignore what the client sends
        self._closing = False  # the transport is closing

    async def run(self, sock: socket.socket, response: bytes, opened: Callable[[], object]) -> None:
        """Answer the handshake on `sock`, own it from now on, and run the connection until it has ended."""
        self._socket = sock

        async def converse() -> None:
            self._transport.write(response)
            opened()
            await self._keep_alive()

        try:
            await run_on_socket(sock, self, self._loop, converse)
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
        """Whether nothing can be sent any more, although messages may still wait to be received."""
        return self.end is not None or self.lost

    async def receive(self) -> bytes | str | None:
        """Wait for the next message; return None at the end."""
        self._received = True
        self._turn = (self._turn + 1) % _TURN
        if self._turn == 0:
            await anyio.lowlevel.checkpoint()
        while not self._inbox.messages:
            if self.end is not None:
                return None
            await self._inbox.arrival.wait()
        payload = self._inbox.take()
        if self._paused and self._inbox.has_room:
            self._parse()
        return payload

    async def send(self, payload: bytes | str) -> None:
        """Send a message, and wait while the client does not read. Raises ClientDisconnected after the end."""
        if self.over or self._left:
            raise ClientDisconnected
        self._write(TextMessage(payload) if isinstance(payload, str) else BytesMessage(payload))
        self._turn = (self._turn + 1) % _TURN
        if self._turn == 0:
            await anyio.lowlevel.checkpoint()
        while not (self._writable or self.over or self._left):
            await self.change.wait()

    def note_that_client_left(self) -> None:
        """Make sends fail, although the app may still receive what the client sent last."""
        self._left = True
        self.change.notify_all()

    def close(self, code: int, reason: str = "") -> None:
        """Send a Close frame if the WebSocket is open. The answer, or `_CLOSE_TIMEOUT`, ends the connection."""
        if self.end is not None:
            return
        if self.lost:
            self._deaf = True
        else:
            self._write(CloseConnection(code, reason))
            self._end(code, reason)
        self._inbox.clear()
        self._parse()  # the client's Close frame may follow messages that nobody will receive

    def _end(self, code: int, reason: str) -> None:
        if self.end is None:
            self.end = (int(code), reason)
        self.change.notify_all()
        self._inbox.arrival.notify_all()

    def _fail(self, code: int, reason: str) -> None:
        """Fail the connection, because the client broke the protocol (RFC 6455 7.1.7)."""
        if self._frames.state is ConnectionState.OPEN:
            self._write(CloseConnection(code, reason))
        self._end(code, reason)
        self._hang_up()

    def _hang_up(self, at_once: bool = False) -> None:
        """Ignore what the client still sends, and send an end of file; if `at_once`, close after that."""
        self._deaf = True
        self._frames.discard()
        self._inbox.drop_beginning()
        if self.lost:
            return
        self._transport.write_eof()  # this reaches the client even if a child process has inherited the socket
        if at_once:
            self._closing = True
            self._transport.close()

    async def _keep_alive(self) -> None:
        """End a connection whose client is silent or has left, so that every wait ends."""
        while not self.over:
            if self._full:
                await self._look_after_unread()
            elif not await self._within(self._options.ping_interval, lambda: self.over or self._full):
                await self._ping()
        await self._within(_CLOSE_TIMEOUT, lambda: self.lost)

    async def _ping(self) -> None:
        """Ping the client if it was silent, and close the WebSocket if it does not answer."""
        if not self._heard:
            self._write(Ping())
            if not await self._within(self._options.pong_timeout, lambda: self._heard or self.over):
                self.close(1011, "keepalive ping timeout")
        self._heard = False

    async def _look_after_unread(self) -> None:
        """While messages wait unread, check whether the client has left, because its pongs and its end come after them.

        Once it has, the app may receive those messages; but abort if it receives nothing within `pong_timeout`.
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
        """Wait up to `timeout` seconds until `condition` is true after a change; return whether it is."""
        with anyio.move_on_after(math.inf if timeout is None else timeout):
            while not condition():
                await self.change.wait()
        return bool(condition())

    # CALLED BY THE TRANSPORT

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._made = True

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = self._left = self._closing = True
        self.change.notify_all()
        self._parse()  # tells the app of the end, unless messages still wait

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        if self._pong_due is not None and self.end is None:
            self._write(self._pong_due)
        self._pong_due = None
        self.change.notify_all()

    def data_received(self, data: bytes) -> None:
        if not self._heard:
            self._heard = True
            self.change.notify_all()
        if not self._deaf:
            self._frames.add(data)
            self._parse()

    def _parse(self) -> None:
        """Parse what has arrived while the inbox has room. If that takes long, let other tasks run before the rest."""
        if self._turn_due:
            return
        more = not self._deaf and self._parse_for_a_turn()
        self._full = self._inbox.full and not self._deaf
        if self._full:
            self.change.notify_all()  # so that `_keep_alive` checks for a client that leaves
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
        """Parse until everything is parsed, the inbox is full, or others should run; return whether more is left."""
        for event in self._frames.parse():
            if event is None:
                return True
            self._handle(event)
            if self._deaf:
                return False
            if self._inbox.full:
                return True
        return False

    def _handle(self, event: Any) -> None:
        if isinstance(event, (TextMessage, BytesMessage)):
            if self.end is None and not self._inbox.add(event):
                self._fail(1009, f"messages may have at most {self._options.max_message_size} bytes")
        elif isinstance(event, Ping):
            if self._left:
                pass  # writing to a client that has left would end reading, too
            elif self.end is None and self._writable:
                self._write(event.response())
            else:
                self._pong_due = event.response()  # only the latest needs an answer (RFC 6455 5.5.3)
        elif isinstance(event, CloseConnection):
            if self._frames.state is ConnectionState.REMOTE_CLOSING:
                self._write(event.response())
                self._end(event.code, event.reason or "")
            if self._frames.state is ConnectionState.CLOSED:
                self._hang_up(at_once=True)
            else:  # wsproto reports a client that broke the protocol like this
                self._fail(event.code, event.reason or "")

    def _write(self, event: Any) -> None:
        block = self._frames.build(event)
        if not self.lost:
            self._transport.write(block)
