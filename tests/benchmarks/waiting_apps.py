"""Apps whose requests wait, and the floor beside them; servers import them by name.

They need no framework, so that the memory of a server is that of the adapter.
"""

import asyncio
import socket
import threading
from collections.abc import Iterable

from bridge import ASGIToWSGI
from bridge.asgi_to_wsgi.sockets import maybe_connection, steal
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


class Bare:
    """Take each connection by hand, and answer /wait from an asyncio loop: the least that a detached response can cost.

    It checks nothing, does not notice when a client leaves, and would lose what the system does not take at once.
    """

    loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        return loop

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        connection = maybe_connection(environ, lasting=False)
        assert connection is not None
        with _lock:
            loop = self.loop = self.loop or self.start()
        sock = steal(connection)
        loop.call_soon_threadsafe(self.spawn, sock, environ["QUERY_STRING"].encode("latin-1"))
        start_response("202 Accepted", [("Content-Length", "0")])
        return []

    def spawn(self, sock: socket.socket, number: bytes) -> None:
        task = asyncio.get_running_loop().create_task(self.answer(sock, number))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)

    async def answer(self, sock: socket.socket, number: bytes) -> None:
        await asyncio.sleep(1)
        sock.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
            % (len(number), number)
        )
        sock.close()


_lock = threading.Lock()
_tasks: set[asyncio.Task[None]] = set()


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


bare = Bare()
auto = ASGIToWSGI(app, lifespan="off", detach="auto", max_detached=20_000)
hello_auto = ASGIToWSGI(hello, lifespan="off", detach="auto")
hello_off = ASGIToWSGI(hello, lifespan="off")
