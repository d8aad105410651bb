"""FastAPI under the validator, with Django and a WSGI app mounted in it, each under a validator of its own."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterable
from typing import Any

import django  # type: ignore[import-untyped]  # Django brings no types
from django.conf import settings  # type: ignore[import-untyped]
from django.core.asgi import get_asgi_application  # type: ignore[import-untyped]
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse  # type: ignore[import-untyped]
from django.urls import path  # type: ignore[import-untyped]
from fastapi import BackgroundTasks, FastAPI, Request, WebSocket
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse

from bridge import WSGIToASGI
from bridge.types import Environ, StartResponse
from bridge.validate import validator


async def django_echo(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.body)


async def numbers() -> AsyncIterator[bytes]:
    for number in range(5):
        yield b"%d" % number
        await asyncio.sleep(0)


async def django_stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(numbers())


urlpatterns = [path("echo", django_echo), path("stream", django_stream)]


def wsgi_echo(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    yield from iter(lambda: environ["wsgi.input"].read(1000), b"")


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    yield {"name": "state"}


async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
    return await call_next(request)


fastapi = FastAPI(lifespan=lifespan)
fastapi.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)


@fastapi.api_route("/echo", methods=["GET", "HEAD", "POST"])
async def echo(request: Request, tasks: BackgroundTasks) -> Response:
    tasks.add_task(asyncio.sleep, 0)
    # Passed to the response itself, so that the tasks run after it.
    return PlainTextResponse(await request.body() or request.state.name, headers={"X-Case": "Mixed"}, background=tasks)


@fastapi.get("/file")
async def file() -> Response:
    return FileResponse(__file__)


@fastapi.get("/stream")
async def stream() -> Response:
    return StreamingResponse(numbers())


@fastapi.get("/endless")
async def endless() -> Response:
    async def blocks() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 10000
            await asyncio.sleep(0)

    return StreamingResponse(blocks())


@fastapi.websocket("/socket")
async def socket(websocket: WebSocket) -> None:
    await websocket.accept(subprotocol=websocket.scope["subprotocols"][0], headers=[(b"x-name", b"value")])
    while (text := await websocket.receive_text()) != "bye":
        await websocket.send_text(text)
        await websocket.send_bytes(text.encode())
    await websocket.close(4000, "bye")


@fastapi.websocket("/refused")
async def refused(websocket: WebSocket) -> None:
    await websocket.close()


@fastapi.websocket("/denied")
async def denied(websocket: WebSocket) -> None:
    await websocket.send_denial_response(PlainTextResponse("no", 401))


if not settings.configured:  # other tests in this process may have done it
    settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY=os.urandom(16).hex())
    django.setup()
settings.ROOT_URLCONF = __name__
fastapi.mount("/django", validator(get_asgi_application()))
fastapi.mount("/wsgi", validator(WSGIToASGI(wsgi_echo)))
app = validator(fastapi)
