"""Apps of many frameworks that all serve the same routes, natively (`app`) and behind an adapter (`adapted`)."""

from importlib import metadata
from typing import NamedTuple


class Framework(NamedTuple):
    """A framework, and the place of its app."""

    title: str
    module: str
    distribution: str  # the name of the installed distribution
    asgi: bool  # the app is an ASGI app, and `adapted` a WSGI app; otherwise the reverse
    adapted: str = "adapted"
    native: str = "app"
    prefix: str = ""  # the path at which it is mounted in another app

    def path(self, attribute: str) -> str:
        """Return the app's name for a server's command line."""
        return f"{__name__}.{self.module}:{attribute}"


FRAMEWORKS = {
    "flask": Framework("Flask", "flask_app", "flask", asgi=False),
    "django": Framework("Django", "django_app", "django", asgi=False),
    "pyramid": Framework("Pyramid", "pyramid_app", "pyramid", asgi=False),
    "bottle": Framework("Bottle", "bottle_app", "bottle", asgi=False),
    "falcon": Framework("Falcon", "falcon_app", "falcon", asgi=False),
    "flask-in-fastapi": Framework(
        "Flask mounted in FastAPI", "mounts", "flask", False, "flask_in_fastapi", "flask_in_flask", "/legacy"
    ),
    "fastapi": Framework("FastAPI", "fastapi_app", "fastapi", asgi=True),
    "starlette": Framework("Starlette", "starlette_app", "starlette", asgi=True),
    "django-asgi": Framework("Django (ASGI)", "django_asgi_app", "django", asgi=True),
    "channels": Framework("Channels", "channels_app", "channels", asgi=True),
    "quart": Framework("Quart", "quart_app", "quart", asgi=True),
    "sanic": Framework("Sanic", "sanic_app", "sanic", asgi=True),
    "litestar": Framework("Litestar", "litestar_app", "litestar", asgi=True),
    "falcon-asgi": Framework("Falcon (ASGI)", "falcon_asgi_app", "falcon", asgi=True),
    "responder": Framework("Responder", "responder_app", "responder", asgi=True),
    "fastapi-in-flask": Framework(
        "FastAPI mounted in Flask", "mounts", "fastapi", True, "fastapi_in_flask", "fastapi_in_fastapi", "/api"
    ),
}


def maybe_version(distribution: str) -> str | None:
    """Return the version that is installed, if there is one."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
