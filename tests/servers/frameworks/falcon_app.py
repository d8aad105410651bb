"""A Falcon app on WSGI: a class for each resource."""

import time

import falcon
from falcon import Request, Response

from bridge import WSGIToASGI
from tests.servers.frameworks import parts


class SetValue:
    def process_request(self, req: Request, resp: Response) -> None:
        parts.value.set(req.get_param("value", default="nothing"))


class Json:
    def on_get(self, req: Request, resp: Response) -> None:
        resp.media = {"message": "héllo", "method": req.method}

    on_head = on_get


class Multipart:
    def on_post(self, req: Request, resp: Response) -> None:
        answer: dict[str, object] = {}
        for part in req.get_media():
            if part.name == "upload":
                digest = parts.Digest()
                while block := part.stream.read(parts.BLOCK):
                    digest.add(block)
                answer.update(digest.result(), filename=part.filename)
            else:
                answer[part.name] = part.text
        resp.media = answer


class Upload:
    def on_post(self, req: Request, resp: Response) -> None:
        digest = parts.Digest()
        while block := req.stream.read(parts.BLOCK):  # bounded_stream is empty for a chunked body
            digest.add(block)
        resp.media = digest.result()


class Download:
    def on_get(self, req: Request, resp: Response) -> None:
        resp.content_type = "application/octet-stream"
        resp.stream = parts.download(req.get_param_as_int("size", required=True))


class Events:
    def on_get(self, req: Request, resp: Response) -> None:
        count, pause = req.get_param_as_int("count", required=True), req.get_param_as_float("pause", required=True)
        resp.content_type = "text/event-stream"
        resp.stream = parts.events(count, pause)


class Left:
    def on_get(self, req: Request, resp: Response) -> None:
        resp.media = {"left": parts.counts.left}


class Cookies:
    def on_get(self, req: Request, resp: Response) -> None:
        resp.media = dict(req.cookies)
        resp.set_cookie("a", "1", secure=False)
        resp.set_cookie("b", "2", secure=False)


class Path:
    def on_get(self, req: Request, resp: Response, rest: str) -> None:
        resp.media = {"path": rest, "query": {"q": req.get_param("q")}}


class Empty:
    def on_get(self, req: Request, resp: Response, status: int) -> None:
        resp.status = falcon.code_to_http_status(status)


class ErrorBefore:
    def on_get(self, req: Request, resp: Response) -> None:
        raise RuntimeError("before")


class ErrorMid:
    def on_get(self, req: Request, resp: Response) -> None:
        resp.content_type = falcon.MEDIA_TEXT
        resp.stream = parts.fails()


class Slow:
    def on_get(self, req: Request, resp: Response) -> None:
        seconds = req.get_param_as_float("seconds", required=True)
        time.sleep(seconds)
        resp.media = {"slept": seconds}


class Context:
    def on_get(self, req: Request, resp: Response) -> None:
        resp.content_type = falcon.MEDIA_TEXT
        resp.stream = parts.values()


class Redirect:
    def on_get(self, req: Request, resp: Response) -> None:
        raise falcon.HTTPFound(f"{req.prefix}/json")


class Client:
    def on_get(self, req: Request, resp: Response) -> None:
        resp.media = {"client": req.remote_addr, "scheme": req.scheme, "host": req.netloc}


app = falcon.App(middleware=[SetValue()])
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
adapted = WSGIToASGI(app)
