"""Apps that others have written, as the old one and as the new one: the fallback changes no byte of their responses."""

import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
from flask import Flask, redirect, request
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware

from bridge import ASGIToWSGI, WSGIToASGI
from bridge.migration import ASGIFallback, WSGIFallback
from tests.migration.real.clients import Visit, transport_for, visited
from tests.processes import ROOT

SIDES = ["asgi", "wsgi"]


# --- New apps -------------------------------------------------------------------------------------


def with_middleware() -> FastAPI:
    """Return an app with what new apps often have: CORS, GZip, BaseHTTPMiddleware, authentication and a session."""
    app = FastAPI()

    class Backend:
        async def authenticate(self, connection: Any) -> None:
            connection.scope["who"] = connection.headers.get("authorization")

    async def guard(request: Request, call_next: Any) -> Any:
        if request.scope["who"] is None:
            return PlainTextResponse("who are you?", status_code=401)
        response = await call_next(request)
        response.headers["X-New"] = "yes"
        return response

    @app.get("/new")
    async def new(request: Request) -> dict[str, object]:
        request.session["visits"] = request.session.get("visits", 0) + 1
        return {"visits": request.session["visits"], "padding": "x" * 1000}

    app.add_middleware(GZipMiddleware, minimum_size=500)
    app.add_middleware(SessionMiddleware, secret_key="of a test", session_cookie="new_session")
    app.add_middleware(BaseHTTPMiddleware, dispatch=guard)
    app.add_middleware(AuthenticationMiddleware, backend=Backend())  # type: ignore[arg-type]
    app.add_middleware(CORSMiddleware, allow_origins=["https://a.example"], allow_methods=["GET"])
    return app


def visit_new(client: httpx.Client) -> None:
    """Visit the new app's pages: with a login and without, twice for the session, and with a preflight."""
    preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "GET"}
    known = {"Authorization": "Bearer a", "Origin": "https://a.example"}
    assert client.options("/new", headers=preflight).status_code == 200
    assert client.get("/new").status_code == 401
    assert client.get("/new", headers=known).json()["visits"] == 1
    assert client.get("/new", headers={**known, "Accept-Encoding": "identity"}).json()["visits"] == 2


# --- Old apps -------------------------------------------------------------------------------------


def visit_httpbin(client: httpx.Client) -> None:
    """Visit most of httpbin's pages, by all methods."""
    paths = [
        *("/get?a=1&b=2", "/headers", "/user-agent", "/cookies/set?a=b", "/cookies", "/cookies/delete?a", "/html"),
        *("/xml", "/json", "/robots.txt", "/deny", "/encoding/utf8", "/gzip", "/deflate", "/brotli", "/cache"),
        *("/base64/aGVsbG8=", "/cache/60", "/etag/abc", "/response-headers?X-A=b&X-A=c", "/links/5/0", "/image/png"),
        *("/image/svg", "/range/1000", "/bytes/1000?seed=1", "/stream-bytes/100000?seed=1", "/stream/5", "/redirect/2"),
        *("/drip?duration=0&numbytes=5", "/absolute-redirect/1", "/relative-redirect/1", "/redirect-to?url=/get"),
        *("/nowhere", "/hidden-basic-auth/u/p"),
        *(f"/status/{status}" for status in (200, 204, 304, 402, 404, 406, 418, 500)),
    ]
    for path in paths:
        client.get(path)
        client.head(path)
    assert client.get("/basic-auth/u/p", auth=("u", "p")).json()["authenticated"]
    assert client.get("/range/1000", headers={"Range": "bytes=10-19"}).status_code == 206
    assert client.get("/etag/abc", headers={"If-None-Match": "abc"}).status_code == 304
    assert client.post("/post", data={"a": "b"}).json()["form"] == {"a": "b"}
    assert client.post("/post", json={"a": ["b"]}).json()["json"] == {"a": ["b"]}
    # The boundary of httpx is random.
    multipart = {"content-type": "multipart/form-data; boundary=same"}
    assert client.post("/post", files={"file": b"x" * 300_000}, headers=multipart).status_code == 200
    for method in ("PUT", "PATCH", "DELETE"):
        assert client.request(method, f"/{method.lower()}", content=b"body").json()["data"] == "body"
    client.options("/get", headers={"Origin": "https://b.example", "Access-Control-Request-Method": "POST"})
    client.post("/get")


@contextlib.contextmanager
def httpbin(folder: Path) -> Iterator[tuple[Any, Visit]]:
    yield pytest.importorskip("httpbin").app, visit_httpbin


@contextlib.contextmanager
def flask_admin(folder: Path) -> Iterator[tuple[Any, Visit]]:
    """Flask-Admin behind Flask-Login: a user who has logged in uploads, shows and deletes files."""
    package, fileadmin = pytest.importorskip("flask_admin"), pytest.importorskip("flask_admin.contrib.fileadmin")
    from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user

    app = Flask("admin")
    app.secret_key = "of a test"
    manager = LoginManager(app)

    class User(UserMixin):  # type: ignore[misc]  # Flask-Login brings no types
        id = "ada"

    class Files(fileadmin.FileAdmin):  # type: ignore[misc,name-defined]  # nor does Flask-Admin, everywhere
        def is_accessible(self) -> bool:
            return bool(current_user.is_authenticated)

        def inaccessible_callback(self, name: str, **options: Any) -> Any:
            return redirect("/login")

    manager.user_loader(lambda name: User() if name == "ada" else None)

    @app.route("/login", methods=["GET", "POST"])
    def login() -> Any:
        if request.method == "POST" and request.form["password"] == "lovelace":
            login_user(User())
            return redirect("/admin/files/")
        return '<form method="post"><input name="password"></form>'

    @app.post("/logout")
    def logout() -> Any:
        logout_user()
        return redirect("/login")

    def visit(client: httpx.Client) -> None:
        for file in (folder / "files").iterdir():
            file.unlink()
        assert client.get("/admin/files/").headers["location"] == "/login"
        client.get("/login")
        assert client.post("/login", data={"password": "wrong"}).status_code == 200
        assert client.post("/login", data={"password": "lovelace"}).headers["location"] == "/admin/files/"
        client.get("/admin/")
        client.get("/admin/files/")
        client.get("/admin/static/bootstrap/bootstrap4/css/bootstrap.min.css")
        files = {"upload": ("notes.txt", b"of ada", "text/plain")}
        headers = {"content-type": "multipart/form-data; boundary=same"}
        assert client.post("/admin/files/upload/", files=files, headers=headers).status_code == 302
        assert (folder / "files" / "notes.txt").read_bytes() == b"of ada"
        os.utime(folder / "files" / "notes.txt", (0, 0))  # the page shows it
        assert client.get("/admin/files/download/notes.txt").content == b"of ada"
        client.post("/admin/files/delete/", data={"path": "notes.txt"})
        assert client.post("/logout").headers["location"] == "/login"
        assert client.get("/admin/files/").headers["location"] == "/login"

    (folder / "files").mkdir()
    admin = package.Admin(app)
    admin.add_view(Files(str(folder / "files"), name="Files", endpoint="files", url="files"))
    yield app, visit


@contextlib.contextmanager
def rq_dashboard(folder: Path) -> Iterator[tuple[Any, Visit]]:
    """rq-dashboard on a Redis in memory, with a queue."""
    web = pytest.importorskip("rq_dashboard.web")
    fakeredis = pytest.importorskip("fakeredis")
    rq, package = pytest.importorskip("rq"), pytest.importorskip("rq_dashboard")
    connection = fakeredis.FakeStrictRedis()
    rq.Queue("mails", connection=connection).enqueue("tests.nothing", job_id="1")
    app = Flask("dashboard")
    app.config.from_object(package.default_settings)
    app.config["RQ_DASHBOARD_REDIS_URL"] = "redis://of.a.test"
    app.register_blueprint(package.blueprint, url_prefix="/rq")

    def visit(client: httpx.Client) -> None:
        for path in (
            "",
            "/",
            "/0/view/queues",
            "/0/view/jobs",
            "/0/data/queues.json",
            "/0/data/workers.json",
            "/nowhere",
        ):
            client.get(f"/rq{path}")
        assert client.get("/rq/0/data/queues.json").json()["queues"][0]["name"] == "mails"
        client.post("/rq/queue/mails/compact")

    before = web.from_url
    web.from_url = lambda *values, **options: (None, connection)
    try:
        web.setup_rq_connection(app)
        yield app, visit
    finally:
        web.from_url = before
        connection.close()


OLD = [httpbin, flask_admin, rq_dashboard]


@pytest.fixture(autouse=True)
def _nothing_changes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an app signs, dates or names is the same each time."""
    now, name = time.time(), uuid.uuid4()
    monkeypatch.setattr(time, "time", lambda: now)
    monkeypatch.setattr(uuid, "uuid4", lambda: name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("make_old", OLD)
def test_the_old_apps_responses_are_the_same_with_and_without_the_fallback(
    make_old: Any, side: str, tmp_path: Path
) -> None:
    """Bytes, headers and their order are the same; the new app's responses are the same as without the old app."""
    new = with_middleware()
    with make_old(tmp_path) as (old, visit), contextlib.ExitStack() as closing:
        alone: Any
        new_alone: Any
        fallback: Any
        if side == "asgi":
            alone, new_alone, fallback = WSGIToASGI(old), new, ASGIFallback(new, old)
        else:
            alone, new_alone = old, closing.enter_context(ASGIToWSGI(new))
            fallback = closing.enter_context(WSGIFallback(new, old))
        found = visited(transport_for(fallback, side == "asgi"), visit)
        assert found == visited(transport_for(alone, side == "asgi"), visit)
        assert len(found) > 5
        assert not any(name.lower() == b"x-new" for told in found for name, _ in told.headers)
        assert visited(transport_for(fallback, side == "asgi"), visit_new) == visited(
            transport_for(new_alone, side == "asgi"), visit_new
        )


def sqladmin_app() -> tuple[FastAPI, Any]:
    sqladmin, sqlalchemy = pytest.importorskip("sqladmin"), pytest.importorskip("sqlalchemy")
    pool = pytest.importorskip("sqlalchemy.pool").StaticPool
    base = pytest.importorskip("sqlalchemy.orm").declarative_base()

    class Order(base):  # type: ignore[misc,valid-type]  # made at run time
        __tablename__ = "orders"
        id = sqlalchemy.Column(sqlalchemy.Integer, primary_key=True)
        name = sqlalchemy.Column(sqlalchemy.String(50))

    engine = sqlalchemy.create_engine("sqlite://", poolclass=pool, connect_args={"check_same_thread": False})
    base.metadata.create_all(engine)

    class Orders(sqladmin.ModelView, model=Order):  # type: ignore[misc,name-defined,call-arg]  # as above
        column_list = (Order.id, Order.name)

    app = FastAPI()
    sqladmin.Admin(app, engine).add_view(Orders)
    return app, engine


@pytest.mark.slow
@pytest.mark.parametrize("side", SIDES)
def test_sqladmin_is_the_new_app_before_an_old_one(side: str) -> None:
    """sqladmin claims its pages and static files, and what it writes is stored; the old app answers the rest."""

    def visit(client: httpx.Client) -> None:
        assert "Orders" in client.get("/admin/").text
        name = f"order of {side}"
        assert client.post("/admin/order/create", data={"name": name}).status_code == 302
        assert name in client.get("/admin/order/list").text
        assert client.get("/admin/statics/css/main.css").status_code == 200
        assert client.get("/admin").status_code in (200, 307)

    found = []
    for with_fallback in (True, False):
        new, engine = sqladmin_app()
        old = Flask("old")
        old.add_url_rule("/old", "old", lambda: "the old app")
        with contextlib.ExitStack() as closing:
            app: Any
            if side == "asgi":
                app = ASGIFallback(new, old) if with_fallback else new
            else:
                app = closing.enter_context(WSGIFallback(new, old) if with_fallback else ASGIToWSGI(new))
            transport = transport_for(app, side == "asgi")
            found.append(visited(transport, visit))
            with httpx.Client(transport=transport, base_url="http://testserver") as client:
                assert client.get("/old").status_code == (200 if with_fallback else 404)
        engine.dispose()
    assert found[0] == found[1]


@pytest.mark.slow
@pytest.mark.parametrize("side", SIDES)
def test_djangos_admin_is_the_same_with_and_without_the_fallback(side: str, tmp_path: Path) -> None:
    """Login, CSRF and an upload, in another process, because Django has one set of settings per process."""
    command = [sys.executable, "-m", "tests.migration.real.django_admin", side, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the same\n"
