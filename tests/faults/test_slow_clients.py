"""Clients that read or write slowly, or pause: only they wait, and they get whole responses."""

import contextlib
import http.client
from pathlib import Path

import pytest

from tests.faults.clients import SOON, Idle, ask, request_head, runs_of, status_of, wait_until_idle
from tests.faults.conftest import Kind
from tests.faults.ledger import BLOCK_SIZE, block_of
from tests.processes import Server, wait_until
from tests.sockets import read_until, reset

BLOCKS = 512
TEXT = b"one byte at a time"


def memory_peak(server: Server) -> int:
    """Return the peak of the server's resident memory, in bytes."""
    status = Path(f"/proc/{status_of(server)['pid']}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def serves_others(server: Server, server_kind: Kind) -> bool:
    return server_kind.parallel == 1 or ask(server, "/hello", 9) == (200, "9", b"hello")


def test_slow_readers(server: Server, server_kind: Kind, idle: Idle) -> None:
    """The app waits with downloads of 32 MiB that nobody reads, and they are whole when they are read later."""
    readers = [
        http.client.HTTPConnection("127.0.0.1", server.port, timeout=SOON) for _ in range(server_kind.parallel // 2)
    ]
    before = memory_peak(server)
    for number, reader in enumerate(readers, 1):
        reader.request("GET", f"/download/{BLOCKS}", headers={"X-Number": str(number)})
    wait_until(lambda: status_of(server)["running"] == len(readers), SOON, "all downloads")
    assert serves_others(server, server_kind)
    for number, reader in enumerate(readers, 1):
        with reader.getresponse() as response:
            for _ in range(BLOCKS):
                assert response.read(BLOCK_SIZE) == block_of(number)
            assert response.read() == b""
        reader.close()
        assert serves_others(server, server_kind)
    assert memory_peak(server) - before < BLOCKS * BLOCK_SIZE / 2
    wait_until_idle(server, idle)


@pytest.mark.parametrize("framing", [f"Content-Length: {len(TEXT)}", "Transfer-Encoding: chunked"])
def test_slow_writers(server: Server, server_kind: Kind, idle: Idle, framing: str) -> None:
    """Requests that arrive byte by byte, from the request line on, delay no others, and get whole responses."""
    if "chunked" in framing and not server_kind.takes_chunks:
        pytest.skip("takes no chunks")
    body = TEXT if "Length" in framing else b"".join(b"1\r\n%c\r\n" % byte for byte in TEXT) + b"0\r\n\r\n"
    writers = [server.connect() for _ in range(max(1, server_kind.parallel // 2))]
    requests = [
        request_head("/echo", framing, method="POST", number=number) + body for number, _ in enumerate(writers, 1)
    ]
    for position in range(len(requests[0])):
        for writer, request in zip(writers, requests, strict=True):
            writer.sendall(request[position : position + 1])
        if position % 20 == 0:
            assert serves_others(server, server_kind)
    for number, writer in enumerate(writers, 1):
        with writer:
            answer = read_until(writer, TEXT)
        assert answer.endswith(TEXT)
        assert b"\r\nx-number: %d\r\n" % number in answer.lower()
    wait_until_idle(server, idle)


def test_uploads_that_do_not_begin(server: Server, server_kind: Kind, idle: Idle) -> None:
    """Under an ASGI server, any number of clients occupy no thread before their bodies begin."""
    if server_kind.app != "wsgi_app":
        pytest.skip("a WSGI server calls the app before that")
    with contextlib.ExitStack() as stack:
        for _ in range(10 * server_kind.parallel):
            client = stack.enter_context(server.connect())
            client.sendall(request_head("/echo", "Content-Length: 10", method="POST"))
        assert serves_others(server, server_kind)
        assert status_of(server)["running"] == 0
    wait_until_idle(server, idle)


def test_aborted_uploads_in_numbers(server: Server, server_kind: Kind, idle: Idle) -> None:
    """Of 200 uploads that end early, anywhere, by FIN or RST, none runs twice, and nothing is left behind."""
    before, runs_before, numbers = len(server.output()), runs_of(server), range(1000, 1200)
    for number in numbers:
        framing = (
            "Transfer-Encoding: chunked" if number % 3 == 0 and server_kind.takes_chunks else "Content-Length: 200000"
        )
        client = server.connect()
        client.sendall(request_head("/echo", framing, method="POST", number=number))
        client.sendall(b"186a0\r\n" * ("chunked" in framing) + b"x" * (number * 7919 % 90_000))
        if number % 2:
            reset(client)
        else:
            client.close()
    wait_until_idle(server, idle)
    runs = runs_of(server)
    assert max(runs[number] - runs_before[number] for number in numbers) <= 1
    assert ask(server, "/echo", 1200, b"x" * 200_000) == (200, "1200", b"x" * 200_000)
    assert not server_kind.quiet or "Traceback" not in server.output()[before:]


def test_readers_that_leave_in_numbers(server: Server, server_kind: Kind, idle: Idle) -> None:
    """All of 100 downloads end that their clients abandon after some bytes."""
    before = len(server.output())
    for number in range(1, 101):
        client = server.connect()
        client.sendall(request_head("/download/1000", number=number))
        read_until(client, b"%08d" % number)
        if number % 2:
            reset(client)
        else:
            client.close()
    wait_until_idle(server, idle)
    assert not server_kind.quiet or "Traceback" not in server.output()[before:]
