"""A Litestar app, with its docs page and a WebSocket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import anyio
from litestar import Litestar, MediaType, Request, Response, get, post, websocket_listener
from litestar.datastructures import State, UploadFile
from litestar.enums import RequestEncodingType
from litestar.middleware import ASGIMiddleware
from litestar.openapi.config import OpenAPIConfig
from litestar.params import Body
from litestar.response import Redirect, Stream
from litestar.types import ASGIApp, Receive, Scope, Send
from pydantic import BaseModel, ConfigDict

from bridge import ASGIToWSGI
from tests.servers.frameworks import parts

AnyRequest = Request[object, object, State]


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    async with parts.lifespan() as app.state.started:
        yield


class SetValue(ASGIMiddleware):
    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        parts.value.set(Request[object, object, State](scope).query_params.get("value", "nothing"))
        await next_app(scope, receive, send)


class Form(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    name: str
    upload: UploadFile


@get("/json")
async def json(request: AnyRequest) -> dict[str, object]:
    return {"message": "héllo", "method": request.method}


@post("/multipart", status_code=200)
async def multipart(data: Annotated[Form, Body(media_type=RequestEncodingType.MULTI_PART)]) -> dict[str, object]:
    return {"name": data.name, "filename": data.upload.filename, **parts.digest(await data.upload.read())}


@post("/upload", status_code=200, request_max_body_size=None)
async def upload(request: AnyRequest) -> dict[str, object]:
    digest = parts.Digest()
    async for block in request.stream():
        digest.add(block)
    return digest.result()


@get("/download")
async def download(size: int) -> Stream:
    return Stream(parts.async_download(size), media_type="application/octet-stream")


@get("/events")
async def events(count: int, pause: float) -> Stream:
    return Stream(parts.async_events(count, pause), media_type="text/event-stream")


@get("/left")
async def left() -> dict[str, object]:
    return {"left": parts.counts.left}


@get("/cookies")
async def cookies(request: AnyRequest) -> Response[dict[str, str]]:
    response = Response(request.cookies)
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response


@get("/path/{rest:path}")
async def path(rest: Path, q: str | None = None) -> dict[str, object]:
    return {"path": str(rest).removeprefix("/"), "query": {"q": q}}


@get("/empty/{status:int}")
async def empty(status: int) -> Response[None]:
    return Response(None, status_code=status)


@get("/error-before")
async def error_before() -> None:
    raise RuntimeError("before")


@get("/error-mid")
async def error_mid() -> Stream:
    return Stream(parts.async_fails(), media_type=MediaType.TEXT)


@get("/slow")
async def slow(seconds: float) -> dict[str, object]:
    await anyio.sleep(seconds)
    return {"slept": seconds}


@get("/context")
async def context() -> Stream:
    return Stream(parts.async_values(), media_type=MediaType.TEXT)


@get("/redirect")
async def redirect(request: AnyRequest) -> Redirect:
    return Redirect(request.url_for(json))


@get("/client")
async def client(request: AnyRequest) -> dict[str, object]:
    assert request.client is not None
    return {"client": request.client.host, "scheme": request.url.scheme, "host": request.url.netloc}


@get("/state")
async def show_state(state: State) -> parts.State:
    started: parts.State = state.started
    return started


@get("/ticks")
async def ticks() -> dict[str, object]:
    return {"ticks": parts.counts.ticks}


@websocket_listener("/ws")
async def echo(data: str) -> str:
    return data


app = Litestar(
    [
        *(json, multipart, upload, download, events, left, cookies, path, empty, error_before, error_mid),
        *(slow, context, redirect, client, show_state, ticks, echo),
    ],
    lifespan=[lifespan],
    middleware=[SetValue()],
    openapi_config=OpenAPIConfig("Test", "1", path="/docs"),
    # Litestar's own starts a thread at import, for which a process that uWSGI has forked waits for ever at its exit.
    logging_config=None,
)
adapted = ASGIToWSGI(app)
