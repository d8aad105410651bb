"""A Falcon app on ASGI: a class for each resource, its own server-sent events, and a WebSocket."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import falcon
import falcon.asgi
from falcon.asgi import Request, Response, SSEvent, WebSocket

from bridge import ASGIToWSGI
from tests.servers.frameworks import parts


class Lifespan:
    state: parts.State

    async def process_startup(self, scope: Mapping[str, Any], event: Mapping[str, Any]) -> None:
        self.state = parts.started()
        self._ticking = asyncio.create_task(parts.tick())

    async def process_shutdown(self, scope: Mapping[str, Any], event: Mapping[str, Any]) -> None:
        self._ticking.cancel()
        parts.shut_down()


class SetValue:
    async def process_request(self, req: Request, resp: Response) -> None:
        parts.value.set(req.get_param("value", default="nothing"))


class Json:
    async def on_get(self, req: Request, resp: Response) -> None:
        resp.media = {"message": "héllo", "method": req.method}

    on_head = on_get


class Multipart:
    async def on_post(self, req: Request, resp: Response) -> None:
        answer: dict[str, object] = {}
        async for part in await req.get_media():
            if part.name == "upload":
                digest = parts.Digest()
                async for block in part.stream:
                    digest.add(block)
                answer.update(digest.result(), filename=part.filename)
            else:
                answer[part.name] = await part.text
        resp.media = answer


class Upload:
    async def on_post(self, req: Request, resp: Response) -> None:
        digest = parts.Digest()
        async for block in req.stream:
            digest.add(block)
        resp.media = digest.result()


class Download:
    async def on_get(self, req: Request, resp: Response) -> None:
        resp.content_type = "application/octet-stream"
        resp.stream = parts.async_download(req.get_param_as_int("size", required=True))


class Events:
    async def on_get(self, req: Request, resp: Response) -> None:
        count, pause = req.get_param_as_int("count", required=True), req.get_param_as_float("pause", required=True)

        async def events() -> AsyncIterator[SSEvent]:
            async for event in parts.async_events(count, pause):
                yield SSEvent(text=event.decode().removeprefix("data: ").strip())

        resp.sse = events()


class Left:
    async def on_get(self, req: Request, resp: Response) -> None:
        resp.media = {"left": parts.counts.left}


class Cookies:
    async def on_get(self, req: Request, resp: Response) -> None:
        resp.media = dict(req.cookies)
        resp.set_cookie("a", "1", secure=False)
        resp.set_cookie("b", "2", secure=False)


class Path:
    async def on_get(self, req: Request, resp: Response, rest: str) -> None:
        resp.media = {"path": rest, "query": {"q": req.get_param("q")}}


class Empty:
    async def on_get(self, req: Request, resp: Response, status: int) -> None:
        resp.status = status


class ErrorBefore:
    async def on_get(self, req: Request, resp: Response) -> None:
        raise RuntimeError("before")


class ErrorMid:
    async def on_get(self, req: Request, resp: Response) -> None:
        resp.content_type = falcon.MEDIA_TEXT
        resp.stream = parts.async_fails()


class Slow:
    async def on_get(self, req: Request, resp: Response) -> None:
        seconds = req.get_param_as_float("seconds", required=True)
        await asyncio.sleep(seconds)
        resp.media = {"slept": seconds}


class Context:
    async def on_get(self, req: Request, resp: Response) -> None:
        resp.content_type = falcon.MEDIA_TEXT
        resp.stream = parts.async_values()


class Redirect:
    async def on_get(self, req: Request, resp: Response) -> None:
        raise falcon.HTTPFound(f"{req.prefix}/json")


class Client:
    async def on_get(self, req: Request, resp: Response) -> None:
        resp.media = {"client": req.remote_addr, "scheme": req.scheme, "host": req.netloc}


class State:
    async def on_get(self, req: Request, resp: Response) -> None:
        resp.media = lifespan.state


class Ticks:
    async def on_get(self, req: Request, resp: Response) -> None:
        resp.media = {"ticks": parts.counts.ticks}


class Echo:
    async def on_websocket(self, req: Request, ws: WebSocket) -> None:
        await ws.accept()
        try:
            while True:
                await ws.send_text(await ws.receive_text())
        except falcon.WebSocketDisconnected:
            pass


lifespan = Lifespan()
app = falcon.asgi.App()
app.add_middleware(lifespan)
app.add_middleware(SetValue())
app.add_route("/json", Json())
app.add_route("/multipart", Multipart())
app.add_route("/upload", Upload())
app.add_route("/download", Download())
app.add_route("/events", Events())
app.add_route("/left", Left())
app.add_route("/cookies", Cookies())
app.add_route("/path/{rest:path}", Path())
app.add_route("/empty/{status:int}", Empty())
app.add_route("/error-before", ErrorBefore())
app.add_route("/error-mid", ErrorMid())
app.add_route("/slow", Slow())
app.add_route("/context", Context())
app.add_route("/redirect", Redirect())
app.add_route("/client", Client())
app.add_route("/state", State())
app.add_route("/ticks", Ticks())
app.add_route("/ws", Echo())
adapted = ASGIToWSGI(app)
