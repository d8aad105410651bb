"""The fallbacks report the statistics of their apps' adapters."""

from bridge import ASGIToWSGI, WSGIToASGI
from bridge.migration import ASGIFallback, WSGIFallback
from tests.migration import apps

ROUTES = {"/both": ["GET"]}


def test_the_apps_of_an_asgi_fallback_are_told_apart() -> None:
    """An ASGI app has no adapter there, and so no statistics; a fallback inside a fallback has its own."""
    fallback = ASGIFallback(apps.starlette("new", ROUTES), WSGIToASGI(apps.flask("old", ROUTES), workers=3))
    statistics = fallback.statistics()
    assert statistics.new is None
    assert statistics.old == WSGIToASGI(apps.flask("old", ROUTES), workers=3).statistics()
    assert ASGIFallback(apps.starlette("new", ROUTES), fallback).statistics().old == statistics


def test_the_apps_of_a_wsgi_fallback_are_told_apart() -> None:
    """A WSGI app has no adapter there, and so no statistics; a fallback inside a fallback has its own."""
    adapter = ASGIToWSGI(apps.starlette("new", ROUTES), max_websockets=3)
    with WSGIFallback(adapter, apps.flask("old", ROUTES)) as fallback:
        statistics = fallback.statistics()
        assert statistics.old is None
        assert statistics.new == adapter.statistics()
        assert WSGIFallback(apps.starlette("new", ROUTES), fallback).statistics().old == statistics
