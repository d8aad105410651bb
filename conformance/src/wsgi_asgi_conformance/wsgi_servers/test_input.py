"""wsgi.input and wsgi.errors of a WSGI server."""

import contextlib
import time
from collections.abc import Iterable
from typing import Any

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.notes import Notes
from wsgi_asgi_conformance.serving import RunningServer
from wsgi_asgi_conformance.types import Environ, StartResponse
from wsgi_asgi_conformance.wsgi_servers.test_environ import TEXT, seen

LINES = b"one\ntwo\r\n\nfour"


def calls(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    """Call the methods of wsgi.input that the query names, and note the results."""
    stream = environ["wsgi.input"]
    for call in environ["QUERY_STRING"].split("&"):
        name, _, argument = call.partition("=")
        arguments = [] if not argument else [None if argument == "None" else int(argument)]
        try:
            value = list(stream) if name == "iter" else getattr(stream, name)(*arguments)
            notes("result", value)
            notes("type", type(value).__name__)
        except Exception as error:
            notes("result", f"raised {type(error).__name__}: {error}")
    start_response("200 OK", [*TEXT])
    return [b"one"]


def results(server: RunningServer, query: str, body: bytes = LINES) -> list[Any]:
    """Return the results of the calls of wsgi.input's methods."""
    exchange = server.exchange(calls).request("POST", f"/?{query}", body=body)
    assert exchange.response().status == 200
    return exchange.values("result")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param("read=3", [b"one"], marks=clause("P3333-071", "ASGI-HTTP-100")),
        pytest.param("read", [LINES], marks=clause("P3333-072")),
        pytest.param("readline&readline&readline", [b"one\n", b"two\r\n", b"\n"], marks=clause("P3333-073")),
        pytest.param("readline=2&readline=2&readline", [b"on", b"e\n", b"two\r\n"], marks=clause("P3333-074")),
        pytest.param("readlines", [[b"one\n", b"two\r\n", b"\n", b"four"]], marks=clause("P3333-075")),
        pytest.param("iter", [[b"one\n", b"two\r\n", b"\n", b"four"]], marks=clause("P3333-077")),
        pytest.param("read=0&readline=0&readline=-1", [b"", b"", b"one\n"], marks=clause("P3333-078")),
        pytest.param("readline&read=4&readline", [b"one\n", b"two\r", b"\n"], marks=clause("P3333-079")),
        pytest.param("read=9&read=5", [LINES[:9], LINES[9:]], marks=clause("P3333-080")),
        pytest.param("read=99&read=1&readline", [LINES, b"", b""], marks=clause("P3333-081")),
        pytest.param("read=14&read&readline&readlines", [LINES, b"", b"", []], marks=clause("P3333-082")),
    ],
)
def test_the_input_is_read_as_a_file_is(server: RunningServer, query: str, expected: list[Any]) -> None:
    """Each method of wsgi.input returns what the same method of a file would return."""
    assert results(server, query) == expected


@clause("P3333-076")
def test_a_hint_is_no_count_of_lines(server: RunningServer) -> None:
    """readlines(hint) returns whole lines from the start, with at least hint bytes in all."""
    (lines,) = results(server, "readlines=4")
    assert lines
    assert lines == [b"one\n", b"two\r\n", b"\n", b"four"][: len(lines)]


@clause("P3333-148")
def test_the_input_gives_bytes(server: RunningServer) -> None:
    """Every read returns exactly bytes."""
    exchange = server.exchange(calls).request("POST", "/?read=1&readline&read=5", body=LINES)
    exchange.response()
    assert exchange.values("type") == ["bytes", "bytes", "bytes"]


@clause("P3333-081", "P3333-082")
def test_a_request_without_a_body_has_an_empty_input(server: RunningServer) -> None:
    """Without a body, each read returns at once, with no data."""
    exchange = server.exchange(calls).request("GET", "/?read&readline&read=5", close=False)
    assert exchange.response().status == 200
    assert exchange.values("result") == [b"", b"", b""]


@clause("P3333-081")
def test_the_input_ends_with_the_body(server: RunningServer) -> None:
    """wsgi.input ends with the body, and does not include the next request on the connection."""
    exchange = server.exchange(calls).request("POST", "/?read", body=b"one", close=False)
    exchange.request("POST", "/?read", body=b"two")
    with contextlib.suppress(AssertionError):
        exchange.response()
        exchange.response()
    assert exchange.values("result")[0] == b"one"


@clause("P3333-024", "P3333-063")
def test_a_large_body_comes_whole(server: RunningServer) -> None:
    """A megabyte of arbitrary octets arrives unchanged."""
    body = bytes(range(256)) * 4096
    exchange = server.exchange(echo).request("POST", body=body)
    assert exchange.response().body == body


def echo(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    notes("reading")
    length = environ.get("CONTENT_LENGTH")
    body = environ["wsgi.input"].read(int(length)) if length else environ["wsgi.input"].read()
    start_response("200 OK", [*TEXT])
    return [body]


@clause("P3333-162", "RFC9112-003")
def test_a_chunked_body_is_decoded(server: RunningServer) -> None:
    """The app sees the data of the chunks, or the request is refused."""
    body = b"3\r\none\r\n5;x=y\r\n, two\r\n0\r\n\r\n"
    exchange = server.exchange(echo).request("POST", headers=[("Transfer-Encoding", "chunked")], body=body)
    response = exchange.response()
    if response.status in (400, 411, 501):
        pytest.skip("chunked bodies are refused")
    assert response.body == b"one, two"


@clause("RFC9112-003")
def test_a_length_beside_chunks_is_not_trusted(server: RunningServer) -> None:
    """A chunked request with a Content-Length is refused, or its body is the data of the chunks."""
    headers: list[tuple[str, str | bytes]] = [("Transfer-Encoding", "chunked"), ("Content-Length", "4")]
    exchange = server.exchange(echo).request("POST", headers=headers, body=b"5\r\nwhole\r\n0\r\n\r\n")
    try:
        response = exchange.response()
    except AssertionError:
        return
    assert response.status >= 400 or response.body == b"whole"


def unread(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    notes("read", environ["wsgi.input"].read(2) if environ["QUERY_STRING"] else b"")
    start_response("200 OK", [*TEXT, ("Content-Length", "3")])
    return [b"one"]


@clause("P3333-083")
@pytest.mark.parametrize("target", ["/", "/?some"])
def test_an_app_need_not_read_its_input(server: RunningServer, target: str) -> None:
    """If the app does not read its input, the client gets the response, and the body is not taken for a request."""
    exchange = server.exchange(unread).request("POST", target, body=b"GET / HTTP/1.1\r\n\r\n" * 10, close=False)
    assert exchange.response().body == b"one"
    exchange.request("POST", target, body=b"abc")
    with contextlib.suppress(AssertionError):
        assert exchange.response().status == 200
    assert len(exchange.values("called")) <= 2


@clause("P3333-157")
def test_a_client_that_waits_for_100_gets_that(server: RunningServer) -> None:
    """When the app reads, the server sends 100 (Continue) to a client that expects it."""
    exchange = server.exchange(echo).request("POST", headers=[("Expect", "100-continue"), ("Content-Length", "3")])
    assert exchange.client.head()[1] == 100
    exchange.client.send(b"one")
    assert exchange.response().body == b"one"


@clause("P3333-158")
def test_an_app_that_does_not_read_is_not_held_up(server: RunningServer) -> None:
    """If the app does not read, the client gets the response at once, or after 100 (Continue) and its body."""
    exchange = server.exchange(unread).request("POST", headers=[("Expect", "100-continue"), ("Content-Length", "3")])
    status = exchange.client.head()[1]
    if status == 100:
        exchange.client.send(b"one")
        status = exchange.client.head()[1]
    assert status == 200


def reads_slowly(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    notes("reading")
    try:
        notes("result", environ["wsgi.input"].read(6))
    except Exception as error:
        notes("error", isinstance(error, OSError))
        raise
    start_response("200 OK", [*TEXT])
    return [b"one"]


@clause("CONV-014")
def test_a_body_that_breaks_off_is_an_error(server: RunningServer) -> None:
    """If the client leaves before its body ends, the app's read raises OSError, because the body is truncated."""
    exchange = server.exchange(reads_slowly).request("POST", headers=[("Content-Length", "6")], body=b"one")
    time.sleep(0.1)
    exchange.client.reset()
    end = time.monotonic() + server.deadline
    while not (exchange.values("result") or exchange.values("error")) and time.monotonic() < end:
        if not exchange.values("called") and time.monotonic() > end - server.deadline + 1:
            pytest.skip("the server calls the app only with whole bodies")
        time.sleep(0.01)
    assert exchange.values("result") == []
    assert exchange.value("error") is True


@clause("ASGI-HTTP-088")
def test_a_slow_app_holds_up_nobody_for_good(server: RunningServer) -> None:
    """A slow app delays other requests at most until it has ended."""
    slow = server.exchange(holds).request()
    slow.value("began")
    others = [server.exchange(seen).request() for _ in range(4)]
    time.sleep(0.2)
    slow.notes.open("go on")
    assert slow.response().body == b"one"
    assert [other.response().status for other in others] == [200] * 4


def holds(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    notes("began")
    notes.wait("go on")
    start_response("200 OK", [*TEXT])
    return [b"one"]


def logs(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    errors = environ["wsgi.errors"]
    errors.write("one is broken\n")
    errors.writelines(["two is ", "broken\n"])
    errors.flush()
    if environ["QUERY_STRING"]:
        errors.write("caf\xe9 \u20ac\n")
        errors.flush()
    start_response("200 OK", [*TEXT])
    return [b"one"]


@clause("P3333-088", "P3333-089", "P3333-090", "P3333-091", "ASGI-HTTP-101")
def test_errors_go_to_the_log(server: RunningServer) -> None:
    """The server shows what the app writes to wsgi.errors."""
    exchange = server.exchange(logs).request()
    assert exchange.response().status == 200
    exchange.until(lambda: "one is broken" in server.output(), "the first line in the log")
    exchange.until(lambda: "two is broken" in server.output(), "the second line in the log")


@clause("P3333-065")
def test_errors_take_any_text(server: RunningServer) -> None:
    """wsgi.errors accepts any text, even characters that the log cannot show."""
    assert server.exchange(logs).request(target="/?more").response().status == 200
