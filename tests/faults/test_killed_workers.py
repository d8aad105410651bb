"""Worker processes killed by SIGKILL: only their requests are lost, and the server goes on."""

import contextlib
import functools
import http.client
import os
import signal
from collections.abc import Iterator

import pytest

from tests.faults.clients import SOON, ask, listening, request_head, status_of
from tests.faults.conftest import Kind
from tests.processes import Server, serving, wait_until
from tests.sockets import read_all, read_until

WORKERS = 2


@pytest.fixture
def two_workers(server_kind: Kind) -> Iterator[Server]:
    """Return a server with two worker processes, both of which have answered."""
    if not server_kind.restarts:
        pytest.skip("ends where a worker has died")
    command = [*server_kind.command[:-1], server_kind.workers, str(WORKERS), server_kind.command[-1]]
    if server_kind.name == "uwsgi":  # the last two arguments are an option and its value
        command = [*server_kind.command, server_kind.workers, str(WORKERS)]
    with serving(command) as server:
        wait_until(lambda: len(pids(server)) == WORKERS, SOON, "two workers")
        yield server


def all_serve(server: Server, victim: int) -> bool:
    return len(pids(server) - {victim}) == WORKERS


def pids(server: Server) -> set[int]:
    """Return the pids of the processes that answer some requests."""
    found = set()
    for _ in range(4 * WORKERS):
        with contextlib.suppress(OSError, http.client.HTTPException):
            found.add(status_of(server)["pid"])
    return found


def test_killed_workers(two_workers: Server, server_kind: Kind) -> None:
    """The connections of a killed worker's clients end; all other clients, old and new, get their answers."""
    server = two_workers
    for _ in range(2):
        with listening() as (listener, port), contextlib.ExitStack() as stack:
            clients, held = {}, {}
            for number in range(1, max(2, server_kind.parallel)):
                clients[number] = stack.enter_context(server.connect())
                clients[number].sendall(request_head(f"/hold/{port}", number=number))
            for _ in clients:
                connection = stack.enter_context(listener.accept()[0])
                number, pid = map(int, read_until(connection, b"\n").split())
                held[number] = pid, connection
            victim = held[1][0]
            os.kill(victim, signal.SIGKILL)
            assert ask(server, "/hello", 5) == (200, "5", b"hello")
            for number, (pid, connection) in held.items():
                if pid == victim:
                    assert read_all(clients[number]) == b""
                else:
                    connection.close()
                    assert b"\r\nx-number: %d\r\n" % number in read_until(clients[number], b"held").lower()
        wait_until(functools.partial(all_serve, server, victim), SOON, "a new worker")
