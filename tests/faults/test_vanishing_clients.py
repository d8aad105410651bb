"""Clients that vanish at every stage of a request: nothing is left behind, and others are served."""

import socket
from typing import NamedTuple

import pytest

from tests.faults.clients import SOON, Idle, ask, request_head, status_of, wait_until_idle
from tests.faults.conftest import Kind
from tests.processes import Server, wait_until
from tests.sockets import read_until, reset


class Stage(NamedTuple):
    """How far a client gets: what it sends, what it reads, and whether the app already runs."""

    sent: bytes = b""
    read: bytes = b""
    runs: bool = False


CHUNKED = "Transfer-Encoding: chunked"
STAGES = {
    "after connecting": Stage(),
    "in the request line": Stage(b"GET /hel"),
    "in the headers": Stage(b"GET /hello HTTP/1.1\r\nHost: a\r\nX-A: "),
    "after the headers": Stage(request_head("/echo", "Content-Length: 100000", method="POST")),
    "in the body": Stage(request_head("/echo", "Content-Length: 100000", method="POST") + b"x" * 5000, runs=True),
    "in a chunk": Stage(request_head("/echo", CHUNKED, method="POST") + b"5\r\nhello\r\n1000\r\nx", runs=True),
    "between chunks": Stage(request_head("/echo", CHUNKED, method="POST") + b"5\r\nhello\r\n", runs=True),
    "before the response": Stage(request_head("/wait"), runs=True),
    "behind the body": Stage(request_head("/wait", "Content-Length: 5", method="POST") + b"hello", runs=True),
    "in the response": Stage(request_head("/download/1000"), b"0" * 1000, runs=True),
    "in an event stream": Stage(request_head("/events"), b"tick", runs=True),
}
ENDINGS = {"by FIN": socket.socket.close, "by RST": reset}


def clients_at(stage: Stage, server: Server, server_kind: Kind) -> list[socket.socket]:
    """Return clients that have reached `stage`, half as many as the server serves at once."""
    empty = b"chunked" in stage.sent and not server_kind.takes_chunks  # so the app's run ends at once
    clients = [server.connect() for _ in range(max(1, server_kind.parallel // 2))]
    for client in clients:
        client.sendall(stage.sent)
    for client in clients:
        if stage.read:
            read_until(client, stage.read)
    if stage.runs and server_kind.parallel > 1 and not empty:
        wait_until(lambda: status_of(server)["running"] == len(clients), SOON, f"{len(clients)} runs of the app")
    return clients


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("stage", STAGES)
def test_clients_that_vanish(server: Server, server_kind: Kind, idle: Idle, stage: str, ending: str) -> None:
    """No run, task, thread or descriptor is left, the log has no error, and the next client is served."""
    before = len(server.output())
    for client in clients_at(STAGES[stage], server, server_kind):
        ENDINGS[ending](client)
    wait_until_idle(server, idle)
    assert ask(server, "/hello", 7) == (200, "7", b"hello")
    assert not server_kind.quiet or "Traceback" not in server.output()[before:]


@pytest.mark.parametrize("stage", STAGES)
def test_clients_that_fall_silent(server: Server, server_kind: Kind, idle: Idle, stage: str) -> None:
    """Clients that neither send nor read any more occupy their own share, but delay no others."""
    if server_kind.parallel == 1:
        pytest.skip("a single thread is held up, whatever it serves")
    clients = clients_at(STAGES[stage], server, server_kind)
    for number in range(1, 20):
        assert ask(server, "/hello", number) == (200, str(number), b"hello")
    for client in clients:
        client.close()
    wait_until_idle(server, idle)
