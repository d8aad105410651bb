import copy
import gc
import inspect
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import Blocks, wsgi_response
from wsgi_asgi_conformance.asgi_server import ASGIConnection, ASGIServer, ToASGI
from wsgi_asgi_conformance.samples import http_scope
from wsgi_asgi_conformance.types import ASGIApp, Environ, Receive, Scope, Send, StartResponse, WSGIApp


def tick(connection: ASGIConnection) -> None:
    """Wait until the loop has run everything that was already scheduled."""
    ticked = threading.Event()
    connection.loop.call_soon(ticked.set)
    connection.until(ticked.is_set, "the loop")


@clause("ASGI-CORE-013")
def test_the_adapter_is_one_async_callable(adapt: ToASGI) -> None:
    """Servers that look for the older double callable do not mistake the adapter for one."""
    compatibility = pytest.importorskip("asgiref.compatibility")
    adapter: Any = adapt(wsgi_response([b"one"]))
    assert inspect.iscoroutinefunction(adapter) or inspect.iscoroutinefunction(adapter.__call__)
    assert not compatibility.is_double_callable(adapter)


@clause("ASGI-CORE-001", "ASGI-HTTP-087")
def test_the_loop_goes_on_while_the_app_works(adapt: ToASGI, serve: ASGIServer) -> None:
    """The app, its iterable and its close() run in a thread, where they may block, while the loop does other work."""
    at_work, go_on = threading.Semaphore(0), threading.Semaphore(0)

    class Working:
        def __iter__(self) -> Iterator[bytes]:
            self.work()
            yield b"one"
            self.work()

        def close(self) -> None:
            self.work()

        def work(self) -> None:
            threads.append(threading.get_ident())
            at_work.release()
            go_on.acquire(timeout=serve.deadline)

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        iterable = Working()
        iterable.work()
        start_response("200 OK", [])
        return iterable

    threads: list[int] = []
    connection = serve(adapt(app))
    while not connection.until(lambda: at_work.acquire(blocking=False) or connection.ended, "the app").ended:
        tick(connection)
        go_on.release()
    connection.finish()
    assert len(threads) in (3, 4)
    assert connection.log[0].kind == "call"
    assert connection.log[0].thread not in threads


@clause("ASGI-CORE-004")
def test_send_and_receive_are_called_on_the_loop(adapt: ToASGI, serve: ASGIServer) -> None:
    """The adapter calls `send` and `receive` on the loop, never in the app's thread."""

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield environ["wsgi.input"].read(3)
        yield environ["wsgi.input"].read()

    connection = serve(adapt(app), http_scope("POST"), b"one", b"two").finish()
    assert connection.body == b"onetwo"
    assert {entry.thread for entry in connection.entries("call", "send", "receive")} == {connection.log[0].thread}


def raises(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Raise an error instead of answering."""
    raise ValueError("one")


@clause("ASGI-CORE-005")
@pytest.mark.parametrize("app", [wsgi_response([b"one", b"two"]), raises], ids=["answers", "raises"])
@pytest.mark.parametrize("leaves", [False, True], ids=["stays", "leaves"])
def test_nothing_comes_after_the_call(adapt: ToASGI, serve: ASGIServer, app: WSGIApp, leaves: bool) -> None:
    """The call returns None, and the adapter neither sends nor receives after that."""
    adapter = adapt(app)
    returned: list[object] = []

    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        returned.append(await adapter(scope, receive, send))  # type: ignore[func-returns-value]

    connection = serve(noting)
    if leaves:
        connection.disconnect()
    connection.until_ended()
    for _ in range(5):
        tick(connection)
    kinds = [entry.kind for entry in connection.log]
    assert not {"send", "receive"} & set(kinds[kinds.index("ended") :])
    assert returned == ([None] if connection.error is None else [])


@clause("ASGI-CORE-007")
def test_the_call_lasts_until_the_iterable_is_closed(adapt: ToASGI, serve: ASGIServer) -> None:
    """The call does not return before close() does."""
    closing, go_on = threading.Event(), threading.Event()

    class Closing:
        def __iter__(self) -> Iterator[bytes]:
            yield b"one"

        def close(self) -> None:
            closing.set()
            go_on.wait(serve.deadline)

    connection = serve(adapt(wsgi_response(Closing())))
    connection.until(closing.is_set, "close()").until(lambda: connection.complete or connection.ended)
    for _ in range(5):
        tick(connection)
    assert not connection.ended
    go_on.set()
    connection.finish()


def alive(references: list[weakref.ref[Any]]) -> bool:
    """Return whether any of the objects is still alive after a garbage collection."""
    gc.collect()
    return any(reference() is not None for reference in references)


@clause("ASGI-CORE-007", "ASGI-CORE-026")
@pytest.mark.parametrize("outcome", ["answers", "raises", "client-leaves"])
def test_nothing_of_a_request_is_kept(adapt: ToASGI, serve: ASGIServer, outcome: str) -> None:
    """After the call, nothing refers to the scope or to what the app returned."""

    class WeakScope(dict[str, Any]):
        pass

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        blocks = Blocks([b"one", ValueError("two")] if outcome == "raises" else [b"one", b"two"])
        references.append(weakref.ref(blocks))
        return blocks

    adapter = adapt(app)
    references: list[weakref.ref[Any]] = []

    async def with_own_scope(scope: Scope, receive: Receive, send: Send) -> None:
        own = WeakScope(scope)
        references.append(weakref.ref(own))
        before = {key: copy.copy(value) for key, value in own.items()}
        try:
            await adapter(own, receive, send)
        except ValueError:
            assert outcome == "raises"
        unchanged.append(own == before)

    unchanged: list[bool] = []
    connection = serve(with_own_scope, hold_after=1 if outcome == "client-leaves" else None)
    if outcome == "client-leaves":
        connection.until_logged("send", 2).disconnect()
    connection.finish()
    assert unchanged == [True]
    assert len(references) == 2
    connection.until(lambda: not alive(references), "the end of the last reference")


@clause("ASGI-CORE-022")
@pytest.mark.parametrize("scope", [{"type": "foo"}, {"type": "mqtt", "asgi": {"version": "3.0"}}, {}], ids=repr)
def test_an_unknown_scope_is_refused(adapt: ToASGI, serve: ASGIServer, scope: dict[str, Any]) -> None:
    """The adapter raises for a scope type that it does not know, before it sends anything."""
    adapter = adapt(wsgi_response([b"one"]))

    async def with_scope(_: Scope, receive: Receive, send: Send) -> None:
        await adapter(scope, receive, send)

    connection = serve(with_scope).until_ended()
    assert isinstance(connection.error, Exception)
    assert connection.sent == []


@clause("ASGI-CORE-023")
def test_a_websocket_is_answered_or_refused(adapt: ToASGI, serve: ASGIServer) -> None:
    """The adapter answers a WebSocket, or raises instead of returning silently."""
    scope = {**http_scope(), "type": "websocket", "scheme": "ws", "subprotocols": []}
    del scope["method"]
    connection = serve(adapt(wsgi_response([b"one"])), scope)
    connection.feed_message({"type": "websocket.connect"})
    connection.until(lambda: connection.ended or connection.sent, "an answer")
    if connection.sent:
        assert connection.sent[0]["type"].startswith("websocket.")
    else:
        assert isinstance(connection.error, Exception)


@clause("ASGI-CORE-025")
def test_the_scope_is_left_as_it_is(adapt: ToASGI, serve: ASGIServer) -> None:
    """Neither the adapter nor an app that fills its environ changes the server's scope."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        for key in list(environ):
            if isinstance(environ[key], str):
                environ[key] = "changed"
        environ["a"] = "added"
        start_response("200 OK", [("X-A", "1")])
        return [environ["wsgi.input"].read()]

    headers = [(b"host", b"example.org"), (b"content-length", b"3"), (b"cookie", b"a=1"), (b"cookie", b"b=2")]
    extensions = {"tls": {"tls_version": 0x0304, "client_cert_chain": []}, "http.response.early_hint": {}}
    scope = http_scope(
        "POST", "/base/a", root_path="/base", headers=headers, extensions=extensions, state={"a": [1]}, scheme="https"
    )
    before = copy.deepcopy(scope)
    assert serve(adapt(app), scope, b"one").finish().body == b"one"
    assert scope == before


@clause("ASGI-CORE-035")
@pytest.mark.parametrize("place", ["call", "before-a-block", "after-a-block"])
def test_an_error_of_the_app_reaches_the_server(adapt: ToASGI, serve: ASGIServer, place: str) -> None:
    """The server gets the app's own exception, wherever it was raised, and no complete response."""
    error = ValueError("one")

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if place == "call":
            raise error
        start_response("200 OK", [])
        return Blocks([error] if place == "before-a-block" else [b"one", error])

    connection = serve(adapt(app)).until_ended()
    assert connection.error is error
    assert not connection.complete


def with_two_threads(adapt: ToASGI, app: WSGIApp) -> ASGIApp:
    """Return an adapter with two threads, if it has an option for that."""
    try:
        return adapt(app, workers=2)
    except TypeError:
        return adapt(app)


@clause("ASGI-HTTP-088")
def test_requests_wait_for_a_thread(adapt: ToASGI, serve: ASGIServer) -> None:
    """If there are more slow requests than threads, they are served in turn, and the loop stays free."""
    go_on = threading.Event()
    called: list[int] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        called.append(1)
        go_on.wait(serve.deadline)
        start_response("200 OK", [])
        return [b"one"]

    adapter = with_two_threads(adapt, app)
    connections = [serve(adapter) for _ in range(7)]
    connections[0].until(lambda: called, "the first call")
    tick(connections[0])
    go_on.set()
    assert [connection.finish().body for connection in connections] == [b"one"] * 7


@clause("ASGI-HTTP-101")
def test_errors_go_somewhere(adapt: ToASGI, serve: ASGIServer, capfd: pytest.CaptureFixture[str]) -> None:
    """What an app writes to wsgi.errors appears on one of the standard streams."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        errors = environ["wsgi.errors"]
        errors.write("one is broken\n")
        errors.writelines(["two is broken\n"])
        errors.flush()
        start_response("200 OK", [])
        return []

    serve(adapt(app)).finish()
    assert "one is broken\ntwo is broken\n" in "".join(capfd.readouterr())
