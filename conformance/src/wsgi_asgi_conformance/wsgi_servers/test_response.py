"""How a WSGI server sends a response, and what start_response accepts."""

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.notes import Notes
from wsgi_asgi_conformance.serving import RunningServer
from wsgi_asgi_conformance.types import Environ, StartResponse
from wsgi_asgi_conformance.wsgi_servers.test_environ import TEXT, seen

SIX = (*TEXT, ("Content-Length", "6"))


# --- The status and the headers --------------------------------------------------------------------


def status_of_the_path(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    status = environ["PATH_INFO"][1:]
    start_response(f"{status} Some Reason", [] if status in ("204", "304") else [*TEXT])
    return [] if status in ("204", "304") else [b"one"]


@clause("P3333-092")
@pytest.mark.parametrize("status", [200, 201, 299, 404, 418, 599])
def test_a_status_is_sent(server: RunningServer, status: int) -> None:
    """The client gets the app's status code and reason phrase."""
    response, _ = server.get(status_of_the_path, f"/{status}")
    assert (response.status, response.reason, response.body) == (status, "Some Reason", b"one")


@clause("RFC9110-004")
@pytest.mark.parametrize("status", [204, 304])
def test_some_statuses_have_no_body(server: RunningServer, status: int) -> None:
    """After the headers of a 204 or a 304, nothing follows, not even chunks."""
    exchange = server.exchange(status_of_the_path).request(target=f"/{status}")
    raw = exchange.client.rest()
    assert raw.startswith(b"HTTP/1."), raw
    assert raw.partition(b"\r\n\r\n")[2] == b""


def sized(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    start_response("200 OK", [*SIX])
    return [b"onetwo"]


@clause("RFC3875-029", "RFC9110-004")
def test_a_response_to_head_has_no_body(server: RunningServer) -> None:
    """A response to HEAD has the headers of a GET, and no body."""
    exchange = server.exchange(sized).request("HEAD")
    head, _, body = exchange.client.rest().partition(b"\r\n\r\n")
    assert (b"content-length: 6" in head.lower(), body) == (True, b"")


def many_headers(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    headers = [("X-B", "1"), ("Set-Cookie", "a=1"), ("X-A", "2"), ("Set-Cookie", "b=2"), ("X-B", "3")]
    headers += [("X-C", "caf\xe9"), ("X-D", "=?utf-8?q?x?="), ("Content-Type", "text/plain")]
    start_response("200 OK", headers)
    return [b"one"]


@clause("P3333-160")
def test_headers_keep_their_order(server: RunningServer) -> None:
    """Headers arrive in the app's order."""
    response, _ = server.get(many_headers)
    names = ("x-a", "x-b", "set-cookie")
    own = [f"{name.lower()}: {value}" for name, value in response.headers if name.lower() in names]
    assert own == ["x-b: 1", "set-cookie: a=1", "x-a: 2", "set-cookie: b=2", "x-b: 3"]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        pytest.param("x-c", ["caf\xe9"], marks=clause("P3333-143")),
        pytest.param("x-d", ["=?utf-8?q?x?="], marks=clause("P3333-144")),
        pytest.param("set-cookie", ["a=1", "b=2"], marks=clause("RFC9110-002")),
    ],
)
def test_headers_have_the_apps_values(server: RunningServer, name: str, values: list[str]) -> None:
    """Values are sent byte for byte, encoded words are not decoded, and cookies are not joined."""
    response, _ = server.get(many_headers)
    assert response.values(name) == values


@clause("P3333-102")
def test_the_server_adds_what_http_wants(server: RunningServer) -> None:
    """The server adds Date, and frames the body so that the client can tell its end."""
    response, _ = server.get(many_headers)
    assert response.complete
    assert len(response.values("date")) == 1


def dated(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    start_response("200 OK", [("dAte", "Thu, 01 Jan 1970 00:00:00 GMT"), ("sErver", "mine"), ("content-LENGTH", "3")])
    return [b"one"]


@clause("P3333-103")
def test_names_of_headers_have_any_case(server: RunningServer) -> None:
    """The server does not add a header that the app has set in another case."""
    response, _ = server.get(dated)
    assert len(response.values("date")) == 1
    assert response.values("content-length") == ["3"]
    assert len(response.values("server")) == 1


def bad_start(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    """Call start_response with the arguments that the query names, and note whether it raises."""
    starts: dict[str, tuple[Any, Any]] = {
        "int": (200, [*TEXT]),
        "bytes": (b"200 OK", [*TEXT]),
        "no code": ("OK", [*TEXT]),
        "two digits": ("20 OK", [*TEXT]),
        "status lf": ("200 OK\r\nX-Evil: 1", [*TEXT]),
        "status unicode": ("200 \u20ac", [*TEXT]),
        "value lf": ("200 OK", [("X-A", "1\r\nX-Evil: 1")]),
        "value nul": ("200 OK", [("X-A", "1\x00")]),
        "value unicode": ("200 OK", [("X-A", "\u20ac")]),
        "value bytes": ("200 OK", [("X-A", b"1")]),
        "name lf": ("200 OK", [("X-A: 1\r\nX-Evil", "1")]),
        "name empty": ("200 OK", [("", "1")]),
        "hop by hop": ("200 OK", [("Connection", "keep-alive")]),
        "tuple": ("200 OK", tuple(TEXT)),
        "two lengths": ("200 OK", [("Content-Length", "3"), ("Content-Length", "5")]),
        "length": ("200 OK", [("Content-Length", "-1")]),
    }
    status, headers = starts[environ["QUERY_STRING"].replace("%20", " ")]
    try:
        start_response(status, headers)
        notes("start", "taken")
    except Exception as error:
        notes("start", type(error).__name__)
        raise
    return [b"one"]


def refusal(server: RunningServer, kind: str) -> tuple[str, bytes]:
    """Return the note on a bad call of start_response, and the bytes that the client got."""
    exchange = server.exchange(bad_start).request(target=f"/?{kind.replace(' ', '%20')}")
    raw = exchange.client.rest()
    return exchange.value("start"), raw


@clause("P3333-095")
@pytest.mark.parametrize("kind", ["int", "bytes", "no code", "two digits"])
def test_a_malformed_status_is_refused(server: RunningServer, kind: str) -> None:
    """start_response raises for a malformed status at once, so that the traceback shows the place."""
    assert refusal(server, kind)[0] != "taken"


@clause("P3333-101")
@pytest.mark.parametrize("kind", ["value lf", "value nul", "value bytes", "name lf", "name empty"])
def test_a_malformed_header_is_refused(server: RunningServer, kind: str) -> None:
    """start_response raises for a malformed header."""
    assert refusal(server, kind)[0] != "taken"


@clause("RFC9110-003")
@pytest.mark.parametrize("kind", ["status lf", "value lf", "value nul", "name lf"])
def test_an_app_cannot_split_a_response(server: RunningServer, kind: str) -> None:
    """A CR, LF or NUL in the status or a header adds no line to the response, and no NUL is sent."""
    head = refusal(server, kind)[1].partition(b"\r\n\r\n")[0]
    assert b"\nX-Evil" not in head
    assert b"\x00" not in head


@clause("P3333-145")
@pytest.mark.parametrize("kind", ["status unicode", "value unicode"])
def test_text_beyond_latin_1_is_an_error(server: RunningServer, kind: str) -> None:
    """If the status or a header has a character above 0xFF, the client gets a 500 or nothing."""
    raw = refusal(server, kind)[1]
    assert raw.split(b"\r\n")[0].split(b" ")[1:2] in ([b"500"], [])


@clause("P3333-105")
def test_a_hop_by_hop_header_is_refused(server: RunningServer) -> None:
    """start_response raises for a hop-by-hop header, because only the server manages the connection."""
    assert refusal(server, "hop by hop")[0] != "taken"


@clause("P3333-127")
@pytest.mark.parametrize("kind", ["two lengths", "length"])
def test_a_length_is_one_number(server: RunningServer, kind: str) -> None:
    """A Content-Length that is repeated with another value, or is not a number, does not reach the client."""
    raw = refusal(server, kind)[1]
    lengths = [line for line in raw.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    assert b"-1" not in b"".join(lengths)
    assert len(set(lengths)) <= 1


# --- start_response --------------------------------------------------------------------------------


def starts_and_waits(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    write = start_response("200 OK", [*TEXT])
    notes("write", callable(write))
    if environ["QUERY_STRING"]:
        yield b""
    notes("started")
    notes.wait("go on")
    yield b"one"


@pytest.mark.parametrize(
    "target",
    [pytest.param("/", marks=clause("P3333-106")), pytest.param("/?empty", marks=clause("P3333-107", "P3333-108"))],
)
def test_headers_wait_for_the_first_block(server: RunningServer, target: str) -> None:
    """Neither start_response nor an empty block sends anything."""
    exchange = server.exchange(starts_and_waits).request(target=target)
    exchange.value("started")
    assert exchange.client.quiet()
    exchange.notes.open("go on")
    assert exchange.response().body == b"one"


@clause("P3333-016", "P3333-018", "P3333-098")
def test_start_response_returns_write(server: RunningServer) -> None:
    """start_response takes two arguments by position, and returns a callable."""
    exchange = server.exchange(starts_and_waits)
    exchange.notes.open("go on")
    exchange.request().response()
    assert exchange.value("write") is True


def starts_in_the_iteration(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    if environ["QUERY_STRING"]:
        yield b""
    start_response("201 Created", [*TEXT])
    yield b"one"


@pytest.mark.parametrize(
    "target", [pytest.param("/", marks=clause("P3333-039")), pytest.param("/?empty", marks=clause("P3333-040"))]
)
def test_a_response_may_start_in_the_iteration(server: RunningServer, target: str) -> None:
    """The app may call start_response during the iteration, even after an empty block."""
    response, _ = server.get(starts_in_the_iteration, target)
    assert (response.status, response.body) == (201, b"one")


def changes_its_mind(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    start_response("200 OK", [("X-Old", "1"), *SIX])
    try:
        raise ValueError("an error that the app handles")
    except ValueError:
        start_response("503 Service Unavailable", [("X-New", "1"), *TEXT], sys.exc_info())
    return [b"sorry, not now"]


@clause("P3333-109", "P3333-127")
def test_an_error_replaces_what_was_not_sent(server: RunningServer) -> None:
    """start_response with exc_info replaces a status, headers and Content-Length that were not sent yet."""
    response, _ = server.get(changes_its_mind)
    assert (response.status, response.body) == (503, b"sorry, not now")
    assert (response.values("x-old"), response.values("x-new")) == ([], ["1"])


def error_after_a_block(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    start_response("200 OK", [*TEXT])
    yield b"one"
    try:
        raise ValueError("this app raises on purpose")
    except ValueError as error:
        try:
            start_response("500 Internal Server Error", [*TEXT], sys.exc_info())
            notes("start", "taken")
        except BaseException as raised:
            notes("start", type(raised).__name__)
            notes("same", raised is error)
            raise
    yield b"two"


@clause("P3333-110", "P3333-111")
def test_an_error_after_a_block_is_raised_again(server: RunningServer) -> None:
    """After a block was sent, start_response with exc_info raises that very exception."""
    exchange = server.exchange(error_after_a_block).request()
    exchange.client.rest()
    assert exchange.value("start") != "taken"
    assert exchange.value("same") is True


@clause("P3333-112", "P3333-151")
def test_a_response_that_breaks_off_does_not_look_whole(server: RunningServer) -> None:
    """If the app fails after a block, the last chunk is missing, or the body is shorter than Content-Length."""
    exchange = server.exchange(error_after_a_block).request(close=False)
    with contextlib.suppress(AssertionError):
        response = exchange.response()
        framed = response.values("transfer-encoding") or response.values("content-length")
        assert not response.complete or not framed
        return
    assert exchange.client.ended


def starts_twice(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    start_response("200 OK", [*TEXT])
    try:
        start_response("201 Created", [*TEXT], *([None] if environ["QUERY_STRING"] else []))
        notes("start", "taken")
    except BaseException as error:
        notes("start", type(error).__name__)
        raise
    return [b"one"]


@clause("P3333-116", "P3333-119")
@pytest.mark.parametrize("target", ["/", "/?none"])
def test_a_second_start_is_an_error(server: RunningServer, target: str) -> None:
    """A second call of start_response raises if exc_info is missing or None."""
    exchange = server.exchange(starts_twice).request(target=target)
    exchange.client.rest()
    assert exchange.value("start") != "taken"


def first_with_error(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    try:
        raise ValueError("an error that the app handles")
    except ValueError:
        start_response("503 Service Unavailable", [*TEXT], sys.exc_info())
    return [b"one"]


@clause("P3333-113", "P3333-119")
def test_the_first_start_may_be_for_an_error(server: RunningServer) -> None:
    """The first call of start_response may have exc_info, and starts a response like any other."""
    response, _ = server.get(first_with_error)
    assert (response.status, response.body) == (503, b"one")


def never_starts(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    return [b"one"] if environ["QUERY_STRING"] else []


@clause("P3333-155")
@pytest.mark.parametrize("target", ["/", "/?block"])
def test_a_response_must_be_started(server: RunningServer, target: str) -> None:
    """If the app never calls start_response, the client gets a 500 or the server hangs up."""
    exchange = server.exchange(never_starts).request(target=target)
    raw = exchange.client.rest()
    assert raw == b"" or raw.split(b" ")[1] == b"500"


# --- Errors, and the end of things ------------------------------------------------------------------


def ends_the_process(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    raise {"exit": SystemExit, "interrupt": KeyboardInterrupt, "generator": GeneratorExit}[environ["QUERY_STRING"]]


@clause("P3333-156")
@pytest.mark.parametrize("kind", ["exit", "interrupt", "generator"])
def test_an_app_that_would_end_the_process_ends_its_request(server: RunningServer, kind: str) -> None:
    """If the app raises SystemExit or the like, its client does not wait for ever, and later requests are served."""
    exchange = server.exchange(ends_the_process).request(target=f"/?{kind}")
    exchange.client.rest()
    end = time.monotonic() + server.deadline
    while True:
        try:
            assert server.get(seen)[0].status == 200
            return
        except (OSError, AssertionError):
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def threads(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    def here() -> int:
        return int(sys.modules["threading"].get_ident())

    class InOneThread:
        def __iter__(self) -> Iterator[bytes]:
            notes("thread", here())
            yield b"one"
            notes("thread", here())

        def close(self) -> None:
            notes("thread", here())
            notes("closed")

    notes("thread", here())
    start_response("200 OK", [*TEXT])
    return InOneThread()


@clause("CONV-015")
def test_a_request_stays_in_one_thread(server: RunningServer) -> None:
    """The call, the iteration and close() run in the same thread."""
    exchange = server.exchange(threads).request()
    assert exchange.response().body == b"one"
    exchange.value("closed")
    assert len(set(exchange.values("thread"))) == 1


@clause("CONV-017")
def test_sigterm_ends_the_server(start: Any) -> None:
    """On SIGTERM, the server's process ends."""
    with start() as server:
        server.get(seen)
        server.terminate()
        server.until_exited()
