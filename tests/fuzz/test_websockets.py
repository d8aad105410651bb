"""WebSockets whose clients, servers and apps send anything: each ends, and breaks nothing."""

from collections.abc import Iterable
from typing import Any

import anyio
from hypothesis import given
from hypothesis import strategies as st
from wsproto.extensions import Extension, PerMessageDeflate

from bridge import BridgeError, ClientDisconnected, WebSocketOptions, WSGIToASGI
from bridge.asgi_to_wsgi.websocket.connection import WebSocketConnection
from bridge.runtime import running_loop
from bridge.types import Environ, StartResponse
from tests.fakes import ASGIWebSocket
from tests.fuzz.strategies import ANYTHING, BODIES, FUZZ, LONG, TEXT, expanded, mostly
from wsgi_asgi_conformance.frames import client_frame, close_payload, frames

PAYLOADS = (
    BODIES
    | TEXT.map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.builds(close_payload, st.integers(0, 65535), st.sampled_from(["", "bye"]))
    | st.sampled_from([b"x" * 126, LONG, LONG])
)
# A frame: opcode, payload, whether it is the last, whether it is masked, and the reserved bits.
FRAMES = st.tuples(
    mostly(st.sampled_from([1, 2, 1, 2, 0, 8, 9, 10]), st.integers(0, 15)),
    PAYLOADS,
    mostly(st.just(True), st.just(False)),
    mostly(st.just(True), st.just(False)),
    mostly(st.just(0), st.integers(0, 7)),
)
STREAMS = st.lists(mostly(FRAMES, st.binary(max_size=20)), max_size=8)
CUTS = st.lists(st.integers(1, 200), max_size=6)


class Transport:
    """A transport that records what is written, and allows nothing after the end."""

    def __init__(self) -> None:
        self.written = b""
        self.over = False
        self.reading = True

    def write(self, block: bytes) -> None:
        assert not self.over
        self.written += block

    def write_eof(self) -> None:
        self.over = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.over = True

    abort = close


def bytes_of(parts: list[Any]) -> bytes:
    """Return frames, and other bytes, as they are sent."""
    return b"".join(
        part
        if isinstance(part, bytes)
        else client_frame(part[0], expanded(part[1]), fin=part[2], masked=part[3], rsv=part[4])
        for part in parts
    )


def cut(stream: bytes, sizes: list[int]) -> Iterable[bytes]:
    """Yield a stream in blocks of the given sizes, and then the rest."""
    for size in sizes:
        yield stream[:size]
        stream = stream[size:]
    yield stream


@FUZZ
@given(STREAMS, CUTS, st.sampled_from(["nothing", "receive", "send", "close"]), st.booleans())
def test_any_bytes_of_a_client(stream: list[Any], sizes: list[int], deed: str, compressed: bool) -> None:
    """The connection stays open or ends with a code; it writes only frames; the app gets only messages."""

    async def converse() -> None:
        extensions: list[Extension] = []
        if compressed:
            extensions.append(PerMessageDeflate())
            extensions[0].accept("permessage-deflate")
        connection = WebSocketConnection(running_loop(), WebSocketOptions(max_message_size=1000), extensions)
        transport = Transport()
        connection.connection_made(transport)
        for block in cut(bytes_of(stream), sizes):
            connection.data_received(block)
            if deed == "receive":
                with anyio.move_on_after(0):
                    assert isinstance(await connection.receive(), (bytes, str, type(None)))
            elif deed == "send":
                try:
                    await connection.send("hello")
                except ClientDisconnected:
                    assert connection.end is not None
            elif deed == "close":
                connection.close(1000)
        connection.connection_lost(None)
        assert connection.end is not None
        assert 1000 <= connection.end[0] <= 4999
        while (message := await connection.receive()) is not None:
            assert len(message) <= 1000
        frames(transport.written)

    anyio.run(converse)


SERVER_MESSAGES = st.fixed_dictionaries(
    {"type": st.sampled_from(["websocket.receive", "websocket.receive", "websocket.disconnect", "http.request"])},
    optional={
        "text": st.none() | st.text(max_size=8),
        "bytes": st.none() | st.binary(max_size=8),
        "code": st.sampled_from([1000, 1005, 1006, 3000]) | ANYTHING,
        "reason": st.none() | st.text(max_size=8),
    },
)


@FUZZ
@given(STREAMS, st.booleans(), st.lists(SERVER_MESSAGES, max_size=4))
def test_any_bytes_of_an_app(stream: list[Any], accepts: bool, messages: list[Any]) -> None:
    """Whatever a WSGI app writes and the server sends, the WebSocket ends, or an error says who broke which rule."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if accepts:
            environ["wsgi.websocket"].send("hello")
        environ["werkzeug.socket"].sendall(bytes_of(stream))
        start_response("200 OK", [])
        return [b"for nobody"]

    async def serve() -> None:
        server = ASGIWebSocket(WSGIToASGI(app))
        for message in messages:
            server.feed_message(message)
        server.leave()
        with anyio.fail_after(10):
            try:
                await server.run()
            except (BridgeError, OSError):
                return
        assert {message["type"].partition(".")[0] for message in server.sent} <= {"websocket"}

    anyio.run(serve)
