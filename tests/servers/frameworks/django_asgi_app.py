"""A Django app on ASGI: its middleware, the views that run on the loop, and a lifespan."""

from collections.abc import Awaitable, Callable

from django.core.asgi import get_asgi_application  # type: ignore[import-untyped]
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse  # type: ignore[import-untyped]
from django.urls import path  # type: ignore[import-untyped]
from django.utils.decorators import async_only_middleware  # type: ignore[import-untyped]

from bridge import ASGIToWSGI
from bridge.types import Receive, Scope, Send
from tests.servers.frameworks import django_parts, parts

View = Callable[[HttpRequest], Awaitable[HttpResponse]]

django_parts.configure(__name__)


@async_only_middleware  # type: ignore[untyped-decorator]
def set_value(get_response: View) -> View:
    async def middleware(request: HttpRequest) -> HttpResponse:
        parts.value.set(request.GET.get("value", "nothing"))
        return await get_response(request)

    return middleware


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
    *django_parts.URLPATTERNS,
    path("download", download),
    path("events", events),
    path("left", left),
    path("error-before", error_before),
    path("error-mid", error_mid),
    path("context", context),
    path("client", client),
    path("state", state),
    path("ticks", ticks),
]
django_app = get_asgi_application()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve Django, and the lifespan, which Django does not support."""
    if scope["type"] == "lifespan":
        await parts.serve_lifespan(scope, receive, send)
    else:
        await django_app(scope, receive, send)


adapted = ASGIToWSGI(app)
