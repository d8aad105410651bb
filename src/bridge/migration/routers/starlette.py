"""Starlette's and FastAPI's routers."""

import re
from collections.abc import Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.routing import Match, Router

from bridge.migration.question import Answer, Found, Question, Rule
from bridge.migration.routers.samples import paths_of, values_of

_REST = "/{path:path}"
_NOTHING = Found(Answer.NOTHING)


class StarletteRouter:
    """A Starlette or FastAPI app, or a `Router`.

    Its routes are asked in the order in which its own router asks them, into each `Mount` and `Host` whose app is one
    of its kind; any other app that is mounted claims its prefix.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    def find(self, question: Question) -> Found:
        """Return what the app would make of the request."""
        search = _Search()
        found = search.find(self._app, dict(question.scope), "")
        if search.redirected is not None:  # it counts if it leads to something
            found = search.find(self._app, {**question.scope, "path": search.redirected}, "")
            found = found._replace(answer=min(found.answer, Answer.PATH))
        return found._replace(lasting=search.lasting)

    def rules(self) -> list[Rule]:
        """Return the rules of all routes, those of mounted apps too."""
        return list(_rules(self._app, ""))


class _Search:
    """One question's way through the routes."""

    def __init__(self) -> None:
        self._redirects = True
        self.redirected: str | None = None  # the path that a router would redirect to
        self.lasting = True  # until a route is met that may look at more than type, method, host and path

    def find(self, app: Any, scope: dict[str, Any], prefix: str) -> Found:
        """Return what the router of `app` makes of `scope`, which is ours to change; `prefix` is where it is mounted.

        The order is that of starlette.routing.Router.app, and of fastapi.routing.APIRouter.app.
        """
        if getattr(app, "root_path", ""):  # FastAPI(root_path=)
            scope["root_path"] = app.root_path
        router = getattr(app, "router", app)
        found = self._first(router.routes, scope, prefix)
        if found is not None:
            return found
        if self._redirects and scope["type"] == "http" and router.redirect_slashes:
            redirected = _maybe_with_other_slash(scope)
            if redirected and any(route.matches(redirected)[0] is not Match.NONE for route in router.routes):
                self._redirects = False  # one is enough
                self.redirected = redirected["path"]
                return _NOTHING
        if hasattr(router, "_match_low_priority"):  # FastAPI.frontend()
            match, _, _, _ = router._match_low_priority(scope)
            if match is not Match.NONE:
                return Found(Answer.REQUEST if match is Match.FULL else Answer.PATH, prefix + _REST)
        if getattr(router.default, "__func__", None) is not type(router).not_found:
            return Found(Answer.REQUEST, prefix + _REST)  # an app of its own for all that has no route
        return _NOTHING

    def _first(self, routes: list[Any], scope: dict[str, Any], prefix: str) -> Found | None:
        """Return what the first route that matches makes of it, or else the first that has the path."""
        partial = None
        for route in routes:
            if not _matches_by_path(route):
                self.lasting = False
            match, child_scope = route.matches(scope)
            if match is Match.FULL:
                return self._selected(route, scope, child_scope, prefix)
            if match is Match.PARTIAL and partial is None:
                partial = Found(Answer.PATH, prefix + _path_of(_within(route, scope)[0]))
        return partial

    def _selected(self, route: Any, scope: dict[str, Any], child_scope: dict[str, Any], prefix: str) -> Found:
        """Return what a route that matches makes of it: a `Mount` does so for all of its prefix."""
        if _is_included(route):
            route, child_scope = _within(route, scope)
        path = prefix + _path_of(route)
        if not hasattr(route, "routes"):
            endpoint = getattr(route, "endpoint", None)
            generated = getattr(endpoint, "__module__", "") == "fastapi.applications"  # FastAPI's docs pages
            answer = Answer.REQUEST if _has_method(endpoint, scope) else Answer.PATH
            return Found(answer, path, generated=generated)
        mounted = _mounted(route)
        if not _is_router(mounted):
            return Found(Answer.REQUEST, path + _REST)
        return self.find(mounted, {**scope, **child_scope}, path)


def _is_router(app: Any) -> bool:
    """Return whether `app` is a Starlette or FastAPI app, or a router of theirs."""
    return isinstance(app, (Router, Starlette))


def _mounted(route: Any) -> Any:
    """Return the app of a `Mount`, without the middleware of its own, or of a `Host`."""
    return getattr(route, "_base_app", route.app)


def _path_of(route: Any) -> str:
    """Return the path of a route as it was written; nothing for a `Host`."""
    return str(getattr(route, "path", ""))


def _has_method(endpoint: Any, scope: dict[str, Any]) -> bool:
    """Return whether an endpoint answers the method: an `HTTPEndpoint` takes any, and then says 405 by itself."""
    if scope["type"] != "http" or not (isinstance(endpoint, type) and issubclass(endpoint, HTTPEndpoint)):
        return True
    if endpoint.dispatch is not HTTPEndpoint.dispatch:
        return True  # one that looks for itself
    method = scope["method"].lower()
    return hasattr(endpoint, method) or (method == "head" and hasattr(endpoint, "get"))


def _is_included(route: Any) -> bool:
    """Return whether `route` is a router that FastAPI has included, which stands for those of its own."""
    return type(route).__name__ == "_IncludedRouter" and type(route).__module__ == "fastapi.routing"


def _within(route: Any, scope: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the route that an included router has chosen, with its child scope."""
    child_scope: dict[str, Any] = {}
    while _is_included(route):
        _, child_scope, chosen, context = route._match(scope)
        route = chosen if context is None else context.starlette_route or context
    return route, child_scope


def _matches_by_path(route: Any) -> bool:
    """Return whether a route looks at type, method, host and path alone, as the frameworks' own do."""
    if _is_included(route):
        candidates = route.effective_candidates()
        return all(_matches_by_path(getattr(candidate, "original_route", candidate)) for candidate in candidates)
    return str(type(route).matches.__module__).startswith(("starlette.", "fastapi."))


def _maybe_with_other_slash(scope: dict[str, Any]) -> dict[str, Any] | None:
    """Return the scope that the router redirects to, if there is a route for it; None for the root."""
    path, root_path = scope["path"], scope.get("root_path") or ""
    route_path = path[len(root_path) :] if path == root_path or path.startswith(f"{root_path}/") else path
    if route_path == "/":
        return None
    return {**scope, "path": path.rstrip("/") if route_path.endswith("/") else f"{path}/"}


# --- All rules ----------------------------------------------------------------------------------


def _rules(app: Any, prefix: str, host: str = "") -> Iterator[Rule]:
    for route in getattr(app, "router", app).routes:
        if _is_included(route):
            for context in route.effective_route_contexts():
                yield from _rules_of(context.starlette_route or context, prefix, host)
        else:
            yield from _rules_of(route, prefix, host)


def _rules_of(route: Any, prefix: str, host: str) -> Iterator[Rule]:
    path = prefix + _path_of(route)
    if hasattr(route, "routes"):
        mounted = _mounted(route)
        host = re.sub(r"\{.*?\}", "sample", getattr(route, "host", host))
        if _is_router(mounted):
            yield from _rules(mounted, path, host)
        else:
            yield Rule(path + _REST, (), (f"{path}/sample",), host=host)
    elif hasattr(route, "param_convertors"):
        parameters = {name: values_of(convertor.regex) for name, convertor in route.param_convertors.items()}
        template: str = prefix + route.path_format

        def fill(values: dict[str, str]) -> str:
            path = template
            for name, value in values.items():
                path = path.replace(f"{{{name}}}", value)
            return path

        methods = getattr(route, "methods", None)
        paths = paths_of(parameters, fill)
        yield Rule(path, tuple(sorted(methods or ())), paths, not hasattr(route, "methods"), host)
