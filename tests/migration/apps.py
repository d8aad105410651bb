"""Apps of each framework that are asked, made from the same small tables of routes."""

import contextlib
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import django  # type: ignore[import-untyped]  # Django brings no types
from django.conf import settings  # type: ignore[import-untyped]
from django.core.asgi import get_asgi_application  # type: ignore[import-untyped]
from django.core.handlers.wsgi import WSGIHandler  # type: ignore[import-untyped]
from django.http import HttpRequest, HttpResponse  # type: ignore[import-untyped]
from django.test import override_settings  # type: ignore[import-untyped]
from django.urls import path as django_path  # type: ignore[import-untyped]
from fastapi import FastAPI, Request
from flask import Flask
from flask import request as flask_request
from quart import Quart
from quart import request as quart_request
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

# Each path, as Starlette writes it, with its methods.
Routes = Mapping[str, Sequence[str]]

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
        SECRET_KEY="of a test",
    )
    django.setup()


def fastapi(name: str, routes: Routes) -> FastAPI:
    app = FastAPI(openapi_url=None)

    async def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{name} {request.method} {request.url.path}")

    for number, (path, methods) in enumerate(routes.items()):
        app.add_api_route(path, answer, methods=list(methods), name=f"answer {number}")
    return app


def starlette(name: str, routes: Routes) -> Starlette:
    async def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{name} {request.method} {request.url.path}")

    return Starlette(routes=[Route(path, answer, methods=list(methods)) for path, methods in routes.items()])


def quart(name: str, routes: Routes) -> Quart:
    app = Quart(name, static_folder=None)

    async def answer(**values: str) -> str:
        return f"{name} {quart_request.method} {quart_request.path}"

    for number, (path, methods) in enumerate(routes.items()):
        app.add_url_rule(_werkzeug(path), f"answer {number}", answer, methods=list(methods))
    return app


def flask(name: str, routes: Routes) -> Flask:
    app = Flask(name, static_folder=None)

    def answer(**values: str) -> str:
        return f"{name} {flask_request.method} {flask_request.path}"

    for number, (path, methods) in enumerate(routes.items()):
        app.add_url_rule(_werkzeug(path), f"answer {number}", answer, methods=list(methods))
    return app


def django_patterns(name: str, routes: Routes) -> list[Any]:
    """Return URL patterns of views that know their methods, as `require_http_methods` has them."""

    def view(methods: Sequence[str]) -> Callable[..., HttpResponse]:
        def answer(request: HttpRequest, **values: str) -> HttpResponse:
            if request.method not in {*methods, "HEAD" if "GET" in methods else ""}:
                return HttpResponse(status=405, headers={"Allow": ", ".join(methods)})
            return HttpResponse(f"{name} {request.method} {request.path}", content_type="text/plain")

        return answer

    return [django_path(_werkzeug(path).removeprefix("/"), view(methods)) for path, methods in routes.items()]


@contextlib.contextmanager
def django_urls(urlpatterns: list[Any], **options: Any) -> Iterator[None]:
    """Replace the patterns of Django's only URLconf within a `with` block."""
    urlconf: Any = types.ModuleType("urlconf")
    urlconf.urlpatterns = urlpatterns
    with override_settings(ROOT_URLCONF=urlconf, **options):
        yield


def django_wsgi() -> Any:
    """Return a WSGI handler, which serves whatever the URLconf is at the time."""
    return WSGIHandler()


def django_asgi() -> Any:
    """Return an ASGI handler, which serves whatever the URLconf is at the time."""
    return get_asgi_application()


def _werkzeug(path: str) -> str:
    return re.sub(
        r"\{(\w+)(?::(\w+))?\}", lambda match: f"<{match[2]}:{match[1]}>" if match[2] else f"<{match[1]}>", path
    )


ASGI = {"fastapi": fastapi, "starlette": starlette, "quart": quart}
