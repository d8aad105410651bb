import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.asgi_server import ASGIServer, ToASGI
from wsgi_asgi_conformance.samples import http_scope
from wsgi_asgi_conformance.types import Environ, StartResponse

# Takes a function that uses wsgi.input, and the request's body; returns that function's result.
Ask = Callable[[Callable[[Any], Any], bytes], Any]


@pytest.fixture(params=[None, 1], ids=["whole", "by-byte"])
def ask(adapt: ToASGI, serve: ASGIServer, request: pytest.FixtureRequest) -> Ask:
    """A function that lets an app read a body, which arrives in one message or byte by byte."""

    def ask(use: Callable[[Any], Any], body: bytes) -> Any:
        answers: list[Any] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            answers.append(use(environ["wsgi.input"]))
            start_response("200 OK", [])
            return []

        blocks = [body] if request.param is None else [bytes([byte]) for byte in body]
        headers = [(b"host", b"example.org"), (b"content-length", b"%d" % len(body))]
        serve(adapt(app), http_scope("POST", headers=headers), *blocks).finish()
        return answers[0]

    return ask


@clause("P3333-001", "P3333-148")
@pytest.mark.parametrize(
    "read",
    [
        lambda stream: stream.read(),
        lambda stream: stream.read(2),
        lambda stream: stream.readline(),
        lambda stream: stream.readlines()[0],
        lambda stream: next(iter(stream)),
    ],
    ids=["read", "read-size", "readline", "readlines", "iteration"],
)
def test_what_is_read_is_bytes(ask: Ask, read: Callable[[Any], Any]) -> None:
    """Every read returns exactly bytes, even at the end of the body."""
    assert ask(lambda stream: [type(read(stream)), type(stream.read())], b"abc\n") == [bytes, bytes]


@clause("P3333-062", "P3333-082")
def test_input_is_there_without_a_body(adapt: ToASGI, serve: ASGIServer) -> None:
    """For a GET, every read of wsgi.input returns b""."""
    answers: list[Any] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        stream = environ["wsgi.input"]
        answers.extend([stream.read(), stream.read(1), stream.readline(), stream.readlines(), [*stream], stream.read()])
        start_response("200 OK", [])
        return []

    serve(adapt(app)).finish()
    assert answers == [b"", b"", b"", [], [], b""]


@clause("P3333-063")
def test_a_long_body_comes_through(adapt: ToASGI, serve: ASGIServer) -> None:
    """A long body arrives unchanged, wherever the adapter buffers it."""
    blocks = [bytes([number]) * 64 * 1024 for number in range(24)]
    read: list[bytes] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        read.extend(iter(lambda: environ["wsgi.input"].read(100_000), b""))
        start_response("200 OK", [])
        return []

    serve(adapt(app), http_scope("POST"), *blocks).finish()
    assert b"".join(read) == b"".join(blocks)


@clause("P3333-071")
def test_read_gives_at_most_its_size(ask: Ask) -> None:
    """read(size) returns at most that many bytes, from where the last read ended."""
    assert ask(lambda stream: [stream.read(2), stream.read(3), stream.read(10)], b"abcdef") == [b"ab", b"cde", b"f"]


@clause("P3333-072")
def test_read_gives_what_remains(ask: Ask) -> None:
    """read() waits for the whole rest of the body."""
    assert ask(lambda stream: [stream.read(2), stream.read()], b"abcdef") == [b"ab", b"cdef"]


@clause("P3333-073")
@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (b"a\nb", [b"a\n", b"b", b""]),
        (b"a\r\nb\rc\n", [b"a\r\n", b"b\rc\n", b""]),
        (b"\n\na", [b"\n", b"\n", b"a"]),
    ],
)
def test_readline_gives_a_line_with_its_end(ask: Ask, body: bytes, lines: list[bytes]) -> None:
    """readline() ends after LF or at the end of the body, and returns b"" after that."""
    assert ask(lambda stream: [stream.readline() for _ in range(3)], body) == lines


@clause("P3333-074")
def test_readline_with_a_size_gives_no_more_than_that(ask: Ask) -> None:
    """readline(size) returns at most that much of a line, and the next call continues after it."""
    answers = ask(lambda stream: [stream.readline(size) for size in (3, 100, 6, 100, 100)], b"hello\nworld\n!")
    assert answers == [b"hel", b"lo\n", b"world\n", b"!", b""]


@clause("P3333-075")
@pytest.mark.parametrize(("body", "lines"), [(b"a\nb", [b"a\n", b"b"]), (b"a\n\n", [b"a\n", b"\n"]), (b"", [])])
def test_readlines_gives_a_list_of_lines(ask: Ask, body: bytes, lines: list[bytes]) -> None:
    """readlines() returns the lines with their ends, and no empty item."""
    assert ask(lambda stream: stream.readlines(), body) == lines


@clause("P3333-076")
@pytest.mark.parametrize("hint", [1, 3, 7, 100])
def test_a_hint_is_no_number_of_lines(ask: Ask, hint: int) -> None:
    """readlines(hint) returns one or more whole lines, and leaves the rest unread."""
    body = b"one\ntwo\nsix\n"
    lines, rest = ask(lambda stream: [stream.readlines(hint), stream.read()], body)
    assert lines == body.splitlines(keepends=True)[: len(lines)]
    assert lines
    assert b"".join(lines) + rest == body


@clause("P3333-077")
@pytest.mark.parametrize("body", [b"a\nb\n", b"a\n\nb", b"\n", b""])
def test_input_is_iterable_by_line(ask: Ask, body: bytes) -> None:
    """Iteration yields the lines of the body, and no empty item at the end."""
    assert ask(list, body) == body.splitlines(keepends=True)


@clause("P3333-078")
def test_sizes_are_those_of_files(ask: Ask) -> None:
    """A size of 0 returns nothing; -1 and None set no limit."""
    assert ask(lambda stream: [stream.read(0), stream.readline(0), stream.read(-1)], b"a\nb\n") == [b"", b"", b"a\nb\n"]
    assert ask(lambda stream: [stream.readline(-1), stream.readline(None)], b"a\nb\n") == [b"a\n", b"b\n"]
    assert ask(lambda stream: stream.read(None), b"a\nb\n") == b"a\nb\n"
    assert ask(lambda stream: stream.readlines(None), b"a\nb\n") == [b"a\n", b"b\n"]


@clause("P3333-078")
def test_a_size_of_0_does_not_wait(adapt: ToASGI, serve: ASGIServer) -> None:
    """read(0) and readline(0) return at once even if no data has arrived."""
    called = threading.Event()
    answers: list[bytes] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        called.set()
        answers.extend([environ["wsgi.input"].read(0), environ["wsgi.input"].readline(0)])
        answers.append(environ["wsgi.input"].read())
        start_response("200 OK", [])
        return []

    connection = serve(adapt(app), http_scope("POST"), b"", more_body=True)

    def reads_ahead() -> bool:  # an adapter that receives the whole body before it calls the app
        return len(connection.entries("receive")) > 1 and not called.is_set()

    connection.until(lambda: len(answers) == 2 or reads_ahead(), "the end of the reads of size 0")
    connection.feed(b"one")
    connection.finish()
    assert answers == [b"", b"", b"one"]


@clause("P3333-079")
def test_all_reads_have_one_position(ask: Ask) -> None:
    """The methods share one position: a mix of them neither misses nor repeats a byte."""
    body = b"one two\nthree\nfour\nfive\nsix\nseven"
    answers = ask(
        lambda stream: [
            stream.read(4),
            stream.readline(),
            next(iter(stream)),
            stream.readline(2),
            next(iter(stream)),
            stream.read(1),
            *stream.readlines(),
            stream.read(),
        ],
        body,
    )
    assert answers == [b"one ", b"two\n", b"three\n", b"fo", b"ur\n", b"f", b"ive\n", b"six\n", b"seven", b""]


@clause("P3333-080")
def test_only_the_end_makes_a_read_short(ask: Ask) -> None:
    """read(size) waits for that many bytes, in however many messages they arrive."""
    assert ask(lambda stream: [stream.read(10), stream.read(10)], b"0123456789abc") == [b"0123456789", b"abc"]


@clause("P3333-081", "P3333-082")
def test_nothing_is_waited_for_behind_the_end(ask: Ask) -> None:
    """After the end of the body every read returns b"" at once, even if the client sends no more."""
    reads: list[Callable[[Any], Any]] = [
        lambda stream: stream.read(),
        lambda stream: stream.read(1),
        lambda stream: stream.readline(),
        lambda stream: stream.readlines(),
        list,
    ]
    answers = ask(lambda stream: [stream.read(3), *[read(stream) for read in reads * 2]], b"one")
    assert answers == [b"one", *[b"", b"", b"", [], []] * 2]


@clause("P3333-083")
@pytest.mark.parametrize("size", [0, 5], ids=["none", "part"])
def test_a_body_need_not_be_read(adapt: ToASGI, serve: ASGIServer, size: int) -> None:
    """An app may respond before it has read the whole request."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        read = environ["wsgi.input"].read(size)
        start_response("200 OK", [])
        return [read, b"one"]

    connection = serve(adapt(app), http_scope("POST"), *[b"012"] * 10).finish()
    assert connection.status == 200
    assert connection.body == b"012012"[:size] + b"one"


@clause("P3333-157")
def test_reading_has_the_client_continue(adapt: ToASGI, serve: ASGIServer) -> None:
    """If the client expects 100 Continue, the adapter calls `receive`, which asks for the body, when the app reads."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [environ["wsgi.input"].read()]

    headers = [(b"host", b"example.org"), (b"expect", b"100-continue"), (b"content-length", b"3")]
    connection = serve(adapt(app), http_scope("POST", headers=headers), more_body=True)
    connection.until_logged("receive")
    connection.feed(b"one")
    assert connection.finish().body == b"one"


@clause("P3333-158")
def test_an_answer_does_not_wait_for_a_client_that_waits(adapt: ToASGI, serve: ASGIServer) -> None:
    """If the client expects 100 Continue and the app does not read, the adapter sends the response at once."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("417 Expectation Failed", [])
        return [b"no"]

    headers = [(b"host", b"example.org"), (b"expect", b"100-continue"), (b"content-length", b"3")]
    connection = serve(adapt(app), http_scope("POST", headers=headers), more_body=True).finish()
    assert (connection.status, connection.body) == (417, b"no")


@clause("P3333-162")
def test_a_chunked_body_is_decoded_already(adapt: ToASGI, serve: ASGIServer) -> None:
    """A body with a transfer coding is read as the server decoded it, to its end."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [environ["wsgi.input"].read()]

    headers = [(b"host", b"example.org"), (b"transfer-encoding", b"chunked")]
    connection = serve(adapt(app), http_scope("POST", headers=headers), b"3\r\nab", b"c\r\n0\r\n\r\n")
    assert connection.finish().body == b"3\r\nabc\r\n0\r\n\r\n"
