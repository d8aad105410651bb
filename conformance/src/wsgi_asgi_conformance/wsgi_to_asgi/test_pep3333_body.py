import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import Blocks, wsgi_response
from wsgi_asgi_conformance.asgi_server import ASGIServer, ToASGI
from wsgi_asgi_conformance.samples import http_scope
from wsgi_asgi_conformance.types import Environ, StartResponse


class Stepwise:
    """An iterator that is not a generator."""

    def __init__(self) -> None:
        self.blocks = [b"two", b"one"]

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self.blocks:
            raise StopIteration
        return self.blocks.pop()


class Indexed:
    """An iterable with `__getitem__` instead of `__iter__`."""

    def __getitem__(self, index: int) -> bytes:
        return [b"one", b"two"][index]


class Sized:
    """An iterable whose len() fails."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __iter__(self) -> Iterator[bytes]:
        yield from (b"one", b"two")

    def __len__(self) -> int:
        raise self.error


class Watched:
    """An iterable that records each access to an attribute that it lacks."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __iter__(self) -> Iterator[bytes]:
        yield from (b"one", b"two")

    def __getattr__(self, name: str) -> Any:
        self.asked.append(name)
        raise AttributeError(name)


@clause("P3333-020", "P3333-023", "P3333-027")
@pytest.mark.parametrize(
    "make",
    [
        lambda: [b"one", b"two"],
        lambda: (b"one", b"two"),
        lambda: {b"one": 1, b"two": 2},
        lambda: (block for block in [b"one", b"two"]),
        Stepwise,
        lambda: Blocks([b"one", b"two"]),
        Indexed,
        lambda: Sized(TypeError("no len()")),
        lambda: Sized(AttributeError("no len()")),
    ],
    ids=["list", "tuple", "dict", "generator", "iterator", "other-iterator", "getitem", "len-1", "len-2"],
)
def test_a_body_is_any_iterable(adapt: ToASGI, serve: ASGIServer, make: Callable[[], Iterable[bytes]]) -> None:
    """A body may be any kind of iterable, even if its len() fails."""
    assert serve(adapt(wsgi_response(make()))).finish().body == b"onetwo"


@clause("P3333-023")
def test_a_body_may_be_an_open_file(adapt: ToASGI, serve: ASGIServer, tmp_path: Path) -> None:
    """A body may be an open file, which iterates over its lines."""
    path = tmp_path / "body"
    path.write_bytes(b"one\ntwo")
    with path.open("rb") as file:
        assert serve(adapt(wsgi_response(file))).finish().body == b"one\ntwo"


@clause("P3333-042")
def test_a_body_is_iterated_and_closed_alone(adapt: ToASGI, serve: ASGIServer) -> None:
    """The adapter iterates over the body and closes it, and looks for no other attribute of it."""
    body = Watched()
    serve(adapt(wsgi_response(body))).finish()
    assert set(body.asked) <= {"close"}


@clause("P3333-009", "P3333-107")
@pytest.mark.parametrize("make", [list, iter, lambda _: [b""], lambda _: iter([b"", b""])], ids=range(4))
def test_headers_are_sent_without_a_body(
    adapt: ToASGI, serve: ASGIServer, make: Callable[[Any], Iterable[bytes]]
) -> None:
    """If a body ends without a byte, the adapter sends the status, the headers and the end."""
    connection = serve(adapt(wsgi_response(make(()), "404 Not Found", [("X-A", "1")]))).finish()
    assert connection.status == 404
    assert (b"x-a", b"1") in connection.headers
    body = connection.sent[1:]
    assert [message["type"] for message in body] == ["http.response.body"] * len(body)
    assert [message.get("more_body", False) for message in body].index(False) == len(body) - 1
    assert connection.body == b""


@clause("P3333-021")
def test_blocks_are_not_gathered(adapt: ToASGI, serve: ASGIServer) -> None:
    """While the server accepts no blocks, the adapter asks the app for only a few more."""
    too_many = threading.Event()

    def content() -> Iterator[bytes]:
        for number in range(1024):
            if number == 512:
                too_many.set()
            yield b"%04d" % number * 512

    connection = serve(adapt(wsgi_response(content())), hold_after=1).until_logged("send", 2)
    assert not too_many.wait(0.1)  # long enough for an adapter that gathers blocks
    connection.release()
    assert connection.finish().body == b"".join(b"%04d" % number * 512 for number in range(1024))


@clause("P3333-130")
def test_a_block_is_not_delayed(adapt: ToASGI, serve: ASGIServer) -> None:
    """A block is sent while the app is still making the next one."""
    seen = threading.Event()

    def content() -> Iterator[bytes]:
        yield b"one"
        yield b"two" if seen.wait(serve.deadline) else b"too late"

    connection = serve(adapt(wsgi_response(content())))
    connection.until(lambda: connection.body == b"one", "the first block")
    seen.set()
    assert connection.finish().body == b"onetwo"


@clause("P3333-022")
@pytest.mark.parametrize("body", [None, "text", b"text", 42], ids=repr)
def test_what_is_no_iterable_of_bytes_is_an_error(adapt: ToASGI, serve: ASGIServer, body: Any) -> None:
    """It is an error if the app returns None, a number, a str or bytes (which iterate as numbers)."""
    connection = serve(adapt(wsgi_response(body))).until_ended()
    assert connection.failed
    assert connection.error is None or connection.body == b""


@clause("P3333-147")
@pytest.mark.parametrize("block", ["text", None, 65, ["one"]], ids=repr)
@pytest.mark.parametrize("before", [[], [b"one"]], ids=["first", "second"])
def test_a_block_that_is_no_bytes_is_an_error(adapt: ToASGI, serve: ASGIServer, before: list[Any], block: Any) -> None:
    """A block that is not bytes is an error and does not reach the server, and the iterable is closed."""
    blocks = Blocks([*before, block])
    connection = serve(adapt(wsgi_response(blocks))).until_ended()
    assert connection.failed
    assert {type(message.get("body", b"")) for message in connection.sent} <= {bytes}
    assert blocks.closed == 1


@clause("P3333-024")
def test_a_body_is_octets(adapt: ToASGI, serve: ASGIServer) -> None:
    """All byte values arrive in order, including line ends and NUL."""
    every = bytes(range(256))
    blocks = [every, b"\r\n", b"\n\r", every[::-1], b"\0", b"\xef\xbb\xbf"]
    assert serve(adapt(wsgi_response(blocks))).finish().body == b"".join(blocks)


@clause("P3333-039")
def test_a_response_may_start_with_the_first_block(adapt: ToASGI, serve: ASGIServer) -> None:
    """An app that is a generator calls start_response only when the adapter asks for the first block."""

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("201 Created", [])
        yield b"one"

    connection = serve(adapt(app)).finish()
    assert (connection.status, connection.body) == (201, b"one")


@clause("P3333-039")
def test_a_response_may_start_with_the_iteration(adapt: ToASGI, serve: ASGIServer) -> None:
    """A class that is an app may call start_response in its `__iter__`."""

    class App:
        def __init__(self, environ: Environ, start_response: StartResponse) -> None:
            self.start_response = start_response

        def __iter__(self) -> Iterator[bytes]:
            self.start_response("201 Created", [])
            return iter([b"one"])

    connection = serve(adapt(App)).finish()
    assert (connection.status, connection.body) == (201, b"one")


@clause("P3333-040")
def test_an_empty_block_may_come_before_the_start(adapt: ToASGI, serve: ASGIServer) -> None:
    """An empty block before start_response sends nothing and needs no headers; an adapter may also refuse it."""

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        yield b""
        start_response("200 OK", [])
        yield b"one"

    connection = serve(adapt(app)).until_ended()
    assert not isinstance(connection.error, (AttributeError, TypeError, NameError, LookupError))
    if connection.error is None:
        assert (connection.status, connection.body) == (200, b"one")


@clause("P3333-151", "P3333-152")
@pytest.mark.parametrize("headers", [[], [("Content-Type", "image/png")], [("Content-Length", "6")]], ids=range(3))
def test_an_error_after_a_block_is_no_end(adapt: ToASGI, serve: ASGIServer, headers: list[tuple[str, str]]) -> None:
    """If the app raises after a block, the server gets the error, and the adapter sends nothing more."""
    blocks = Blocks([b"one", ValueError("two")])
    connection = serve(adapt(wsgi_response(blocks, headers=headers)))
    with pytest.raises(ValueError, match="two"):
        connection.finish()
    assert not connection.complete
    assert connection.body == b"one"


@clause("P3333-025", "P3333-102", "P3333-125", "P3333-160", "P3333-163")
@pytest.mark.parametrize(
    ("status", "headers", "blocks"),
    [
        ("200 OK", [], [b"one", b"two"]),
        ("200 OK", [("ETag", '"a"'), ("Last-Modified", "Thu, 01 Jan 1970 00:00:00 GMT")], [b"one", b"two"]),
        ("206 Partial Content", [("Content-Range", "bytes 0-5/12"), ("Content-Length", "6")], [b"onetwo"]),
        ("200 OK", [("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")], [b"\x1f\x8b", b"\x08"]),
        ("200 OK", [("Set-Cookie", "a=1"), ("X-A", "1"), ("Set-Cookie", "b=2"), ("x-a", "2")], [b"one", b"two"]),
        ("304 Not Modified", [("ETag", '"a"')], []),
        ("404 Not Found", [("Date", "Thu, 01 Jan 1970 00:00:00 GMT"), ("Server", "a")], [b"one", b"two"]),
    ],
    ids=["plain", "etag", "range", "gzip", "repeats", "304", "date"],
)
def test_a_response_gets_through_as_it_is(
    adapt: ToASGI, serve: ASGIServer, status: str, headers: list[tuple[str, str]], blocks: list[bytes]
) -> None:
    """The adapter adds no headers, encodes nothing, and leaves ranges and conditional requests to the app."""
    asked = [(b"if-none-match", b'"a"'), (b"range", b"bytes=0-1"), (b"accept-encoding", b"gzip"), (b"te", b"gzip")]
    scope = http_scope(headers=[(b"host", b"example.org"), *asked])
    connection = serve(adapt(wsgi_response(iter(blocks), status, headers)), scope).finish()
    assert connection.status == int(status[:3])
    assert connection.headers == [(name.lower().encode(), value.encode()) for name, value in headers]
    assert connection.body == b"".join(blocks)
