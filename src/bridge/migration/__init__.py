"""Move from one framework to another, route by route: a new app and an old one answer as one site.

from bridge.migration import ASGIFallback

asgi_app = ASGIFallback(fastapi_app, flask_app)  # uvicorn module:asgi_app
"""

from bridge.migration.asgi import ASGIFallback
from bridge.migration.environ import environ_for
from bridge.migration.statistics import FallbackStatistics
from bridge.migration.wsgi import WSGIFallback

__all__ = ["ASGIFallback", "FallbackStatistics", "WSGIFallback", "environ_for"]
