"""A small ASGI server: `python -m tests.conformance.broken.asgi MODULE:APP PORT [FAULT]`."""

import asyncio
import contextlib
import importlib
import signal
import sys
import traceback
from typing import Any
from urllib.parse import unquote

from wsgi_asgi_conformance.types import ASGIApp, Message

# Each fault, and a clause that it breaks.
FAULTS = {
    "path-is-not-decoded": "ASGI-HTTP-013",
    "query-is-decoded": "ASGI-HTTP-017",
    "header-names-as-they-came": "ASGI-HTTP-024",
    "last-of-repeated-headers": "ASGI-HTTP-022",
    "one-scope-for-a-connection": "ASGI-CORE-027",
    "app-waits-for-the-body": "ASGI-HTTP-047",
    "empty-bodies-without-end": "ASGI-HTTP-081",
    "no-disconnect": "ASGI-HTTP-082",
    "blocks-wait-for-the-end": "ASGI-HTTP-064",
    "half-a-response-is-ended": "ASGI-HTTP-072",
    "no-response-no-answer": "ASGI-HTTP-071",
    "unknown-messages-are-taken": "ASGI-CORE-028",
    "state-is-shared": "ASGI-LS-011",
    "no-shutdown": "ASGI-LS-023",
}
FAULT = sys.argv[3] if len(sys.argv) > 3 else ""
STATE: dict[str, Any] = {}
RUNNING: "set[Exchange]" = set()


class Exchange:
    """One request, and its response."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int, expected: bool) -> None:
        self._reader = reader
        self._writer = writer
        self._left = length
        self._asked = False
        self._expected = expected
        self._done = asyncio.Event()
        self._start: Message | None = None
        self._waiting = b""
        self.started = self.complete = False

    async def receive(self) -> Message:
        if self._left or not self._asked:
            self._asked = True
            if self._expected:
                self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                self._expected = False
            body = await self._reader.read(min(self._left, 65_536)) if self._left else b""
            if self._left and not body:
                return {"type": "http.disconnect"}
            self._left -= len(body)
            return {"type": "http.request", "body": body, "more_body": self._left > 0}
        if FAULT == "empty-bodies-without-end" and not self.complete:
            return {"type": "http.request", "body": b"", "more_body": False}
        if FAULT == "no-disconnect":
            await asyncio.Event().wait()
        gone = asyncio.ensure_future(self._reader.read(1))
        done = asyncio.ensure_future(self._done.wait())
        await asyncio.wait([gone, done], return_when="FIRST_COMPLETED")
        gone.cancel()
        done.cancel()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if self.complete:
            return
        if kind == "http.response.start" and self._start is None:
            self._start = message
        elif kind == "http.response.body" and self._start is not None:
            self._write(message.get("body", b""), bool(message.get("more_body")))
            await self._writer.drain()
        elif FAULT != "unknown-messages-are-taken":
            raise RuntimeError(f"unexpected message {kind!r}")

    def _write(self, body: bytes, more_body: bool) -> None:
        assert self._start is not None
        data = b""
        if not self.started:
            self.started = True
            lines = [b"HTTP/1.1 %d X" % self._start["status"], b"transfer-encoding: chunked", b"connection: close"]
            lines += [name + b": " + value for name, value in self._start.get("headers", ())]
            data = b"\r\n".join([*lines, b"", b""])
        data += b"%x\r\n%s\r\n" % (len(body), body) if body else b""
        self.complete = not more_body
        self._waiting += data + (b"" if more_body else b"0\r\n\r\n")
        if self.complete or FAULT != "blocks-wait-for-the-end":
            self._writer.write(self._waiting)
            self._waiting = b""
        if self.complete:
            self._done.set()

    def end(self) -> None:
        """Complete the response of an app that has returned, as far as possible."""
        if self.complete:
            return
        if self.started:
            if FAULT == "half-a-response-is-ended":
                self._write(b"", False)
        else:
            self._writer.write(b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n")


def scope_from_head(head: bytes) -> dict[str, Any]:
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    method, target, version = first.split(b" ")
    raw_path, _, query = target.partition(b"?")
    pairs = [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    if FAULT != "header-names-as-they-came":
        pairs = [(name.lower(), value) for name, value in pairs]
    if FAULT == "last-of-repeated-headers":
        pairs = list(dict(pairs).items())
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": version[5:].decode(),
        "method": method.decode(),
        "scheme": "http",
        "path": raw_path.decode() if FAULT == "path-is-not-decoded" else unquote(raw_path.decode()),
        "raw_path": raw_path,
        "query_string": unquote(query.decode()).encode() if FAULT == "query-is-decoded" else query,
        "root_path": "",
        "headers": pairs,
        "state": STATE if FAULT == "state-is-shared" else dict(STATE),
    }


async def serve(app: ASGIApp, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    first: dict[str, Any] = {}
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            scope = scope_from_head(await reader.readuntil(b"\r\n\r\n"))
            headers = {name.lower(): value for name, value in scope["headers"]}
            length = int(headers.get(b"content-length", b"0"))
            if FAULT == "one-scope-for-a-connection":
                scope = first = first or scope
            if FAULT == "app-waits-for-the-body" and length:
                body = await reader.readexactly(length)
                reader = asyncio.StreamReader()
                reader.feed_data(body)
                reader.feed_eof()
            exchange = Exchange(reader, writer, length, b"expect" in headers)
            RUNNING.add(exchange)
            try:
                await app(scope, exchange.receive, exchange.send)
            except Exception:
                traceback.print_exc()
            finally:
                RUNNING.remove(exchange)
            if exchange.started or FAULT != "no-response-no-answer":
                exchange.end()
                await writer.drain()
            else:
                await asyncio.sleep(60)
            if not exchange.complete or headers.get(b"connection") == b"close":
                break
    writer.close()


async def main() -> None:
    module, _, name = sys.argv[1].partition(":")
    app: ASGIApp = getattr(importlib.import_module(module), name)
    events: asyncio.Queue[Message] = asyncio.Queue()
    events.put_nowait({"type": "lifespan.startup"})
    answered = asyncio.Event()

    async def answer(message: Message) -> None:
        answered.set()

    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": STATE}
    lifespan = asyncio.ensure_future(app(scope, events.get, answer))
    await answered.wait()
    answered.clear()
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await asyncio.start_server(lambda reader, writer: serve(app, reader, writer), "127.0.0.1", int(sys.argv[2]))
    await stopping.wait()
    while RUNNING:
        await asyncio.sleep(0.01)
    if FAULT != "no-shutdown":
        events.put_nowait({"type": "lifespan.shutdown"})
        await answered.wait()
        await lifespan


if __name__ == "__main__":
    asyncio.run(main())
