import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import wsgi_response
from wsgi_asgi_conformance.asgi_server import ASGIConnection, ASGIServer, ToASGI
from wsgi_asgi_conformance.samples import http_scope
from wsgi_asgi_conformance.types import Environ, Headers, StartResponse

# Takes the app's arguments for start_response; returns the connection and the exception that start_response raised.
Start = Callable[..., tuple[ASGIConnection, Exception | None]]


@pytest.fixture
def start(adapt: ToASGI, serve: ASGIServer) -> Start:
    """A function that serves an app which calls start_response with given arguments."""

    def start(*arguments: Any) -> tuple[ASGIConnection, Exception | None]:
        errors: list[Exception] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            try:
                start_response(*arguments)
            except Exception as error:
                errors.append(error)
                raise
            return [b"one"]

        return serve(adapt(app)).until_ended(), errors[0] if errors else None

    return start


def error_info() -> Any:
    """Return sys.exc_info() of an error that is being handled."""
    try:
        raise ValueError("an error")
    except ValueError:
        return sys.exc_info()


@clause("P3333-016", "P3333-119")
@pytest.mark.parametrize("rest", [(), (None,), (error_info(),)], ids=["without", "none", "exc-info"])
def test_exc_info_is_optional(start: Start, rest: tuple[Any, ...]) -> None:
    """start_response takes two or three positional arguments; on the first call, the third changes nothing."""
    connection, error = start("201 Created", [("X-A", "1")], *rest)
    assert error is None
    assert connection.finish().status == 201
    assert (b"x-a", b"1") in connection.headers


@clause("P3333-018", "P3333-109", "P3333-113", "P3333-119")
@pytest.mark.parametrize("replaced", [False, True], ids=["first", "exc-info"])
def test_start_response_returns_write(adapt: ToASGI, serve: ASGIServer, replaced: bool) -> None:
    """start_response returns a callable that takes bytes, even if it was called with exc_info."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [])
        if replaced:
            write = start_response("200 OK", [], error_info())
        write(b"one")
        return []

    assert serve(adapt(app)).finish().body == b"one"


@clause("P3333-092")
@pytest.mark.parametrize("code", [200, 204, 299, 404, 451, 500, 599])
@pytest.mark.parametrize("reason", ["OK", "Some Reason, of the app's", "caf\xe9"], ids=ascii)
def test_a_status_is_its_code(adapt: ToASGI, serve: ASGIServer, code: int, reason: str) -> None:
    """The adapter sends the status code as a number; the reason phrase may be any Latin-1 text."""
    assert serve(adapt(wsgi_response([], f"{code} {reason}"))).finish().status == code


@clause("P3333-095")
@pytest.mark.parametrize(
    "status",
    [200, b"200 OK", None, "", "OK", "20 OK", "2000 OK", "abc OK", "\u0662\u0660\u0660 OK", "-20 OK", " 200 OK"]
    + ["200 OK\r\nX: y", "200 OK\n", "200 O\0K", "200 OK\x7f"],
    ids=ascii,
)
def test_a_status_that_is_none_is_refused(start: Start, status: Any) -> None:
    """start_response raises unless the status is a str of three digits and a reason without control characters."""
    connection, error = start(status, [])
    assert error is not None
    assert connection.failed


@clause("P3333-101")
@pytest.mark.parametrize(
    "header",
    [("X-A", "a\r\nX-B: b"), ("X-A", "a\n"), ("X-A", "a\rb"), ("X-A", "a\0b"), ("X-A", "a\x7fb")]
    + [("X-A:", "a"), ("", "a"), ("X A", "a"), ("X\n", "a"), ("X-\xe9", "a")]
    + [("X-A", 1), ("X-A", None), ("X-A", b"a"), (b"X-A", "a"), ("X-A",), ("X-A", "a", "b"), "X-A: a"],
    ids=ascii,
)
def test_a_header_that_is_none_is_refused(start: Start, header: Any) -> None:
    """start_response raises for a header with an invalid name or value, and nothing of the response is sent."""
    connection, error = start("200 OK", [("X-B", "b"), header])
    assert error is not None
    assert connection.failed
    assert connection.error is None or connection.sent == []


@clause("P3333-145")
@pytest.mark.parametrize("arguments", [("200 \u20ac", []), ("200 OK", [("X-A", "\u20ac")])], ids=["status", "header"])
def test_text_beyond_latin1_is_an_error(start: Start, arguments: tuple[Any, ...]) -> None:
    """A character above 0xFF in the status or a header is an error, and nothing of the response is sent."""
    connection, _ = start(*arguments)
    assert connection.failed
    assert connection.error is None or connection.sent == []


@clause("P3333-143", "P3333-144")
@pytest.mark.parametrize("value", ["caf\xe9", "\x80\xff", "=?utf-8?q?caf=C3=A9?=", "a\tb"], ids=ascii)
def test_a_header_may_be_latin1(adapt: ToASGI, serve: ASGIServer, value: str) -> None:
    """In both directions, characters up to 0xFF are single bytes, and MIME encoded words are left alone."""
    values: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        values.append(environ["HTTP_X_A"])
        start_response("200 OK", [("X-A", value)])
        return []

    octets = value.encode("latin-1")
    connection = serve(adapt(app), http_scope(headers=[(b"host", b"example.org"), (b"x-a", octets)])).finish()
    assert values == [value]
    assert (b"x-a", octets) in connection.headers


@clause("P3333-097")
@pytest.mark.parametrize(
    "change", [lambda headers: headers.append(("X-C", "c")), list.clear, list.reverse], ids=["append", "clear", "turn"]
)
def test_headers_may_change_after_the_call(
    adapt: ToASGI, serve: ASGIServer, change: Callable[[Headers], object]
) -> None:
    """If the app changes its list of headers after start_response, either the old or the new headers are sent, once."""
    before, after = [("X-A", "a"), ("X-B", "b")], [("X-A", "a"), ("X-B", "b")]
    change(after)

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        headers = list(before)
        start_response("200 OK", headers)
        change(headers)
        return [b"one"]

    connection = serve(adapt(app)).finish()
    assert [message["type"] for message in connection.sent].count("http.response.start") == 1
    sent = [header for header in connection.headers if header[0].startswith(b"x-")]
    assert sent in [[(name.lower().encode(), value.encode()) for name, value in each] for each in (before, after)]


@clause("P3333-098")
@pytest.mark.parametrize(
    "make", [list, tuple, iter, dict, lambda headers: map(list, headers)], ids=["list", "tuple", "iter", "dict", "map"]
)
def test_headers_other_than_a_list_are_refused_or_as_good(start: Start, make: Callable[[Headers], Any]) -> None:
    """A list of headers is accepted; any other iterable is an error, or is sent like a list."""
    connection, error = start("200 OK", make([("XA", "1"), ("Content-Length", "3")]))
    assert error is None or make is not list
    if error is None:
        assert connection.finish().headers == [(b"xa", b"1"), (b"content-length", b"3")]


@clause("P3333-103", "P3333-105")
@pytest.mark.parametrize(
    "name",
    ["Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "TE", "Trailers", "Transfer-Encoding"]
    + ["Upgrade", "connection", "tRaNsFeR-eNcOdInG"],
)
def test_a_hop_by_hop_header_is_not_the_apps(start: Start, name: str) -> None:
    """Hop-by-hop headers are refused or dropped, because they belong to the server's connection."""
    connection, error = start("200 OK", [(name, "close")])
    if error is None:
        assert connection.finish().headers == []
    assert connection.failed == (error is not None)


@clause("P3333-106")
def test_start_response_sends_nothing(adapt: ToASGI, serve: ASGIServer) -> None:
    """start_response sends nothing: the headers wait for the first block, however long that takes."""
    called, looked = threading.Event(), threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        called.set()
        looked.wait(serve.deadline)
        return [b"one"]

    connection = serve(adapt(app))
    sent = connection.until(called.is_set, "start_response").settle().sent
    looked.set()
    connection.finish()
    assert sent == []


@clause("P3333-107")
def test_headers_leave_with_the_first_block(adapt: ToASGI, serve: ASGIServer) -> None:
    """Empty blocks send nothing; the first non-empty one is sent at once, after the headers."""
    passed, looked, seen = threading.Event(), threading.Event(), threading.Event()

    def content() -> Iterator[bytes]:
        yield b""
        yield b""
        passed.set()
        looked.wait(serve.deadline)
        yield b"one"
        seen.wait(serve.deadline)

    connection = serve(adapt(wsgi_response(content())))
    sent = connection.until(passed.is_set, "a block after the empty ones").settle().sent
    looked.set()
    complete = connection.until_logged("send", 2).complete
    seen.set()
    connection.finish()
    assert sent == []
    assert not complete


@clause("P3333-108")
def test_an_empty_response_may_say_so(adapt: ToASGI, serve: ASGIServer) -> None:
    """A response with a Content-Length of 0 is sent whole; its headers may be sent before the iteration ends."""
    connection = serve(adapt(wsgi_response([b""], headers=[("Content-Length", "0")]))).finish()
    assert (connection.headers, connection.body, connection.complete) == ([(b"content-length", b"0")], b"", True)


@clause("P3333-109", "P3333-113")
@pytest.mark.parametrize("lazily", [False, True], ids=["in-the-call", "in-the-iteration"])
def test_an_error_page_replaces_the_response(adapt: ToASGI, serve: ASGIServer, lazily: bool) -> None:
    """start_response with exc_info replaces a status and headers that were not sent yet, and raises nothing."""

    def content(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [("X-A", "1"), ("Content-Length", "3")])
        yield b""
        start_response("500 Oops", [("X-B", "2")], error_info())
        yield b"sorry"

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return content(environ, start_response) if lazily else list(content(environ, start_response))

    connection = serve(adapt(app)).finish()
    assert connection.status == 500
    assert (b"x-b", b"2") in connection.headers
    assert {name for name, _ in connection.headers}.isdisjoint({b"x-a", b"content-length"})
    assert connection.body == b"sorry"


@clause("P3333-110", "P3333-111", "P3333-112")
def test_an_error_page_comes_too_late(adapt: ToASGI, serve: ASGIServer) -> None:
    """If the headers were sent, start_response with exc_info raises that exception, and the response breaks off."""
    seen = threading.Event()
    caught: list[BaseException] = []
    info: list[Any] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"one"
        seen.wait(serve.deadline)
        info.extend(error_info())
        try:
            start_response("500 Oops", [], (info[0], info[1], info[2]))
        except BaseException as error:
            caught.append(error)
            raise

    connection = serve(adapt(app)).until_logged("send", 2)
    seen.set()
    connection.until_ended()
    assert caught == [info[1]]
    frames, traceback = [], caught[0].__traceback__
    while traceback is not None:
        frames.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert frames[-1] == "error_info"
    assert connection.error is not None
    assert (connection.status, connection.body, connection.complete) == (200, b"one", False)


@clause("P3333-116")
def test_start_response_may_not_be_called_again(adapt: ToASGI, serve: ASGIServer) -> None:
    """A second call without exc_info raises, and does not change the response."""
    errors: list[Exception] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("X-A", "1")])
        try:
            start_response("201 Created", [("X-A", "2")])
        except Exception as error:
            errors.append(error)
        return [b"one"]

    connection = serve(adapt(app)).until_ended()
    assert len(errors) == 1
    assert connection.failed or (connection.status == 200 and (b"x-a", b"1") in connection.headers)


@clause("P3333-117")
def test_after_a_call_that_failed_exc_info_is_wanted(adapt: ToASGI, serve: ASGIServer) -> None:
    """A first call of start_response that raised counts as the first; then exc_info is required, and works."""
    errors: list[Exception] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        for status in (cast("str", None), "200 OK"):
            try:
                start_response(status, [])
            except Exception as error:
                errors.append(error)
        start_response("500 Oops", [], error_info())
        return [b"sorry"]

    connection = serve(adapt(app)).finish()
    assert len(errors) == 2
    assert (connection.status, connection.body) == (500, b"sorry")


class Failure(Exception):
    """An exception that can have weak references."""


@clause("P3333-120")
@pytest.mark.parametrize("begun", [False, True], ids=["replaced", "raised"])
def test_exc_info_is_let_go(adapt: ToASGI, serve: ASGIServer, begun: bool) -> None:
    """After start_response has returned or raised, the adapter holds no reference to exc_info."""
    alive: list[bool] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"one" if begun else b""
        try:
            try:
                raise Failure
            except Failure as error:
                reference = weakref.ref(error)
                start_response("500 Oops", [], sys.exc_info())
        except Failure:
            pass
        gc.collect(0)
        alive.append(reference() is not None)
        yield b"two"

    serve(adapt(app)).finish()
    assert alive == [False]
