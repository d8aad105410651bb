"""Django's router, which knows paths but not methods."""

import contextlib
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from django.conf import settings  # type: ignore[import-untyped]  # Django brings no types
from django.conf.urls.i18n import is_language_prefix_patterns_used  # type: ignore[import-untyped]
from django.core.handlers.wsgi import WSGIHandler, get_path_info  # type: ignore[import-untyped]
from django.urls import Resolver404, get_resolver  # type: ignore[import-untyped]
from django.utils import translation  # type: ignore[import-untyped]
from django.utils.module_loading import import_string  # type: ignore[import-untyped]
from django.utils.regex_helper import normalize  # type: ignore[import-untyped]

from bridge.migration.question import Answer, Found, Question, Rule
from bridge.migration.routers.samples import VALUES, is_async, paths_of, values_of


class DjangoRouter:
    """One of Django's handlers: for WSGI, for ASGI, or the `StaticFilesHandler`.

    The URLconf is ROOT_URLCONF. One that a middleware sets for a request (`request.urlconf`) cannot be known before.
    """

    def __init__(self, handler: Any) -> None:
        self._handler = handler

    def find(self, question: Question) -> Found:
        """Return what the app would make of the request."""
        if question.scope["type"] != "http":
            return Found(Answer.NOTHING)  # Channels is another app
        path = self._path_info(question)
        if hasattr(self._handler, "_should_handle") and self._handler._should_handle(path):
            return Found(Answer.REQUEST, f"{self._handler.base_url.path}<path:path>")
        resolver = get_resolver(settings.ROOT_URLCONF)
        with _language_of(path):
            with contextlib.suppress(Resolver404):
                return Found(Answer.REQUEST, f"/{resolver.resolve(path).route}")
            if not path.endswith("/") and settings.APPEND_SLASH and _has_common(tuple(settings.MIDDLEWARE)):
                with contextlib.suppress(Resolver404):
                    match = resolver.resolve(f"{path}/")
                    if getattr(match.func, "should_append_slash", True):
                        return Found(Answer.PATH, f"/{match.route}")
        return Found(Answer.NOTHING)

    def rules(self) -> list[Rule]:
        """Return all rules of the URLconf."""
        resolver = get_resolver(settings.ROOT_URLCONF)
        return [_rule(patterns, view, resolver) for patterns, view in _chains(resolver.url_patterns, ())]

    def _path_info(self, question: Question) -> str:
        """Return the path as the handler sees it (django.core.handlers)."""
        if isinstance(self._handler, WSGIHandler):
            return str(get_path_info(question.environ)) or "/"
        path: str = question.scope["path"]
        return path.removeprefix(question.scope.get("root_path") or "")


def _language_of(path: str) -> contextlib.AbstractContextManager[object]:
    """Return a context with the language that LocaleMiddleware would take from the path, for `i18n_patterns`."""
    if not settings.USE_I18N or not is_language_prefix_patterns_used(settings.ROOT_URLCONF)[0]:
        return contextlib.nullcontext()
    language = translation.get_language_from_path(path) or settings.LANGUAGE_CODE
    override: contextlib.AbstractContextManager[object] = translation.override(language)
    return override


@functools.lru_cache(maxsize=8)
def _has_common(middleware: tuple[str, ...]) -> bool:
    """Return whether CommonMiddleware or a subclass is installed, which redirects to a path with a slash."""
    from django.middleware.common import CommonMiddleware  # type: ignore[import-untyped]  # wants settings

    kinds = map(import_string, middleware)
    return any(isinstance(kind, type) and issubclass(kind, CommonMiddleware) for kind in kinds)


# --- All rules ----------------------------------------------------------------------------------


def _chains(patterns: Any, before: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield each URL pattern, preceded by those that include it, with its view."""
    for pattern in patterns:
        if hasattr(pattern, "url_patterns"):
            yield from _chains(pattern.url_patterns, (*before, pattern.pattern))
        else:
            yield (*before, pattern.pattern), pattern.callback


def _methods_of(view: Any) -> tuple[str, ...]:
    """Return the methods of a class-based view; none for a function, and for a class that does not tell."""
    view_class = getattr(view, "view_class", None)
    names = [] if view_class is None else [name for name in view_class.http_method_names if hasattr(view_class, name)]
    return () if names == ["options"] else tuple(sorted(name.upper() for name in names))  # View has that one itself


def _rule(patterns: tuple[Any, ...], view: Any, resolver: Any) -> Rule:
    """Return the rule that the patterns form together, with sample paths that lead to it."""
    template, parameters = "/", dict[str, Sequence[str]]()
    for number, pattern in enumerate(patterns):
        part, values = _part(pattern)
        for name, known in values.items():
            own = f"{name} {number}"  # the name may come again in what is included
            part = part.replace(f"%({name})s", f"%({own})s")
            parameters[own] = known
        template += part
    written = "/" + str(patterns[0]) + "".join(str(pattern).removeprefix("^") for pattern in patterns[1:])
    paths = paths_of(parameters, lambda values: template % values)
    found = tuple(path for path in paths if _resolves(resolver, path))
    return Rule(written, _methods_of(view), found, is_async=is_async(view))


def _part(pattern: Any) -> tuple[str, dict[str, Sequence[str]]]:
    """Return a format string for what a pattern matches, and values for its names."""
    regex = pattern.regex
    part, names = normalize(regex.pattern)[0]
    if pattern.converters:
        return part, {name: values_of(pattern.converters[name].regex) for name in names}
    for values in itertools.product(VALUES, repeat=min(len(names), 3)):  # more than three are not found
        chosen = dict(zip(names, values, strict=False))
        if len(chosen) == len(names) and regex.search(part % chosen):
            return part, {name: [value] for name, value in chosen.items()}
    return part, dict.fromkeys(names, ())


def _resolves(resolver: Any, path: str) -> bool:
    try:
        resolver.resolve(path)
    except Resolver404:
        return False
    return True
