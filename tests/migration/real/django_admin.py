"""Django's admin with a model that has a file, visited with and without the fallback: `django_admin SIDE FOLDER`."""

import contextlib
import random
import re
import sys
import time
import types
from pathlib import Path
from typing import Any

import django  # type: ignore[import-untyped]  # Django brings no types
import httpx
from django.conf import settings  # type: ignore[import-untyped]

from bridge import WSGIToASGI
from bridge.migration import ASGIFallback, WSGIFallback
from tests.migration.real.clients import transport_for, visited


def set_up(folder: Path) -> Any:
    """Return a WSGI app with the admin, and make its database, with a user."""
    apps = "django.contrib"
    middleware = ["django.middleware.security.SecurityMiddleware", f"{apps}.sessions.middleware.SessionMiddleware"]
    middleware += ["django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware"]
    middleware += [f"{apps}.auth.middleware.AuthenticationMiddleware", f"{apps}.messages.middleware.MessageMiddleware"]
    processors = ["django.template.context_processors.request", f"{apps}.auth.context_processors.auth"]
    processors += [f"{apps}.messages.context_processors.messages"]
    (folder / "documents").mkdir()
    (folder / "documents" / "__init__.py").touch()
    (folder / "documents" / "models.py").write_text(
        "from django.db import models\n\n\n"
        "class Document(models.Model):\n"
        "    title = models.CharField(max_length=50)\n"
        "    file = models.FileField()\n"
    )
    sys.path.insert(0, str(folder))
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "site.sqlite3"}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[
            *(f"{apps}.{name}" for name in ("admin", "auth", "contenttypes", "messages", "sessions")),
            "documents",
        ],
        MEDIA_ROOT=folder / "media",
        MIDDLEWARE=middleware,
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        ROOT_URLCONF="urls",
        SECRET_KEY="of a test",
        STATIC_URL="static/",
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {"context_processors": processors},
            }
        ],
    )
    django.setup()
    from django.contrib import admin  # type: ignore[import-untyped]
    from django.contrib.auth.models import User  # type: ignore[import-untyped]
    from django.core.management import call_command  # type: ignore[import-untyped]
    from django.core.wsgi import get_wsgi_application  # type: ignore[import-untyped]
    from django.urls import path  # type: ignore[import-untyped]
    from documents.models import Document  # type: ignore[import-not-found]  # written above

    admin.site.register(Document)
    urls: Any = types.ModuleType("urls")
    urls.urlpatterns = [path("admin/", admin.site.urls)]
    sys.modules["urls"] = urls
    call_command("migrate", run_syncdb=True, verbosity=0)
    User.objects.create_superuser("ada", password="lovelace")
    return get_wsgi_application()


def token_in(page: httpx.Response) -> dict[str, str]:
    """Return the CSRF token of a form, as the form sends it."""
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
    assert found is not None, page.text
    return {"csrfmiddlewaretoken": found[1]}


def visit(client: httpx.Client) -> None:
    """Log in, upload a file, and log out."""
    from django.contrib.admin.models import LogEntry  # type: ignore[import-untyped]
    from documents.models import Document

    LogEntry.objects.all().delete()
    Document.objects.all().delete()
    assert client.get("/admin/").headers["location"] == "/admin/login/?next=/admin/"
    assert client.get("/admin").headers["location"] == "/admin/"
    form = client.get("/admin/login/")
    login = {"username": "ada", "password": "lovelace", "next": "/admin/"}
    assert client.post("/admin/login/", data=login).status_code == 403  # without the token
    assert client.post("/admin/login/", data={**login, **token_in(form)}).headers["location"] == "/admin/"
    assert "ada" in client.get("/admin/").text
    form = client.get("/admin/documents/document/add/")
    added = client.post(
        "/admin/documents/document/add/",
        data={"title": "Notes", **token_in(form)},
        files={"file": ("notes.txt", b"of ada" * 100_000, "text/plain")},
        headers={"content-type": "multipart/form-data; boundary=same"},
    )
    assert added.headers["location"] == "/admin/documents/document/"
    (document,) = Document.objects.all()
    assert document.file.size == 600_000
    document.file.delete(save=False)
    page = client.get("/admin/documents/document/")
    assert "Document object" in page.text
    assert client.post("/admin/logout/", data=token_in(page)).status_code == 200
    assert client.get("/admin/").status_code == 302
    assert client.get("/admin/nowhere/").status_code in (302, 404)


def main() -> None:
    side, folder = sys.argv[1], Path(sys.argv[2])
    old = set_up(folder)
    from documents.models import Document
    from fastapi import FastAPI

    now = time.time()
    time.time = lambda: now
    found = []
    for with_fallback in (True, False):
        # Django takes its tokens and the names of sessions from here.
        django.utils.crypto.secrets = types.SimpleNamespace(
            choice=random.Random(0).choice, compare_digest=lambda one, other: one == other
        )
        connection = Document.objects.db
        assert connection == "default"
        _forget_ids()
        with contextlib.ExitStack() as closing:
            if side == "asgi":
                adapted = WSGIToASGI(old, buffer_body=True)
                app: Any = ASGIFallback(FastAPI(), adapted) if with_fallback else adapted
            else:
                app = closing.enter_context(WSGIFallback(FastAPI(), old)) if with_fallback else old
            found.append(visited(transport_for(app, side == "asgi"), visit))
    for one, other in zip(*found, strict=True):
        assert one == other, (one, other)
    print("the same")


def _forget_ids() -> None:
    """Start all ids anew, because pages show them."""
    from django.db import connection  # type: ignore[import-untyped]

    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_session")
        cursor.execute("DELETE FROM django_admin_log")
        cursor.execute("DELETE FROM documents_document")
        cursor.execute("DELETE FROM sqlite_sequence WHERE name IN ('documents_document', 'django_admin_log')")


if __name__ == "__main__":
    main()
