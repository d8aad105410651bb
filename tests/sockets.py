"""What test clients do on their sockets."""

import contextlib
import socket
import struct
from typing import Any

import pytest

from wsgi_asgi_conformance.frames import CONTINUATION, PING, TEXT, Frame, client_frame, maybe_frame

# Frames of clients that break RFC 6455, and the code of the Close frame that they get.
BROKEN_FRAMES = [
    pytest.param(client_frame(TEXT, b"\xff"), 1007, id="UTF-8"),
    pytest.param(client_frame(TEXT, b"x", masked=False), 1002, id="unmasked"),
    pytest.param(client_frame(TEXT, b"x", rsv=4), 1002, id="RSV"),
    pytest.param(client_frame(CONTINUATION, b"x"), 1002, id="continuation first"),
    pytest.param(client_frame(PING, b"x" * 126), 1002, id="long ping"),
]


def read_until(connection: socket.socket, end: bytes) -> bytes:
    """Read until `end` has arrived, and return everything that was read."""
    received = b""
    while end not in received:
        block = connection.recv(65_536)
        assert block, f"the connection ended before {end!r}: {received!r:.500}"
        received += block
    return received


def read_all(connection: socket.socket) -> bytes:
    """Return what the server sends before it closes or resets the connection."""
    blocks = []
    with contextlib.suppress(ConnectionError):
        while block := connection.recv(1 << 20):
            blocks.append(block)
    return b"".join(blocks)


def reset(connection: socket.socket) -> None:
    """Reset the connection, as a killed client does: the server gets RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class FrameClient:
    """A WebSocket client that sends any frame, legal or not."""

    socket: socket.socket
    unread: bytes

    def send(self, opcode: int, payload: bytes = b"", **how: Any) -> None:
        self.socket.sendall(client_frame(opcode, payload, **how))

    def receive(self) -> Frame:
        """Return the next frame."""
        while (parsed := maybe_frame(self.unread)) is None:
            block = self.socket.recv(1 << 20)
            assert block, f"the server hung up after {self.unread!r}"
            self.unread += block
        frame, self.unread = parsed
        return frame

    def rest(self) -> bytes:
        """Return what the server sends before it hangs up."""
        self.unread += read_all(self.socket)
        return self.unread
