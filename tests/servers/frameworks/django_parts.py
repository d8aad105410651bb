"""What Django's apps on WSGI and on ASGI share: settings, views that run in a thread, URLs."""

import functools
import time
from typing import Any

import django  # type: ignore[import-untyped]  # Django brings no types
from django.conf import settings  # type: ignore[import-untyped]
from django.http import HttpRequest, HttpResponse, JsonResponse  # type: ignore[import-untyped]
from django.shortcuts import redirect  # type: ignore[import-untyped]
from django.urls import path  # type: ignore[import-untyped]

from tests.servers.frameworks import parts


def configure(module: str) -> None:
    """Set Django up for the app in `module`, which has `urlpatterns` and the middleware `set_value`."""
    settings.configure(
        ALLOWED_HOSTS=["*"], MIDDLEWARE=[f"{module}.set_value"], ROOT_URLCONF=module, SECRET_KEY="of a test"
    )
    django.setup()


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


URLPATTERNS: list[Any] = [
    path("json", json, name="json"),
    path("multipart", multipart),
    path("upload", upload),
    path("cookies", cookies),
    path("path/<path:rest>", show_path),
    path("empty/<int:status>", empty),
    path("slow", slow),
    path("redirect", redirect_to_json),
]
