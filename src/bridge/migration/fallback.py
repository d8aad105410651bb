"""What both fallbacks have in common: their arguments, and the two apps."""

import re
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from bridge.asgi_to_wsgi.adapter import ASGIToWSGI
from bridge.migration.choice import Choice
from bridge.migration.statistics import FallbackStatistics, Statistics
from bridge.types import ASGIApp, Scope, WSGIApp
from bridge.wsgi_to_asgi.adapter import WSGIToASGI

App = TypeVar("App", ASGIApp, WSGIApp)


class Fallback(Generic[App]):
    """Two apps, each with the interface `App` of the server, and the choice between them."""

    def __init__(
        self,
        new: ASGIApp | WSGIApp,
        old: ASGIApp | WSGIApp,
        *,
        claims: Callable[[Scope], bool | None] | None = None,
        header: str | None = None,
    ) -> None:
        self.new, self.old = new, old
        self._apps: tuple[App, App] = (self._adapted(old), self._adapted(new))  # by whether it is the new one
        self._choice = Choice(new, old, claims)
        _check_header(header)
        self._header = header

    def statistics(self) -> FallbackStatistics:
        """Return what the adapters of both apps are doing; see their `statistics`. From any thread."""
        old, new = map(_maybe_statistics, self._apps)
        return FallbackStatistics(new=new, old=old)

    @staticmethod
    def _adapted(app: Any) -> App:
        """Return the app, in an adapter if it has the other interface. Raises TypeError if it has neither."""
        raise NotImplementedError


def _maybe_statistics(app: object) -> Statistics:
    return app.statistics() if isinstance(app, (ASGIToWSGI, WSGIToASGI, Fallback)) else None


def _check_header(header: object) -> None:
    """Raise ValueError unless `header` is the name of a header (RFC 9110 5.6.2) or None."""
    if header is not None and not (isinstance(header, str) and re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", header)):
        raise ValueError(f"header must be the name of a response header or None, got {header!r:.200}")
