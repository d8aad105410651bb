"""A Django app on ASGI, in one file: settings, views of both kinds, URLs."""

import functools
import time
from collections.abc import Awaitable, Callable

import django  # type: ignore[import-untyped]  # Django brings no types
from django.conf import settings  # type: ignore[import-untyped]
from django.core.asgi import get_asgi_application  # type: ignore[import-untyped]
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse  # type: ignore[import-untyped]
from django.shortcuts import redirect  # type: ignore[import-untyped]
from django.urls import path  # type: ignore[import-untyped]
from django.utils.decorators import async_only_middleware  # type: ignore[import-untyped]

from bridge import ASGIToWSGI
from bridge.types import Receive, Scope, Send
from tests.servers.frameworks import parts

View = Callable[[HttpRequest], Awaitable[HttpResponse]]

settings.configure(
    ALLOWED_HOSTS=["*"], MIDDLEWARE=[f"{__name__}.set_value"], ROOT_URLCONF=__name__, SECRET_KEY="of a test"
)
django.setup()


@async_only_middleware  # type: ignore[untyped-decorator]
def set_value(get_response: View) -> View:
    async def middleware(request: HttpRequest) -> HttpResponse:
        parts.value.set(request.GET.get("value", "nothing"))
        return await get_response(request)

    return middleware


# --- In a thread ----------------------------------------------------------------------------------


def json(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"message": "héllo", "method": request.method})


def multipart(request: HttpRequest) -> HttpResponse:
    upload = request.FILES["upload"]
    digest = parts.Digest()
    for block in upload.chunks():
        digest.add(block)
    return JsonResponse({"name": request.POST["name"], "filename": upload.name, **digest.result()})


def upload(request: HttpRequest) -> HttpResponse:
    digest = parts.Digest()
    for block in iter(functools.partial(request.read, parts.BLOCK), b""):
        digest.add(block)
    return JsonResponse(digest.result())


def cookies(request: HttpRequest) -> HttpResponse:
    response = JsonResponse(request.COOKIES)
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response


def show_path(request: HttpRequest, rest: str) -> HttpResponse:
    return JsonResponse({"path": rest, "query": {"q": request.GET.get("q")}})


def empty(request: HttpRequest, status: int) -> HttpResponse:
    return HttpResponse(status=status)


def slow(request: HttpRequest) -> HttpResponse:
    seconds = float(request.GET["seconds"])
    time.sleep(seconds)
    return JsonResponse({"slept": seconds})


def redirect_to_json(request: HttpRequest) -> HttpResponse:
    return redirect("json")


# --- On the loop ----------------------------------------------------------------------------------


async def download(request: HttpRequest) -> HttpResponse:
    stream = parts.async_download(int(request.GET["size"]))
    return StreamingHttpResponse(stream, content_type="application/octet-stream")


async def events(request: HttpRequest) -> HttpResponse:
    stream = parts.async_events(int(request.GET["count"]), float(request.GET["pause"]))
    return StreamingHttpResponse(stream, content_type="text/event-stream")


async def left(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"left": parts.counts.left})


async def error_before(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("before")


async def error_mid(request: HttpRequest) -> HttpResponse:
    return StreamingHttpResponse(parts.async_fails(), content_type="text/plain")


async def context(request: HttpRequest) -> HttpResponse:
    return StreamingHttpResponse(parts.async_values(), content_type="text/plain")


async def client(request: HttpRequest) -> HttpResponse:
    found = {"client": request.META["REMOTE_ADDR"], "scheme": request.scheme, "host": request.get_host()}
    return JsonResponse(found)


async def state(request: HttpRequest) -> HttpResponse:
    return JsonResponse(request.scope["state"])


async def ticks(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"ticks": parts.counts.ticks})


urlpatterns = [
    path("json", json, name="json"),
    path("multipart", multipart),
    path("upload", upload),
    path("download", download),
    path("events", events),
    path("left", left),
    path("cookies", cookies),
    path("path/<path:rest>", show_path),
    path("empty/<int:status>", empty),
    path("error-before", error_before),
    path("error-mid", error_mid),
    path("slow", slow),
    path("context", context),
    path("redirect", redirect_to_json),
    path("client", client),
    path("state", state),
    path("ticks", ticks),
]
django_app = get_asgi_application()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve Django, which knows no lifespan."""
    if scope["type"] == "lifespan":
        await parts.serve_lifespan(scope, receive, send)
    else:
        await django_app(scope, receive, send)


adapted = ASGIToWSGI(app)
