from typing import Any

import pytest
from django.conf.urls.i18n import i18n_patterns  # type: ignore[import-untyped]  # Django brings no types
from django.contrib.staticfiles.handlers import (  # type: ignore[import-untyped]
    ASGIStaticFilesHandler,
    StaticFilesHandler,
)
from django.http import HttpRequest, HttpResponse  # type: ignore[import-untyped]
from django.test import override_settings  # type: ignore[import-untyped]
from django.urls import include, path, re_path  # type: ignore[import-untyped]
from django.views import View  # type: ignore[import-untyped]
from django.views.decorators.common import no_append_slash  # type: ignore[import-untyped]

from bridge.migration.question import Answer, Question
from bridge.migration.routers import maybe_router
from tests.fakes import http_environ, http_scope, websocket_scope
from tests.migration import apps

NOTHING, PATH, REQUEST = Answer.NOTHING, Answer.PATH, Answer.REQUEST


def view(request: HttpRequest, **values: object) -> HttpResponse:
    return HttpResponse()


URLS = [
    path("", view),
    path("a/<int:id>/", view),
    path("b", view),
    path("bare/", no_append_slash(view)),
    path(
        "in/<slug:name>/", include([path("c/<uuid:id>", view), re_path(r"^d/(?P<year>[0-9]{4})/(?P<name>\w+)$", view)])
    ),
    re_path(r"^e/(\d+)/$", view),
    re_path(r"^f/([A-Z]{40})/$", view),
]


def answers(handler: Any, paths: list[str], root: str = "") -> list[Answer]:
    """Return the answers, which are the same in whatever form the questions come."""
    router = maybe_router(handler)
    assert router is not None
    found = [router.find(Question(environ=http_environ("GET", path, SCRIPT_NAME=root))).answer for path in paths]
    scopes = [http_scope(path=root + path, root_path=root) for path in paths]
    assert [router.find(Question(scope=scope)).answer for scope in scopes] == found
    return found


@pytest.mark.parametrize("make", [apps.django_wsgi, apps.django_asgi])
@pytest.mark.parametrize("root", ["", "/app"])
def test_paths_are_resolved(make: Any, root: str) -> None:
    """Also with the slash that CommonMiddleware appends; the method does not matter."""
    with apps.django_urls(URLS):
        paths = ["/", "/a/1/", "/a/1", "/a/x/", "/b", "/b/", "/bare/", "/bare", "/in/x/d/2026/y", "/e/1"]
        expected = [REQUEST, REQUEST, PATH, NOTHING, REQUEST, NOTHING, REQUEST, NOTHING, REQUEST, PATH]
        assert answers(make(), paths, root) == expected


@pytest.mark.parametrize(
    "options", [{"APPEND_SLASH": False}, {"MIDDLEWARE": []}], ids=lambda options: next(iter(options))
)
def test_without_appended_slashes_a_slash_matters(options: dict[str, Any]) -> None:
    """Nobody would redirect."""
    with apps.django_urls(URLS, **options):
        assert answers(apps.django_wsgi(), ["/a/1", "/a/1/"]) == [NOTHING, REQUEST]


def test_translated_patterns_are_resolved_in_their_language() -> None:
    """Patterns are resolved as LocaleMiddleware does, whatever language is active."""
    urls = [*i18n_patterns(path("about/", view)), path("plain/", view)]
    with apps.django_urls(urls, USE_I18N=True, LANGUAGE_CODE="en", LANGUAGES=[("en", "English"), ("de", "German")]):
        paths = ["/de/about/", "/en/about/", "/fr/about/", "/about/", "/plain/"]
        assert answers(apps.django_wsgi(), paths) == [REQUEST, REQUEST, NOTHING, NOTHING, REQUEST]


def test_static_files_are_claimed_by_their_handler() -> None:
    """`StaticFilesHandler` answers its prefix, and asks on."""
    with override_settings(STATIC_URL="/static/"), apps.django_urls(URLS):
        for handler in (StaticFilesHandler(apps.django_wsgi()), ASGIStaticFilesHandler(apps.django_asgi())):
            assert answers(handler, ["/static/x.css", "/b", "/c"]) == [REQUEST, REQUEST, NOTHING]


def test_a_websocket_is_not_known() -> None:
    """Channels serves WebSockets with another app."""
    with apps.django_urls(URLS):
        router = maybe_router(apps.django_asgi())
        assert router is not None
        assert router.find(Question(scope=websocket_scope("/b"))).answer is NOTHING


def test_each_rule_is_found_by_its_samples() -> None:
    """What is made up leads back to the rule; a rule without a sample is told as well."""
    with apps.django_urls(URLS):
        router = maybe_router(apps.django_wsgi())
        assert router is not None
        rules = {rule.rule: rule.paths for rule in router.rules()}
        assert rules == {
            "/": ("/",),
            "/a/<int:id>/": ("/a/1/", "/a/2026/"),
            "/b": ("/b",),
            "/bare/": ("/bare/",),
            "/in/<slug:name>/c/<uuid:id>": (
                "/in/sample/c/00000000-0000-4000-8000-000000000000",
                "/in/1/c/00000000-0000-4000-8000-000000000000",
            ),
            r"/in/<slug:name>/d/(?P<year>[0-9]{4})/(?P<name>\w+)$": (
                "/in/sample/d/2026/sample",
                "/in/1/d/2026/sample",
            ),
            r"/^e/(\d+)/$": ("/e/1/",),
            "/^f/([A-Z]{40})/$": (),
        }
        for rule, paths in rules.items():
            for sample in paths:
                assert router.find(Question(environ=http_environ("GET", sample))).rule == rule


def test_a_class_of_views_tells_its_methods() -> None:
    """A function does not."""

    class Page(View):  # type: ignore[misc]  # Django brings no types
        def get(self, request: HttpRequest) -> HttpResponse:
            return HttpResponse()

        def post(self, request: HttpRequest) -> HttpResponse:
            return HttpResponse()

    with apps.django_urls([path("a", Page.as_view()), path("b", view)]):
        router = maybe_router(apps.django_wsgi())
        assert router is not None
        assert [rule.methods for rule in router.rules()] == [("GET", "OPTIONS", "POST"), ()]
