"""A FastAPI app, with endpoints on the loop and in threads."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Form, Request, UploadFile
from fastapi.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from bridge import ASGIToWSGI
from tests.servers.frameworks import parts


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[parts.State]:
    async with parts.lifespan() as state:
        yield state


app = FastAPI(lifespan=lifespan)


@app.get("/json")
async def json(request: Request) -> dict[str, object]:
    return {"message": "héllo", "method": request.method}


@app.post("/multipart")
def multipart(name: Annotated[str, Form()], upload: UploadFile) -> dict[str, object]:
    return {"name": name, "filename": upload.filename, **parts.digest(upload.file.read())}


@app.post("/upload")
async def upload(request: Request) -> dict[str, object]:
    digest = parts.Digest()
    async for block in request.stream():
        digest.add(block)
    return digest.result()


@app.get("/download")
def download(size: int) -> StreamingResponse:
    return StreamingResponse(parts.download(size), media_type="application/octet-stream")


@app.get("/events")
async def events(count: int, pause: float) -> StreamingResponse:
    return StreamingResponse(parts.async_events(count, pause), media_type="text/event-stream")


@app.get("/left")
async def left() -> dict[str, object]:
    return {"left": parts.counts.left}


@app.get("/cookies")
async def cookies(request: Request) -> Response:
    response = JSONResponse(request.cookies)
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response


@app.get("/path/{rest:path}")
async def path(rest: str, q: str | None = None) -> dict[str, object]:
    return {"path": rest, "query": {"q": q}}


@app.get("/empty/{status}")
async def empty(status: int) -> Response:
    return Response(status_code=status)


@app.get("/error-before")
async def error_before() -> None:
    raise RuntimeError("before")


@app.get("/error-mid")
async def error_mid() -> StreamingResponse:
    return StreamingResponse(parts.async_fails(), media_type="text/plain")


@app.get("/slow")
def slow(seconds: float) -> dict[str, object]:
    time.sleep(seconds)
    return {"slept": seconds}


async def set_value(value: str) -> None:
    parts.value.set(value)


@app.get("/context")
async def context(value: str) -> StreamingResponse:
    await set_value(value)
    return StreamingResponse(parts.async_values(), media_type="text/plain")


@app.get("/redirect")
async def redirect(request: Request) -> RedirectResponse:
    return RedirectResponse(request.url_for("json"))


@app.get("/client")
async def client(request: Request) -> dict[str, object]:
    assert request.client is not None
    return {"client": request.client.host, "scheme": request.url.scheme, "host": request.url.netloc}


@app.get("/state")
async def state(request: Request) -> dict[str, object]:
    return {"started": request.state.started, "pid": request.state.pid}


@app.get("/ticks")
async def ticks() -> dict[str, object]:
    return {"ticks": parts.counts.ticks}


adapted = ASGIToWSGI(app)
