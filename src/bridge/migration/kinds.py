"""Which interface an app has."""

from typing import Any

from bridge.sansio.callables import check_asgi_app, check_wsgi_app


def is_asgi_app(app: Any, unsure: bool) -> bool:
    """Return True for an ASGI app, False for a WSGI app, and `unsure` if it may be either. Raises TypeError."""
    may_be_asgi, may_be_wsgi = _passes(check_asgi_app, app), _passes(check_wsgi_app, app)
    if not (may_be_asgi or may_be_wsgi):
        raise TypeError(
            f"expected a WSGI app, which takes (environ, start_response), or an ASGI app, which takes "
            f"(scope, receive, send), got {app!r:.200}"
        )
    return unsure if may_be_asgi and may_be_wsgi else may_be_asgi


def _passes(check: Any, app: Any) -> bool:
    try:
        check(app)
    except TypeError:
        return False
    return True
