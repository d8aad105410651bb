import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from bridge import AdapterClosed, ASGIToWSGI, StartupFailed
from bridge.migration import WSGIFallback
from bridge.types import Environ, StartResponse
from tests.asgi_to_wsgi.apps import Requester, Streams
from tests.fakes import http_environ, respond
from tests.migration import apps
from tests.processes import wait_until


def noting(name: str, events: list[str], fails: bool = False) -> Starlette:
    """Make an app that notes when its lifespan starts and ends."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
        if fails:
            raise RuntimeError(f"{name} cannot start")
        events.append(f"{name} starts")
        yield {"name": name}
        events.append(f"{name} ends")

    def show(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{request.state.name} {len(request.scope['state'])}")

    return Starlette(routes=[Route(f"/{name}", show)], lifespan=lifespan)


def test_the_lifespans_of_both_are_nested() -> None:
    """`start()` starts the new app's first, `close()` ends it last, and each has its own state."""
    events: list[str] = []
    with WSGIFallback(noting("new", events), noting("old", events)) as fallback:
        assert events == ["new starts", "old starts"]
        assert [respond(fallback, http_environ("GET", f"/{name}")).body for name in ("new", "old")] == [
            *(b"new 1", b"old 1")
        ]
    assert events[2:] == ["old ends", "new ends"]
    with pytest.raises(AdapterClosed):
        respond(fallback, http_environ("GET", "/new"))
    fallback.close()


def test_a_close_need_not_be_waited_for() -> None:
    """The apps still shut down."""
    events: list[str] = []
    fallback = WSGIFallback(noting("new", events), noting("old", events))
    fallback.start()
    fallback.close(wait=False)
    fallback.close()
    assert sorted(events[2:]) == ["new ends", "old ends"]


def test_if_the_second_fails_the_first_is_shut_down() -> None:
    """The new app, which has started by then, is shut down again."""
    events: list[str] = []
    fallback = WSGIFallback(noting("new", events), noting("old", events, fails=True))
    with pytest.raises(StartupFailed):
        fallback.start()
    assert events == ["new starts", "new ends"]


def test_without_a_start_each_app_starts_with_its_first_request() -> None:
    """As an `ASGIToWSGI` does by itself."""
    events: list[str] = []
    fallback = WSGIFallback(noting("new", events), noting("old", events))
    try:
        respond(fallback, http_environ("GET", "/nowhere"))
        assert events == ["old starts"]
    finally:
        fallback.close()
    assert events == ["old starts", "old ends"]


def test_an_old_wsgi_app_runs_as_without_the_fallback() -> None:
    """It gets the server's own environ and start_response, in the server's thread."""
    seen: list[Any] = []

    def old(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        seen.extend([environ, start_response])
        start_response("200 OK", [])
        return iter([b"old"])

    environ = http_environ("GET", "/b")
    with WSGIFallback(apps.fastapi("new", {"/a": ["GET"]}), old) as fallback:
        server = respond(fallback, environ)
    assert seen[0] is environ
    assert seen[1].__self__ is server
    assert server.body == b"old"


@pytest.mark.parametrize("args", [(), (None,)])
def test_the_header_is_added_to_what_counts(args: tuple[Any, ...]) -> None:
    """A second start_response with exc_info takes the place of the first."""

    def old(environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [("A", "b")], *args)
        try:
            raise ValueError
        except ValueError:
            start_response("500 No", [("C", "d")], sys.exc_info())
        return [b""]

    fallback = WSGIFallback(apps.starlette("new", {}), old, header="X-Who")
    server = respond(fallback)
    assert [start[1] for start in server.starts] == [[("A", "b"), ("X-Who", "old")], [("C", "d"), ("X-Who", "old")]]
    assert server.status == "500 No"
    assert [len(start) for start in server.starts] == [2, 3]  # as the app has called it


def test_an_adapter_is_looked_through() -> None:
    """A caller can pass an adapter with options; the fallback still asks the app inside for its routes."""
    adapter = ASGIToWSGI(apps.fastapi("new", {"/a": ["GET"]}), lifespan="off")
    with WSGIFallback(adapter, apps.flask("old", {"/a": ["POST"]})) as fallback:
        assert respond(fallback, http_environ("GET", "/a")).body == b"new GET /a"
        assert respond(fallback, http_environ("POST", "/a")).body == b"old POST /a"


def test_a_fallback_may_be_the_old_app_of_another() -> None:
    """A request goes from the first to the third app in two steps, and everything that was started is closed."""
    events: list[str] = []
    inner = WSGIFallback(noting("second", events), apps.flask("first", {"/first": ["GET"]}))
    with WSGIFallback(noting("third", events), inner) as fallback:
        paths = ("/first", "/second", "/third")
        assert [respond(fallback, http_environ("GET", path)).status for path in paths] == ["200 OK"] * 3
        fallback.close_websockets()
        fallback.close_streams()
    assert events == ["third starts", "second starts", "second ends", "third ends"]


def test_a_router_that_cannot_be_seen_is_refused() -> None:
    """The error says what to do."""

    def unknown(environ: Environ, start_response: StartResponse) -> list[bytes]:
        raise AssertionError

    with pytest.raises(TypeError, match=r"unknown.*claims="):
        WSGIFallback(unknown, apps.flask("old", {}))
    with pytest.raises(ValueError, match="header must be"):
        WSGIFallback(apps.flask("new", {}), apps.flask("old", {}), header="no name")


def test_an_app_that_may_be_either_counts_as_the_servers_kind() -> None:
    """A signature of `*args` fits both interfaces."""

    def old(*args: Any) -> list[bytes]:
        args[1]("200 OK", [])
        return [b"old"]

    assert respond(WSGIFallback(apps.flask("new", {}), old)).body == b"old"


def test_close_streams_reaches_the_adapters_of_both_apps() -> None:
    """An event stream of either app ends, and the fallback goes on."""
    new, old = Streams(), Streams()
    fallback = WSGIFallback(
        ASGIToWSGI(new), ASGIToWSGI(old), claims=lambda scope: "new" in scope["query_string"].decode()
    )
    with fallback:
        streams = [Requester(fallback, http_environ("GET", "/events", QUERY_STRING=name)) for name in ("new", "old")]
        assert new.begun.acquire(timeout=5)
        assert old.begun.acquire(timeout=5)
        fallback.close_streams()
        assert [stream.join() for stream in streams] == [b"begun"] * 2
        wait_until(lambda: new.ended == old.ended == ["http.disconnect"])
