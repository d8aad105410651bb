"""Flask's and Quart's routers, which are Werkzeug's `Map`, and Werkzeug's `DispatcherMiddleware`."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import RequestRedirect

from bridge.migration.question import Answer, Found, Question, Router, Rule
from bridge.migration.routers.samples import is_async, paths_of, values_of

_REST = "/<path:path>"


class FlaskRouter:
    """A Flask app; where its `wsgi_app` is a `DispatcherMiddleware`, what is mounted there too."""

    def __init__(self, app: Any, maybe_router: Callable[[Any], Router | None]) -> None:
        self._app = app
        self._maybe_router = maybe_router

    def find(self, question: Question) -> Found:
        """Return what the app would make of the request."""
        return self._router().find(question)

    def rules(self) -> list[Rule]:
        """Return all rules of the app."""
        return self._router().rules()

    def _router(self) -> Router:
        """Return what is asked first; other middleware in the place of `wsgi_app` counts as passing requests on."""
        router = self._maybe_router(self._app.wsgi_app)
        return router if isinstance(router, DispatcherRouter) else FlaskMap(self._app)


class FlaskMap:
    """The routes of a Flask app, which its method `wsgi_app` serves."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def find(self, question: Question) -> Found:
        """Return what the app would make of the request."""
        request = self._app.request_class(question.environ.copy())
        return _find(lambda: self._app.create_url_adapter(request))

    def rules(self) -> list[Rule]:
        """Return all rules of the app."""
        views = self._app.view_functions
        return [
            rule._replace(is_async=is_async(views.get(endpoint)))
            for rule, endpoint in _rules(self._app.url_map, self._app.config["SERVER_NAME"])
        ]


class QuartRouter:
    """A Quart app."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def find(self, question: Question) -> Found:
        """Return what the app would make of the request."""
        app, scope = self._app, question.scope
        if not scope["path"]:
            return Found(Answer.NOTHING)
        if scope["type"] == "websocket":
            request = app.asgi_websocket_class(app, scope)._create_websocket_from_scope(None)
        else:
            request = app.asgi_http_class(app, scope)._create_request_from_scope(None)
        return _find(lambda: app.create_url_adapter(request))

    def rules(self) -> list[Rule]:
        """Return all rules of the app."""
        return [rule for rule, _ in _rules(self._app.url_map, self._app.config["SERVER_NAME"])]


class DispatcherRouter:
    """Werkzeug's `DispatcherMiddleware`: apps by the prefix of their paths. One that cannot be asked claims its own."""

    def __init__(self, dispatcher: Any, maybe_router: Callable[[Any], Router | None]) -> None:
        self._dispatcher = dispatcher
        self._maybe_router = maybe_router

    def find(self, question: Question) -> Found:
        """Return what the app whose prefix it is would make of the request."""
        environ = question.environ
        prefix, path_info = environ.get("PATH_INFO", ""), ""
        while "/" in prefix and prefix not in self._dispatcher.mounts:
            prefix, _, last = prefix.rpartition("/")
            path_info = f"/{last}{path_info}"
        app = self._dispatcher.mounts.get(prefix, self._dispatcher.app)
        router = self._maybe_router(app)
        if router is None:
            return Found(Answer.REQUEST, prefix + _REST)
        script_name = environ.get("SCRIPT_NAME", "") + prefix
        found = router.find(Question(environ={**environ, "SCRIPT_NAME": script_name, "PATH_INFO": path_info}))
        return found._replace(rule=prefix + found.rule)

    def rules(self) -> list[Rule]:
        """Return the rules of all apps, with their prefix."""
        rules: list[Rule] = []
        for prefix, app in [*self._dispatcher.mounts.items(), ("", self._dispatcher.app)]:
            router = self._maybe_router(app)
            inner = [Rule(_REST, (), ("/sample",))] if router is None else router.rules()
            rules += [
                rule._replace(rule=prefix + rule.rule, paths=tuple(prefix + path for path in rule.paths))
                for rule in inner
            ]
        return rules


def _find(bind: Callable[[], Any]) -> Found:
    """Return what the map makes of what it is bound to."""
    try:
        adapter = bind()
        rule, _ = adapter.match(return_rule=True)
    except MethodNotAllowed:
        return Found(Answer.PATH)
    except RequestRedirect as redirect:
        is_for_slashes = _without_slashes(unquote(urlsplit(redirect.new_url).path)) == _without_slashes(
            f"{adapter.script_name}/{adapter.path_info}"
        )
        return Found(Answer.PATH if is_for_slashes else Answer.REQUEST)  # else a rule says so (redirect_to=)
    except HTTPException:  # NotFound, WebsocketMismatch, a host that is not trusted
        return Found(Answer.NOTHING)
    return Found(Answer.REQUEST, rule.rule, generated=rule.endpoint == "static")


def _without_slashes(path: str) -> list[str]:
    """Return the segments of a path: two paths with the same ones differ by slashes alone."""
    return [segment for segment in path.split("/") if segment]


def _rules(url_map: Any, server_name: str | None) -> Iterator[tuple[Rule, str]]:
    """Yield each rule with its endpoint."""
    for rule in url_map.iter_rules():
        methods = tuple(sorted(rule.methods or ()))
        converters = getattr(rule, "_converters", {})
        parameters = {name: _values_of(converter) for name, converter in converters.items()}
        paths = paths_of(parameters, _filler(rule, converters))
        host = rule.host if url_map.host_matching else f"{rule.subdomain}.{server_name}" if rule.subdomain else None
        yield Rule(rule.rule, methods, paths, bool(rule.websocket), host or server_name or ""), rule.endpoint


def _filler(rule: Any, converters: dict[str, Any]) -> Callable[[dict[str, str]], str | None]:
    def fill(values: dict[str, str]) -> str | None:
        python = {name: converters[name].to_python(value) for name, value in values.items()}
        built = rule.build({**(rule.defaults or {}), **python}, append_unknown=False)
        return None if built is None else str(built[1])

    return fill


def _values_of(converter: Any) -> list[str]:
    """Return values that the converter takes; one such as `any(a, b)` tells them itself."""
    items = getattr(converter, "items", None)
    if isinstance(items, (set, frozenset, list, tuple)):
        return sorted(map(str, items))[:2]
    taken = []
    for value in values_of(converter.regex):
        with contextlib.suppress(ValueError):  # ValidationError: the converter looks at more than the pattern
            converter.to_python(value)
            taken.append(value)
    return taken
