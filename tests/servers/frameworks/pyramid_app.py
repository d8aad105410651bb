"""A Pyramid app: views found by a scan, routes in a configurator."""

import sys
import time

from pyramid.config import Configurator
from pyramid.events import NewRequest, subscriber
from pyramid.httpexceptions import HTTPFound
from pyramid.request import Request
from pyramid.response import Response
from pyramid.view import view_config

from bridge import WSGIToASGI
from tests.servers.frameworks import parts


@subscriber(NewRequest)
def set_value(event: NewRequest) -> None:
    parts.value.set(event.request.GET.get("value", "nothing"))


@view_config(route_name="json", renderer="json")
def json(request: Request) -> dict[str, object]:
    return {"message": "héllo", "method": request.method}


@view_config(route_name="multipart", renderer="json", request_method="POST")
def multipart(request: Request) -> dict[str, object]:
    upload = request.POST["upload"]
    digest = parts.Digest()
    while block := upload.file.read(parts.BLOCK):
        digest.add(block)
    return {"name": request.POST["name"], "filename": upload.filename, **digest.result()}


@view_config(route_name="upload", renderer="json", request_method="POST")
def upload(request: Request) -> dict[str, object]:
    digest = parts.Digest()
    while block := request.body_file.read(parts.BLOCK):
        digest.add(block)
    return digest.result()


@view_config(route_name="download")
def download(request: Request) -> Response:
    return Response(app_iter=parts.download(int(request.GET["size"])), content_type="application/octet-stream")


@view_config(route_name="events")
def events(request: Request) -> Response:
    stream = parts.events(int(request.GET["count"]), float(request.GET["pause"]))
    return Response(app_iter=stream, content_type="text/event-stream")


@view_config(route_name="left", renderer="json")
def left(request: Request) -> dict[str, object]:
    return {"left": parts.counts.left}


@view_config(route_name="cookies", renderer="json")
def cookies(request: Request) -> dict[str, str]:
    request.response.set_cookie("a", "1")
    request.response.set_cookie("b", "2")
    return dict(request.cookies)


@view_config(route_name="path", renderer="json")
def path(request: Request) -> dict[str, object]:
    return {"path": request.matchdict["rest"], "query": {"q": request.GET.get("q")}}


@view_config(route_name="empty")
def empty(request: Request) -> Response:
    return Response(status=int(request.matchdict["status"]))


@view_config(route_name="error-before")
def error_before(request: Request) -> Response:
    raise RuntimeError("before")


@view_config(route_name="error-mid")
def error_mid(request: Request) -> Response:
    return Response(app_iter=parts.fails(), content_type="text/plain")


@view_config(route_name="slow", renderer="json")
def slow(request: Request) -> dict[str, object]:
    seconds = float(request.GET["seconds"])
    time.sleep(seconds)
    return {"slept": seconds}


@view_config(route_name="context")
def context(request: Request) -> Response:
    return Response(app_iter=parts.values(), content_type="text/plain")


@view_config(route_name="redirect")
def redirect(request: Request) -> Response:
    return HTTPFound(request.route_url("json"))


@view_config(route_name="client", renderer="json")
def client(request: Request) -> dict[str, object]:
    return {"client": request.client_addr, "scheme": request.scheme, "host": request.host}


with Configurator() as config:
    for name in ("json", "multipart", "upload", "download", "events", "left", "cookies"):
        config.add_route(name, f"/{name}")
    config.add_route("path", "/path/{rest:.*}")
    config.add_route("empty", r"/empty/{status:\d+}")
    for name in ("error-before", "error-mid", "slow", "context", "redirect", "client"):
        config.add_route(name, f"/{name}")
    config.scan(sys.modules[__name__])
    app = config.make_wsgi_app()
adapted = WSGIToASGI(app)
