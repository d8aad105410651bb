"""Asks the router of each framework for its routes. Each framework has one module, and nothing else depends on it.

A module is imported once an app of its framework is given, so that the framework itself is imported already.
"""

import sys
from typing import Any

from bridge.asgi_to_wsgi.adapter import ASGIToWSGI
from bridge.migration.question import Router
from bridge.wsgi_to_asgi.adapter import WSGIToASGI


def maybe_router(app: Any) -> Router | None:
    """Return the router of an app; None for an app of a framework that has no module here.

    For an adapter, return the router of the app inside.
    """
    while isinstance(app, (WSGIToASGI, ASGIToWSGI)):
        app = app.app
    if _is_one(app, "starlette.routing", "Router") or _is_one(app, "starlette.applications", "Starlette"):
        from bridge.migration.routers.starlette import StarletteRouter

        return StarletteRouter(app)
    if _is_one(app, "flask.app", "Flask"):
        from bridge.migration.routers.werkzeug import FlaskRouter

        return FlaskRouter(app, maybe_router)
    if _is_one(getattr(app, "__self__", None), "flask.app", "Flask") and app.__name__ == "wsgi_app":
        from bridge.migration.routers.werkzeug import FlaskMap

        return FlaskMap(app.__self__)
    if _is_one(app, "quart.app", "Quart"):
        from bridge.migration.routers.werkzeug import QuartRouter

        return QuartRouter(app)
    if _is_one(app, "werkzeug.middleware.dispatcher", "DispatcherMiddleware"):
        from bridge.migration.routers.werkzeug import DispatcherRouter

        return DispatcherRouter(app, maybe_router)
    if _is_one(app, "django.core.handlers.base", "BaseHandler"):
        from bridge.migration.routers.django import DjangoRouter

        return DjangoRouter(app)
    return None


def _is_one(app: object, module: str, name: str) -> bool:
    """Return whether `app` is an instance of the class, without importing its module."""
    cls = getattr(sys.modules.get(module), name, None)
    return isinstance(cls, type) and isinstance(app, cls)
