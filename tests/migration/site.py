"""A site half moved, for real servers: the environment's NEW and OLD name the frameworks of both apps.

What one app streams and counts the other does as well, by the paths that end in "new" and "old".
"""

import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bridge import WSGIToASGI
from bridge.migration import ASGIFallback, WSGIFallback
from tests.servers.frameworks import parts

MAX_SIZE = 200 * 1024 * 1024  # Quart refuses more than 16 MiB otherwise


def _starlette_routes() -> list[Any]:
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
    from starlette.websockets import WebSocket, WebSocketDisconnect

    async def both(request: Request) -> Response:
        return PlainTextResponse(f"new {request.method}")

    async def gone(request: Request) -> Response:
        raise HTTPException(404, "no such thing")

    async def refuses(request: Request) -> Response:
        return PlainTextResponse("who are you?", status_code=401)

    async def fails(request: Request) -> Response:
        raise RuntimeError("of a test")

    async def state(request: Request) -> Response:
        return JSONResponse({"started": request.state.started})

    async def where(request: Request) -> Response:
        return PlainTextResponse(request.url_for("where").path)

    async def upload(request: Request) -> Response:
        digest = parts.Digest()
        async for block in request.stream():
            digest.add(block)
        return JSONResponse(digest.result())

    async def download(request: Request) -> Response:
        return StreamingResponse(parts.async_download(int(request.query_params["size"])))

    async def events(request: Request) -> Response:
        return StreamingResponse(parts.async_events(1000, 0.02), media_type="text/event-stream")

    async def left(request: Request) -> Response:
        return JSONResponse(parts.counts.left)

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_text(f"new {await websocket.receive_text()}")
        except WebSocketDisconnect:
            pass

    return [
        Route("/both", both, methods=["GET"]),
        Route("/fresh/", both),
        Route("/slash/", both),
        Route("/gone", gone),
        Route("/refuses", refuses),
        Route("/fails", fails),
        Route("/sub/both", both, methods=["PUT"]),
        Route("/state", state),
        Route("/where/new", where, name="where"),
        Host("other.example", Router([Route("/hosted", both)])),
        Mount("/in", routes=[Route("/both", both)]),
        Mount("/closed", PlainTextResponse("new closed", status_code=404)),
        Route("/upload/new", upload, methods=["POST"]),
        Route("/download/new", download),
        Route("/events/new", events),
        Route("/left/new", left),
        WebSocketRoute("/ws/new", echo),
    ]


@asynccontextmanager
async def _lifespan(app: Any) -> AsyncIterator[parts.State]:
    async with parts.lifespan() as state:
        yield state


def starlette() -> Any:
    from starlette.applications import Starlette

    return Starlette(routes=_starlette_routes(), lifespan=_lifespan)


def fastapi() -> Any:
    from fastapi import FastAPI

    app = FastAPI(routes=_starlette_routes(), lifespan=_lifespan)

    @app.get("/item/{number}")
    async def item(number: int) -> str:
        return f"new {number}"

    return app


def quart() -> Any:
    from quart import Quart, Response, abort, request, websocket

    app = Quart("new", static_folder=None)
    app.config.update(MAX_CONTENT_LENGTH=MAX_SIZE, RESPONSE_TIMEOUT=None, BODY_TIMEOUT=None)

    @app.while_serving
    async def lifespan() -> AsyncGenerator[None, None]:
        async with parts.lifespan() as app.extensions["state"]:
            yield

    @app.get("/in/both")
    @app.get("/fresh/")
    @app.get("/slash/")
    @app.get("/both")
    @app.put("/sub/both")
    async def both() -> str:
        return f"new {request.method}"

    @app.get("/refuses")
    async def refuses() -> tuple[str, int]:
        return "who are you?", 401

    @app.get("/fails")
    async def fails() -> str:
        raise RuntimeError("of a test")

    @app.get("/gone")
    async def gone() -> str:
        abort(404, "no such thing")

    @app.get("/state")
    async def state() -> dict[str, object]:
        return {"started": app.extensions["state"]["started"]}

    @app.post("/upload/new")
    async def upload() -> dict[str, object]:
        digest = parts.Digest()
        async for block in request.body:
            digest.add(block)
        return digest.result()

    @app.get("/download/new")
    async def download() -> Response:
        return Response(parts.async_download(int(request.args["size"])))

    @app.get("/events/new")
    async def events() -> Response:
        return Response(parts.async_events(1000, 0.02), mimetype="text/event-stream")

    @app.get("/left/new")
    async def left() -> str:
        return str(parts.counts.left)

    @app.websocket("/ws/new")
    async def echo() -> None:
        while True:
            text = await websocket.receive()
            await websocket.send(f"new {text!s}")

    return app


def flask() -> Any:
    from flask import Flask, Response, request, url_for
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    app, sub = Flask("old", static_folder=None), Flask("sub", static_folder=None)
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/sub": sub})  # type: ignore[method-assign]

    @sub.route("/both")
    @app.route("/hosted")
    @app.route("/in/old")
    @app.route("/closed/old")
    @app.route("/item/<number>")
    @app.route("/slash")
    @app.route("/both", methods=["GET", "POST"])
    def both(number: str = "") -> str:
        return f"old {request.method}"

    @app.get("/where/old")
    def where() -> str:
        return url_for("where")

    @app.post("/upload/old")
    def upload() -> dict[str, object]:
        digest = parts.Digest()
        while block := request.stream.read(parts.BLOCK):
            digest.add(block)
        return digest.result()

    @app.get("/download/old")
    def download() -> Response:
        return Response(parts.download(int(request.args["size"])))

    @app.get("/events/old")
    def events() -> Response:
        return Response(parts.events(1000, 0.02), mimetype="text/event-stream")

    @app.get("/left/old")
    def left() -> str:
        return str(parts.counts.left)

    return app


def django() -> Any:
    import django as package  # type: ignore[import-untyped]  # Django brings no types
    from django.conf import settings  # type: ignore[import-untyped]
    from django.core.wsgi import get_wsgi_application  # type: ignore[import-untyped]
    from django.http import HttpResponse, HttpResponseNotAllowed, JsonResponse, StreamingHttpResponse  # type: ignore[import-untyped]
    from django.urls import path  # type: ignore[import-untyped]

    def both(request: Any, number: str = "") -> Any:
        if request.method not in ("GET", "HEAD", "POST", "OPTIONS"):
            return HttpResponseNotAllowed(["GET", "HEAD", "POST", "OPTIONS"])
        return HttpResponse(f"old {request.method}", content_type="text/plain")

    def upload(request: Any) -> Any:
        digest = parts.Digest()
        while block := request.read(parts.BLOCK):
            digest.add(block)
        return JsonResponse(digest.result())

    def download(request: Any) -> Any:
        return StreamingHttpResponse(parts.download(int(request.GET["size"])))

    def events(request: Any) -> Any:
        return StreamingHttpResponse(parts.events(1000, 0.02), content_type="text/event-stream")

    def left(request: Any) -> Any:
        return HttpResponse(str(parts.counts.left))

    views: dict[str, Any] = {
        "in/old": both,
        "hosted": both,
        "both": both,
        "slash": both,
        "item/<number>": both,
        "closed/old": both,
        "sub/both": both,
    }
    views |= {"upload/old": upload, "download/old": download}
    views |= {"events/old": events, "left/old": left}
    urls = tuple(path(name, view) for name, view in views.items())
    settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=urls, SECRET_KEY="of a test")
    package.setup()
    return get_wsgi_application()


new: Any = {"fastapi": fastapi, "starlette": starlette, "quart": quart}[os.environ.get("NEW", "fastapi")]()
old: Any = {"flask": flask, "django": django}[os.environ.get("OLD", "flask")]()
asgi_app = ASGIFallback(new, WSGIToASGI(old, buffer_body=True), header="X-Answered-By")
wsgi_app = WSGIFallback(new, old, header="X-Answered-By")
