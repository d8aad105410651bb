"""The ASGI app of these tests, and `wsgi_app`, which is its adapter. A twin of `wsgi_app.py`."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable

import anyio

from bridge import ASGIToWSGI
from bridge.types import RawHeaders, Receive, Scope, Send
from tests.faults.ledger import PATIENCE, Ledger, number_from_header

ledger = Ledger()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Run the app that the path names, and record the run. The response has the request's number."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    number = number_of(scope)
    name, _, argument = scope["path"].strip("/").partition("/")
    ledger.begin(number)
    try:
        await PATHS.get(name, missing)(Exchange(number, scope, receive, send), argument)
    finally:
        ledger.end()


def number_of(scope: Scope) -> int:
    return number_from_header(dict(scope["headers"]).get(b"x-number", b"").decode("latin-1"))


async def lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


class Exchange:
    """The arguments of one call of the app, and the messages that these apps send."""

    def __init__(self, number: int, scope: Scope, receive: Receive, send: Send) -> None:
        self.number = number
        self.scope = scope
        self.receive = receive
        self.send = send

    async def start(self, *headers: tuple[bytes, bytes], status: int = 200) -> None:
        raw_headers: RawHeaders = [(b"x-number", b"%d" % self.number), *headers]
        await self.send({"type": "http.response.start", "status": status, "headers": raw_headers})

    async def part(self, body: bytes) -> None:
        await self.send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self, body: bytes = b"") -> None:
        await self.send({"type": "http.response.body", "body": body})

    async def answer(self, body: bytes, status: int = 200) -> None:
        await self.start((b"content-length", b"%d" % len(body)), status=status)
        await self.end(body)

    async def read(self) -> bytes:
        """Return the request's body. Raises ConnectionError if the client leaves first."""
        blocks, more_body = [], True
        while more_body:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError("the client left")
            blocks.append(message["body"])
            more_body = message["more_body"]
        return b"".join(blocks)

    async def left(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass


async def hello(exchange: Exchange, argument: str) -> None:
    await exchange.answer(b"hello")


async def missing(exchange: Exchange, argument: str) -> None:
    await exchange.answer(b"not here", 404)


async def echo(exchange: Exchange, argument: str) -> None:
    """Read the body in blocks, and answer with all of it."""
    try:
        body = await exchange.read()
    except ConnectionError:
        return
    await exchange.answer(body)


async def download(exchange: Exchange, count: str) -> None:
    """Send the number of blocks in the path, without a Content-Length."""
    await exchange.start()
    for _ in range(int(count)):
        await exchange.part(ledger.block(exchange.number))
    await exchange.end()


async def events(exchange: Exchange, argument: str) -> None:
    """Send server-sent events until the client leaves."""
    await exchange.start((b"content-type", b"text/event-stream"))
    async with anyio.create_task_group() as tasks:

        async def tick() -> None:
            while True:
                await exchange.part(b"data: tick\n\n")
                await anyio.sleep(0.01)

        tasks.start_soon(tick)
        await exchange.left()
        tasks.cancel_scope.cancel()


async def wait(exchange: Exchange, argument: str) -> None:
    """Read the body, and send nothing until the client has left."""
    with anyio.move_on_after(PATIENCE) as patience:
        await exchange.left()
    if patience.cancelled_caught:
        await exchange.answer(b"in vain")


async def hold(exchange: Exchange, port: str) -> None:
    """Connect to the port, send the request's number there, and answer once that connection ends."""
    with anyio.fail_after(PATIENCE):
        async with await anyio.connect_tcp("127.0.0.1", int(port)) as connection:
            await connection.send(b"%d %d\n" % (exchange.number, os.getpid()))
            try:
                await connection.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                pass
    await exchange.answer(b"held")


async def status(exchange: Exchange, argument: str) -> None:
    """Answer with what the process has open, without this request."""
    found = ledger.status()
    found["tasks"] -= 1
    found["running"] -= 1
    await exchange.answer(json.dumps(found).encode())


async def runs(exchange: Exchange, argument: str) -> None:
    await exchange.answer(ledger.packed_runs())


# --- Apps that raise ------------------------------------------------------------------------------

LENGTH_10 = (b"content-length", b"10")


async def raise_at_once(exchange: Exchange, argument: str) -> None:
    raise RuntimeError("at once")


async def raise_in_body(exchange: Exchange, argument: str) -> None:
    await exchange.receive()
    raise RuntimeError("in the body")


async def raise_after_body(exchange: Exchange, argument: str) -> None:
    await exchange.read()
    raise RuntimeError("after the body")


async def raise_after_start(exchange: Exchange, argument: str) -> None:
    await exchange.start(LENGTH_10)
    raise RuntimeError("after the start")


async def raise_beside_receive(exchange: Exchange, argument: str) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(exchange.left)
        await anyio.lowlevel.checkpoint()
        raise RuntimeError("beside a receive()")


async def raise_in_a_thread(exchange: Exchange, argument: str) -> None:
    def fail() -> None:
        raise RuntimeError("in a thread")

    await anyio.to_thread.run_sync(fail)


async def raise_in_response(exchange: Exchange, argument: str) -> None:
    await exchange.start(LENGTH_10)
    await exchange.part(b"begun")
    raise RuntimeError("in the response")


async def raise_in_chunks(exchange: Exchange, argument: str) -> None:
    await exchange.start()
    await exchange.part(b"begun")
    raise RuntimeError("in a response of chunks")


async def raise_at_end(exchange: Exchange, argument: str) -> None:
    await exchange.answer(b"whole")
    raise RuntimeError("behind the end")


async def raise_in_a_task(exchange: Exchange, argument: str) -> None:
    async def fail() -> None:
        raise RuntimeError("in a task behind the end")

    await exchange.answer(b"whole")
    await asyncio.gather(asyncio.create_task(fail()), return_exceptions=True)


async def return_nothing(exchange: Exchange, argument: str) -> None:
    pass


async def start_nothing(exchange: Exchange, argument: str) -> None:
    await exchange.end(b"body")


async def split_a_header(exchange: Exchange, argument: str) -> None:
    await exchange.start((b"x-a", b"a\r\nx-b: b"))


async def fall_short(exchange: Exchange, argument: str) -> None:
    await exchange.start(LENGTH_10)
    await exchange.end(b"begun")


async def exit_at_once(exchange: Exchange, argument: str) -> None:
    raise SystemExit(3)


async def interrupt(exchange: Exchange, argument: str) -> None:
    raise KeyboardInterrupt


async def cancel(exchange: Exchange, argument: str) -> None:
    raise asyncio.CancelledError


async def exit_in_response(exchange: Exchange, argument: str) -> None:
    await exchange.start(LENGTH_10)
    await exchange.part(b"begun")
    raise SystemExit(3)


async def leave_unfinished(exchange: Exchange, argument: str) -> None:
    await exchange.start()
    await exchange.part(b"begun")


# What a client gets from each: a 500, a response that is cut off, or a whole one.
RAISE_BEFORE = [
    raise_at_once,
    raise_in_body,
    raise_after_body,
    raise_after_start,
    raise_beside_receive,
    raise_in_a_thread,
    return_nothing,
    start_nothing,
    split_a_header,
    fall_short,
    exit_at_once,
    interrupt,
    cancel,
]
RAISE_WITHIN = [raise_in_response, raise_in_chunks, exit_in_response, leave_unfinished]
RAISE_BEHIND = [raise_at_end, raise_in_a_task]
PATHS: dict[str, Callable[[Exchange, str], Awaitable[None]]] = {
    view.__name__: view
    for view in [
        *(hello, echo, download, events, wait, hold, status, runs),
        *(*RAISE_BEFORE, *RAISE_WITHIN, *RAISE_BEHIND),
    ]
}

wsgi_app = ASGIToWSGI(app)
