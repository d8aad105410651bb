"""A client of real WSGI servers, and an app that obeys it."""

import contextlib
import http.client
import json
import os
import socket
import time
from collections import defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.processes import Server, wait_until
from tests.servers.wsgi_servers import GRACE, KINDS, Kind

APPS = "tests.servers.asgi_apps"
APP = f"{APPS}:wsgi_app"
# How long "at once" may take on a busy machine. The adapter checks once a second whether a client has left.
AT_ONCE = 0.9


def on(*names: str, where: Callable[[Kind], bool] = lambda kind: not kind.variant) -> pytest.MarkDecorator:
    """Run a test on the named servers, or on those for which `where` is true; by default on all but the variants."""
    kinds = [kind for kind in KINDS.values() if (kind.name in names if names else where(kind))]
    return pytest.mark.parametrize("kind", kinds, ids=lambda kind: kind.name, indirect=True)


def pid_of(server: Server) -> int:
    """Return the pid of a process that serves requests."""
    response = server.client.get("/hello", headers={"Connection": "close"})
    assert response.text == "hello"
    return int(response.headers["x-pid"])


def request_head(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "\r\n"]).encode("latin-1")


class Puppet:
    """The test's side of the `puppet` app: sends it orders, and receives how they ended."""

    def __init__(self) -> None:
        self._connection = socket.create_server(("127.0.0.1", 0))  # the listener, until the app connects
        self._connection.settimeout(10)
        self.path = f"/puppet/{self._connection.getsockname()[1]}"
        self._unread = b""
        self._replies: dict[str, deque[Any]] = defaultdict(deque)

    def wait(self) -> None:
        """Wait until the app has connected."""
        with self._connection as listener:
            self._connection, _ = listener.accept()
        self.pid: int = self.reply("pid")

    def close(self) -> None:
        self._connection.close()

    def tell(self, name: str, **message: Any) -> None:
        """Send an order without waiting for its end."""
        if "body" in message:
            message["body"] = message["body"].decode("latin-1")
        self._connection.sendall(json.dumps([name, message]).encode() + b"\n")

    def reply(self, name: str, timeout: float = 10.0) -> Any:
        """Return how an order ended. Raises TimeoutError, and EOFError if the app has ended."""
        deadline = time.monotonic() + timeout
        while not self._replies[name]:
            while b"\n" not in self._unread:
                self._connection.settimeout(max(deadline - time.monotonic(), 0.001))
                block = self._connection.recv(65536)
                if not block:
                    raise EOFError("the app is gone")
                self._unread += block
            line, _, self._unread = self._unread.partition(b"\n")
            replied, result = json.loads(line)
            self._replies[replied].append(result)
        return self._replies[name].popleft()

    def start(self) -> None:
        self.tell("send", type="http.response.start", status=200, headers=[])
        assert self.reply("send") is None

    def send(self, body: bytes, more_body: bool = True) -> Any:
        self.tell("send", type="http.response.body", body=body, more_body=more_body)
        return self.reply("send")

    def receive(self) -> Any:
        self.tell("receive")
        return self.reply("receive")


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def assert_idle(pid: int) -> None:
    """Check for half a second that the process uses no CPU."""
    before = cpu_seconds(pid)
    time.sleep(0.5)
    assert cpu_seconds(pid) - before < 0.15


def assert_every_worker_answers(kind: Kind, server: Server) -> None:
    pids: set[int] = set()

    def all_have_answered() -> bool:
        pids.add(pid_of(server))
        return len(pids) == kind.workers

    wait_until(all_have_answered)


def outcome(server: Server, path: str, timeout: float = AT_ONCE) -> str:
    """Return how a client sees the response: "error", "cut" or the body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    start = time.monotonic()
    with contextlib.closing(connection):
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            response = connection.getresponse()
            body = response.read().decode()
        except (http.client.HTTPException, ConnectionError):
            response, body = None, "cut"
    assert time.monotonic() - start < timeout
    return "error" if response is not None and response.status >= 500 else body


def end(server: Server) -> None:
    """Stop the server, and check that the app has shut down in each process that serves."""
    pid = pid_of(server)
    assert server.stop() < GRACE + 2
    wait_until(lambda: f"shutdown of {pid}" in server.output(), GRACE)  # Apache does not wait for Passenger
