"""How a WSGI server iterates over a response, closes it, and sends what an app writes."""

import io
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.notes import Notes
from wsgi_asgi_conformance.serving import Exchange, RunningServer
from wsgi_asgi_conformance.types import Environ, StartResponse
from wsgi_asgi_conformance.wsgi_servers.test_environ import TEXT, seen

SIX = (*TEXT, ("Content-Length", "6"))


class Noting:
    """An iterable that notes each call of its methods."""

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
    start_response("200 OK", [*TEXT])
    return ITERABLES[environ["QUERY_STRING"]]()


@clause("P3333-020", "P3333-027", "P3333-035", "P3333-023", "P3333-042", "P3333-125", "P3333-126")
@pytest.mark.parametrize("kind", ITERABLES)
def test_any_iterable_is_a_response(server: RunningServer, kind: str) -> None:
    """A response may be any iterable of bytes, and needs neither len() nor close()."""
    response, _ = server.get(returns, f"/?{kind}")
    assert (response.status, response.body, response.complete) == (200, b"one", True)


def wrong_iterable(environ: Environ, start_response: StartResponse, notes: Notes) -> Any:
    start_response("200 OK", [*TEXT])
    return {"none": None, "str": "one", "int": 1, "text": ["one"], "numbers": [1, 2]}[environ["QUERY_STRING"]]


@clause("P3333-022", "P3333-147")
@pytest.mark.parametrize("kind", ["none", "str", "int", "text", "numbers"])
def test_what_is_no_iterable_of_bytes_is_an_error(server: RunningServer, kind: str) -> None:
    """If the app does not return an iterable of bytes, the client gets an error, or the server hangs up."""
    exchange = server.exchange(wrong_iterable).request(target=f"/?{kind}")
    raw = exchange.client.rest()
    assert b"one" not in raw.partition(b"\r\n\r\n")[2] or b" 500 " in raw.split(b"\r\n")[0]
    assert not raw.startswith(b"HTTP/1.1 200") or not raw.endswith(b"0\r\n\r\n")


def waits_between_blocks(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    start_response("200 OK", [*TEXT])
    yield b"one"
    notes("sent")
    notes.wait("go on")
    yield b"two"


@clause("P3333-021", "P3333-130")
def test_a_block_is_sent_before_the_next_is_made(server: RunningServer) -> None:
    """The client receives a block, however long the app works on the next one."""
    exchange = server.exchange(waits_between_blocks).request()
    exchange.client.until(b"one")
    exchange.notes.open("go on")
    assert b"two" in exchange.client.rest()


def notes_its_end(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    start_response("200 OK", [*TEXT])
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
    """If the app yields no data, the client gets the status and headers, and the iterable is closed."""
    exchange = server.exchange(nothing).request(target=target)
    response = exchange.response()
    assert (response.status, response.values("x-one"), response.body) == (200, ["1"], b"")
    assert closed(exchange) == 1


def raises_in_the_iteration(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    start_response("200 OK", [*TEXT])
    error = ValueError("this app raises on purpose")
    return Noting(notes, [b"one", error] if environ["QUERY_STRING"] else [error])


@clause("P3333-029", "P3333-032")
@pytest.mark.parametrize("target", ["/", "/?late"])
def test_the_iterable_is_closed_after_an_error(server: RunningServer, target: str) -> None:
    """If the iterable raises, at whichever block, close() is called once."""
    exchange = server.exchange(raises_in_the_iteration).request(target=target)
    exchange.client.rest()
    assert closed(exchange) == 1


@clause("P3333-150")
def test_an_error_is_logged(server: RunningServer) -> None:
    """The app's exception is logged, and the client gets a 500 if nothing was sent before."""
    exchange = server.exchange(raises_in_the_iteration).request()
    assert exchange.response().status == 500
    exchange.until(lambda: "this app raises on purpose" in server.output(), "the error in the log")


def endless(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    def blocks() -> Iterator[bytes]:
        for _ in range(2000):
            yield bytes(10_000)
            time.sleep(0.002)

    start_response("200 OK", [*TEXT])
    return Noting(notes, blocks())


@clause("P3333-030", "P3333-032")
def test_the_iterable_is_closed_when_the_client_leaves(server: RunningServer) -> None:
    """If the client leaves, the iteration stops, and close() is called once."""
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
    """If close() raises, the error is logged, the client has its response, and the next request is served."""
    exchange = server.exchange(close_raises).request()
    assert exchange.response().body == b"one"
    exchange.until(lambda: "this close() raises on purpose" in server.output(), "the error in the log")
    assert server.get(seen)[0].status == 200


def too_long(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    start_response("200 OK", [*SIX])
    return Noting(notes, [b"one", b"two", b"three", *[b"more"] * 50])


@clause("P3333-121")
def test_a_body_is_no_longer_than_it_says(server: RunningServer) -> None:
    """The server sends no bytes beyond Content-Length, which the client would take for another response."""
    exchange = server.exchange(too_long).request(close=False)
    head = exchange.client.until(b"\r\n\r\n")
    exchange.value("closed")
    while exchange.client.fill(0.2):
        pass
    assert b"content-length: 6" in head.lower()
    assert exchange.client.unread == b"onetwo"


@clause("P3333-122", "P3333-031")
def test_iteration_stops_where_the_length_is_reached(server: RunningServer) -> None:
    """When Content-Length is reached, the server asks for at most one more block, and closes the iterable."""
    exchange = server.exchange(too_long).request()
    exchange.client.rest()
    assert closed(exchange) == 1
    assert len(exchange.values("next")) <= 4


def too_short(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    start_response("200 OK", [*SIX])
    return [b"one"]


@clause("P3333-124")
def test_a_body_that_is_too_short_does_not_look_whole(server: RunningServer) -> None:
    """If the body is shorter than Content-Length, the server answers with a 500 or closes the connection."""
    exchange = server.exchange(too_short).request(close=False)
    try:
        response = exchange.response()
    except AssertionError as error:
        assert exchange.client.ended, error  # noqa: PT017  # it hung up, which is an answer
        return
    assert response.status == 500 or not response.complete


# --- write() ---------------------------------------------------------------------------------------


def writes(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    write = start_response("200 OK", [*TEXT])
    write(b"one")
    notes("written")
    notes.wait("go on")
    write(b"two")
    return [] if environ["QUERY_STRING"] else [b"three"]


@clause("P3333-135", "P3333-136", "P3333-137", "P3333-138")
@pytest.mark.parametrize(("target", "body"), [("/", b"onetwothree"), ("/?empty", b"onetwo")])
def test_what_is_written_comes_first(server: RunningServer, target: str, body: bytes) -> None:
    """write() sends the headers and its block before it returns, and the iterable's blocks follow."""
    exchange = server.exchange(writes).request(target=target)
    exchange.value("written")
    if b"one" not in exchange.client.unread:
        received = exchange.client.until(b"one")
        assert received.startswith(b"HTTP/1.")
        exchange.client.unread = received + exchange.client.unread
    exchange.notes.open("go on")
    assert exchange.response().body == body


def writes_wrongly(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    write: Any = start_response("200 OK", [*SIX] if environ["QUERY_STRING"] else [*TEXT])
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
    write = start_response("200 OK", [*TEXT])
    try:
        for _ in range(2000):
            write(bytes(10_000))
            time.sleep(0.002)
    finally:
        notes("over")
    return []


@clause("P3333-140")
def test_writing_to_nobody_does_not_hang(server: RunningServer) -> None:
    """If the client has left, write() does not hang, but raises or discards the data."""
    exchange = server.exchange(writes_on).request()
    exchange.client.until(b"\r\n\r\n")
    exchange.client.reset()
    exchange.value("over")
