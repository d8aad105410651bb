"""What frameworks do: the adapter must not report it as an error, nor prevent it."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio.lowlevel
import pytest

from bridge import ASGIToWSGI, WSGIToASGI
from tests.fakes import WSGIServer, http_environ, in_thread
from tests.processes import wait_until

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


async def blocks() -> AsyncIterator[bytes]:
    """Stream for ever."""
    while True:
        yield b"x" * 1000
        await anyio.lowlevel.checkpoint()


def starlette() -> Any:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(blocks())

    return Starlette(routes=[Route("/", stream)])


def starlette_with_middleware() -> Any:
    from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
    from starlette.requests import Request
    from starlette.responses import Response

    async def dispatch(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    app = starlette()
    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    return app


def fastapi() -> Any:
    from fastapi import FastAPI
    from fastapi.responses import StreamingResponse

    app = FastAPI()

    @app.get("/")
    async def stream() -> StreamingResponse:
        return StreamingResponse(blocks())

    return app


def quart() -> Any:
    module = pytest.importorskip("quart")
    app = module.Quart(__name__)

    async def stream() -> Any:
        return blocks()

    app.add_url_rule("/", view_func=stream)
    return app


def litestar() -> Any:
    module = pytest.importorskip("litestar")
    from litestar.response import Stream

    async def stream() -> Stream:
        return Stream(blocks())

    # Litestar's own configuration would set up the root logger for all later tests.
    return module.Litestar([module.get("/")(stream)], logging_config=None)


def falcon() -> Any:
    module = pytest.importorskip("falcon.asgi")

    class Resource:
        async def on_get(self, request: Any, response: Any) -> None:
            response.stream = blocks()

    app = module.App()
    app.add_route("/", Resource())
    return app


APPS = [starlette, starlette_with_middleware, fastapi, quart, litestar, falcon]


@pytest.mark.parametrize("make", APPS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
def test_a_client_that_leaves_is_no_error(make: Any, spec_version: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is no error, whether the framework listens for http.disconnect or waits for `send` to raise."""
    app = make()

    async def as_told(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope["asgi"]["spec_version"] = spec_version
        await app(scope, receive, send)

    def run() -> None:
        server = WSGIServer(adapter, http_environ(RAW_URI="/"))
        assert next(server.call())
        server.close()

    with ASGIToWSGI(as_told) as adapter:
        in_thread(run)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_djangos_file_is_closed_through_both_directions(tmp_path: Path) -> None:
    """The file is closed in the thread that opened it, perhaps a moment after the server has all of it."""
    pytest.importorskip("django")
    from django.conf import settings  # type: ignore[import-untyped]  # Django brings no types

    if not settings.configured:  # other tests in this process may have done it
        settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="of a test")
    from django.core.handlers.wsgi import WSGIHandler  # type: ignore[import-untyped]
    from django.http import FileResponse  # type: ignore[import-untyped]

    (tmp_path / "file").write_bytes(b"x" * 1000)
    files = []

    class Handler(WSGIHandler):  # type: ignore[misc]
        def get_response(self, request: Any) -> Any:
            files.append((tmp_path / "file").open("rb"))
            return FileResponse(files[-1])

    for pathsend in (False, True):
        with ASGIToWSGI(WSGIToASGI(Handler()), pathsend=pathsend) as adapter:
            server = WSGIServer(adapter)
            in_thread(server.run)
        assert server.body == b"x" * 1000
        wait_until(lambda: files[-1].closed)
