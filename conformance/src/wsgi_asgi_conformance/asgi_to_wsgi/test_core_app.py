import asyncio
import contextvars
import copy
import functools
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import http_app
from wsgi_asgi_conformance.asgi_to_wsgi.recording import END, START, LifespanApp, Recording, until_set
from wsgi_asgi_conformance.samples import http_environ
from wsgi_asgi_conformance.types import Environ, Receive, Scope, Send, StartResponse
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIServer


def on_trio() -> bool:
    """Whether the running loop is trio's, as some adapters offer."""
    try:
        trio.lowlevel.current_trio_token()
    except RuntimeError:
        return False
    return True


@clause("ASGI-CORE-002")
def test_the_app_runs_on_an_asyncio_loop(adapt: ToWSGI, serve: WSGIServer) -> None:
    """Everything that asyncio offers a task works."""
    loops: list[str] = []

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if on_trio():
            loops.append("trio")
            return
        loop = asyncio.get_running_loop()
        assert asyncio.current_task() is not None
        assert await loop.create_task(asyncio.sleep(0, "slept")) == "slept"
        lock = asyncio.Lock()
        async with lock, asyncio.timeout(serve.deadline):
            event = asyncio.Event()
            loop.call_later(0.001, event.set)
            await asyncio.wait_for(event.wait(), serve.deadline)
            assert tuple(await asyncio.gather(asyncio.to_thread(len, "four"), asyncio.sleep(0, 1))) == (4, 1)
        await send(START)
        await send({**END, "body": b"one"})

    request = serve(adapt(app))
    request.until_ended()
    if loops == ["trio"]:
        pytest.skip("the app runs on trio")
    assert request.finish().body == b"one"


@clause("ASGI-CORE-003")
def test_all_of_the_app_runs_in_one_thread(adapt: ToWSGI, serve: WSGIServer) -> None:
    """Requests from several threads and a lifespan share one loop, which runs in none of the server's threads."""
    adapter = adapt(app := LifespanApp())
    requests = [serve(adapter) for _ in range(3)]
    servers = {request.finish().entries("call")[0].thread for request in requests}
    assert app.events.count("http") == 3
    assert len(set(app.threads)) == 1
    assert app.threads[0].ident not in servers


@clause("ASGI-CORE-006")
def test_the_loop_runs_between_requests(adapt: ToWSGI, serve: WSGIServer) -> None:
    """A task of one request continues after it, and its objects can be used by the next."""
    ticks = 0
    stop: anyio.Event
    stopped: anyio.Event
    task: object  # refers to the task, because asyncio's loop may not

    async def tick() -> None:
        nonlocal ticks
        while not stop.is_set():
            ticks += 1
            await anyio.sleep(0.001)
        stopped.set()

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal stop, stopped, task
        if scope["path"] == "/start":
            stop, stopped = anyio.Event(), anyio.Event()
            task = trio.lowlevel.spawn_system_task(tick) if on_trio() else asyncio.create_task(tick())
        else:
            stop.set()
            await stopped.wait()
        await send(START)
        await send({**END, "body": b"one"})

    adapter = adapt(app)
    request = serve(adapter, http_environ("GET", "/start")).finish()
    before = ticks
    request.until(lambda: ticks >= before + 3, "what the task does between the requests")
    assert serve(adapter, http_environ("GET", "/stop")).finish().body == b"one"


@clause("ASGI-CORE-008")
def test_the_app_is_called_once_a_request(adapt: ToWSGI, serve: WSGIServer) -> None:
    """The app is called once for each request, and at most once more, for a lifespan."""
    adapter = adapt(app := LifespanApp())
    for _ in range(5):
        serve(adapter).finish()
    kinds = [scope["type"] for scope in app.scopes]
    assert kinds.count("http") == 5
    assert set(kinds) <= {"http", "lifespan"}
    assert kinds.count("lifespan") <= 1


@clause("ASGI-CORE-009")
def test_the_app_may_go_on_after_its_response(adapt: ToWSGI, serve: WSGIServer) -> None:
    """The client gets the whole response, and the app runs to its end."""
    go_on, done = threading.Event(), threading.Event()

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send({**END, "body": b"one"})
        await until_set(go_on, serve.deadline)
        done.set()

    request = serve(adapt(app))
    assert request.finish().body == b"one"
    assert not done.is_set()
    go_on.set()
    request.until(done.is_set, "the end of the app")


@clause("ASGI-CORE-010", "ASGI-CORE-027")
def test_each_scope_is_a_dict_of_its_own(adapt: ToWSGI, serve: WSGIServer) -> None:
    """A change that an app makes to a scope shows neither in the next scope nor in the environ."""
    kept: list[Scope] = []

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert type(scope) is dict
        kept.append({key: copy.deepcopy(scope[key]) for key in scope if key != "wsgi_environ"})
        scopes.append(scope)
        scope["headers"].append((b"x-one", b"1"))
        for value in scope.values():
            if isinstance(value, dict) and value is not scope.get("wsgi_environ"):
                value["x"] = {}
        for key in list(scope)[1:]:
            del scope[key]
        scope["x"] = 1
        await send(START)
        await send(END)

    scopes: list[Scope] = []
    adapter = adapt(app)
    for _ in range(2):
        environ = http_environ(HTTP_X_TWO="2")
        before = environ.copy()
        request = serve(adapter, environ).finish()
        assert {key: request.environ[key] for key in before} == before | {"wsgi.input": request.input}
        assert "x" not in request.environ
        assert "HTTP_X_ONE" not in request.environ
    assert scopes[0] is not scopes[1]
    assert kept[0] == kept[1]


async def function(first: Scope, second: Receive, third: Send, /) -> None:
    if first["type"] != "http":
        raise ValueError("this app knows of HTTP alone")
    await third(START)
    await third({**END, "body": b"one"})


class Instance:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await function(scope, receive, send)

    async def method(self, *args: Any) -> None:
        await function(*args)


class Awaited:
    """An app whose calls return awaitable objects that are not coroutines."""

    def __init__(self, *args: Any) -> None:
        self._coroutine: Coroutine[Any, Any, None] = function(*args)

    def __await__(self) -> Any:
        return self._coroutine.__await__()


@clause("ASGI-CORE-014")
@pytest.mark.parametrize(
    "app",
    [
        function,
        Instance(),
        Instance().method,
        functools.partial(function),
        lambda scope, receive, send: function(scope, receive, send),
        Awaited,
    ],
    ids=["function", "instance", "method", "partial", "returns a coroutine", "returns an awaitable"],
)
def test_the_app_is_any_callable_that_returns_an_awaitable(adapt: ToWSGI, serve: WSGIServer, app: Any) -> None:
    """The adapter calls it with three positional arguments, whatever their names."""
    assert serve(adapt(app)).finish().body == b"one"


@clause("ASGI-CORE-021")
def test_an_asgi_2_app_works_or_is_refused(adapt: ToWSGI, serve: WSGIServer) -> None:
    """A callable of one argument that returns a callable of two is served as an ASGI 2 app, or raises TypeError."""

    def app(scope: Scope) -> Callable[[Receive, Send], Coroutine[Any, Any, None]]:
        async def instance(receive: Receive, send: Send) -> None:
            await function(scope, receive, send)

        return instance

    try:
        request = serve(adapt(app)).until_ended()
    except TypeError:
        return
    assert isinstance(request.error, TypeError) or request.body == b"one"


@clause("CONV-016")
def test_the_app_has_the_context_of_the_server(adapt: ToWSGI, serve: WSGIServer) -> None:
    """In each request, the app sees the context variables that WSGI middleware has set for it."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        first = variable.get()
        await anyio.lowlevel.checkpoint()
        await send(START)
        await send({**END, "body": f"{first} {variable.get()}".encode()})

    adapter = adapt(app)

    def middleware(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        variable.set(environ["PATH_INFO"])
        return adapter(environ, start_response)

    requests = [serve(middleware, http_environ("GET", path)) for path in ("/one", "/two")]
    assert [request.finish().body for request in requests] == [b"/one /one", b"/two /two"]


@clause("ASGI-CORE-015", "ASGI-CORE-024")
def test_scopes_say_what_they_are(adapt: ToWSGI, serve: WSGIServer) -> None:
    """Each scope has a type, which names a protocol, and the ASGI version that the app is called with."""
    app = LifespanApp()
    serve(adapt(app)).finish()
    assert {scope["type"] for scope in app.scopes} <= {"http", "lifespan"}
    assert {scope["asgi"]["version"] for scope in app.scopes} == {"3.0"}
    assert {event.partition(".")[0] for event in app.events} <= {"http", "lifespan"}


@clause("ASGI-CORE-024", "ASGI-CORE-011")
def test_messages_have_types_of_their_protocol(adapt: ToWSGI, serve: WSGIServer) -> None:
    """The messages that an app receives are dicts, with types from the spec of the protocol."""
    app = Recording()
    received: list[Any] = []

    @http_app
    async def to_the_end(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)
        received.extend([await receive(), await receive()])
        done.set()

    done = threading.Event()
    request = serve(adapt(to_the_end), http_environ("POST", "/", bytes(100_000))).finish()
    request.until(done.is_set, "the end of the app")
    assert {type(message) for message in app.received + received} == {dict}
    assert {message["type"] for message in app.received} == {"http.request"}
    assert [message["type"] for message in received] == ["http.disconnect"] * 2
