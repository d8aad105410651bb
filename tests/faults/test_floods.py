"""Floods of headers, chunks, requests and connections."""

import contextlib
import socket

import pytest

from tests.faults.clients import Idle, ask, request_head, runs_of, wait_until_idle
from tests.faults.conftest import Kind
from tests.processes import Server
from tests.sockets import read_all

CLOSE = "Connection: close"
HEADERS = {
    "many": request_head("/hello", CLOSE, *[f"X-{number}: {number}" for number in range(20_000)]),
    "one name": request_head("/hello", CLOSE, *["X-A: a"] * 20_000),
    "cookies": request_head("/hello", CLOSE, *["Cookie: a=b"] * 20_000),
    "lengths": request_head("/hello", CLOSE, *["Content-Length: 5"] * 1000) + b"hello",
    "a long name": request_head("/hello", CLOSE, f"X-{'a' * 1_000_000}: a"),
    "a long value": request_head("/hello", CLOSE, f"X-A: {'a' * 1_000_000}"),
    "a long path": request_head(f"/hello/{'a' * 1_000_000}", CLOSE),
    "a long query": request_head(f"/hello?{'%' * 1_000_000}", CLOSE),
    "no end": b"GET /hello HTTP/1.1\r\nHost: a\r\n" + b"X-A: a\r\n" * 100_000,
    "a few": request_head("/hello", CLOSE, *[f"X-{number}: {number}" for number in range(50)]),
}


@pytest.mark.parametrize("flood", HEADERS)
def test_header_floods(server: Server, server_kind: Kind, idle: Idle, flood: str) -> None:
    """The server answers a flood of headers, or closes the connection, and answers the next request."""
    before = len(server.output())
    with server.connect() as client:
        with contextlib.suppress(OSError):  # the server may stop reading
            client.sendall(HEADERS[flood])
            if flood == "no end":
                client.shutdown(socket.SHUT_WR)
        answer = read_all(client)
    assert not answer or answer[9:12] in (b"200", b"400", b"413", b"414", b"431"), answer[:100]
    assert answer.startswith(b"HTTP/1.1 200 ") or flood != "a few"
    assert ask(server, "/hello", 1) == (200, "1", b"hello")
    wait_until_idle(server, idle)
    assert not server_kind.quiet or "Traceback" not in server.output()[before:]


def test_a_flood_of_chunks(server: Server, server_kind: Kind, idle: Idle) -> None:
    """A body of 50,000 chunks of one byte each arrives whole."""
    if not server_kind.takes_chunks:
        pytest.skip("takes no chunks")
    with server.connect() as client:
        client.sendall(request_head("/echo", "Transfer-Encoding: chunked", CLOSE, method="POST"))
        client.sendall(b"1\r\nx\r\n" * 50_000 + b"0\r\n\r\n")
        assert read_all(client).endswith(b"\r\n\r\n" + b"x" * 50_000)
    wait_until_idle(server, idle)


def test_requests_that_do_not_wait_for_answers(server: Server, server_kind: Kind, idle: Idle) -> None:
    """If 100 requests are sent at once on a connection, each is answered once, in their order."""
    if not server_kind.keeps_alive:
        pytest.skip("serves one request a connection")
    before, numbers = runs_of(server), range(4000, 4100)
    with server.connect() as client:
        client.sendall(b"".join(request_head("/hello", number=number) for number in numbers[:-1]))
        client.sendall(request_head("/hello", CLOSE, number=numbers[-1]))
        heads = read_all(client).lower().split(b"http/1.1 ")[1:]
    assert [int(head.partition(b"x-number: ")[2].split()[0]) for head in heads] == list(numbers)
    runs = runs_of(server)
    assert all(runs[number] - before[number] == 1 for number in numbers)
    wait_until_idle(server, idle)


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_connections_in_turn(server: Server, server_kind: Kind, idle: Idle, count: int) -> None:
    """As many connections as the server allows, with one request on each, leave nothing behind."""
    before, numbers = runs_of(server), range(10_000, 10_000 + count)
    for number in numbers:
        assert ask(server, "/hello", number) == (200, str(number), b"hello")
    runs = runs_of(server)
    assert all(runs[number] - before[number] == 1 for number in numbers)
    wait_until_idle(server, idle)
