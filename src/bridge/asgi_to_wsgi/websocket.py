"""WebSocket requests to an ASGI app: refused, as there is no bridge for them yet."""

from collections.abc import Iterable

from bridge.types import Environ, StartResponse

_BODY = b"WebSockets are not supported by this server.\n"


def is_websocket_request(environ: Environ) -> bool:
    """Return whether the client asks for a WebSocket (RFC 6455 4.2.1)."""
    return (
        environ.get("HTTP_UPGRADE", "").lower() == "websocket"
        and "upgrade" in environ.get("HTTP_CONNECTION", "").lower()
    )


def refuse_websocket(start_response: StartResponse) -> Iterable[bytes]:
    """Answer 501: the server lacks what it takes (RFC 9110 15.6.2)."""
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(_BODY)))]
    start_response("501 Not Implemented", headers)
    return [_BODY]
