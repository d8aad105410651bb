from collections.abc import Iterable, Iterator

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import Blocks, wsgi_response
from wsgi_asgi_conformance.asgi_server import ASGIServer, ToASGI
from wsgi_asgi_conformance.samples import http_scope
from wsgi_asgi_conformance.types import Environ, StartResponse, WSGIApp


@clause("P3333-121", "P3333-103")
@pytest.mark.parametrize("name", ["Content-Length", "content-length", "CONTENT-LENGTH"])
@pytest.mark.parametrize("content", [[b"abcdef"], [b"ab", b"cd", b"ef"], [b"abc", b"d"]], ids=range(3))
def test_a_body_is_no_longer_than_its_length(adapt: ToASGI, serve: ASGIServer, name: str, content: list[bytes]) -> None:
    """Bytes beyond Content-Length are not sent, whatever the case of the header's name."""
    connection = serve(adapt(wsgi_response(content, headers=[(name, "3")]))).until_ended()
    assert connection.headers == [(b"content-length", b"3")]
    assert connection.body == b"abc"


@clause("P3333-122")
def test_iteration_ends_with_the_length(adapt: ToASGI, serve: ASGIServer) -> None:
    """When the body has reached Content-Length, the response is complete, and the app makes at most one more block.

    The adapter may ask for that block because a generator may have work to do after its last one.
    """
    blocks = Blocks([b"01", b"23", b"45", ValueError("a block too many")])
    connection = serve(adapt(wsgi_response(blocks, headers=[("Content-Length", "4")]))).finish()
    assert (connection.body, connection.complete) == (b"0123", True)
    assert blocks.started in (2, 3)


@clause("P3333-123")
@pytest.mark.parametrize("content", [[b"abcd"], [b"ab", b"cd"], [b"abc", b"d"]], ids=range(3))
def test_write_beyond_the_length_raises(adapt: ToASGI, serve: ASGIServer, content: list[bytes]) -> None:
    """write() raises if the app exceeds its length, and the excess is not sent."""
    errors: list[Exception] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [("Content-Length", "3")])
        write(b"")
        try:
            for block in content:
                write(block)
        except Exception as error:
            errors.append(error)
        return []

    connection = serve(adapt(app)).until_ended()
    assert len(errors) == 1
    assert b"abc".startswith(connection.body)


@clause("P3333-124")
@pytest.mark.parametrize("content", [[b"abc"], [b"a", b"bc"], []], ids=range(3))
def test_a_body_short_of_its_length_is_an_error(
    adapt: ToASGI, serve: ASGIServer, caplog: pytest.LogCaptureFixture, content: list[bytes]
) -> None:
    """A body shorter than its Content-Length is an error, and the response is not completed."""
    connection = serve(adapt(wsgi_response(content, headers=[("Content-Length", "30")]))).until_ended()
    assert connection.failed or caplog.records
    assert not connection.complete or connection.status == 500


def whole(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"abc"]


def written(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])(b"ab")
    return [b"c"]


def in_blocks(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    start_response("200 OK", [])
    yield b"ab"
    yield b"c"


def with_length(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", "3")])
    return [b"abc"]


@clause("P3333-125", "P3333-126")
@pytest.mark.parametrize(("app", "counts"), [(whole, (0, 1)), (written, (0,)), (in_blocks, (0,)), (with_length, (1,))])
def test_a_length_that_is_added_is_true(
    adapt: ToASGI, serve: ASGIServer, app: WSGIApp, counts: tuple[int, ...]
) -> None:
    """If the app sets no Content-Length, the adapter may add one for a body of a single block."""
    connection = serve(adapt(app)).finish()
    assert connection.headers in [[(b"content-length", b"3")] * count for count in counts]
    assert connection.body == b"abc"


@clause("P3333-126")
@pytest.mark.parametrize(("method", "status"), [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 -")])
@pytest.mark.parametrize("content", [[b""], []], ids=["empty", "none"])
def test_no_length_is_added_where_there_is_no_body(
    adapt: ToASGI, serve: ASGIServer, method: str, status: str, content: list[bytes]
) -> None:
    """A response that cannot have a body gets no Content-Length from its blocks."""
    assert serve(adapt(wsgi_response(content, status)), http_scope(method)).finish().headers == []


@clause("P3333-127")
@pytest.mark.parametrize(
    "lengths",
    [["abc"], ["-1"], ["+3"], ["3.0"], ["0x3"], ["\xb3"], ["3", "4"]],
    ids=lambda lengths: ascii(",".join(lengths)),
)
def test_a_length_that_is_no_number_is_refused(adapt: ToASGI, serve: ASGIServer, lengths: list[str]) -> None:
    """start_response raises unless Content-Length is one number."""
    errors: list[Exception] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            start_response("200 OK", [("Content-Length", length) for length in lengths])
        except Exception as error:
            errors.append(error)
            raise
        return [b"abc"]

    assert serve(adapt(app)).until_ended().failed
    assert len(errors) == 1


@clause("P3333-127")
@pytest.mark.parametrize("length", [None, 5], ids=["without", "longer"])
def test_an_error_page_has_its_own_length(adapt: ToASGI, serve: ASGIServer, length: int | None) -> None:
    """If start_response with exc_info replaces the headers, only the new Content-Length counts."""
    headers = [] if length is None else [("Content-Length", str(length))]

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "2")])
        try:
            raise ValueError("an error")
        except ValueError as error:
            start_response("500 Oops", headers, (ValueError, error, error.__traceback__))  # type: ignore[arg-type]
        return [b"sorry"]

    connection = serve(adapt(app)).finish()
    assert connection.body == b"sorry"
    assert dict(connection.headers).get(b"content-length", b"5") == b"5"
