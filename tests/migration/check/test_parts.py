import logging
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from flask import Flask
from flask.views import MethodView

from bridge import WSGIToASGI
from bridge.migration.check.about import about
from bridge.migration.check.natively import Breaches, NativeASGI, NativeWSGI
from bridge.migration.check.together import AT_ONCE, Together, enough
from bridge.migration.check.watch import Watch
from bridge.migration.diff.calls import call_wsgi
from bridge.migration.diff.exchange import Answer
from bridge.migration.diff.requests import Request
from bridge.migration.loading import CannotRun
from bridge.types import Environ, Receive, Scope, Send, StartResponse
from tests.migration import apps

GET = Request("GET", "/")


def answering(*headers: tuple[str, str], status: str = "200 OK", body: Any = (b"body",)) -> Callable[..., Any]:
    def app(environ: Environ, start_response: StartResponse) -> Any:
        start_response(status, list(headers))
        return body

    return app


# --- About ------------------------------------------------------------------------------------------


def test_the_framework_is_known_by_the_class_of_the_app() -> None:
    """Also behind a bound method; a function has no framework."""
    flask = Flask("a")
    assert about(flask.wsgi_app, "m:app.wsgi_app").framework == "Flask"
    assert about(FastAPI(), "m:app").framework == "FastAPI"
    assert about(apps.quart("a", {}), "m:app").framework == "Quart"
    assert about(answering(), "m:app")[2:] == (None, None, None)


def test_the_lines_for_both_kinds_of_server_fit_the_name() -> None:
    """A factory is called, and an attribute of an object is reached."""
    wsgi, asgi = about(Flask("a"), "shop.web:make()"), about(FastAPI(), "shop:api.app")
    assert wsgi.own_command() == "gunicorn --threads 8 'shop.web:make()'"
    assert wsgi.other_module()[1:] == ["from shop.web import make", "", "asgi_app = WSGIToASGI(make())"]
    assert wsgi.other_command() == "uvicorn serve:asgi_app"
    assert asgi.own_command() == "uvicorn shop:api.app"
    assert asgi.other_module()[1:] == ["from shop import api", "", "wsgi_app = ASGIToWSGI(api.app)"]
    assert asgi.other_command() == "gunicorn --threads 8 -c python:bridge.gunicorn serve:wsgi_app"
    assert about(FastAPI(), "shop:make()").own_command() == "uvicorn --factory shop:make"


def test_django_gets_its_option() -> None:
    """It reads no body without a Content-Length."""
    with apps.django_urls([]):
        assert about(apps.django_wsgi(), "m:app").other_module()[-1] == "asgi_app = WSGIToASGI(app, buffer_body=True)"
        assert about(apps.django_asgi(), "m:app").other_module()[-1] == "wsgi_app = ASGIToWSGI(app)"


def test_async_views_and_websockets_are_counted() -> None:
    """Views that are functions or classes."""
    app = Flask("a", static_folder=None)

    async def view() -> str:
        return ""

    class View(MethodView):
        async def get(self) -> str:
            return ""

    app.add_url_rule("/a", view_func=view)
    app.add_url_rule("/b", view_func=View.as_view("b"))
    app.add_url_rule("/c", "c", lambda: "")
    app.add_url_rule("/d", "d", lambda: "", websocket=True)
    found = about(app, "m:app")
    assert (found.async_views(), found.websocket_routes()) == (2, 1)


# --- Natively ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_main", [True, False], ids=["main thread", "other thread"])
def test_a_breach_of_pep_3333_is_noted_and_the_answer_is_as_without_the_validator(in_main: bool) -> None:
    """The request is played once more."""
    breaches = Breaches()
    breaches.request = "GET /"
    player = NativeWSGI(answering(("Content_Type", "text/plain")), "m:app", 5, breaches)
    found: list[Answer] = []
    if in_main:
        found.append(player.play(GET))
    else:
        thread = threading.Thread(target=lambda: found.append(player.play(GET)))
        thread.start()
        thread.join()
    assert [(answer.status, answer.body) for answer in found] == [(200, b"body")]
    assert len(breaches.found) == 1
    assert list(breaches.found.values()) == ["GET /"]


@pytest.mark.parametrize(
    ("app", "sentence"),
    [
        (answering(("X-A", "planted\x01")), r"Bad header value: '…' \(bad char: '…'\)"),
        (answering(("X_A:", "planted")), "Header names may not contain ':' or '.*': 'X_A:'"),
        (answering(("Content-Type", "a"), body=["planted"]), r"Iterator yielded non-bytestring \('…'\)"),
    ],
)
def test_a_breach_is_told_without_values(app: Any, sentence: str) -> None:
    """A header's name may be shown, and neither its value nor a body."""
    breaches = Breaches()
    NativeWSGI(app, "m:app", 5, breaches).play(GET)
    (found,) = breaches.found
    assert re.fullmatch(sentence, found)


def test_a_type_of_content_that_is_not_there_is_no_breach() -> None:
    """`wsgiref.validate` refuses what PEP 3333 allows."""
    breaches = Breaches()
    app = answering(("Content-Type", "text/plain"), status="204 No Content", body=())
    assert NativeWSGI(app, "m:app", 5, breaches).play(GET).status == 204
    assert breaches.found == {}


def test_an_app_that_hangs_in_the_main_thread_is_interrupted() -> None:
    """The command interrupts the app even if it catches the exception."""

    def hangs(environ: Environ, start_response: StartResponse) -> list[bytes]:
        while True:
            try:
                threading.Event().wait()
            except Exception:
                pass

    with pytest.raises(CannotRun, match="m:app did not answer within"):
        NativeWSGI(hangs, "m:app", 0.1, Breaches()).play(GET)


def test_a_breach_of_asgi_is_noted_and_the_answer_is_as_without_the_validator() -> None:
    """The report also says whether the app has a lifespan."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": [("a", "b")]})
        await send({"type": "http.response.body", "body": b"body"})

    async def right(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"body"})

    for each, lifespan, count in [(app, False, 1), (right, True, 0)]:
        breaches = Breaches()
        player = NativeASGI(each, "m:app", 5, breaches)
        try:
            player.play(GET)
        finally:
            player.close()
        assert (player.has_lifespan, len(breaches.found)) == (lifespan, count)


# --- Watch ------------------------------------------------------------------------------------------


def test_faults_are_seen_wherever_the_app_tells_of_them() -> None:
    """Raised by the app or its iterable, as a cause, in a log record with and without the exception, in wsgi.errors."""
    database = sqlite3.connect(":memory:")
    found: list[Exception] = []

    def use() -> None:
        try:
            database.execute("select 1")
        except sqlite3.ProgrammingError as error:
            found.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    database.close()
    error = found[0]

    def raises(environ: Environ, start_response: StartResponse) -> list[bytes]:
        raise RuntimeError("of the framework") from error

    def blocks(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        yield b""
        raise error

    def logs(environ: Environ, start_response: StartResponse) -> list[bytes]:
        logging.getLogger("app").error("it failed", exc_info=error)
        return []

    def logs_text(environ: Environ, start_response: StartResponse) -> list[bytes]:
        logging.getLogger("app").error("it failed: %s", error)
        return []

    def writes(environ: Environ, start_response: StartResponse) -> list[bytes]:
        environ["wsgi.errors"].write(f"{error}\n")
        return []

    for app in (raises, blocks, logs, logs_text, writes):
        watch = Watch()
        watch.request = "GET /"
        with watch:
            try:
                call_wsgi(watch.wsgi(app), GET)
            except (RuntimeError, sqlite3.ProgrammingError):
                pass
        assert [fault.title for fault in watch.faults] == [
            "a SQLite connection is used outside of the thread that opened it"
        ], app
        assert [seen.request for seen in watch.faults.values()] == ["GET /"]
    assert not any(isinstance(handler, Watch) for handler in logging.getLogger().handlers)


# --- Together ---------------------------------------------------------------------------------------


def test_eight_requests_are_there_at_once() -> None:
    """Each request waits until all eight have arrived; if there are fewer, they are repeated."""
    everybody = threading.Barrier(AT_ONCE)

    class Player:
        name, host = "m:app", "localhost"

        def play(self, request: Request) -> Answer:
            everybody.wait(20)
            return Answer(200, (), request.target.encode())

        def close(self) -> None: ...

    requests = enough([Request("GET", f"/{number}") for number in range(3)])
    assert len(requests) == 24
    together = Together(Player(), requests)
    assert [together.play(request).body.decode() for request in requests] == [request.target for request in requests]
    together.close()


def test_an_adapter_is_a_player_of_many_threads() -> None:
    """Requests played at once each get their own answer."""
    from bridge.migration.diff.in_process import ASGIPlayer

    flask = apps.flask("a", {"/{name}": ["GET"]})
    player = ASGIPlayer(WSGIToASGI(flask), "m:app", 20)
    requests = enough([Request("GET", f"/{number}") for number in range(8)])
    together = Together(player, requests)
    try:
        answers = [together.play(request).body.decode() for request in requests]
    finally:
        together.close()
        player.close()
    assert answers == [f"a GET {request.target}" for request in requests]
