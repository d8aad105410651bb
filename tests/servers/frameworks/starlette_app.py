"""A Starlette app, with a lifespan, a middleware and a WebSocket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from bridge import ASGIToWSGI
from tests.servers.frameworks import parts


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[parts.State]:
    async with parts.lifespan() as state:
        yield state


async def set_value(request: Request, call_next: RequestResponseEndpoint) -> Response:
    parts.value.set(request.query_params.get("value", "nothing"))
    return await call_next(request)


async def json(request: Request) -> Response:
    return JSONResponse({"message": "héllo", "method": request.method})


async def multipart(request: Request) -> Response:
    async with request.form() as form:
        upload = form["upload"]
        assert isinstance(upload, UploadFile)
        return JSONResponse({"name": form["name"], "filename": upload.filename, **parts.digest(await upload.read())})


async def upload(request: Request) -> Response:
    digest = parts.Digest()
    async for block in request.stream():
        digest.add(block)
    return JSONResponse(digest.result())


async def download(request: Request) -> Response:
    size = int(request.query_params["size"])
    return StreamingResponse(parts.async_download(size), media_type="application/octet-stream")


async def events(request: Request) -> Response:
    count, pause = int(request.query_params["count"]), float(request.query_params["pause"])
    return StreamingResponse(parts.async_events(count, pause), media_type="text/event-stream")


async def left(request: Request) -> Response:
    return JSONResponse({"left": parts.counts.left})


async def cookies(request: Request) -> Response:
    response = JSONResponse(request.cookies)
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response


async def path(request: Request) -> Response:
    return JSONResponse({"path": request.path_params["rest"], "query": {"q": request.query_params.get("q")}})


async def empty(request: Request) -> Response:
    return Response(status_code=request.path_params["status"])


async def error_before(request: Request) -> Response:
    raise RuntimeError("before")


async def error_mid(request: Request) -> Response:
    return StreamingResponse(parts.async_fails(), media_type="text/plain")


async def slow(request: Request) -> Response:
    seconds = float(request.query_params["seconds"])
    await anyio.sleep(seconds)
    return JSONResponse({"slept": seconds})


async def context(request: Request) -> Response:
    return StreamingResponse(parts.async_values(), media_type="text/plain")


async def redirect(request: Request) -> Response:
    return RedirectResponse(request.url_for("json"))


async def client(request: Request) -> Response:
    assert request.client is not None
    return JSONResponse({"client": request.client.host, "scheme": request.url.scheme, "host": request.url.netloc})


async def state(request: Request) -> Response:
    return JSONResponse({"started": request.state.started, "pid": request.state.pid})


async def ticks(request: Request) -> Response:
    return JSONResponse({"ticks": parts.counts.ticks})


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        pass


app = Starlette(
    routes=[
        Route("/json", json),
        Route("/multipart", multipart, methods=["POST"]),
        Route("/upload", upload, methods=["POST"]),
        Route("/download", download),
        Route("/events", events),
        Route("/left", left),
        Route("/cookies", cookies),
        Route("/path/{rest:path}", path),
        Route("/empty/{status:int}", empty),
        Route("/error-before", error_before),
        Route("/error-mid", error_mid),
        Route("/slow", slow),
        # Not around the whole app, because this middleware makes a body that breaks off look whole.
        Route("/context", context, middleware=[Middleware(BaseHTTPMiddleware, dispatch=set_value)]),
        Route("/redirect", redirect),
        Route("/client", client),
        Route("/state", state),
        Route("/ticks", ticks),
        WebSocketRoute("/ws", echo),
    ],
    lifespan=lifespan,
)
adapted = ASGIToWSGI(app)
