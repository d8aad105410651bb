"""WebSocket connections to a WSGI app: refused, as there is no bridge for them yet."""

from bridge.errors import ServerProtocolError
from bridge.types import Receive, Send


async def refuse_websocket(receive: Receive, send: Send) -> None:
    """Close before accept, which the server answers with 403 (ASGI WebSocket spec, Close)."""
    message = await receive()
    if message["type"] == "websocket.disconnect":
        return
    if message["type"] != "websocket.connect":
        raise ServerProtocolError(f"expected websocket.connect, got {message!r:.200} (ASGI WebSocket spec)")
    try:
        await send({"type": "websocket.close", "code": 1000})
    except OSError:
        pass  # the client did not wait for it
