"""WebSocket frames, valid and invalid, built and parsed by hand (RFC 6455 5.2)."""

import struct
from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
KEY = "AAAAAAAAAAAAAAAAAAAAAA=="
ACCEPT = "ICX+Yqv66kxgM0FcWaLWlFLwTAI="


class Frame(NamedTuple):
    opcode: int
    payload: bytes
    fin: bool = True


def client_frame(opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, rsv: int = 0) -> bytes:
    """Return a frame as a client sends it; it may be invalid."""
    size = len(payload)
    head = bytes([0x80 * fin | rsv << 4 | opcode])
    bit = 0x80 * masked
    if size < 126:
        head += bytes([bit | size])
    elif size < 65_536:
        head += struct.pack("!BH", bit | 126, size)
    else:
        head += struct.pack("!BQ", bit | 127, size)
    if not masked:
        return head + payload
    mask = b"\x01\x02\x03\x04"
    key = int.from_bytes(mask * (size // 4 + 1), "big") >> (8 * (4 - size % 4))
    return head + mask + (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")


def close_payload(code: int, reason: str = "") -> bytes:
    return struct.pack("!H", code) + reason.encode()


def maybe_frame(data: bytes) -> tuple[Frame, bytes] | None:
    """Return the server's first frame in `data` and the bytes after it, or None if the frame is not complete."""
    if len(data) < 2:
        return None
    assert not data[1] & 0x80, "a server's frame is not masked"
    size, start = data[1], 2
    if size >= 126:
        start = 4 if size == 126 else 10
        if len(data) < start:
            return None
        size = int.from_bytes(data[2:start], "big")
    if len(data) < start + size:
        return None
    return Frame(data[0] & 0xF, data[start : start + size], bool(data[0] & 0x80)), data[start + size :]


def frames(data: bytes) -> list[Frame]:
    """Return the server's frames in `data`."""
    found = []
    while data:
        parsed = maybe_frame(data)
        assert parsed is not None, f"half a frame: {data!r:.100}"
        frame, data = parsed
        found.append(frame)
    return found
