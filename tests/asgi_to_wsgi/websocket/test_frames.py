import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, Ping
from wsproto.extensions import PerMessageDeflate

from bridge.asgi_to_wsgi.websocket.frames import Frames
from wsgi_asgi_conformance.frames import BINARY, PING, PONG, Frame, client_frame, frames


def test_what_arrives_is_parsed_and_what_is_sent_is_built() -> None:
    """wsproto parses and builds the frames."""
    ours = Frames([])
    ours.add(client_frame(PING, b"?") + client_frame(BINARY, b"data"))
    ping, message = ours.parse()
    assert isinstance(ping, Ping)
    assert frames(ours.build(ping.response())) == [Frame(PONG, b"?")]
    assert isinstance(message, BytesMessage)
    assert message.data == b"data"


@pytest.mark.parametrize(("payload", "most"), [(b"", 128), (bytes(128 * 1024), 16)])
def test_frames_are_parsed_in_turns(payload: bytes, most: int) -> None:
    """After some frames, fewer if they are large, the next ones wait; none is lost or comes twice."""
    ours = Frames([])
    ours.add(client_frame(BINARY, payload) * 200)
    turns: list[int] = []
    while not turns or turns[-1]:
        turns.append(0)
        for event in ours.parse():
            if event is None:
                break
            assert event.data == payload
            turns[-1] += 1
    assert max(turns) <= most
    assert sum(turns) == 200


def test_what_may_be_compressed_is_parsed_in_slices() -> None:
    """A few kilobytes that hold a megabyte each do not become messages before somebody asks for the next."""
    theirs, ours = PerMessageDeflate(), PerMessageDeflate()
    for deflate in (theirs, ours):
        deflate.finalize("permessage-deflate")
    client = Connection(ConnectionType.CLIENT, [theirs])
    parsed = Frames([ours])
    data = b"".join(client.send(BytesMessage(bytes(1_000_000))) for _ in range(60))
    parsed.add(data)
    first = next(parsed.parse())
    assert first.data
    assert len(first.data) < 10_000_000
    assert len(parsed._unparsed) >= len(data) - 4 * 1024


def test_what_is_discarded_is_not_parsed() -> None:
    """Once a client has broken the protocol, nothing that it has sent counts."""
    ours = Frames([])
    ours.add(client_frame(BINARY, b"data"))
    ours.discard()
    assert list(ours.parse()) == []
