"""The ASGI app that real WSGI servers serve for the tests: one small WebSocket app per path.

WEBSOCKET, MAX_WEBSOCKETS, COMPRESSION and BACKEND are options of the adapter.
"""

import hashlib
import os
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from bridge import ASGIToWSGI, WebSocketOptions
from bridge.types import Receive, Scope, Send

BLOCK = b"x" * 65_536
# How the apps below ended; the tests ask for it over HTTP.
noted: dict[str, Any] = {}


class Deliberate(Exception):
    """Raised by an app that is meant to fail."""


# More than the kernel's buffers take of a response that the client does not read, and less than waitress buffers.
LARGE = bytes(12 * 1024 * 1024)


async def accept(receive: Receive, send: Send, **keys: Any) -> None:
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept", **keys})


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
    noted["echo"] = [message["code"], message["reason"]]


async def who(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer each message with the cookie that the environ holds at that moment."""
    await accept(receive, send)
    while (await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": scope["wsgi_environ"]["HTTP_COOKIE"]})


async def agree(scope: Scope, receive: Receive, send: Send) -> None:
    """Choose the last subprotocol, and add headers."""
    headers = [(b"x-scheme", scope["scheme"].encode()), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    await accept(receive, send, subprotocol=scope["subprotocols"][-1], headers=headers)


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.close"})


async def deny(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse with a response of two blocks."""
    await receive()
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"10"), (b"x-why", b"no cookie")]
    await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": b"who ", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"is it?"})


async def crash_before(scope: Scope, receive: Receive, send: Send) -> None:
    raise Deliberate


async def crash_after(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    raise Deliberate


async def say_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    pass


async def leave(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)


async def close(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    await send({"type": "websocket.close", "code": 4001, "reason": "enough"})


async def flood(scope: Scope, receive: Receive, send: Send) -> None:
    """Send until send raises, and note how much was sent."""
    await accept(receive, send)
    noted["flood"] = 0
    try:
        while True:
            await send({"type": "websocket.send", "bytes": BLOCK})
            noted["flood"] += len(BLOCK)
    except OSError as error:
        noted["flood-ended"] = type(error).__name__


async def digest(scope: Scope, receive: Receive, send: Send) -> None:
    """Receive nothing until told to; then answer with a digest of all messages before the first empty one."""
    await accept(receive, send)
    while "digest" not in noted:
        await anyio.sleep(0.01)
    total = hashlib.sha256()
    while block := (await receive()).get("bytes"):
        total.update(block)
    await send({"type": "websocket.send", "text": total.hexdigest()})


async def websocket(scope: Scope, receive: Receive, send: Send) -> None:
    apps: dict[str, Callable[[Scope, Receive, Send], Awaitable[None]]] = {
        "/echo": echo,
        "/who": who,
        "/agree": agree,
        "/refuse": refuse,
        "/deny": deny,
        "/crash-before": crash_before,
        "/crash-after": crash_after,
        "/say-nothing": say_nothing,
        "/leave": leave,
        "/close": close,
        "/flood": flood,
        "/digest": digest,
    }
    await apps[scope["path"]](scope, receive, send)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await websocket(scope, receive, send)
    elif scope["type"] == "http":
        key = scope["path"].removeprefix("/")
        if scope["method"] == "POST":
            noted[key] = True
        body = LARGE if key == "large" else repr(noted.get(key, "hello")).encode()
        headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
    else:
        raise NotImplementedError


wsgi_app = ASGIToWSGI(
    app,
    backend=os.environ.get("BACKEND", "asyncio"),
    shutdown_timeout=3.0,
    websocket=os.environ.get("WEBSOCKET", "auto"),  # type: ignore[arg-type]
    max_websockets=int(os.environ.get("MAX_WEBSOCKETS", "1000")),
    websocket_options=WebSocketOptions(ping_interval=120.0, compression="COMPRESSION" in os.environ),
)
