"""What the bridge sends to the server for one WebSocket, in the order that the ASGI spec allows."""

import re

from bridge.sansio.messages import DONE, WEBSOCKET, event_from_message, next_state
from bridge.types import Message, Scope, Send
from bridge.wsgi_to_asgi.websocket.messages import Content


class ServerMessages:
    """The messages of one WebSocket to the server. All of it runs on the loop.

    `state` is one of `sansio.messages.WEBSOCKET`. Nothing is sent in state DONE. `send` may raise OSError, which says
    that the client has left.
    """

    def __init__(self, scope: Scope, send: Send) -> None:
        self.state = "connecting"
        self._send = send
        self._can_deny = "websocket.http.response" in (scope.get("extensions") or ())
        self._knows_reason = _spec_version(scope) >= (2, 3)

    def note_that_client_left(self) -> None:
        """Send nothing from now on."""
        self.state = DONE

    async def accept(self, subprotocol: str | None, headers: list[tuple[bytes, bytes]]) -> None:
        await self._send_message({"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers})

    async def send(self, content: Content) -> None:
        await self._send_message({"type": "websocket.send", "text" if isinstance(content, str) else "bytes": content})

    async def close(self, code: int, reason: str = "") -> None:
        """Close the WebSocket; before it is accepted, the server refuses it with 403."""
        with_reason = {"reason": reason} if reason and self._knows_reason else {}
        await self._send_message({"type": "websocket.close", "code": code, **with_reason})

    async def deny(self, message: Message) -> None:
        """Send a message of an HTTP response, or close if the server does not support such responses."""
        if self._can_deny:
            await self._send_message({**message, "type": f"websocket.{message['type']}"})
        elif self.state == "connecting":
            await self.close(1000)

    async def _send_message(self, message: Message) -> None:
        if self.state != DONE:
            self.state = next_state(WEBSOCKET, self.state, event_from_message(message))
            await self._send(message)


def _spec_version(scope: Scope) -> tuple[int, ...]:
    """Return the version of the ASGI WebSocket spec that the server supports."""
    version = str((scope.get("asgi") or {}).get("spec_version") or "2.0")
    return tuple(int(number) for number in re.findall("[0-9]+", version))
