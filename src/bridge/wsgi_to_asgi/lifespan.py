"""The server's lifespan protocol, which a WSGI app does not know. Its twin is `asgi_to_wsgi/lifespan.py`."""

import time

import anyio

from bridge.errors import ServerProtocolError
from bridge.sansio.messages import type_from_message
from bridge.sansio.redacted import shown
from bridge.types import Receive, Send
from bridge.wsgi_to_asgi.runner import WorkerThreads
from bridge.wsgi_to_asgi.websocket.handshake import OpenWebSockets

# How long shutdown waits for running requests, in seconds. Servers have waited for their clients before
# (uvicorn's timeout_graceful_shutdown), so the remaining requests have none.
_SHUTDOWN_TIMEOUT = 10.0


async def serve_lifespan(workers: WorkerThreads, websockets: OpenWebSockets, receive: Receive, send: Send) -> None:
    """Answer startup at once, and shutdown once the threads have ended (ASGI lifespan spec)."""
    message = await receive()
    if type_from_message(message) != "lifespan.startup":
        raise ServerProtocolError(f"expected lifespan.startup, got {shown(message)} (ASGI lifespan spec)")
    await send({"type": "lifespan.startup.complete"})
    message = await receive()
    if type_from_message(message) != "lifespan.shutdown":
        raise ServerProtocolError(f"expected lifespan.shutdown, got {shown(message)} (ASGI lifespan spec)")
    await anyio.to_thread.run_sync(_close, workers, websockets, abandon_on_cancel=True)
    await send({"type": "lifespan.shutdown.complete"})


def _close(workers: WorkerThreads, websockets: OpenWebSockets) -> None:
    deadline = time.monotonic() + _SHUTDOWN_TIMEOUT
    websockets.stop()
    workers.close(_SHUTDOWN_TIMEOUT)
    websockets.join(max(0.0, deadline - time.monotonic()))
