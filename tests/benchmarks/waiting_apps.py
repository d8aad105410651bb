"""Apps whose requests wait, and the floor beside them; servers import them by name.

They need no framework, so that the memory of a server is that of the adapter.
"""

import asyncio
from collections.abc import Iterable

from bridge import ASGIToWSGI
from bridge.types import Environ, Receive, Scope, Send, StartResponse

calls = 0
BLOCK = bytes(64 * 1024)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the query string, which is the request's number.

    /wait does so after a second, /ticks sends it once a second for ever, /large sends 100 MB, and /calls tells how
    many of them the app has had.
    """
    global calls
    path, number = scope["path"], scope["query_string"]
    if path == "/calls":
        number = b"%d" % calls
    else:
        calls += 1
    if path == "/wait":
        await asyncio.sleep(1)
    if path in ("/ticks", "/large"):
        kind = b"text/event-stream" if path == "/ticks" else b"application/octet-stream"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        blocks = 1 << 62 if path == "/ticks" else 1600
        for _ in range(blocks):
            block = b"data: %s\n\n" % number if path == "/ticks" else BLOCK
            await send({"type": "http.response.body", "body": block, "more_body": True})
            if path == "/ticks":
                await asyncio.sleep(1)
        await send({"type": "http.response.body"})
        return
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(number))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": number})


def floor(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer each request at once, as plain WSGI: what the server itself costs."""
    number = environ["QUERY_STRING"].encode("latin-1")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(number)))])
    return [number]


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


auto = ASGIToWSGI(app, lifespan="off", detach="auto", max_detached=20_000)
hello_auto = ASGIToWSGI(hello, lifespan="off", detach="auto")
hello_off = ASGIToWSGI(hello, lifespan="off")
