"""More requests than threads: late ones wait, and each is answered once."""

import contextlib
import socket
import threading

from tests.faults.clients import Idle, listening, request_head, runs_of, wait_until_idle
from tests.faults.conftest import Kind
from tests.processes import Server
from tests.sockets import read_until


def test_full_pool(server: Server, server_kind: Kind, idle: Idle) -> None:
    """While all threads are busy, any number of requests wait; those whose clients left run once at most."""
    before = runs_of(server)
    with listening() as (listener, port), contextlib.ExitStack() as stack:

        def client(number: int) -> socket.socket:
            connection = stack.enter_context(server.connect())
            connection.sendall(request_head(f"/hold/{port}", number=number))
            return connection

        def let_go() -> None:
            with contextlib.suppress(OSError):  # when the test is over
                while True:
                    listener.accept()[0].close()

        stay, leave = range(2000, 2000 + 3 * server_kind.parallel), range(3000, 3010)
        clients = {number: client(number) for number in stay[: server_kind.parallel]}
        held = [listener.accept()[0] for _ in clients]  # so all threads are busy
        clients.update({number: client(number) for number in stay[server_kind.parallel :]})
        for number in leave:
            client(number).close()
        for connection in held:
            connection.close()
        free = threading.Thread(target=let_go, daemon=True)
        free.start()
        for number, connection in clients.items():
            assert b"\r\nx-number: %d\r\n" % number in read_until(connection, b"held").lower()
    wait_until_idle(server, idle)
    runs = runs_of(server)
    assert all(runs[number] - before[number] == 1 for number in stay)
    assert all(runs[number] - before[number] <= 1 for number in leave)
