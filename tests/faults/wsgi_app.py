"""The WSGI app of these tests, and `asgi_app`, which is its adapter. A twin of `asgi_app.py`.

`asgi_app` itself answers questions about the process, because the app cannot while all threads are busy.
"""

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator

from bridge import WSGIToASGI
from bridge.types import Environ, Receive, Scope, Send, StartResponse
from tests.faults.ledger import BLOCK_SIZE, PATIENCE, Ledger, number_from_header

WORKERS = 8
ledger = Ledger()


class Run:
    """A streamed response. The run ends when it is closed."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = blocks

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._blocks)

    def close(self) -> None:
        try:
            if hasattr(self._blocks, "close"):
                self._blocks.close()
        finally:
            ledger.end()


def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Run the app that the path names, and record the run. The response has the request's number."""
    number = number_from_header(environ.get("HTTP_X_NUMBER"))
    name, _, argument = environ["PATH_INFO"].strip("/").partition("/")
    ledger.begin(number)

    def start(status: str, *headers: tuple[str, str]) -> Callable[[bytes], object]:
        return start_response(status, [("X-Number", str(number)), *headers])

    try:
        blocks = PATHS.get(name, missing)(environ, start, argument)
    except BaseException:
        ledger.end()
        raise
    if isinstance(blocks, list):
        ledger.end()
        return blocks
    return Run(blocks)


Start = Callable[..., Callable[[bytes], object]]


def answer(start: Start, body: bytes, status: str = "200 OK") -> list[bytes]:
    start(status, ("Content-Length", str(len(body))))
    return [body]


def hello(environ: Environ, start: Start, argument: str) -> list[bytes]:
    return answer(start, b"hello")


def missing(environ: Environ, start: Start, argument: str) -> list[bytes]:
    return answer(start, b"not here", "404 Not Found")


def echo(environ: Environ, start: Start, argument: str) -> list[bytes]:
    """Read the body in blocks, and answer with all of it."""
    return answer(start, b"".join(iter(lambda: environ["wsgi.input"].read(BLOCK_SIZE), b"")))


def download(environ: Environ, start: Start, count: str) -> Iterable[bytes]:
    """Send the number of blocks in the path, without a Content-Length."""
    start("200 OK")
    number = number_from_header(environ.get("HTTP_X_NUMBER"))
    return (ledger.block(number) for _ in range(int(count)))


def events(environ: Environ, start: Start, argument: str) -> Iterable[bytes]:
    """Send server-sent events until the client leaves."""
    start("200 OK", ("Content-Type", "text/event-stream"))
    while not environ["bridge.disconnected"].wait(0.01):
        yield b"data: tick\n\n"


def wait(environ: Environ, start: Start, argument: str) -> list[bytes]:
    """Read the body, and send nothing until the client has left."""
    environ["wsgi.input"].read()
    return answer(start, b"late" if environ["bridge.disconnected"].wait(PATIENCE) else b"in vain")


def hold(environ: Environ, start: Start, port: str) -> list[bytes]:
    """Connect to the port, send the request's number there, and answer once that connection ends."""
    with socket.create_connection(("127.0.0.1", int(port)), timeout=PATIENCE) as connection:
        connection.sendall(b"%d %d\n" % (number_from_header(environ.get("HTTP_X_NUMBER")), os.getpid()))
        with contextlib.suppress(ConnectionError):
            connection.recv(1)
    return answer(start, b"held")


# --- Apps that raise ------------------------------------------------------------------------------


def raise_at_once(environ: Environ, start: Start, argument: str) -> list[bytes]:
    raise RuntimeError("at once")


def raise_after_body(environ: Environ, start: Start, argument: str) -> list[bytes]:
    environ["wsgi.input"].read()
    raise RuntimeError("after the body")


def raise_in_body(environ: Environ, start: Start, argument: str) -> list[bytes]:
    environ["wsgi.input"].read(1)
    raise RuntimeError("in the body")


def raise_after_start(environ: Environ, start: Start, argument: str) -> list[bytes]:
    start("200 OK", ("Content-Length", "10"))
    raise RuntimeError("after start_response")


def raise_at_first_block(environ: Environ, start: Start, argument: str) -> Iterable[bytes]:
    start("200 OK", ("Content-Length", "10"))
    yield b""
    raise RuntimeError("at the first block")


def raise_in_response(environ: Environ, start: Start, argument: str) -> Iterable[bytes]:
    start("200 OK", ("Content-Length", "10"))
    yield b"begun"
    raise RuntimeError("in the response")


def raise_in_chunks(environ: Environ, start: Start, argument: str) -> Iterable[bytes]:
    start("200 OK")
    yield b"begun"
    raise RuntimeError("in a response of chunks")


def raise_after_write(environ: Environ, start: Start, argument: str) -> Iterable[bytes]:
    start("200 OK", ("Content-Length", "10"))(b"begun")
    raise RuntimeError("after write()")


def raise_at_end(environ: Environ, start: Start, argument: str) -> Iterable[bytes]:
    start("200 OK", ("Content-Length", "5"))
    yield b"whole"
    raise RuntimeError("behind the end")


class FailsToClose:
    def __iter__(self) -> Iterator[bytes]:
        yield b"whole"

    def close(self) -> None:
        raise RuntimeError("in close()")


def raise_in_close(environ: Environ, start: Start, argument: str) -> Iterable[bytes]:
    start("200 OK", ("Content-Length", "5"))
    return FailsToClose()


def fall_short(environ: Environ, start: Start, argument: str) -> Iterable[bytes]:
    start("200 OK", ("Content-Length", "10"))
    yield b"begun"


def return_nothing(environ: Environ, start: Start, argument: str) -> Iterable[bytes]:
    return None  # type: ignore[return-value]


def start_nothing(environ: Environ, start: Start, argument: str) -> list[bytes]:
    return [b"body"]


def split_a_header(environ: Environ, start: Start, argument: str) -> list[bytes]:
    start("200 OK", ("X-A", "a\r\nX-B: b"))
    return [b"body"]


def exit_at_once(environ: Environ, start: Start, argument: str) -> list[bytes]:
    raise SystemExit(3)


def interrupt(environ: Environ, start: Start, argument: str) -> list[bytes]:
    raise KeyboardInterrupt


def stop_iteration(environ: Environ, start: Start, argument: str) -> list[bytes]:
    raise StopIteration


def exit_in_response(environ: Environ, start: Start, argument: str) -> Iterable[bytes]:
    start("200 OK", ("Content-Length", "10"))
    yield b"begun"
    raise SystemExit(3)


# What a client gets from each: a 500, a response that is cut off, or a whole one.
RAISE_BEFORE = [
    raise_at_once,
    raise_in_body,
    raise_after_body,
    raise_after_start,
    raise_at_first_block,
    return_nothing,
    start_nothing,
    split_a_header,
    exit_at_once,
    interrupt,
    stop_iteration,
]
RAISE_WITHIN = [raise_in_response, raise_in_chunks, raise_after_write, fall_short, exit_in_response]
RAISE_BEHIND = [raise_at_end, raise_in_close]
PATHS: dict[str, Callable[[Environ, Start, str], Iterable[bytes]]] = {
    view.__name__: view
    for view in [hello, echo, download, events, wait, hold, *RAISE_BEFORE, *RAISE_WITHIN, *RAISE_BEHIND]
}

adapter = WSGIToASGI(app, workers=WORKERS)


async def asgi_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what the process has open and has run; pass everything else to the adapter."""
    if scope["type"] != "http" or scope["path"] not in ("/status", "/runs"):
        await adapter(scope, receive, send)
        return
    body = json.dumps(ledger.status()).encode() if scope["path"] == "/status" else ledger.packed_runs()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
