"""A Django app on WSGI: its middleware, and the views that stream or fail."""

from collections.abc import Callable

from django.core.wsgi import get_wsgi_application  # type: ignore[import-untyped]
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse  # type: ignore[import-untyped]
from django.urls import path  # type: ignore[import-untyped]

from bridge import WSGIToASGI
from tests.servers.frameworks import django_parts, parts

django_parts.configure(__name__)


def set_value(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        parts.value.set(request.GET.get("value", "nothing"))
        return get_response(request)

    return middleware


def download(request: HttpRequest) -> HttpResponse:
    return StreamingHttpResponse(parts.download(int(request.GET["size"])), content_type="application/octet-stream")


def events(request: HttpRequest) -> HttpResponse:
    stream = parts.events(int(request.GET["count"]), float(request.GET["pause"]))
    return StreamingHttpResponse(stream, content_type="text/event-stream")


def left(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"left": parts.counts.left})


def error_before(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("before")


def error_mid(request: HttpRequest) -> HttpResponse:
    return StreamingHttpResponse(parts.fails(), content_type="text/plain")


def context(request: HttpRequest) -> HttpResponse:
    return StreamingHttpResponse(parts.values(), content_type="text/plain")


def client(request: HttpRequest) -> HttpResponse:
    found = {"client": request.META["REMOTE_ADDR"], "scheme": request.scheme, "host": request.get_host()}
    return JsonResponse(found)


urlpatterns = [
    *django_parts.URLPATTERNS,
    path("download", download),
    path("events", events),
    path("left", left),
    path("error-before", error_before),
    path("error-mid", error_mid),
    path("context", context),
    path("client", client),
]
app = get_wsgi_application()
# Django reads no body without a length, such as a chunked one.
adapted = WSGIToASGI(app, buffer_body=True)
