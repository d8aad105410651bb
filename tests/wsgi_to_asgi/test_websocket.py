from collections.abc import Iterable

import pytest

from bridge import ServerProtocolError, WSGIToASGI
from bridge.types import Environ, StartResponse
from tests.fakes import ASGIServer


def never(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    raise AssertionError("the app was called")


def websocket(*types: str) -> ASGIServer:
    server = ASGIServer(WSGIToASGI(never), {"type": "websocket", "path": "/", "headers": []}, blocks=[])
    for message_type in types:
        server.feed_message({"type": message_type})
    return server


@pytest.mark.parametrize("send_error", [None, OSError("gone")])
async def test_a_websocket_is_refused(send_error: Exception | None) -> None:
    """connect is answered with close, before accept; a client that has left by then is no error."""
    server = websocket("websocket.connect")
    server.send_error = send_error
    await server.run()
    assert server.sent == [{"type": "websocket.close", "code": 1000}]
    assert server.receive_calls == 1


async def test_a_client_that_left_gets_no_answer() -> None:
    """After disconnect there is nothing to say."""
    server = websocket("websocket.disconnect")
    await server.run()
    assert server.sent == []


async def test_another_message_is_the_servers_error() -> None:
    """What is neither connect nor disconnect raises."""
    with pytest.raises(ServerProtocolError, match="bogus"):
        await websocket("websocket.bogus").run()
