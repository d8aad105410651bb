"""What an app is, and how to serve it on either kind of server."""

import shlex
from importlib import metadata
from typing import Any, NamedTuple

from bridge.migration.kinds import is_asgi_app
from bridge.migration.question import Rule
from bridge.migration.routers import maybe_router

# By the package that defines the app's class.
_TITLES = {
    "aiohttp": "aiohttp",
    "bottle": "Bottle",
    "channels": "Channels",
    "django": "Django",
    "falcon": "Falcon",
    "fastapi": "FastAPI",
    "flask": "Flask",
    "litestar": "Litestar",
    "pyramid": "Pyramid",
    "quart": "Quart",
    "responder": "Responder",
    "sanic": "Sanic",
    "starlette": "Starlette",
}


class About(NamedTuple):
    """What can be told about an app without calling it."""

    name: str  # as it was typed: module:app, or module:factory()
    is_asgi: bool
    framework: str | None
    version: str | None
    rules: list[Rule] | None  # None where the routes cannot be seen

    @property
    def is_django_wsgi(self) -> bool:
        """Return whether the app is Django's WSGI handler, which reads no body without a Content-Length."""
        return self.framework == "Django" and not self.is_asgi

    @property
    def adapter(self) -> str:
        """Return the name of the adapter that runs the app on the other kind of server."""
        return "ASGIToWSGI" if self.is_asgi else "WSGIToASGI"

    def websocket_routes(self) -> int | None:
        """Return how many routes are for WebSockets; None where the routes cannot be seen."""
        return None if self.rules is None else sum(rule.websocket for rule in self.rules)

    def async_views(self) -> int | None:
        """Return how many routes of a WSGI app lead to an `async def` view; None where they cannot be seen."""
        return None if self.rules is None or self.is_asgi else sum(rule.is_async for rule in self.rules)

    def own_command(self) -> str:
        """Return the command line that serves the app on its own kind of server."""
        if not self.is_asgi:
            return f"gunicorn --threads 8 {shlex.quote(self.name)}"
        return (
            f"uvicorn --factory {self.name.removesuffix('()')}" if self.name.endswith("()") else f"uvicorn {self.name}"
        )

    def other_module(self) -> list[str]:
        """Return the lines of a module, `serve.py`, with an adapter around the app."""
        module, _, expression = self.name.partition(":")
        imported = expression.removesuffix("()").partition(".")[0]
        options = ", buffer_body=True" if self.is_django_wsgi else ""
        made = "wsgi_app" if self.is_asgi else "asgi_app"
        return [
            f"from bridge import {self.adapter}",
            f"from {module} import {imported}",
            "",
            f"{made} = {self.adapter}({expression}{options})",
        ]

    def other_command(self) -> str:
        """Return the command line that serves what `other_module` makes."""
        if self.is_asgi:
            return "gunicorn --threads 8 -c python:bridge.gunicorn serve:wsgi_app"
        return "uvicorn serve:asgi_app"


def about(app: Any, name: str) -> About:
    """Return what `app` is."""
    framework, version = _framework_of(app)
    router = maybe_router(app)
    return About(name, is_asgi_app(app, unsure=False), framework, version, None if router is None else router.rules())


def _framework_of(app: Any) -> tuple[str | None, str | None]:
    """Return the framework of an app and its version; None for a function, or for middleware around an app."""
    for cls in type(getattr(app, "__self__", app)).__mro__:  # a method belongs to its app, as in Flask's `app.wsgi_app`
        package = cls.__module__.partition(".")[0]
        if package in _TITLES:
            try:
                return _TITLES[package], metadata.version(package)
            except metadata.PackageNotFoundError:
                return _TITLES[package], None
    return None, None
