"""A Quart app, with a WebSocket."""

import asyncio
from collections.abc import AsyncGenerator

from quart import Quart, Response, redirect, request, url_for, websocket
from werkzeug import Response as Redirect

from bridge import ASGIToWSGI
from tests.servers.frameworks import parts

app = Quart(__name__)
app.config["MAX_CONTENT_LENGTH"] = 64 * 1024 * 1024  # 16 MiB otherwise
app.config["RESPONSE_TIMEOUT"] = None  # a minute otherwise


@app.while_serving
async def lifespan() -> AsyncGenerator[None, None]:
    async with parts.lifespan() as app.extensions["state"]:
        yield


@app.before_request
async def set_value() -> None:
    parts.value.set(request.args.get("value", "nothing"))


@app.get("/json")
async def json() -> dict[str, object]:
    return {"message": "héllo", "method": request.method}


@app.post("/multipart")
async def multipart() -> dict[str, object]:
    form, files = await request.form, await request.files
    upload = files["upload"]
    return {"name": form["name"], "filename": upload.filename, **parts.digest(upload.read())}


@app.post("/upload")
async def upload() -> dict[str, object]:
    digest = parts.Digest()
    async for block in request.body:
        digest.add(block)
    return digest.result()


@app.get("/download")
async def download() -> Response:
    return Response(parts.async_download(int(request.args["size"])), mimetype="application/octet-stream")


@app.get("/events")
async def events() -> Response:
    stream = parts.async_events(int(request.args["count"]), float(request.args["pause"]))
    return Response(stream, mimetype="text/event-stream")


@app.get("/left")
async def left() -> dict[str, object]:
    return {"left": parts.counts.left}


@app.get("/cookies")
async def cookies() -> Response:
    response = await app.make_response(dict(request.cookies))
    assert isinstance(response, Response)
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response


@app.get("/path/<path:rest>")
async def path(rest: str) -> dict[str, object]:
    return {"path": rest, "query": {"q": request.args.get("q")}}


@app.get("/empty/<int:status>")
async def empty(status: int) -> tuple[str, int]:
    return "", status


@app.get("/error-before")
async def error_before() -> str:
    raise RuntimeError("before")


@app.get("/error-mid")
async def error_mid() -> Response:
    return Response(parts.async_fails(), mimetype="text/plain")


@app.get("/slow")
async def slow() -> dict[str, object]:
    seconds = float(request.args["seconds"])
    await asyncio.sleep(seconds)
    return {"slept": seconds}


@app.get("/context")
async def context() -> Response:
    return Response(parts.async_values(), mimetype="text/plain")


@app.get("/redirect")
async def redirect_to_json() -> Redirect:
    return redirect(url_for("json"))


@app.get("/client")
async def client() -> dict[str, object]:
    return {"client": request.remote_addr, "scheme": request.scheme, "host": request.host}


@app.get("/state")
async def state() -> dict[str, object]:
    return dict(app.extensions["state"])


@app.get("/ticks")
async def ticks() -> dict[str, object]:
    return {"ticks": parts.counts.ticks}


@app.websocket("/ws")
async def echo() -> None:
    while True:
        await websocket.send(await websocket.receive())


adapted = ASGIToWSGI(app)
