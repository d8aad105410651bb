"""`WSGIFallback`: two apps as one, behind a WSGI server."""

import contextlib
from collections.abc import Iterable
from typing import Any, Literal

from bridge.asgi_to_wsgi.adapter import ASGIToWSGI
from bridge.migration.fallback import Fallback
from bridge.migration.kinds import is_asgi_app
from bridge.runtime import Lifetime
from bridge.types import Environ, ExcInfo, Headers, StartResponse, Write, WSGIApp


class WSGIFallback(Fallback[WSGIApp], Lifetime):
    """Answer the new app's routes with `new` and everything else with `old`, behind a WSGI server.

        wsgi_app = WSGIFallback(fastapi_app, flask_app)  # gunicorn module:wsgi_app

    new, old
        Each an ASGI or a WSGI app. An ASGI app runs in an `ASGIToWSGI`; pass `ASGIToWSGI(new, lifespan="on")` to
        choose its options. An app that may be either (`*args`) counts as WSGI.
    claims
        A plain function that takes a scope, as for `ASGIFallback`, and returns whether the new app answers. If it
        returns None, the routers decide; without `claims`, they decide every request. It runs in the request's thread.
        Required if the fallback cannot see the routes of `new`.
    header
        The name of a response header that says which app has answered, "new" or "old". None (the default) adds none.

    `ASGIFallback` describes which app answers. A WSGI app runs in the server's thread, as without the fallback. Both
    apps see the request unchanged, with its SCRIPT_NAME.

    `start()`, `close()`, `close_websockets()` and `close_streams()` do for both apps what those of `ASGIToWSGI` do for
    one, and the fallback is a context manager, too. Any thread may call it and its methods.

    Raises TypeError if `new` hides its routes and there are no `claims`, or if one of the two is not an app, and
    ValueError for a `header` that is not the name of a header.
    """

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request (PEP 3333), in the server's thread."""
        is_new = self._choice.is_new_for_environ(environ)
        if self._header is not None:
            start_response = _naming(start_response, self._header, "new" if is_new else "old")
        return self._apps[is_new](environ, start_response)

    def start(self) -> None:
        """Start the ASGI apps in this process, the new one first, as `ASGIToWSGI.start` does.

        If the start of the old one fails, the new one is closed. Raises StartupFailed.
        """
        with contextlib.ExitStack() as started:
            for adapter in self._adapters():
                adapter.start()
                started.callback(adapter.close)
            started.pop_all()

    def close(self, *, wait: bool = True) -> None:
        """Shut the ASGI apps down, the old one first, as `ASGIToWSGI.close` does. Idempotent.

        With `wait=False` the call returns at once, and both apps shut down at the same time.
        """
        with contextlib.ExitStack() as closing:
            for adapter in self._adapters():
                closing.callback(adapter.close, wait=wait)

    def close_websockets(self) -> None:
        """Close all WebSockets of both apps, as `ASGIToWSGI.close_websockets` does; do not wait."""
        for adapter in self._adapters():
            adapter.close_websockets()

    def close_streams(self) -> None:
        """End all event streams of the ASGI apps, as `ASGIToWSGI.close_streams` does."""
        for adapter in self._adapters():
            adapter.close_streams()

    def _adapters(self) -> list["ASGIToWSGI | WSGIFallback"]:
        """Return what has to be started and closed, the new app's first."""
        return [app for app in reversed(self._apps) if isinstance(app, (ASGIToWSGI, WSGIFallback))]

    @staticmethod
    def _adapted(app: Any) -> WSGIApp:
        return ASGIToWSGI(app) if is_asgi_app(app, unsure=False) else app


def _naming(start_response: StartResponse, header: str, who: Literal["new", "old"]) -> StartResponse:
    """Return a `start_response` that adds the header."""

    def naming(status: str, headers: Headers, exc_info: ExcInfo | None = None, /) -> Write:
        headers = [*headers, (header, who)]
        return start_response(status, headers, exc_info) if exc_info else start_response(status, headers)

    return naming
