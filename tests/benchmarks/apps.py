"""The apps that are measured, and each adapter around them; servers import them by name."""

import asyncio
import functools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import a2wsgi
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, StreamingResponse
from flask import Flask, Response

from bridge import ASGIToWSGI, WSGIToASGI
from bridge.types import Environ, Message, Receive, Scope, Send, StartResponse
from tests.fakes import http_scope

BLOCK = bytes(64 * 1024)
LARGE_BLOCKS = 256  # 16 MiB
SMALL_BLOCK = bytes(100)
SMALL_BLOCKS = 20_000
WAIT = 0.1


def hello_wsgi(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]


def blocks_wsgi(block: bytes, count: int) -> Callable[[Environ, StartResponse], Iterable[bytes]]:
    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        for _ in range(count):
            yield block

    return app


def upload_wsgi(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    body = environ["wsgi.input"]
    while body.read(len(BLOCK)):
        pass
    return hello_wsgi(environ, start_response)


def waiting_wsgi(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    time.sleep(WAIT)
    return hello_wsgi(environ, start_response)


async def hello_asgi(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


def blocks_asgi(block: bytes, count: int) -> Callable[[Scope, Receive, Send], Any]:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        for _ in range(count):
            await send({"type": "http.response.body", "body": block, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return app


async def upload_asgi(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    await hello_asgi(scope, receive, send)


flask_app = Flask("benchmark")


@flask_app.get("/")
def hello_flask() -> Response:
    return Response("hello", mimetype="text/plain")


@flask_app.get("/work")
def work_flask() -> str:
    return str(sum(number * number for number in range(20_000)))


@flask_app.get("/ticks")
def ticks_flask() -> Response:
    def ticks() -> Iterator[str]:
        while True:
            yield "data: tick\n\n"
            time.sleep(1)

    return Response(ticks(), mimetype="text/event-stream")


fastapi_app = FastAPI()


@fastapi_app.get("/", response_class=PlainTextResponse)
async def hello_fastapi() -> str:
    return "hello"


@fastapi_app.get("/ticks")
async def ticks_fastapi() -> StreamingResponse:
    async def ticks() -> AsyncIterator[str]:
        while True:
            yield "data: tick\n\n"
            await asyncio.sleep(1)

    return StreamingResponse(ticks(), media_type="text/event-stream")


flask_bridge = WSGIToASGI(flask_app)
flask_a2wsgi = a2wsgi.WSGIMiddleware(flask_app, workers=40)  # type: ignore[arg-type]
flask_streams = WSGIToASGI(flask_app, workers=1000)
fastapi_bridge = ASGIToWSGI(fastapi_app)
# Made by the server's worker, as its loop does not live through a fork.
fastapi_a2wsgi: Any = None


def fastapi_a2wsgi_app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    global fastapi_a2wsgi
    if fastapi_a2wsgi is None:
        fastapi_a2wsgi = a2wsgi.ASGIMiddleware(fastapi_app)  # type: ignore[arg-type]
    iterable: Iterable[bytes] = fastapi_a2wsgi(environ, start_response)
    return iterable


def fastapi_bare_hop(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer by the least that gets there: the same scope each time, asyncio.run_coroutine_threadsafe, no checks."""
    messages: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        messages.append(message)

    asyncio.run_coroutine_threadsafe(fastapi_app(_SCOPE.copy(), receive, send), _loop_in_thread()).result()
    start_response("200 OK", [(name.decode(), value.decode()) for name, value in messages[0]["headers"]])
    return [messages[1]["body"]]


_SCOPE = http_scope()


@functools.cache
def _loop_in_thread() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop
