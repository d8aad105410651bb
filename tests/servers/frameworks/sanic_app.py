"""A Sanic app, with a WebSocket."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote

from sanic import HTTPResponse, Request, Sanic, Websocket, empty, redirect
from sanic.response import json

from bridge import ASGIToWSGI
from tests.servers.frameworks import parts

App = Sanic[Any, Any]
AnyRequest = Request[App, Any]

app: App = Sanic("test", configure_logging=False)


@app.before_server_start
async def start(app: App) -> None:
    app.ctx.state = parts.started()
    app.add_task(parts.tick(), name="tick")


@app.after_server_stop
async def stop(app: App) -> None:
    await app.cancel_task("tick")
    parts.shut_down()


@app.on_request
async def set_value(request: AnyRequest) -> None:
    parts.value.set(request.args.get("value", "nothing"))


async def stream(request: AnyRequest, blocks: AsyncIterator[bytes], content_type: str) -> None:
    response = await request.respond(content_type=content_type)
    assert response is not None
    async for block in blocks:
        await response.send(block)
    await response.eof()


@app.get("/json", name="json")
async def show_json(request: AnyRequest) -> HTTPResponse:
    return json({"message": "héllo", "method": request.method})


@app.post("/multipart")
async def multipart(request: AnyRequest) -> HTTPResponse:
    assert request.form
    assert request.files
    upload = request.files.get("upload")
    assert upload
    return json({"name": request.form.get("name"), "filename": upload.name, **parts.digest(upload.body)})


@app.post("/upload", stream=True)
async def upload(request: AnyRequest) -> HTTPResponse:
    digest = parts.Digest()
    assert request.stream
    # After the end, read() would wait for ever.
    async for block in request.stream:  # type: ignore[attr-defined]
        digest.add(block)
    return json(digest.result())


@app.get("/download")
async def download(request: AnyRequest) -> None:
    await stream(request, parts.async_download(int(request.args.get("size"))), "application/octet-stream")


@app.get("/events")
async def events(request: AnyRequest) -> None:
    count, pause = int(request.args.get("count")), float(request.args.get("pause"))
    await stream(request, parts.async_events(count, pause), "text/event-stream")


@app.get("/left")
async def left(request: AnyRequest) -> HTTPResponse:
    return json({"left": parts.counts.left})


@app.get("/cookies")
async def cookies(request: AnyRequest) -> HTTPResponse:
    response = json({name: request.cookies.get(name) for name in request.cookies})
    response.add_cookie("a", "1", secure=False)
    response.add_cookie("b", "2", secure=False)
    return response


@app.get("/path/<rest:path>")
async def path(request: AnyRequest, rest: str) -> HTTPResponse:
    # Sanic leaves parameters of this type encoded, even if told to unquote them.
    return json({"path": unquote(rest), "query": {"q": request.args.get("q")}})


@app.get("/empty/<status:int>")
async def show_empty(request: AnyRequest, status: int) -> HTTPResponse:
    return empty(status)


@app.get("/error-before")
async def error_before(request: AnyRequest) -> HTTPResponse:
    raise RuntimeError("before")


@app.get("/error-mid")
async def error_mid(request: AnyRequest) -> None:
    await stream(request, parts.async_fails(), "text/plain")


@app.get("/slow")
async def slow(request: AnyRequest) -> HTTPResponse:
    seconds = float(request.args.get("seconds"))
    await asyncio.sleep(seconds)
    return json({"slept": seconds})


@app.get("/context")
async def context(request: AnyRequest) -> None:
    await stream(request, parts.async_values(), "text/plain")


@app.get("/redirect")
async def redirect_to_json(request: AnyRequest) -> HTTPResponse:
    return redirect(request.url_for("json"))


@app.get("/client")
async def client(request: AnyRequest) -> HTTPResponse:
    return json({"client": request.ip, "scheme": request.scheme, "host": request.host})


@app.get("/state")
async def state(request: AnyRequest) -> HTTPResponse:
    return json(request.app.ctx.state)


@app.get("/ticks")
async def ticks(request: AnyRequest) -> HTTPResponse:
    return json({"ticks": parts.counts.ticks})


@app.websocket("/ws")  # type: ignore[untyped-decorator]
async def echo(request: AnyRequest, websocket: Websocket) -> None:
    while (message := await websocket.recv()) is not None:
        await websocket.send(message)


adapted = ASGIToWSGI(app)
