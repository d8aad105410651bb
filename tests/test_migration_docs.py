"""The blocks of docs/migration.md, each run as it stands."""

import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import PlainTextResponse
from flask import Flask, Response

from bridge import WSGIToASGI
from bridge.migration import ASGIFallback, WSGIFallback

DOCS = (Path(__file__).parent.parent / "docs" / "migration.md").read_text()
BLOCKS = dict(re.findall(r"<!-- ([^>]+) -->\n```python\n(.*?)```\n", DOCS, re.DOTALL))

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])  # httpx's ASGITransport wants it


def run(name: str) -> dict[str, Any]:
    """Run a block as a module of its own, and return its names."""
    module = types.ModuleType("docs")
    sys.modules["docs"] = module
    try:
        exec(compile(BLOCKS[name], f"docs/migration.md: {name}", "exec"), module.__dict__)
    finally:
        del sys.modules["docs"]
    return module.__dict__


def client_of(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


def test_every_python_block_is_named_and_run() -> None:
    """A block without a name above it would be run by no test, and so would one that no test asks for."""
    assert len(BLOCKS) == DOCS.count("```python")
    asked_for = re.findall(r'(?:run|script_of)\("([^"]+)"\)|\("([^"]+)", AFTER', Path(__file__).read_text())
    assert set(BLOCKS) == {one or other for one, other in asked_for}


@on_asyncio
async def test_fallback() -> None:
    """A method has moved, the other has not."""
    async with client_of(run("fallback")["asgi_app"]) as client:
        assert (await client.get("/orders")).json() == "the new orders"
        assert (await client.post("/orders")).text == "the old orders"
        assert (await client.get("/nowhere")).status_code == 404


@on_asyncio
async def test_shared_middleware() -> None:
    """It is around both apps."""
    async with client_of(run("shared middleware")["asgi_app"]) as client:
        assert (await client.get("/openapi.json")).status_code == 200
        assert (await client.get("/nowhere")).headers["content-type"] == "text/html; charset=utf-8"


@on_asyncio
async def test_claims() -> None:
    """One route is rolled back, the other is not."""
    async with client_of(run("claims")["asgi_app"]) as client:
        assert (await client.get("/orders")).text == "old"
        assert (await client.get("/invoices")).json() == "new"


LOGINS = [lambda: run("flask session"), lambda: run("flask-login")]


@pytest.mark.parametrize("block", LOGINS, ids=["flask", "flask-login"])
@on_asyncio
async def test_one_login(block: Callable[[], dict[str, Any]]) -> None:
    """The new app knows the user whom the old app has logged in."""
    names = block()
    async with client_of(names["asgi_app"]) as client:
        refused = await client.get("/me")
        assert (await client.post("/login/ada")).text == "welcome"
        assert (await client.get("/me")).json() == "ada"
        assert (await client.post("/logout")).text == "goodbye"
        assert (await client.get("/me")).status_code == 401
    assert refused.status_code == 401
    assert "url_for" not in names or refused.json() == {"detail": "log in at http://test/login/you"}


@pytest.mark.parametrize("block", LOGINS, ids=["flask", "flask-login"])
def test_one_login_under_a_wsgi_server(block: Callable[[], dict[str, Any]]) -> None:
    """The same by the server's own environ."""
    names = block()
    with (
        WSGIFallback(names["app"], names["legacy"]) as app,
        httpx.Client(transport=httpx.WSGITransport(app), base_url="http://test") as client,
    ):
        assert client.get("/me").status_code == 401
        assert client.post("/login/ada").text == "welcome"
        assert client.get("/me").json() == "ada"
        assert client.post("/logout").text == "goodbye"
        assert client.get("/me").status_code == 401


@on_asyncio
async def test_flask_wtf() -> None:
    """The old app's token is right for the new route, and no other is."""
    async with client_of(run("flask-wtf")["asgi_app"]) as client:
        token = (await client.get("/form")).text
        assert (await client.post("/orders", data={"csrf_token": token})).json() == "ordered"
        assert (await client.post("/orders", data={"csrf_token": "x"})).status_code == 400
        assert (await client.post("/orders")).status_code == 400


def test_diff(tmp_path: Path) -> None:
    """The commands below the block print what stands there."""
    (tmp_path / "shop.py").write_text(script_of("diff"))
    console = DOCS.partition("<!-- diff -->")[2].partition("```console\n")[2].partition("```")[0]
    for command, expected in re.findall(r"\$ bridge (.*)\n((?:(?!\$ ).*\n)*)", console):
        arguments = [sys.executable, "-m", "bridge", *command.split()]
        done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
        assert done.stdout == expected, done.stderr


def test_check(tmp_path: Path) -> None:
    """The command below the block prints what stands there, whatever Flask's version is."""
    (tmp_path / "orders.py").write_text(script_of("check"))
    console = DOCS.partition("<!-- check -->")[2].partition("```console\n")[2].partition("```")[0]
    command, _, expected = console.partition("\n")
    arguments = [sys.executable, "-m", "bridge", *command.removeprefix("$ bridge ").split()]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    assert re.sub(r"Flask [\d.]+,", "Flask,", done.stdout) == re.sub(r"Flask [\d.]+,", "Flask,", expected), done.stderr
    assert done.returncode == 1


def script_of(*names: str) -> str:
    return "\n".join(BLOCKS[name] for name in names)


BEFORE_DJANGO = """
import django
from django.conf import settings
settings.configure(
    ALLOWED_HOSTS=["*"], SECRET_KEY="of a test", ROOT_URLCONF="urls",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "site.sqlite3", "CONN_MAX_AGE": 60}},
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware",
                "django.middleware.csrf.CsrfViewMiddleware",
                "django.contrib.auth.middleware.AuthenticationMiddleware"],
)
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from django.contrib.auth.models import User
User.objects.create_user("ada", password="lovelace")
"""
URLS = """
from django.contrib.auth import authenticate, login
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.middleware.csrf import get_token
from django.urls import path
from django.views.decorators.csrf import csrf_exempt


@csrf_exempt
def log_in(request):
    login(request, authenticate(username="ada", password=request.POST["password"]))
    return HttpResponse("welcome")


def count(request):
    return HttpResponse(User.objects.count())


urlpatterns = [
    path("login", log_in), path("form", lambda request: HttpResponse(get_token(request))), path("count", count)
]
"""
AFTER_DJANGO = """
from starlette.testclient import TestClient

client = TestClient(asgi_app)
assert client.get("/me").status_code == 401
assert client.post("/login", data={"password": "lovelace"}).text == "welcome"
assert client.get("/me").json() == "ada"
"""
AFTER_CSRF = """
from bridge import WSGIToASGI
from bridge.migration import ASGIFallback
from django.core.wsgi import get_wsgi_application
from starlette.testclient import TestClient

client = TestClient(ASGIFallback(app, WSGIToASGI(get_wsgi_application(), buffer_body=True)))
token = client.get("/form").text
assert client.post("/orders", data={"csrfmiddlewaretoken": token}).json() == "ordered"
assert client.post("/orders", headers={"X-CSRFToken": token}).json() == "ordered"
assert client.post("/orders", data={"csrfmiddlewaretoken": "x" * 64}).status_code == 403
assert client.post("/orders").status_code == 403
"""


AFTER_CONNECTIONS = """
import asyncio
import httpx
from django.core.asgi import get_asgi_application
from django.db.backends.signals import connection_created

opened = []
connection_created.connect(lambda **values: opened.append(1), weak=False)


async def ask(app):
    opened.clear()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for _ in range(100):
            assert (await client.get("/count")).text == "1"
    return len(opened)


kept, native = asyncio.run(ask(asgi_app)), asyncio.run(ask(get_asgi_application()))
assert kept <= 20, kept
assert native == 100, native
"""


@pytest.mark.parametrize(
    ("block", "after"),
    [("django", AFTER_DJANGO), ("django csrf", AFTER_CSRF), ("django connections", AFTER_CONNECTIONS)],
)
def test_django(block: str, after: str, tmp_path: Path) -> None:
    """The same with Django, which has settings but once a process, and so runs in one of its own."""
    (tmp_path / "urls.py").write_text(URLS)
    (tmp_path / "script.py").write_text(BEFORE_DJANGO + script_of(block) + after)
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.filterwarnings("ignore:Using `httpx`")  # Starlette wants httpx2
def test_tests_of_the_other_app() -> None:
    """The blocks have assertions of their own."""
    run("old tests")
    run("new tests")


def test_schemathesis(tmp_path: Path) -> None:
    """It is a test module, which passes, and fails where the old app's answer has another type."""
    pytest.importorskip("schemathesis")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_schema.py"]
    script = script_of("schemathesis")
    for text, code in [(script, 0), (script.replace('"open": True', '"open": "yes"'), 1)]:
        (tmp_path / "test_schema.py").write_text(text)
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
        assert done.returncode == code, done.stdout
    assert "is not of type" in done.stdout


@on_asyncio
async def test_metrics() -> None:
    """There is no redirect."""
    async with client_of(run("metrics")["app"]) as client:
        assert (await client.get("/metrics")).text == "requests_total 1"


def half_moved() -> tuple[FastAPI, Flask]:
    """Return a new app with CORS and an authentication, and an old one with CORS of its own."""
    app, legacy = FastAPI(), Flask("legacy")
    allowed = {"Access-Control-Allow-Origin": "https://a.example", "Access-Control-Allow-Methods": "POST"}

    @legacy.route("/orders", methods=["GET", "POST", "OPTIONS"])
    def orders() -> Response:
        return Response("old", headers=allowed)

    @app.get("/orders")
    @app.get("/fresh/")
    async def moved() -> str:
        return "new"

    @app.middleware("http")
    async def authenticate(request: Request, call_next: Any) -> Any:
        if "authorization" in request.headers or request.url.path in ("/orders", "/fresh", "/fresh/"):
            return await call_next(request)
        return PlainTextResponse("who are you?", status_code=401)

    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["GET"])
    return app, legacy


@on_asyncio
async def test_the_traps_of_a_mount() -> None:
    """Each is there with `mount("/")`, and not with the fallback."""
    preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    origin = {"Origin": "https://a.example", "Authorization": "yes"}
    found = []
    for mounted in (True, False):
        app, legacy = half_moved()
        if mounted:
            app.mount("/", WSGIToASGI(legacy))
        app.add_api_route("/late", lambda: "new")
        async with client_of(app if mounted else ASGIFallback(app, legacy)) as client:
            found.append(
                [
                    (await client.options("/orders", headers=preflight)).status_code,
                    (await client.post("/nowhere", headers=origin)).headers.get("access-control-allow-origin"),
                    (await client.post("/orders", headers=origin)).headers["access-control-allow-origin"],
                    (await client.get("/nowhere")).status_code,
                    (await client.get("/fresh")).status_code,
                    (await client.get("/late", headers=origin)).status_code,
                ]
            )
    assert found == [[400, "*", "*", 401, 404, 404], [200, None, "https://a.example", 404, 307, 200]]


@on_asyncio
async def test_a_default_app_is_not_asked_for_a_method() -> None:
    """With the router's `default`, a POST to a path that has a GET is 405."""
    app, legacy = half_moved()
    app.router.default = WSGIToASGI(legacy)
    async with client_of(app) as client:
        assert (await client.post("/orders")).status_code == 405
    app, legacy = half_moved()
    app.mount("/", WSGIToASGI(legacy))
    async with client_of(app) as client:
        assert (await client.post("/orders")).text == "old"
