"""The client of a detached response: our end of its connection, on the private loop."""

import array
import contextlib
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import anyio

from bridge.runtime import Event, Loop, Readers, task_group_reading

try:
    import fcntl
    import termios
except ModuleNotFoundError:  # Windows, where no connection is taken
    fcntl = termios = None  # type: ignore[assignment]

# A client that reads nothing of what waits for it counts as gone after this many seconds.
STALL_TIMEOUT = 60.0
# How long a client that has everything may take to hang up, in seconds.
_LINGER = 2.0
_BLOCK_SIZE = 64 * 1024


class Client:
    """Writes to the client, and notices when the client has left. It belongs to the loop.

    Who ends each wait: the client, by reading or by leaving; `STALL_TIMEOUT`, if it does neither; and
    the loop, which cancels the task that waits.
    """

    gone = False  # the client has left, or has read nothing for too long

    _left: Callable[[], object]  # while we read

    def __init__(self, sock: socket.socket, loop: Loop) -> None:
        """`sock` is ours from now on, and does not block."""
        self.unsent: deque[memoryview] = deque()  # what the system has not taken yet
        self._socket = sock
        self._loop = loop
        self._event: Event | None = None
        self._room: anyio.CancelScope | None = None  # while we wait for room
        self._watching: Readers | None = None

    def write(self, parts: Iterable[bytes]) -> None:
        """Have the system take `parts`, or as much of them as it has room for now. Raises OSError."""
        self.unsent.extend(memoryview(part) for part in parts if part)
        self.flush()

    def flush(self) -> None:
        """Have the system take as much of `unsent` as it has room for now. Raises OSError."""
        unsent = self.unsent
        while unsent:
            try:
                sent = self._socket.sendmsg(unsent)
            except BlockingIOError:
                return
            while unsent and sent >= len(unsent[0]):
                sent -= len(unsent.popleft())
            if unsent:
                unsent[0] = unsent[0][sent:]

    async def await_room(self) -> None:
        """Wait until there is room to write, or `give_up`. Raises TimeoutError if the client does not read.

        The system reports room only once there is much of it, so we recognise a slow reader by the shrinking number of
        unsent bytes.
        """
        unsent = _unsent(self._socket)
        while not self.gone:
            with anyio.move_on_after(STALL_TIMEOUT) as self._room:
                await anyio.wait_writable(self._socket)
                return
            before, unsent = unsent, _unsent(self._socket)
            if unsent >= before and not self.gone:
                raise TimeoutError(f"the client has read nothing for {STALL_TIMEOUT:g} seconds")

    def give_up(self) -> None:
        """Treat the client as gone, so that nothing waits for it. Idempotent."""
        self.gone = True
        if self._room is not None:
            self._room.cancel()

    def watch(self, left: Callable[[], object]) -> None:
        """Call `left` if the client leaves, until `close`, and drop what it sends; on asyncio."""
        # Set this late: it makes a reference cycle, and if an exception loses the response before it runs, only the
        # garbage collector would close its connection.
        self._left = left
        self._watching = self._loop.readers()
        self._watching.add(self._socket.fileno(), self._read)

    def reading(self, left: Callable[[], object]) -> contextlib.AbstractAsyncContextManager[None]:
        """Do the same during a block, on trio; do nothing where `watch` does it."""
        if self._watching is not None:
            return contextlib.nullcontext()
        self._left = left
        return task_group_reading(self._socket, self._read)

    def _read(self) -> bool:
        """Drop what the client has sent; return whether it is still there. One that only half-closes counts as gone."""
        try:
            if self._socket.recv(_BLOCK_SIZE):
                return True
        except BlockingIOError:
            return True  # there was nothing to read
        except OSError:
            pass
        self.gone = True
        self._left()
        if self._event is not None:
            self._event.set()
        return False

    async def let_hang_up(self) -> None:
        """Wait until the client has everything, and then a moment for it to close.

        If we closed while something of the client's is unread, the system would reset the connection, and the client
        would lose what it has not read.
        """
        self._socket.shutdown(socket.SHUT_WR)
        unsent, since = _unsent(self._socket), time.monotonic()
        while True:
            self._event = self._loop.event()
            await self._loop.wait(self._event, _LINGER)
            if self.gone:
                return
            before, unsent = unsent, _unsent(self._socket)
            if unsent < before:
                since = time.monotonic()
            if not before or time.monotonic() - since > STALL_TIMEOUT:
                return

    # IN ANY THREAD

    def send_last(self, data: bytes) -> None:
        """Send `data` if the system has room for it, and nothing after that. Raises OSError."""
        if data:
            self._socket.send(data)
        self.cut()

    def cut(self) -> None:
        """End the connection for both sides, so that whoever waits for it notices."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def cut_before_reset(self) -> None:
        """Wake the loop, which then closes with a reset; until then the client notices nothing.

        `cut` would send an end, which the client would take for the end of the body.
        """
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)

    def close(self, reset: bool = False) -> None:
        """Close the connection. A `reset` tells the client that the response is incomplete."""
        if reset:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if self._watching is not None:
            self._watching.remove(self._socket.fileno())
        self._socket.close()
        self._left = _nothing  # otherwise a reference cycle would wait for the garbage collector


def _nothing() -> None:
    pass


def _unsent(sock: socket.socket) -> int:
    """Return how many bytes the client has not acknowledged; 0 where the system does not tell."""
    number: Any = array.array("i", [0])
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.ioctl(sock, termios.TIOCOUTQ, number)
    return int(number[0])
