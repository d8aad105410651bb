"""A Django app on WSGI, in one file: settings, views, URLs."""

import functools
import time
from collections.abc import Callable

import django  # type: ignore[import-untyped]  # Django brings no types
from django.conf import settings  # type: ignore[import-untyped]
from django.core.wsgi import get_wsgi_application  # type: ignore[import-untyped]
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse  # type: ignore[import-untyped]
from django.shortcuts import redirect  # type: ignore[import-untyped]
from django.urls import path  # type: ignore[import-untyped]

from bridge import WSGIToASGI
from tests.servers.frameworks import parts

settings.configure(
    ALLOWED_HOSTS=["*"], MIDDLEWARE=[f"{__name__}.set_value"], ROOT_URLCONF=__name__, SECRET_KEY="of a test"
)
django.setup()


def set_value(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        parts.value.set(request.GET.get("value", "nothing"))
        return get_response(request)

    return middleware


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


def download(request: HttpRequest) -> HttpResponse:
    return StreamingHttpResponse(parts.download(int(request.GET["size"])), content_type="application/octet-stream")


def events(request: HttpRequest) -> HttpResponse:
    stream = parts.events(int(request.GET["count"]), float(request.GET["pause"]))
    return StreamingHttpResponse(stream, content_type="text/event-stream")


def left(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"left": parts.counts.left})


def cookies(request: HttpRequest) -> HttpResponse:
    response = JsonResponse(request.COOKIES)
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response


def show_path(request: HttpRequest, rest: str) -> HttpResponse:
    return JsonResponse({"path": rest, "query": {"q": request.GET.get("q")}})


def empty(request: HttpRequest, status: int) -> HttpResponse:
    return HttpResponse(status=status)


def error_before(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("before")


def error_mid(request: HttpRequest) -> HttpResponse:
    return StreamingHttpResponse(parts.fails(), content_type="text/plain")


def slow(request: HttpRequest) -> HttpResponse:
    seconds = float(request.GET["seconds"])
    time.sleep(seconds)
    return JsonResponse({"slept": seconds})


def context(request: HttpRequest) -> HttpResponse:
    return StreamingHttpResponse(parts.values(), content_type="text/plain")


def redirect_to_json(request: HttpRequest) -> HttpResponse:
    return redirect("json")


def client(request: HttpRequest) -> HttpResponse:
    found = {"client": request.META["REMOTE_ADDR"], "scheme": request.scheme, "host": request.get_host()}
    return JsonResponse(found)


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
]
app = get_wsgi_application()
# Django reads no body without a length, as a chunked one is.
adapted = WSGIToASGI(app, buffer_body=True)
