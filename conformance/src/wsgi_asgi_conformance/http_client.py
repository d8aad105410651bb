"""An HTTP/1.1 client on a raw socket, which sends exactly the bytes it is given and checks how a response is framed."""

import contextlib
import socket
import struct
import time
from typing import Any, NamedTuple, Self

from wsgi_asgi_conformance.exchange import Hang
from wsgi_asgi_conformance.frames import KEY, Frame, client_frame, maybe_frame


class Response(NamedTuple):
    """A response; `complete` says whether it ended as its framing requires."""

    version: str
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    complete: bool
    raw: bytes

    def values(self, name: str) -> list[str]:
        """Return the values of a header; the case of its name does not matter."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


class Client:
    """One connection. Each of its waits has a deadline."""

    def __init__(self, port: int, deadline: float) -> None:
        self.deadline = deadline
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=deadline)
        self.unread = b""
        self.ended = False
        self.wire: list[tuple[str, bytes]] = []  # what was sent (">") and received ("<")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection normally."""
        self.socket.close()

    def reset(self) -> None:
        """Reset the connection, as when a client is killed: the server gets RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send(self, data: bytes) -> Self:
        """Send bytes. If the server has already hung up, the next read reports that."""
        self.wire.append((">", data))
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(data)
        return self

    def request(
        self,
        method: str = "GET",
        target: str | bytes = "/",
        headers: list[tuple[str, str | bytes]] | None = None,
        body: bytes | None = None,
        version: str = "1.1",
        close: bool = True,
    ) -> Self:
        """Send a request. If it has a body, add its Content-Length."""
        target = target.encode("latin-1") if isinstance(target, str) else target
        lines = [b"%s %s HTTP/%s" % (method.encode(), target, version.encode())]
        names = {name.lower() for name, _ in headers or ()}
        if "host" not in names:
            lines.append(b"Host: example.org")
        for name, value in headers or ():
            lines.append(name.encode() + b": " + (value.encode("latin-1") if isinstance(value, str) else value))
        if body is not None and not names & {"content-length", "transfer-encoding"}:
            lines.append(b"Content-Length: %d" % len(body))
        if close and "connection" not in names:
            lines.append(b"Connection: close")
        return self.send(b"\r\n".join([*lines, b"", body or b""]))

    # What the server sends

    def fill(self, seconds: float | None = None) -> bool:
        """Read once more; return whether anything came. Raises Hang at the deadline, unless `seconds` are given."""
        if self.ended:
            return False
        self.socket.settimeout(self.deadline if seconds is None else seconds)
        try:
            block = self.socket.recv(1 << 16)
        except TimeoutError:
            if seconds is not None:
                return False
            raise Hang(f"waited {self.deadline:g} s for the server; it had sent {self.unread[-200:]!r}") from None
        except ConnectionError:
            block = b""
        self.ended = not block
        if block and len(self.wire) < 50:
            self.wire.append(("<", block))
        self.unread += block
        return bool(block)

    def until(self, end: bytes) -> bytes:
        """Read until `end` arrives, and return everything up to and including it."""
        while end not in self.unread:
            if not self.fill():
                raise AssertionError(f"the server hung up before {end!r}, after {self.unread[-200:]!r}")
        head, _, self.unread = self.unread.partition(end)
        return head + end

    def quiet(self, seconds: float = 0.3) -> bool:
        """Return whether the server sends nothing for a while."""
        return not self.unread and not self.fill(seconds) and not self.ended

    def rest(self) -> bytes:
        """Return what the server sends before it hangs up."""
        end = time.monotonic() + self.deadline
        while self.fill():
            if time.monotonic() > end + self.deadline:
                raise Hang(f"the server did not hang up, and sent {self.unread[-200:]!r}")
        return self.unread

    def head(self) -> tuple[str, int, str, list[tuple[str, str]], bytes]:
        """Read a status line and headers, also of a 1xx response."""
        raw = self.until(b"\r\n\r\n")
        first, *lines = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        version, _, rest = first.partition(" ")
        code, _, reason = rest.partition(" ")
        assert code.isdecimal(), f"no status line: {first!r}"
        assert version.startswith("HTTP/1."), f"no status line: {first!r}"
        headers = []
        for line in lines:
            name, colon, value = line.partition(":")
            assert (colon, name) == (":", name.strip()), f"malformed header: {line!r}"
            headers.append((name, value.strip(" \t")))
        return version, int(code), reason, headers, raw

    def response(self, method: str = "GET") -> Response:
        """Read a response, and skip 1xx responses before it."""
        status = 100
        while status < 200 and status != 101:
            version, status, reason, headers, raw = self.head()
        body, complete = self._body(method, status, {name.lower(): value for name, value in headers})
        return Response(version, status, reason, headers, body, complete, raw + body)

    def _body(self, method: str, status: int, headers: dict[str, str]) -> tuple[bytes, bool]:
        if method == "HEAD" or status < 200 or status in (204, 304):
            return b"", True
        if "chunked" in headers.get("transfer-encoding", "").lower():
            return self._chunks()
        if "content-length" in headers:
            return self._take(int(headers["content-length"]))
        body, self.unread = self.rest(), b""
        return body, True

    def _take(self, size: int) -> tuple[bytes, bool]:
        while len(self.unread) < size and self.fill():
            pass
        body, self.unread = self.unread[:size], self.unread[size:]
        return body, len(body) == size

    def _chunks(self) -> tuple[bytes, bool]:
        body = b""
        while True:
            while b"\r\n" not in self.unread:
                if not self.fill():
                    return body, False
            line, _, self.unread = self.unread.partition(b"\r\n")
            try:
                size = int(line.partition(b";")[0], 16)
            except ValueError:
                raise AssertionError(f"malformed chunk size: {line!r}") from None
            block, whole = self._take(size + 2 if size else 0)
            body += block[:size]
            if not whole:
                return body, False
            if size == 0:
                while b"\r\n" not in self.unread and self.fill():
                    pass
                while self.unread and not self.unread.startswith(b"\r\n"):  # trailers
                    _, _, self.unread = self.unread.partition(b"\r\n")
                self.unread = self.unread[2:]
                return body, True

    # WebSockets

    def handshake(self, target: str = "/", *more: tuple[str, str], leave_out: tuple[str, ...] = ()) -> Self:
        """Send an opening handshake (RFC 6455 4.1); headers in `more` replace the default ones."""
        headers: dict[str, Any] = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": KEY,
            "Sec-WebSocket-Version": "13",
        }
        headers |= dict(more)
        return self.request("GET", target, [(k, v) for k, v in headers.items() if k not in leave_out], close=False)

    def frame(self, opcode: int, payload: bytes = b"", **how: Any) -> Self:
        """Send a frame, valid or not."""
        return self.send(client_frame(opcode, payload, **how))

    def next_frame(self) -> Frame:
        """Return the server's next frame."""
        while (parsed := maybe_frame(self.unread)) is None:
            if not self.fill():
                raise AssertionError(f"the server hung up without another frame, after {self.unread!r}")
        frame, self.unread = parsed
        return frame

    def maybe_next_frame(self) -> Frame | None:
        """Return the server's next frame, or None if it hangs up first."""
        try:
            return self.next_frame()
        except AssertionError as error:
            if isinstance(error, Hang):
                raise
            return None
