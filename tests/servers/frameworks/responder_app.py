"""A Responder app, with its docs page and a WebSocket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import responder
from responder import Request, Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from bridge import ASGIToWSGI
from tests.servers.frameworks import parts


@asynccontextmanager
async def lifespan(api: responder.API) -> AsyncIterator[None]:
    async with parts.lifespan() as api.state.started:
        yield


# Not compressed, so that a client sees each block.
api = responder.API(title="Test", version="1", docs_route="/docs", lifespan=lifespan, gzip=False)


@api.before_request()
async def set_value(req: Request, resp: Response) -> None:
    parts.value.set(req.params.get("value", "nothing"))


@api.route("/json")
async def json(req: Request, resp: Response) -> None:
    resp.media = {"message": "héllo", "method": req.method.upper()}


@api.post("/multipart")
async def multipart(req: Request, resp: Response) -> None:
    form, files = await req.media("form"), await req.media("files")
    upload = files["upload"]
    resp.media = {"name": form["name"], "filename": upload.filename, **parts.digest(await upload.read())}


@api.post("/upload")
async def upload(req: Request, resp: Response) -> None:
    digest = parts.Digest()
    async for block in req.stream():
        digest.add(block)
    resp.media = digest.result()


@api.route("/download")
async def download(req: Request, resp: Response) -> None:
    resp.mimetype = "application/octet-stream"
    resp.stream(parts.async_download, int(req.params["size"]))


@api.route("/events")
async def events(req: Request, resp: Response) -> None:
    resp.sse(parts.async_events, int(req.params["count"]), float(req.params["pause"]))


@api.route("/left")
async def left(req: Request, resp: Response) -> None:
    resp.media = {"left": parts.counts.left}


@api.route("/cookies")
async def cookies(req: Request, resp: Response) -> None:
    resp.media = req.cookies
    resp.set_cookie("a", "1")
    resp.set_cookie("b", "2")


@api.route("/path/{rest:path}")
async def path(req: Request, resp: Response, *, rest: str) -> None:
    resp.media = {"path": rest, "query": {"q": req.params.get("q")}}


@api.route("/empty/{status:int}")
async def empty(req: Request, resp: Response, *, status: int) -> None:
    resp.status_code = status


@api.route("/error-before")
async def error_before(req: Request, resp: Response) -> None:
    raise RuntimeError("before")


@api.route("/error-mid")
async def error_mid(req: Request, resp: Response) -> None:
    resp.mimetype = "text/plain"
    resp.stream(parts.async_fails)


@api.route("/slow")
async def slow(req: Request, resp: Response) -> None:
    seconds = float(req.params["seconds"])
    await asyncio.sleep(seconds)
    resp.media = {"slept": seconds}


@api.route("/context")
async def context(req: Request, resp: Response) -> None:
    in_view = parts.value.get()
    resp.mimetype = "text/plain"

    @resp.stream
    async def body() -> AsyncIterator[bytes]:
        yield in_view.encode()
        yield f" {parts.value.get()}".encode()


@api.route("/redirect")
async def redirect(req: Request, resp: Response) -> None:
    resp.redirect(api.url_for(json))


@api.route("/client")
async def client(req: Request, resp: Response) -> None:
    resp.media = {"client": req.client.host, "scheme": req.url.scheme, "host": req.url.netloc}


@api.route("/state")
async def state(req: Request, resp: Response) -> None:
    resp.media = api.state.started


@api.route("/ticks")
async def ticks(req: Request, resp: Response) -> None:
    resp.media = {"ticks": parts.counts.ticks}


@api.websocket_route("/ws")
async def echo(ws: WebSocket) -> None:
    await ws.accept()
    try:
        while True:
            await ws.send_text(await ws.receive_text())
    except WebSocketDisconnect:
        pass


app = api
adapted = ASGIToWSGI(api)
