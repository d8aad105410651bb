"""The ASGI apps that real WSGI servers serve for the tests.

`wsgi_app` is `app` behind the adapter: one small app per path, most of them named after what they do,
or do wrong. They write to the server's log what no client can see.
"""

import asyncio
import contextvars
import functools
import hashlib
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
from anyio.streams.buffered import BufferedByteReceiveStream
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from bridge import ASGIToWSGI
from bridge.types import ASGIApp, Environ, Receive, Scope, Send, StartResponse, WSGIApp

BLOCK = b"x" * 65536


def note(text: str) -> None:
    """Write a line to the server's log, in one piece."""
    os.write(2, f"<{text}>\n".encode())


async def answer(send: Send, body: object, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
    """Send a whole response, bytes as they are and anything else as JSON, with the process's pid in a header."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    raw_headers = [(b"content-length", b"%d" % len(data)), (b"x-pid", b"%d" % os.getpid()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": raw_headers})
    await send({"type": "http.response.body", "body": data})


async def start(send: Send, **headers: bytes) -> None:
    raw_headers = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 200, "headers": raw_headers})


async def send_part(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


# --- Correct apps ---------------------------------------------------------------------------------


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"hello")


async def digest(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with a digest of the request's body, and with how it arrived."""
    sha256, sizes, more_body = hashlib.sha256(), [], True
    while more_body:
        message = await receive()
        sha256.update(message["body"])
        sizes.append(len(message["body"]))
        more_body = message["more_body"]
    await answer(send, {"sha256": sha256.hexdigest(), "total": sum(sizes), "largest": max(sizes)})


async def total(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the length of the request's body."""
    length, more_body = 0, True
    while more_body:
        message = await receive()
        length += len(message["body"])
        more_body = message["more_body"]
    await answer(send, length)


async def tasks(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with how many tasks there are on the loop."""
    await answer(send, len(asyncio.all_tasks()))


async def describe(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the scope, with bytes as latin-1, and with the names of the environ's variables."""
    shown = {key: value for key, value in scope.items() if key not in ("wsgi_environ", "state")}
    shown["variables"] = list(scope["wsgi_environ"])
    await answer(send, json.dumps(shown, default=lambda value: value.decode("latin-1")).encode())


async def lifespan_state(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what the lifespan stored in the state, and add something to it."""
    state = scope["state"]
    await answer(send, {"startups": state["lifespan"]["startups"], "ticks": state["lifespan"]["ticks"], **state})
    state["of_an_earlier_request"] = True


async def status(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the status in the path, and with a body, even if the status must not have one."""
    code = int(scope["path"].rpartition("/")[2])
    await send({"type": "http.response.start", "status": code, "headers": []})
    await send_part(send, b"body")
    await send({"type": "http.response.body", "body": b" of it"})


async def cookies(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"", 200, (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"x-latin", b"caf\xe9"))


async def download(scope: Scope, receive: Receive, send: Send) -> None:
    """Send as many blocks of 64 KiB as the path says."""
    count = int(scope["path"].rpartition("/")[2])
    await start(send, content_length=b"%d" % (count * len(BLOCK)))
    for left in reversed(range(count)):
        await send({"type": "http.response.body", "body": BLOCK, "more_body": left > 0})


async def ticking(scope: Scope, receive: Receive, send: Send) -> None:
    """Send a short block every 50 ms until the client leaves, and note that."""
    await start(send, content_type=b"text/event-stream")

    async def tick() -> None:
        while True:
            await send_part(send, b"data: tick\n\n")
            await anyio.sleep(0.05)

    try:
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(tick)
            while (await receive())["type"] != "http.disconnect":
                pass
            task_group.cancel_scope.cancel()
    finally:
        note(f"{scope['path']} has ended")


async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer after the number of seconds in the path."""
    await anyio.sleep(float(scope["path"].rpartition("/")[2]))
    await answer(send, b"slept")


async def early_hints(scope: Scope, receive: Receive, send: Send) -> None:
    if "http.response.early_hint" in scope["extensions"]:
        await send({"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]})
    await answer(send, b"hello")


_variable: contextvars.ContextVar[str] = contextvars.ContextVar("_variable", default="unset")


async def context(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the value of a context variable, and then set it."""
    found = _variable.get()
    _variable.set("of an earlier request")
    await anyio.lowlevel.checkpoint()
    await answer(send, [found, _variable.get()])


_kept: list[Scope] = []


async def keep(scope: Scope, receive: Receive, send: Send) -> None:
    """Store the scope, as a background task does."""
    _kept.append(scope)
    await answer(send, b"kept")


async def kept(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the cookie in the environ of the scope that was stored last."""
    await answer(send, _kept.pop()["wsgi_environ"]["HTTP_COOKIE"].encode())


async def puppet(scope: Scope, receive: Receive, send: Send) -> None:
    """Connect to the port in the path, obey the test's orders, and report how each of them ended.

    An order is a line of JSON, ["send", message], ["receive"], ["return"] or ["raise"]; the first two
    may overlap. Bytes are carried as latin-1 text.
    """
    port = int(scope["path"].rpartition("/")[2])
    name = "return"
    async with await anyio.connect_tcp("127.0.0.1", port) as connection, anyio.create_task_group() as orders:

        async def tell(*reply: object) -> None:
            await connection.send(json.dumps(reply, default=lambda value: value.decode("latin-1")).encode() + b"\n")

        async def obey(name: str, message: dict[str, Any]) -> None:
            try:
                result = await (send(message) if name == "send" else receive())
            except OSError as error:
                result = {"OSError": str(error)}
            await tell(name, result)

        await tell("pid", os.getpid())
        lines = BufferedByteReceiveStream(connection)
        while True:
            try:
                name, *arguments = json.loads(await lines.receive_until(b"\n", 1_000_000))
            except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
                break
            if name in ("return", "raise"):
                break
            message = dict(*arguments)
            if "body" in message:
                message["body"] = message["body"].encode("latin-1")
            orders.start_soon(obey, name, message)
        orders.cancel_scope.cancel()
    if name == "raise":
        raise RuntimeError("the puppet was told to raise")


# --- Faulty apps ----------------------------------------------------------------------------------


async def sends_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    pass


async def sends_only_start(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)


async def sends_body_before_start(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.body", "body": b"body"})


async def sends_unknown_type(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.nonsense"})


async def sends_no_dict(scope: Scope, receive: Receive, send: Send) -> None:
    await send(None)  # type: ignore[arg-type]


async def sends_bad_header(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, x_bad=b"a\r\nb: c")


async def is_cancelled(scope: Scope, receive: Receive, send: Send) -> None:
    raise asyncio.CancelledError


async def unwinds_slowly(scope: Scope, receive: Receive, send: Send) -> None:
    note(f"{scope['path']} runs")
    try:
        await anyio.sleep(60)
    finally:
        note(f"{scope['path']} unwinds")
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.3)


async def exits(scope: Scope, receive: Receive, send: Send) -> None:
    raise SystemExit(3)


async def exits_in_a_task(scope: Scope, receive: Receive, send: Send) -> None:
    async def child() -> None:
        raise SystemExit(3)

    await asyncio.create_task(child())


async def raises_before_start(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("before start")


async def raises_after_start(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, content_length=b"10")
    raise RuntimeError("after start")


async def raises_while_receiving(scope: Scope, receive: Receive, send: Send) -> None:
    async def wait() -> None:
        await receive()
        await receive()

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(wait)
        task_group.start_soon(wait)
        await anyio.sleep(0.02)
        raise RuntimeError("while receiving")


async def falls_short(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, content_length=b"10")
    await send({"type": "http.response.body", "body": b"start"})


async def leaves_body_unfinished(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, content_length=b"10")
    await send_part(send, b"start")


async def is_cancelled_in_body(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, content_length=b"10")
    await send_part(send, b"start")
    raise asyncio.CancelledError


async def raises_in_body(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, content_length=b"10")
    await send_part(send, b"start")
    raise RuntimeError("in body")


async def leaves_chunks_unfinished(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await send_part(send, b"start")


async def raises_in_chunks(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send)
    await send_part(send, b"start")
    raise RuntimeError("in chunks")


async def raises_after_end(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"hello")
    raise RuntimeError("after end")


async def receives_after_end(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"hello")
    note(f"{scope['path']} got {(await receive())['type']} and {(await receive())['type']}")


async def sends_after_end(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"hello")
    await send({"type": "http.response.body", "body": b"more"})
    await start(send)


async def overruns(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, content_length=b"5")
    await send_part(send, b"hel")
    await send({"type": "http.response.body", "body": b"lo and more"})


async def overruns_for_ever(scope: Scope, receive: Receive, send: Send) -> None:
    try:
        await start(send, content_length=b"5")
        while True:
            await send_part(send, b"hello")
            await anyio.sleep(0.05)
    finally:
        note(f"{scope['path']} has ended")


# --- Frameworks -----------------------------------------------------------------------------------


def thread(request: Request) -> Response:
    return JSONResponse([_variable.get(), threading.current_thread().name])


def sleep(request: Request) -> Response:
    time.sleep(request.path_params["seconds"])
    return PlainTextResponse("slept")


def file(request: Request) -> Response:
    return FileResponse(request.query_params["path"])


def file_of_the_proxy(request: Request) -> Response:
    return Response(headers={"X-Accel-Redirect": "/files/a", "Content-Length": "1234"})


async def upload(request: Request) -> Response:
    return JSONResponse(len(await request.body()))


async def stream(request: Request) -> Response:
    """Send one event, and then nothing for a minute."""

    async def events() -> AsyncIterator[str]:
        try:
            yield "data: first\n\n"
            await anyio.sleep(60)
        finally:
            note(f"{request.url.path} has ended")

    return StreamingResponse(events(), media_type="text/event-stream")


async def exact(request: Request) -> Response:
    """Do something after the last byte."""

    async def blocks() -> AsyncIterator[str]:
        yield "hel"
        yield "lo"
        await anyio.sleep(0.1)
        note(f"{request.url.path} went on to its end")

    done = BackgroundTask(note, f"{request.url.path} is done")
    return StreamingResponse(blocks(), headers={"Content-Length": "5"}, background=done)


async def raises(request: Request) -> Response:
    raise RuntimeError("behind a middleware")


async def middleware(request: Request, call_next: RequestResponseEndpoint) -> Response:
    return await call_next(request)


starlette = Starlette(
    routes=[
        Route("/starlette/thread", thread),
        Route("/starlette/sleep/{seconds:float}", sleep),
        Route("/starlette/file", file),
        Route("/starlette/file_of_the_proxy", file_of_the_proxy),
        Route("/starlette/upload", upload, methods=["POST"]),
        Route("/starlette/stream/{key}", stream),
        Route("/starlette/exact/{key}", exact),
        Route("/starlette/raises", raises, middleware=[Middleware(BaseHTTPMiddleware, dispatch=middleware)]),
    ],
)


@functools.cache
def make_fastapi() -> ASGIApp:
    """Return a FastAPI app, which is created on first use because the import is slow."""
    from fastapi import BackgroundTasks, Depends, FastAPI, UploadFile

    fastapi = FastAPI()

    def connection(key: str) -> Iterator[str]:
        yield f"connection of {key}"
        note(f"connection of {key} is closed")

    @fastapi.get("/fastapi/items/{key}")
    def items(key: str, tasks: BackgroundTasks, connection: str = Depends(connection)) -> list[str]:
        tasks.add_task(note, f"background of {key} has run")
        return [connection, threading.current_thread().name]

    @fastapi.post("/fastapi/upload")
    async def upload(file: UploadFile) -> int:
        return len(await file.read())

    return fastapi


# --- Lifespans, and all together ------------------------------------------------------------------

_startups = 0


async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """Count the startups, tick every 50 ms while the app is served, and note the shutdown."""
    global _startups
    await receive()
    _startups += 1
    shared = scope["state"]["lifespan"] = {"startups": _startups, "ticks": 0}

    async def tick() -> None:
        while True:
            await anyio.sleep(0.05)
            shared["ticks"] += 1

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(tick)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        task_group.cancel_scope.cancel()
    note(f"shutdown of {os.getpid()}")
    await send({"type": "lifespan.shutdown.complete"})


_apps: dict[str, Any] = dict(globals())


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Pass a request to the app named by the start of its path."""
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
        return
    name = scope["path"].removeprefix(scope["root_path"]).split("/")[1]
    await (make_fastapi() if name == "fastapi" else _apps[name])(scope, receive, send)


class FailsAtFirst:
    """An app whose first startups fail, like those of an app that waits for its database."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await answer(send, b"started")
        elif self.failures:
            self.failures -= 1
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no database"})
        else:
            await lifespan(scope, receive, send)


# --- WSGI -----------------------------------------------------------------------------------------


def native_raises(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    raise RuntimeError("before start")


def native_raises_in_chunks(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    yield b"start"
    raise RuntimeError("in chunks")


_bridged = ASGIToWSGI(app, pathsend=True)
_without_lifespan = ASGIToWSGI(app, lifespan="off")
_trio = ASGIToWSGI(app, backend="trio")
_uvloop = ASGIToWSGI(app, backend_options={"use_uvloop": True})
_fails_at_first: dict[str, WSGIApp] = {}
# The apps that are mounted below a prefix; /native shows what a plain WSGI app does.
_mounts: dict[str, WSGIApp] = {
    "mounted": _bridged,
    "without-lifespan": _without_lifespan,
    "trio": _trio,
    "uvloop": _uvloop,
    "native/raises": native_raises,
    "native/raises_in_chunks": native_raises_in_chunks,
}


def wsgi_app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Serve `app`, or the app that is mounted at the prefix of the path."""
    path: str = environ["PATH_INFO"]
    _, prefix, *rest = path.split("/")
    if prefix == "native":
        prefix = path[1:]
    if prefix == "fails-at-first":
        mounted: WSGIApp | None = _fails_at_first.setdefault(rest[0], ASGIToWSGI(FailsAtFirst(2)))
    else:
        mounted = _mounts.get(prefix)
    if mounted is None:
        return _bridged(environ, start_response)
    environ["SCRIPT_NAME"] += f"/{prefix}"
    environ["PATH_INFO"] = path.removeprefix(f"/{prefix}")
    return mounted(environ, start_response)


if "START_AT_IMPORT" in os.environ:  # gunicorn --preload imports this before it forks
    _bridged.start()
