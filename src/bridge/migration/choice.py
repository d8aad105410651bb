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

# Up to twice as many answers are remembered, each for a host and a path that are no longer than this together, so that
# clients cannot fill more than a megabyte or two.
_SIZE = 1024
_LONGEST = 256


class Choice:
    """Whether the new app answers; any thread may ask.

    The routers are asked before anything of the request is read. What the new app has a route for is its own; what
    it has only the path of (it would say 405, or redirect for a slash) goes to the old app if that knows the path;
    everything else is the old app's. An old app whose router cannot be seen counts as knowing every path.
    """

    def __init__(self, new: Any, old: Any, claims: Callable[[Scope], bool | None] | None) -> None:
        if claims is not None and not callable(claims):
            raise TypeError(f"claims must be a callable that takes a scope, got {claims!r:.200}")
        if inspect.iscoroutinefunction(claims):
            raise TypeError(f"claims must be a plain function, and {claims!r:.200} is a coroutine function")
        self._new, self._old = maybe_router(new), maybe_router(old)
        self._claims = claims
        if self._new is None and claims is None:
            raise TypeError(
                f"the routes of {new!r:.200} cannot be seen (middleware around an app hides them): pass the Starlette, "
                "FastAPI, Flask, Quart or Django app itself and put middleware around the fallback, or say which "
                "requests are the new app's by claims="
            )
        # An LRU cache in two generations, which needs no lock: each step is atomic, and a race costs a question.
        self._recent: dict[tuple[Any, ...], bool] = {}
        self._before: dict[tuple[Any, ...], bool] = {}

    def is_new_for_scope(self, scope: Scope) -> bool:
        """Return whether the new app answers; `scope` is one of an http or websocket connection."""
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
        """Return whether the new app answers."""
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
        """Return what `claims` says; None where it leaves the choice to the routers."""
        assert self._claims is not None
        claimed = self._claims(scope)
        if claimed is None and self._new is None:
            raise TypeError("claims returned None, by which the new app's router is asked, and that cannot be seen")
        if claimed is not None and not isinstance(claimed, bool):
            raise TypeError(f"claims must return True, False or None, got {claimed!r:.200}")
        return claimed

    def _look(self, key: tuple[Any, ...], question: Callable[[], Question]) -> bool:
        """Return what is remembered for `key`, or ask, and remember."""
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
        """Return whether the new app answers, and whether the same question has the same answer the next time."""
        assert self._new is not None
        found = self._new.find(question)
        if found.answer is not Answer.PATH or self._old is None:
            return found.answer is Answer.REQUEST, found.lasting
        of_old = self._old.find(question)
        return of_old.answer is Answer.NOTHING, found.lasting and of_old.lasting
