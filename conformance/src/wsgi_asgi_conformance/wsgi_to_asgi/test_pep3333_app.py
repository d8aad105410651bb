import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn
from wsgiref.validate import validator

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.adapters import adapter_name, load_adapter
from wsgi_asgi_conformance.apps import Blocks, asgi_response, wsgi_response
from wsgi_asgi_conformance.asgi_server import ASGIServer, ToASGI
from wsgi_asgi_conformance.exchange import in_thread
from wsgi_asgi_conformance.samples import http_scope
from wsgi_asgi_conformance.types import Environ, StartResponse, WSGIApp


def function(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"one"]


def odd_names(_: Environ, wsgi: StartResponse, /) -> Iterable[bytes]:
    return function(_, wsgi)


def with_option(option: object, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    return function(environ, start_response)


class Instance:
    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return function(environ, start_response)

    def method(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return function(environ, start_response)


class Construction:
    """An app that is a class: constructing an instance calls it."""

    def __init__(self, environ: Environ, start_response: StartResponse) -> None:
        self.call = environ, start_response

    def __iter__(self) -> Iterator[bytes]:
        yield from function(*self.call)


class Closed(Instance):
    """An app whose attributes cannot be read."""

    def __getattribute__(self, name: str) -> NoReturn:
        raise RuntimeError(f"{name} is not for servers")


@clause("P3333-004", "P3333-011")
@pytest.mark.parametrize(
    "make",
    [
        lambda: function,
        lambda: lambda environ, start_response: function(environ, start_response),
        lambda: odd_names,
        lambda: functools.partial(with_option, None),
        lambda: Instance().method,
        Instance,
        lambda: Construction,
        Closed,
    ],
    ids=["function", "lambda", "odd-names", "partial", "method", "instance", "class", "closed"],
)
def test_an_app_is_any_callable(adapt: ToASGI, serve: ASGIServer, make: Callable[[], WSGIApp]) -> None:
    """An app may be any kind of callable."""
    connection = serve(adapt(make())).finish()
    assert (connection.status, connection.body) == (200, b"one")


@clause("P3333-011")
def test_an_app_gets_two_positional_arguments(adapt: ToASGI, serve: ASGIServer) -> None:
    """The adapter passes environ and start_response by position, and nothing else."""
    calls: list[tuple[int, int]] = []

    def app(*arguments: Any, **named: Any) -> Iterable[bytes]:
        calls.append((len(arguments), len(named)))
        return function(*arguments)

    serve(adapt(app)).finish()
    assert calls == [(2, 0)]


@clause("P3333-007")
def test_an_app_may_be_called_any_number_of_times(adapt: ToASGI, serve: ASGIServer) -> None:
    """One adapter serves requests one after another and at the same time, each with its own response."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("X-Path", environ["PATH_INFO"])])
        return [environ["wsgi.input"].read()]

    adapter = adapt(app)
    for number in range(10):
        assert serve(adapter, http_scope("POST", f"/{number}"), b"%d" % number).finish().body == b"%d" % number
    connections = [serve(adapter, http_scope("POST", f"/{number}"), b"", more_body=True) for number in range(10)]
    for number, connection in enumerate(connections):
        connection.feed(b"%d" % number)
    for number, connection in enumerate(connections):
        assert connection.finish().body == b"%d" % number
        assert (b"x-path", b"/%d" % number) in connection.headers


@clause("P3333-008")
@pytest.mark.parametrize(
    ("method", "content"),
    [("GET", [b"one"]), ("GET", []), ("HEAD", []), ("POST", [b"one", ValueError("two")])],
    ids=["body", "empty", "head", "error"],
)
def test_an_app_is_called_once_a_request(adapt: ToASGI, serve: ASGIServer, method: str, content: list[Any]) -> None:
    """The adapter calls the app once per request, however the request ends."""
    calls: list[Environ] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        calls.append(environ)
        start_response("200 OK", [])
        return Blocks(content)

    serve(adapt(app), http_scope(method)).until_ended()
    assert len(calls) == 1


@clause("P3333-008")
def test_an_app_is_called_once_for_a_client_that_leaves(adapt: ToASGI, serve: ASGIServer) -> None:
    """If the client leaves during the response, the app is not called again."""
    calls: list[Environ] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        calls.append(environ)
        start_response("200 OK", [])
        return Blocks([b"one", b"two", b"three"])

    connection = serve(adapt(app), hold_after=1).until_logged("send", 2)
    connection.disconnect(OSError("the client left"))
    connection.until_ended()
    assert len(calls) == 1


@clause("P3333-010")
def test_an_adapter_is_a_server_that_wsgiref_accepts(adapt: ToASGI, serve: ASGIServer) -> None:
    """wsgiref.validate accepts the adapter as a server."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.errors"].flush()
        body = b"".join(environ["wsgi.input"])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [body]

    scope = http_scope("POST", headers=[(b"host", b"example.org"), (b"content-length", b"8")])
    assert serve(adapt(validator(app)), scope, b"one\n", b"two\n").finish().body == b"one\ntwo\n"


@clause("P3333-010")
def test_adapters_may_be_chained(adapt: ToASGI, serve: ASGIServer, pytestconfig: pytest.Config) -> None:
    """An ASGI app inside an adapter of each direction answers as it does on its own."""
    if adapter_name(pytestconfig, "asgi_to_wsgi") == "none":
        pytest.skip("no adapter of the other direction was given")
    headers = [(b"content-type", b"text/plain"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    app = asgi_response(b"one", b"", b"two", status=404, headers=headers)
    alone = serve(app).finish()
    inner = load_adapter(pytestconfig, "asgi_to_wsgi")(app)
    try:
        chained = serve(adapt(validator(inner))).finish()
        assert (chained.status, chained.headers, chained.body) == (alone.status, alone.headers, alone.body)
    finally:
        if hasattr(inner, "close"):
            in_thread(inner.close, serve.deadline)


@clause("P3333-012")
def test_environ_is_a_dict(adapt: ToASGI, serve: ASGIServer) -> None:
    """environ is exactly a dict, not a subclass or a look-alike."""
    types: list[type] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        types.append(type(environ))
        return function(environ, start_response)

    serve(adapt(app)).finish()
    assert types == [dict]


@clause("P3333-013")
def test_environ_is_the_apps_to_change(adapt: ToASGI, serve: ASGIServer) -> None:
    """An app may change and empty environ without harm to its request or to the server's scope."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.input"] = environ["REQUEST_METHOD"] = None
        environ["a.thread"] = threading.current_thread()
        start_response("200 OK", [])
        yield b"one"
        environ.clear()
        yield b"two"

    scope, untouched = http_scope("POST"), http_scope("POST")
    assert serve(adapt(app), scope, b"012", b"345").finish().body == b"onetwo"
    assert scope == untouched


@clause("P3333-014")
def test_environ_is_new_for_each_request(adapt: ToASGI, serve: ASGIServer) -> None:
    """Each request gets a new environ, without what the app put into an earlier one."""
    environs: list[Environ] = []
    found: list[bool] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environs.append(environ)
        found.append("a.key" in environ)
        environ["a.key"] = 1
        return function(environ, start_response)

    adapter = adapt(app)
    serve(adapter).finish()
    serve(adapter).finish()
    assert found == [False, False]
    assert environs[0] is not environs[1]


@clause("P3333-067")
def test_multithread_is_true_where_requests_run_at_once(adapt: ToASGI, serve: ASGIServer) -> None:
    """wsgi.multithread is true if two requests can be in the app at once."""
    told: list[bool] = []
    both = threading.Barrier(2)

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        told.append(bool(environ["wsgi.multithread"]))
        with_other = True
        try:
            both.wait(serve.deadline / 2 if told[-1] else 0.1)  # long enough for two requests to overlap
        except threading.BrokenBarrierError:
            with_other = False
        start_response("200 OK", [])
        return [b"%d" % with_other]

    adapter = adapt(app)
    connections = [serve(adapter), serve(adapter)]
    bodies = [connection.finish().body for connection in connections]
    assert bodies == [b"%d" % multithread for multithread in told]


@clause("P3333-165")
def test_an_app_may_run_single_threaded(adapt: ToASGI, serve: ASGIServer) -> None:
    """With one worker, the app runs one request at a time, and wsgi.multithread is false."""
    inside = threading.Semaphore()
    overlaps: list[bool] = []
    multithread: list[bool] = []
    first, second_came = threading.Event(), threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        overlaps.append(not inside.acquire(blocking=False))
        multithread.append(bool(environ["wsgi.multithread"]))
        (second_came if first.is_set() else first).set()
        second_came.wait(0.1)  # long enough for two requests to overlap
        start_response("200 OK", [])
        inside.release()
        return []

    try:
        adapter = adapt(app, workers=1)
    except TypeError:
        pytest.skip("the adapter has no option named workers")
    connections = [serve(adapter), serve(adapter)]
    for connection in connections:
        connection.finish()
    assert overlaps == [False, False]
    assert multithread == [False, False]


def raises(error: BaseException) -> WSGIApp:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        raise error

    return app


@clause("P3333-150")
@pytest.mark.parametrize(
    "make", [raises, lambda error: wsgi_response(Blocks([error]))], ids=["in-the-call", "in-the-iteration"]
)
def test_an_error_of_the_apps_is_told(
    adapt: ToASGI,
    serve: ASGIServer,
    caplog: pytest.LogCaptureFixture,
    make: Callable[[BaseException], WSGIApp],
) -> None:
    """The app's exception reaches the server, or the adapter answers with a 500 and logs it."""
    error = ValueError("this app fails")
    connection = serve(adapt(make(error))).until_ended()
    assert connection.failed
    assert error in [connection.error, *[record.exc_info[1] for record in caplog.records if record.exc_info]]


@clause("P3333-155")
@pytest.mark.parametrize("content", [[b"one"], []], ids=["block", "exhausted"])
def test_a_response_must_be_started(adapt: ToASGI, serve: ASGIServer, content: list[bytes]) -> None:
    """If the app never calls start_response, that is an error, and no body is sent."""
    connection = serve(adapt(lambda environ, start_response: content)).until_ended()
    assert connection.failed
    assert [message["type"] for message in connection.sent][:1] in ([], ["http.response.start"])


@clause("P3333-156")
@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_an_app_that_would_end_the_process_ends_its_request(
    adapt: ToASGI, serve: ASGIServer, error: BaseException
) -> None:
    """SystemExit, KeyboardInterrupt and GeneratorExit fail only the request whose app raises them."""
    errors = [error]

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if errors:
            raise errors.pop()
        return function(environ, start_response)

    adapter = adapt(app)
    assert serve(adapter).until_ended().failed
    assert serve(adapter).finish().body == b"one"
