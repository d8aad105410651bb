"""What a WSGI server makes of a response."""

import contextlib
import io
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.notes import Notes
from wsgi_asgi_conformance.serving import Exchange, RunningServer
from wsgi_asgi_conformance.types import Environ, StartResponse
from wsgi_asgi_conformance.wsgi_servers.test_environ import TEXT, seen

FILE = Path(__file__)
SIX = [*TEXT, ("Content-Length", "6")]


class Noting:
    """An iterable that notes what is done with it."""

    def __init__(self, notes: Notes, blocks: Iterable[Any], close_error: Exception | None = None) -> None:
        self._notes = notes
        self._iterator = iter(blocks)
        self._close_error = close_error

    def __iter__(self) -> "Noting":
        return self

    def __next__(self) -> Any:
        self._notes("next")
        block = next(self._iterator)
        if isinstance(block, Exception):
            raise block
        return block

    def close(self) -> None:
        self._notes("closed")
        if self._close_error is not None:
            raise self._close_error


def closed(exchange: Exchange) -> int:
    """Wait until the iterable is closed, and a little for it to be closed again; return how often it was."""
    exchange.value("closed")
    time.sleep(0.1)
    return len(exchange.values("closed"))


# --- The status and the headers --------------------------------------------------------------------


def status_of_the_path(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    status = environ["PATH_INFO"][1:]
    start_response(f"{status} Some Reason", [] if status in ("204", "304") else TEXT)
    return [] if status in ("204", "304") else [b"one"]


@clause("P3333-092")
@pytest.mark.parametrize("status", [200, 201, 299, 404, 418, 599])
def test_a_status_is_sent(server: RunningServer, status: int) -> None:
    """The client gets the app's reason phrase."""
    response, _ = server.get(status_of_the_path, f"/{status}")
    assert (response.status, response.reason, response.body) == (status, "Some Reason", b"one")


@clause("RFC9110-004")
@pytest.mark.parametrize("status", [204, 304])
def test_some_statuses_have_no_body(server: RunningServer, status: int) -> None:
    """Nothing follows the headers, not even chunks."""
    exchange = server.exchange(status_of_the_path).request(target=f"/{status}")
    raw = exchange.client.rest()
    assert raw.startswith(b"HTTP/1."), raw
    assert raw.partition(b"\r\n\r\n")[2] == b""


def sized(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    start_response("200 OK", SIX)
    return [b"onetwo"]


@clause("RFC3875-029", "RFC9110-004")
def test_a_response_to_head_has_no_body(server: RunningServer) -> None:
    """The headers are those of a GET, and no body follows."""
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
    """They arrive as the app gave them."""
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
    """Every octet is sent unchanged, encoded words are not decoded, and cookies are not joined."""
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
    """Call start_response as the query says, and note whether that is refused."""
    starts: dict[str, tuple[Any, Any]] = {
        "int": (200, TEXT),
        "bytes": (b"200 OK", TEXT),
        "no code": ("OK", TEXT),
        "two digits": ("20 OK", TEXT),
        "status lf": ("200 OK\r\nX-Evil: 1", TEXT),
        "status unicode": ("200 \u20ac", TEXT),
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
    """Return what start_response did with what is wrong, and what the client got."""
    exchange = server.exchange(bad_start).request(target=f"/?{kind.replace(' ', '%20')}")
    raw = exchange.client.rest()
    return exchange.value("start"), raw


@clause("P3333-095")
@pytest.mark.parametrize("kind", ["int", "bytes", "no code", "two digits"])
def test_a_malformed_status_is_refused(server: RunningServer, kind: str) -> None:
    """start_response raises while the app runs, so that the traceback shows the place."""
    assert refusal(server, kind)[0] != "taken"


@clause("P3333-101")
@pytest.mark.parametrize("kind", ["value lf", "value nul", "value bytes", "name lf", "name empty"])
def test_a_malformed_header_is_refused(server: RunningServer, kind: str) -> None:
    """start_response raises."""
    assert refusal(server, kind)[0] != "taken"


@clause("RFC9110-003")
@pytest.mark.parametrize("kind", ["status lf", "value lf", "value nul", "name lf"])
def test_an_app_cannot_split_a_response(server: RunningServer, kind: str) -> None:
    """The app cannot add a line, and no NUL is sent."""
    head = refusal(server, kind)[1].partition(b"\r\n\r\n")[0]
    assert b"\nX-Evil" not in head
    assert b"\x00" not in head


@clause("P3333-145")
@pytest.mark.parametrize("kind", ["status unicode", "value unicode"])
def test_text_beyond_latin_1_is_an_error(server: RunningServer, kind: str) -> None:
    """The client gets a 500 or nothing, but no question marks in place of letters."""
    raw = refusal(server, kind)[1]
    assert raw.split(b"\r\n")[0].split(b" ")[1:2] in ([b"500"], [])


@clause("P3333-105")
def test_a_hop_by_hop_header_is_refused(server: RunningServer) -> None:
    """Only the server manages the connection."""
    assert refusal(server, "hop by hop")[0] != "taken"


@clause("P3333-127")
@pytest.mark.parametrize("kind", ["two lengths", "length"])
def test_a_length_is_one_number(server: RunningServer, kind: str) -> None:
    """Values that differ, or are not numbers, do not reach the client."""
    raw = refusal(server, kind)[1]
    lengths = [line for line in raw.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    assert b"-1" not in b"".join(lengths)
    assert len(set(lengths)) <= 1


# --- start_response --------------------------------------------------------------------------------


def starts_and_waits(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    write = start_response("200 OK", TEXT)
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
    """It takes two arguments by position, and returns a callable."""
    exchange = server.exchange(starts_and_waits)
    exchange.notes.open("go on")
    exchange.request().response()
    assert exchange.value("write") is True


def starts_in_the_iteration(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    if environ["QUERY_STRING"]:
        yield b""
    start_response("201 Created", TEXT)
    yield b"one"


@pytest.mark.parametrize(
    "target", [pytest.param("/", marks=clause("P3333-039")), pytest.param("/?empty", marks=clause("P3333-040"))]
)
def test_a_response_may_start_in_the_iteration(server: RunningServer, target: str) -> None:
    """start_response may also be called after an empty block."""
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
    """The first status and headers, and their length, are dropped, and nothing is logged as an error."""
    response, _ = server.get(changes_its_mind)
    assert (response.status, response.body) == (503, b"sorry, not now")
    assert (response.values("x-old"), response.values("x-new")) == ([], ["1"])


def error_after_a_block(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    yield b"one"
    try:
        raise ValueError("this app raises on purpose")
    except ValueError as error:
        try:
            start_response("500 Internal Server Error", TEXT, sys.exc_info())
            notes("start", "taken")
        except BaseException as raised:
            notes("start", type(raised).__name__)
            notes("same", raised is error)
            raise
    yield b"two"


@clause("P3333-110", "P3333-111")
def test_an_error_after_a_block_is_raised_again(server: RunningServer) -> None:
    """start_response cannot take back what was sent, and raises the error itself."""
    exchange = server.exchange(error_after_a_block).request()
    exchange.client.rest()
    assert exchange.value("start") != "taken"
    assert exchange.value("same") is True


@clause("P3333-112", "P3333-151")
def test_a_response_that_breaks_off_does_not_look_whole(server: RunningServer) -> None:
    """The last chunk is missing, or fewer bytes arrive than Content-Length says."""
    exchange = server.exchange(error_after_a_block).request(close=False)
    with contextlib.suppress(AssertionError):
        response = exchange.response()
        framed = response.values("transfer-encoding") or response.values("content-length")
        assert not response.complete or not framed
        return
    assert exchange.client.ended


def starts_twice(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    try:
        start_response("201 Created", TEXT, *([None] if environ["QUERY_STRING"] else []))
        notes("start", "taken")
    except BaseException as error:
        notes("start", type(error).__name__)
        raise
    return [b"one"]


@clause("P3333-116", "P3333-119")
@pytest.mark.parametrize("target", ["/", "/?none"])
def test_a_second_start_is_an_error(server: RunningServer, target: str) -> None:
    """A second call needs exc_info, and None is not one."""
    exchange = server.exchange(starts_twice).request(target=target)
    exchange.client.rest()
    assert exchange.value("start") != "taken"


def first_with_error(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    try:
        raise ValueError("an error that the app handles")
    except ValueError:
        start_response("503 Service Unavailable", TEXT, sys.exc_info())
    return [b"one"]


@clause("P3333-113", "P3333-119")
def test_the_first_start_may_be_for_an_error(server: RunningServer) -> None:
    """It is a response like any other."""
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


# --- The iterable ----------------------------------------------------------------------------------


class OldIterable:
    def __getitem__(self, index: int) -> bytes:
        return [b"on", b"e"][index]


class Another:
    def __iter__(self) -> Iterator[bytes]:
        return iter([b"on", b"e"])


ITERABLES: dict[str, Callable[[], Any]] = {
    "list": lambda: [b"on", b"e"],
    "tuple": lambda: (b"on", b"e"),
    "generator": lambda: (block for block in (b"on", b"", b"e")),
    "iterator": lambda: iter([b"on", b"e"]),
    "instance": Another,
    "getitem": OldIterable,
    "file": lambda: io.BytesIO(b"one"),
}


def returns(environ: Environ, start_response: StartResponse, notes: Notes) -> Any:
    start_response("200 OK", TEXT)
    return ITERABLES[environ["QUERY_STRING"]]()


@clause("P3333-020", "P3333-027", "P3333-035", "P3333-023", "P3333-042", "P3333-125", "P3333-126")
@pytest.mark.parametrize("kind", ITERABLES)
def test_any_iterable_is_a_response(server: RunningServer, kind: str) -> None:
    """The iterable needs neither len() nor close()."""
    response, _ = server.get(returns, f"/?{kind}")
    assert (response.status, response.body, response.complete) == (200, b"one", True)


def wrong_iterable(environ: Environ, start_response: StartResponse, notes: Notes) -> Any:
    start_response("200 OK", TEXT)
    return {"none": None, "str": "one", "int": 1, "text": ["one"], "numbers": [1, 2]}[environ["QUERY_STRING"]]


@clause("P3333-022", "P3333-147")
@pytest.mark.parametrize("kind", ["none", "str", "int", "text", "numbers"])
def test_what_is_no_iterable_of_bytes_is_an_error(server: RunningServer, kind: str) -> None:
    """The client gets an error or the server hangs up, and sends none of it."""
    exchange = server.exchange(wrong_iterable).request(target=f"/?{kind}")
    raw = exchange.client.rest()
    assert b"one" not in raw.partition(b"\r\n\r\n")[2] or b" 500 " in raw.split(b"\r\n")[0]
    assert not raw.startswith(b"HTTP/1.1 200") or not raw.endswith(b"0\r\n\r\n")


def waits_between_blocks(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    yield b"one"
    notes("sent")
    notes.wait("go on")
    yield b"two"


@clause("P3333-021", "P3333-130")
def test_a_block_is_sent_before_the_next_is_made(server: RunningServer) -> None:
    """The client receives it, however long the app works on the next block."""
    exchange = server.exchange(waits_between_blocks).request()
    exchange.client.until(b"one")
    exchange.notes.open("go on")
    assert b"two" in exchange.client.rest()


def notes_its_end(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    return Noting(notes, [b"one", b"two"])


@clause("P3333-028", "P3333-032", "P3333-036")
def test_the_iterable_is_closed_at_its_end(server: RunningServer) -> None:
    """close() is called once, after the last block."""
    exchange = server.exchange(notes_its_end).request()
    assert exchange.response().body == b"onetwo"
    assert closed(exchange) == 1
    assert [key for key, _, _ in exchange.notes.read()][-1] == "closed"


def nothing(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    start_response("200 OK", [("X-One", "1"), *TEXT])
    return Noting(notes, [b"", b""] if environ["QUERY_STRING"] else [])


@clause("P3333-009", "P3333-028")
@pytest.mark.parametrize("target", ["/", "/?empty"])
def test_a_response_may_be_empty(server: RunningServer, target: str) -> None:
    """The client gets its status and headers."""
    exchange = server.exchange(nothing).request(target=target)
    response = exchange.response()
    assert (response.status, response.values("x-one"), response.body) == (200, ["1"], b"")
    assert closed(exchange) == 1


def raises_in_the_iteration(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    error = ValueError("this app raises on purpose")
    return Noting(notes, [b"one", error] if environ["QUERY_STRING"] else [error])


@clause("P3333-029", "P3333-032")
@pytest.mark.parametrize("target", ["/", "/?late"])
def test_the_iterable_is_closed_after_an_error(server: RunningServer, target: str) -> None:
    """close() is called once, wherever the app raises."""
    exchange = server.exchange(raises_in_the_iteration).request(target=target)
    exchange.client.rest()
    assert closed(exchange) == 1


@clause("P3333-150")
def test_an_error_is_logged(server: RunningServer) -> None:
    """The client gets a 500 if nothing was sent before."""
    exchange = server.exchange(raises_in_the_iteration).request()
    assert exchange.response().status == 500
    exchange.until(lambda: "this app raises on purpose" in server.output(), "the error in the log")


def endless(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    def blocks() -> Iterator[bytes]:
        for _ in range(2000):
            yield bytes(10_000)
            time.sleep(0.002)

    start_response("200 OK", TEXT)
    return Noting(notes, blocks())


@clause("P3333-030", "P3333-032")
def test_the_iterable_is_closed_when_the_client_leaves(server: RunningServer) -> None:
    """Iteration stops, and close() runs once."""
    exchange = server.exchange(endless).request()
    exchange.client.until(b"\r\n\r\n")
    exchange.client.reset()
    assert closed(exchange) == 1
    assert len(exchange.values("next")) < 2000


def close_raises(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    start_response("200 OK", [*TEXT, ("Content-Length", "3")])
    return Noting(notes, [b"one"], ValueError("this close() raises on purpose"))


@clause("P3333-033")
def test_a_close_that_fails_is_logged(server: RunningServer) -> None:
    """The client has its response, and the next request is served."""
    exchange = server.exchange(close_raises).request()
    assert exchange.response().body == b"one"
    exchange.until(lambda: "this close() raises on purpose" in server.output(), "the error in the log")
    assert server.get(seen)[0].status == 200


def too_long(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    start_response("200 OK", SIX)
    return Noting(notes, [b"one", b"two", b"three", *[b"more"] * 50])


@clause("P3333-121")
def test_a_body_is_no_longer_than_it_says(server: RunningServer) -> None:
    """The rest is not sent, because a client would take it for another response."""
    exchange = server.exchange(too_long).request(close=False)
    head = exchange.client.until(b"\r\n\r\n")
    exchange.value("closed")
    while exchange.client.fill(0.2):
        pass
    assert b"content-length: 6" in head.lower()
    assert exchange.client.unread == b"onetwo"


@clause("P3333-122", "P3333-031")
def test_iteration_stops_where_the_length_is_reached(server: RunningServer) -> None:
    """The server asks for at most one more block, and closes the iterable."""
    exchange = server.exchange(too_long).request()
    exchange.client.rest()
    assert closed(exchange) == 1
    assert len(exchange.values("next")) <= 4


def too_short(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    start_response("200 OK", SIX)
    return [b"one"]


@clause("P3333-124")
def test_a_body_that_is_too_short_does_not_look_whole(server: RunningServer) -> None:
    """The server closes the connection, so that no other response is taken for the rest."""
    exchange = server.exchange(too_short).request(close=False)
    try:
        response = exchange.response()
    except AssertionError as error:
        assert exchange.client.ended, error  # noqa: PT017  # it hung up, which is an answer
        return
    assert response.status == 500 or not response.complete


# --- write() ---------------------------------------------------------------------------------------


def writes(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    write = start_response("200 OK", TEXT)
    write(b"one")
    notes("written")
    notes.wait("go on")
    write(b"two")
    return [] if environ["QUERY_STRING"] else [b"three"]


@clause("P3333-135", "P3333-136", "P3333-137", "P3333-138")
@pytest.mark.parametrize(("target", "body"), [("/", b"onetwothree"), ("/?empty", b"onetwo")])
def test_what_is_written_comes_first(server: RunningServer, target: str, body: bytes) -> None:
    """The headers and the block are sent before write() returns, and the iterable's blocks follow."""
    exchange = server.exchange(writes).request(target=target)
    exchange.value("written")
    if b"one" not in exchange.client.unread:
        received = exchange.client.until(b"one")
        assert received.startswith(b"HTTP/1.")
        exchange.client.unread = received + exchange.client.unread
    exchange.notes.open("go on")
    assert exchange.response().body == body


def writes_wrongly(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    write: Any = start_response("200 OK", SIX if environ["QUERY_STRING"] else TEXT)
    try:
        write(b"onetwothree" if environ["QUERY_STRING"] else "one")
        notes("write", "taken")
    except Exception as error:
        notes("write", type(error).__name__)
        raise
    return []


@clause("P3333-139", "P3333-147")
def test_only_bytes_can_be_written(server: RunningServer) -> None:
    """write() raises for a str."""
    exchange = server.exchange(writes_wrongly).request()
    exchange.client.rest()
    assert exchange.value("write") != "taken"


@clause("P3333-123")
def test_writing_too_much_raises(server: RunningServer) -> None:
    """write() raises in the app as soon as the body exceeds its Content-Length."""
    exchange = server.exchange(writes_wrongly).request(target="/?length")
    exchange.client.rest()
    assert exchange.value("write") != "taken"


def writes_on(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    write = start_response("200 OK", TEXT)
    try:
        for _ in range(2000):
            write(bytes(10_000))
            time.sleep(0.002)
    finally:
        notes("over")
    return []


@clause("P3333-140")
def test_writing_to_nobody_does_not_hang(server: RunningServer) -> None:
    """write() raises or discards the data."""
    exchange = server.exchange(writes_on).request()
    exchange.client.until(b"\r\n\r\n")
    exchange.client.reset()
    exchange.value("over")


# --- Errors, and the end of things ------------------------------------------------------------------


def ends_the_process(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    raise {"exit": SystemExit, "interrupt": KeyboardInterrupt, "generator": GeneratorExit}[environ["QUERY_STRING"]]


@clause("P3333-156")
@pytest.mark.parametrize("kind", ["exit", "interrupt", "generator"])
def test_an_app_that_would_end_the_process_ends_its_request(server: RunningServer, kind: str) -> None:
    """The client does not wait for ever, and later requests are served."""
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
    start_response("200 OK", TEXT)
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
    """The process ends."""
    with start() as server:
        server.get(seen)
        server.terminate()
        server.until_exited()


# --- wsgi.file_wrapper -----------------------------------------------------------------------------


class OnlyReads:
    """As little of a file as PEP 3333 asks for."""

    def __init__(self, notes: Notes) -> None:
        self._stream = io.BytesIO(FILE.read_bytes())
        self._notes = notes

    def read(self, size: int = -1) -> bytes:
        self._notes("read")
        return self._stream.read(size)

    def close(self) -> None:
        self._notes("closed")


class RealFile(io.FileIO):
    def __init__(self, notes: Notes) -> None:
        super().__init__(FILE)
        self._notes = notes

    def close(self) -> None:
        if not self.closed:
            self._notes("closed")
        super().close()


def wraps(environ: Environ, start_response: StartResponse, notes: Notes) -> Any:
    wrapper = environ.get("wsgi.file_wrapper")
    notes("offered", wrapper is not None)
    start_response("200 OK", TEXT)
    if wrapper is None:
        return []
    kind = environ["QUERY_STRING"]
    if kind == "bytes":
        return wrapper(io.BytesIO(FILE.read_bytes()))
    stream: Any = RealFile(notes) if kind in ("file", "position") else OnlyReads(notes)
    if kind == "position":
        stream.seek(100)
    return wrapper(stream, 1000)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("file", marks=clause("P3333-170", "P3333-171", "P3333-175", "P3333-178")),
        pytest.param("read", marks=clause("P3333-172", "P3333-173")),
        pytest.param("bytes", marks=clause("P3333-177")),
        pytest.param("position", marks=clause("P3333-176")),
    ],
)
def test_a_file_is_sent(server: RunningServer, kind: str) -> None:
    """The server sends it from its position to its end, whatever kind of file it is."""
    exchange = server.exchange(wraps).request(target=f"/?{kind}")
    response = exchange.response()
    if not exchange.value("offered"):
        pytest.skip("wsgi.file_wrapper is not offered")
    assert response.body == FILE.read_bytes()[100 if kind == "position" else 0 :]
    assert response.complete


@clause("P3333-174")
@pytest.mark.parametrize("kind", ["file", "read"])
def test_a_file_is_closed(server: RunningServer, kind: str) -> None:
    """The server calls the wrapper's close() once the file was sent."""
    exchange = server.exchange(wraps).request(target=f"/?{kind}")
    exchange.response()
    if not exchange.value("offered"):
        pytest.skip("wsgi.file_wrapper is not offered")
    exchange.value("closed")
