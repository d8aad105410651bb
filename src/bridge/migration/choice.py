"""Which of two apps answers a request."""

import inspect
from collections.abc import Callable
from typing import Any

from bridge.migration.question import (
    Answer,
    Question,
    maybe_preflight_method,
    maybe_preflight_method_from_environ,
)
from bridge.migration.routers import maybe_router
from bridge.sansio.websocket import is_websocket_request
from bridge.types import Environ, Scope

# The cache holds up to twice as many decisions. Only hosts and paths that are together no longer than this are
# remembered, so that clients cannot make it fill more than a megabyte or two.
_SIZE = 1024
_LONGEST = 256


class Choice:
    """Decides which app answers a request, before anything of it is read; any thread may ask.

    The new app answers if it has a route for the path and the method. If it has the path only (it would answer 405,
    or redirect because of a slash), the old app answers, provided that it has the path. The old app answers all other
    requests. An old app whose router cannot be asked counts as having every path.
    """

    def __init__(self, new: Any, old: Any, claims: Callable[[Scope], bool | None] | None) -> None:
        if claims is not None and not callable(claims):
            raise TypeError(f"claims must be a callable that takes a scope, got {claims!r:.200}")
        if inspect.iscoroutinefunction(claims):
            raise TypeError(f"claims must be a plain function, got the coroutine function {claims!r:.200}")
        self._new, self._old = maybe_router(new), maybe_router(old)
        self._claims = claims
        if self._new is None and claims is None:
            raise TypeError(
                f"the fallback cannot see the routes of {new!r:.200}; middleware around an app hides them. Pass the "
                "Starlette, FastAPI, Flask, Quart or Django app itself and wrap middleware around the fallback, or "
                "tell by claims= which requests the new app answers"
            )
        # An LRU cache in two generations. It needs no lock: each step is atomic, and after a race a router is merely
        # asked once more.
        self._recent: dict[tuple[Any, ...], bool] = {}
        self._before: dict[tuple[Any, ...], bool] = {}

    def is_new_for_scope(self, scope: Scope) -> bool:
        """Return whether the new app answers an http or websocket connection."""
        if self._claims is not None and (claimed := self._ask_user(Question(scope=scope).scope)) is not None:
            return claimed
        method = scope.get("method")
        if method == "OPTIONS":
            method = maybe_preflight_method(scope) or method
        host = None
        for name, value in scope["headers"]:
            if name == b"host":
                host = value
                break
        key = (scope["type"], method, host, scope.get("root_path"), scope["path"])
        known = self._recent.get(key)
        return self._look(key, lambda: Question(scope=scope)) if known is None else known

    def is_new_for_environ(self, environ: Environ) -> bool:
        """Return whether the new app answers a request of a WSGI server."""
        if self._claims is not None and (claimed := self._ask_user(Question(environ=environ).scope)) is not None:
            return claimed
        method = environ["REQUEST_METHOD"]
        if method == "OPTIONS":
            method = maybe_preflight_method_from_environ(environ) or method
        host, script_name, path = environ.get("HTTP_HOST"), environ.get("SCRIPT_NAME"), environ.get("PATH_INFO", "")
        key = (is_websocket_request(environ), method, host, script_name, path)
        known = self._recent.get(key)
        return self._look(key, lambda: Question(environ=environ)) if known is None else known

    def _ask_user(self, scope: Scope) -> bool | None:
        """Return what `claims` returns; None if the routers have to decide."""
        assert self._claims is not None
        claimed = self._claims(scope)
        if claimed is None and self._new is None:
            raise TypeError(
                "claims returned None, so the new app's router would have to decide, but the fallback cannot see it: "
                "return True or False"
            )
        if claimed is not None and not isinstance(claimed, bool):
            raise TypeError(f"claims must return True, False or None, got {claimed!r:.200}")
        return claimed

    def _look(self, key: tuple[Any, ...], question: Callable[[], Question]) -> bool:
        """Return the decision that is remembered for `key`; if there is none, ask the routers and remember it."""
        known = self._before.get(key)
        if known is None:
            known, lasting = self.ask(question())
            host, path = key[2], key[4]
            if not lasting or not host or len(host) + len(path) > _LONGEST:
                return known
        self._recent[key] = known
        if len(self._recent) >= _SIZE:
            self._before, self._recent = self._recent, {}
        return known

    def ask(self, question: Question) -> tuple[bool, bool]:
        """Return whether the new app answers, and whether the decision may be remembered."""
        assert self._new is not None
        found = self._new.find(question)
        if found.answer is not Answer.PATH or self._old is None:
            return found.answer is Answer.REQUEST, found.lasting
        of_old = self._old.find(question)
        return of_old.answer is Answer.NOTHING, found.lasting and of_old.lasting
