import gzip
import io
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.asgi_server import ASGIConnection, ASGIServer, ToASGI
from wsgi_asgi_conformance.types import Environ, StartResponse

TEXT = b"0123456789" * 10_000
# Takes a function that makes the app's iterable with wsgi.file_wrapper; returns the connection.
Wrap = Callable[..., ASGIConnection]


class ReadOnly:
    """A file-like object with read() only, all that is required; it may fail after some calls."""

    def __init__(self, text: bytes = TEXT, fail_after: int = 1000) -> None:
        self.file = io.BytesIO(text)
        self.left = fail_after

    def read(self, size: int = -1) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise OSError("the disk fails")
        return self.file.read(size)


class Closable(ReadOnly):
    """A file-like object with close(), too."""

    closed = 0

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def wrap(adapt: ToASGI, serve: ASGIServer) -> Wrap:
    """A function that serves an app with wsgi.file_wrapper; skips the test if the adapter offers none."""

    def wrap(make: Callable[[Any], Iterable[bytes]], *headers: tuple[str, str], **options: Any) -> ASGIConnection:
        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", list(headers))
            return make(environ["wsgi.file_wrapper"])

        return serve(adapt(app), **options)

    offered: list[bool] = []

    def look(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        offered.append("wsgi.file_wrapper" in environ)
        start_response("200 OK", [])
        return []

    serve(adapt(look)).finish()
    if offered == [False]:
        pytest.skip("the adapter offers no wsgi.file_wrapper")
    return wrap


@clause("P3333-170", "P3333-171")
@pytest.mark.parametrize("arguments", [(), (4096,), (1,)], ids=["default", "4096", "1"])
def test_a_file_is_wrapped_with_or_without_a_block_size(wrap: Wrap, arguments: tuple[int, ...]) -> None:
    """wsgi.file_wrapper takes a file-like object and an optional block size, a mere suggestion, by position."""
    assert wrap(lambda wrapper: wrapper(io.BytesIO(TEXT[:1000]), *arguments)).finish().body == TEXT[:1000]


@clause("P3333-172")
def test_a_wrapper_that_is_not_returned_sends_nothing(wrap: Wrap) -> None:
    """A wrapper that the app creates but does not return sends nothing."""
    assert wrap(lambda wrapper: [wrapper(io.BytesIO(TEXT)), [b"one"]][1]).finish().body == b"one"


@clause("P3333-172", "P3333-175")
def test_a_wrapper_may_be_iterated_by_others(wrap: Wrap) -> None:
    """Middleware that iterates over the wrapper gets the file's blocks, and the adapter sends what it yields."""

    def middleware(blocks: Iterable[bytes]) -> Iterator[bytes]:
        yield b"<"
        for block in blocks:
            yield block[::-1]
        yield b">"

    with tempfile.TemporaryFile() as file:
        file.write(b"012")
        file.seek(0)
        assert wrap(lambda wrapper: middleware(wrapper(file))).finish().body == b"<210>"


@clause("P3333-173")
def test_a_file_needs_only_read(wrap: Wrap) -> None:
    """The wrapper accepts a file without close() or fileno()."""
    assert wrap(lambda wrapper: wrapper(ReadOnly())).finish().body == TEXT


@clause("P3333-174")
def test_a_file_is_closed(wrap: Wrap) -> None:
    """The adapter closes the file, through the wrapper's close(), once."""
    file = Closable()
    assert wrap(lambda wrapper: wrapper(file)).finish().body == TEXT
    assert file.closed == 1


@clause("P3333-174")
def test_a_file_that_fails_is_closed(wrap: Wrap) -> None:
    """If read() raises, the response ends and the file is closed."""
    file = Closable(fail_after=1)
    with pytest.raises(OSError, match="the disk fails"):
        wrap(lambda wrapper: wrapper(file)).finish()
    assert file.closed == 1


@clause("P3333-174")
@pytest.mark.parametrize("leave", [ASGIConnection.disconnect, ASGIConnection.cancel], ids=["disconnect", "cancel"])
def test_a_file_is_closed_when_the_client_leaves(wrap: Wrap, leave: Callable[[ASGIConnection], None]) -> None:
    """If the response is not sent to its end, the file is closed, too."""
    file = Closable(TEXT * 10)
    connection = wrap(lambda wrapper: wrapper(file), hold_after=1).until_logged("send", 2)
    leave(connection)
    connection.until_ended().until(lambda: file.closed, "close()")
    assert file.closed == 1


def on_disk(text: bytes) -> Any:
    file = tempfile.TemporaryFile()  # noqa: SIM115  # the test closes it
    file.write(text)
    file.seek(0)
    return file


def spooled(text: bytes) -> Any:
    file = tempfile.SpooledTemporaryFile()  # noqa: SIM115  # the test closes it
    file.write(text)
    file.seek(0)
    return file


def unzipped(text: bytes) -> Any:
    return gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(text)))


@clause("P3333-177")
@pytest.mark.parametrize("make", [on_disk, spooled, io.BytesIO, unzipped])
def test_any_kind_of_file_is_sent(wrap: Wrap, make: Callable[[bytes], Any]) -> None:
    """The adapter sends what read() returns, even if the file has no descriptor or other bytes behind it."""
    with make(TEXT) as file:
        assert wrap(lambda wrapper: wrapper(file)).finish().body == TEXT


@clause("P3333-176")
@pytest.mark.parametrize("make", [on_disk, io.BytesIO])
@pytest.mark.parametrize("length", [None, 10])
def test_a_file_is_sent_from_its_position(wrap: Wrap, make: Callable[[bytes], Any], length: int | None) -> None:
    """The file is sent from its current position, up to Content-Length."""
    headers = [] if length is None else [("Content-Length", str(length))]
    with make(TEXT) as file:
        file.seek(5)
        connection = wrap(lambda wrapper: wrapper(file), *headers).finish()
    assert connection.body == TEXT[5:][:length]
    assert connection.complete


@clause("P3333-178")
@pytest.mark.parametrize("make", [on_disk, io.BytesIO])
def test_a_length_that_is_added_is_what_is_sent(wrap: Wrap, make: Callable[[bytes], Any]) -> None:
    """If the adapter adds Content-Length, it counts from the file's current position."""
    with make(TEXT) as file:
        file.seek(5)
        connection = wrap(lambda wrapper: wrapper(file)).finish()
    assert dict(connection.headers).get(b"content-length") in (None, b"%d" % len(TEXT[5:]))
