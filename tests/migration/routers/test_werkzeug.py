from typing import Any

import pytest
from flask import Flask
from quart import Quart
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import BaseConverter, ValidationError

from bridge import ASGIToWSGI
from bridge.migration.question import Answer, Question
from bridge.migration.routers import maybe_router
from tests.fakes import http_environ, http_scope, websocket_scope
from tests.migration import apps

NOTHING, PATH, REQUEST = Answer.NOTHING, Answer.PATH, Answer.REQUEST


def page(**values: object) -> str:
    return ""


def answer(app: Any, path: str, method: str = "GET", **variables: Any) -> Answer:
    """Return the answer, which is the same in whatever form the question comes."""
    router = maybe_router(app)
    assert router is not None
    found = router.find(Question(environ=http_environ(method, path, **variables)))
    host = variables.get("HTTP_HOST", "example.org").encode()
    assert router.find(Question(scope=http_scope(method, path, headers=[(b"host", host)]))) == found
    return found.answer


@pytest.mark.parametrize("make", [Flask, Quart])
def test_rules_are_matched(make: Any) -> None:
    """By path, method, slash and converter."""
    app = make("app")
    app.add_url_rule("/a/<int:id>", "a", page)
    app.add_url_rule("/b/", "b", page, methods=["POST"])
    assert [answer(app, path) for path in ("/a/1", "/a/x", "/a/1/", "/b/")] == [REQUEST, NOTHING, NOTHING, PATH]
    assert [answer(app, path, "POST") for path in ("/b", "/b/", "/a/1")] == [PATH, REQUEST, PATH]
    assert [answer(app, "/a/1", method) for method in ("HEAD", "OPTIONS")] == [REQUEST, REQUEST]
    assert answer(app, "/static/x.css") is REQUEST


def test_a_redirect_that_a_rule_asks_for_is_its_answer() -> None:
    """A redirect because of a slash does not claim the request."""
    app = Flask("app")
    app.add_url_rule("/a/ä/", "a", page)
    app.add_url_rule("/old", "old", page, redirect_to="/a")
    app.add_url_rule("/all/", "all", page, defaults={"page": 1})
    app.add_url_rule("/all/<int:page>", "all", page)
    native = "/a/ä".encode().decode("latin-1")
    router = maybe_router(app)
    assert router is not None
    for path, expected in [(native, PATH), ("/old", REQUEST), ("/all/1", REQUEST), ("/all", PATH), ("/all//2", PATH)]:
        assert router.find(Question(environ=http_environ("GET", path))).answer is expected, path


@pytest.mark.parametrize("make", [Flask, Quart])
def test_hosts_are_matched(make: Any) -> None:
    """With `host_matching`, and with subdomains."""
    app = make("app", host_matching=True, static_host="static.example.org")
    app.add_url_rule("/a", "a", page, host="a.example.org")
    assert [answer(app, "/a", HTTP_HOST=host) for host in ("a.example.org", "b.example.org")] == [REQUEST, NOTHING]
    app = make("app", subdomain_matching=True)
    app.config["SERVER_NAME"] = "example.org"
    app.add_url_rule("/a", "a", page, subdomain="a")
    assert [answer(app, "/a", HTTP_HOST=host) for host in ("a.example.org", "b.example.org")] == [REQUEST, NOTHING]


def test_a_host_that_is_not_trusted_is_not_known() -> None:
    """Flask would say 400."""
    app = Flask("app")
    if "TRUSTED_HOSTS" not in app.config:
        pytest.skip("this Flask trusts every host")
    app.config["TRUSTED_HOSTS"] = ["example.org"]
    app.add_url_rule("/a", "a", page)
    assert [answer(app, "/a", HTTP_HOST=host) for host in ("example.org", "evil.example")] == [REQUEST, NOTHING]


def test_a_websocket_is_no_page() -> None:
    """And a page is no WebSocket."""
    flask, quart = Flask("app"), Quart("app")
    flask.add_url_rule("/ws", "ws", page, websocket=True)
    flask.add_url_rule("/a", "a", page)
    quart.add_websocket("/ws", "ws", page)
    quart.add_url_rule("/a", "a", page)
    for app in (flask, quart):
        router = maybe_router(app)
        assert router is not None
        assert [answer(app, path) for path in ("/ws", "/a")] == [NOTHING, REQUEST]
        answers = [router.find(Question(scope=websocket_scope(path))).answer for path in ("/ws", "/a")]
        assert answers == [REQUEST, NOTHING]
        upgrade = {"HTTP_UPGRADE": "websocket", "HTTP_CONNECTION": "keep-alive, Upgrade"}
        question = Question(environ=http_environ("GET", "/ws", **upgrade))
        assert router.find(question).answer is REQUEST


def test_a_path_that_is_none_is_not_known() -> None:
    """OPTIONS * has no path."""
    router = maybe_router(Quart("app"))
    assert router is not None
    assert router.find(Question(scope=http_scope("OPTIONS", ""))).answer is NOTHING


def test_a_dispatcher_is_asked() -> None:
    """By prefix: on to an app that is known; any other claims its prefix."""
    known, unknown = apps.flask("known", {"/a": ["GET"]}), lambda environ, start_response: [b""]
    base = apps.flask("base", {"/b": ["GET"]})
    dispatched = DispatcherMiddleware(
        base, {"/known": known, "/known/unknown": unknown, "/api": ASGIToWSGI(apps.starlette("api", {"/a": ["GET"]}))}
    )
    replaced = apps.flask("base", {"/b": ["GET"]})
    replaced.wsgi_app = DispatcherMiddleware(replaced.wsgi_app, dict(dispatched.mounts))  # type: ignore[method-assign]
    for app in (dispatched, replaced):
        expected = {
            "/b": REQUEST,
            "/a": NOTHING,
            "/known/a": REQUEST,
            "/known/b": NOTHING,
            "/known/unknown/whatever": REQUEST,
            "/api/a": REQUEST,
            "/api/b": NOTHING,
            "/apis": NOTHING,
        }
        assert {path: answer(app, path) for path in expected} == expected
        router = maybe_router(app)
        assert router is not None
        rules = {rule.rule: rule.paths for rule in router.rules()}
        assert rules == {
            "/known/a": ("/known/a",),
            "/known/unknown/<path:path>": ("/known/unknown/sample",),
            "/api/a": ("/api/a",),
            "/b": ("/b",),
        }
    router = maybe_router(DispatcherMiddleware(unknown))
    assert router is not None
    assert router.find(Question(environ=http_environ("GET", "/x"))).answer is REQUEST


def test_other_middleware_within_flask_passes_on() -> None:
    """The app's own routes are asked."""
    app = apps.flask("app", {"/a": ["GET"]})
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]
    assert [answer(app, path) for path in ("/a", "/b")] == [REQUEST, NOTHING]


class Even(BaseConverter):
    regex = "[0-9]+"

    def to_python(self, value: str) -> int:
        if int(value) % 2:
            raise ValidationError
        return int(value)


class Odd(BaseConverter):
    regex = "[A-Z]{40}"


def test_rules_tell_their_hosts() -> None:
    """By `host=`, and by subdomain and SERVER_NAME; static files are the framework's own rule."""
    app = Flask("app", host_matching=True, static_host="static.example.org")
    app.add_url_rule("/a", "a", page, host="a.example.org")
    router = maybe_router(app)
    assert router is not None
    assert [rule.host for rule in router.rules()] == ["static.example.org", "a.example.org"]
    assert router.find(Question(environ=http_environ("GET", "/static/x", HTTP_HOST="static.example.org"))).generated
    app = Flask("app", subdomain_matching=True, static_folder=None)
    app.config["SERVER_NAME"] = "example.org"
    app.add_url_rule("/a", "a", page, subdomain="sub")
    app.add_url_rule("/b", "b", page)
    router = maybe_router(app)
    assert router is not None
    assert [rule.host for rule in router.rules()] == ["sub.example.org", "example.org"]


@pytest.mark.parametrize("make", [Flask, Quart])
def test_each_rule_is_found_by_its_samples(make: Any) -> None:
    """What is made up leads back to the rule; a rule without a sample is told as well."""
    app = make("app", static_folder=None)
    app.url_map.converters.update(even=Even, odd=Odd)
    rules = [
        "/",
        "/a/<id>",
        "/i/<int:id>",
        "/f/<float:id>",
        "/u/<uuid:id>",
        "/p/<path:rest>",
        "/any/<any(one, two):id>",
    ]
    rules += ["/even/<even:id>", "/both/<int:a>/<b>", "/min/<int(min=100):id>", "/fixed/<int(fixed_digits=4):id>"]
    for rule in [*rules, "/odd/<odd:id>"]:
        app.add_url_rule(rule, rule, page)
    router = maybe_router(app)
    assert router is not None
    found = {rule.rule: rule for rule in router.rules()}
    assert set(found) == {*rules, "/odd/<odd:id>"}
    assert found["/odd/<odd:id>"].paths == ()
    for rule in rules:
        assert found[rule].paths, rule
        for path in found[rule].paths:
            assert router.find(Question(environ=http_environ("GET", path))).rule == rule
    assert found["/any/<any(one, two):id>"].paths == ("/any/one", "/any/two")
