"""A server under test: its process, its apps, and a test's exchanges with it."""

import contextlib
import itertools
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from wsgi_asgi_conformance.exchange import Hang
from wsgi_asgi_conformance.http_client import Client, Response
from wsgi_asgi_conformance.notes import FOLDER, Notes
from wsgi_asgi_conformance.processes import child_environ

# How long a server may take to listen, and to end after SIGTERM, in seconds.
START = 30.0
_STOP = 15.0
# How many bytes of each message a report shows.
_SHOWN = 400
# The headers that tell the app which function serves the request, and where its notes go.
APP, NOTE = "X-Conformance-App", "X-Conformance-Note"
LIFESPAN = "WSGI_ASGI_CONFORMANCE_LIFESPAN"

_numbers = itertools.count()


class DidNotStart(AssertionError):
    """Raised if the server exits, or does not answer in time."""


def free_port() -> int:
    """Return a port that is free at the moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Exchange:
    """One request, or one WebSocket: a client, and the app's notes about it."""

    def __init__(self, server: "RunningServer", app: str) -> None:
        self.server = server
        self.notes = Notes(f"{os.getpid()}-{next(_numbers)}", server.folder)
        self.headers: list[tuple[str, str | bytes]] = [(APP, app), (NOTE, self.notes._gates.name)]
        self.client = Client(server.port, server.deadline)

    def request(
        self,
        method: str = "GET",
        target: str | bytes = "/",
        headers: list[tuple[str, str | bytes]] | None = None,
        body: bytes | None = None,
        **how: Any,
    ) -> Self:
        """Send a request for the app."""
        self.client.request(method, target, [*(headers or ()), *self.headers], body, **how)
        return self

    def response(self, method: str = "GET") -> Response:
        """Read the response."""
        return self.client.response(method)

    def values(self, key: str) -> list[Any]:
        """Return the values of all notes so far with a key."""
        return [value for name, value, _ in self.notes.read() if name == key]

    def value(self, key: str, count: int = 1) -> Any:
        """Wait for the `count`-th note with a key, and return its value. Raises Hang at the deadline."""
        self.until(lambda: len(self.values(key)) >= count, f"{key!r} number {count}")
        return self.values(key)[count - 1]

    def until(self, condition: Callable[[], object], what: str) -> Self:
        """Wait until a condition holds. Raises Hang at the deadline."""
        end = time.monotonic() + self.server.deadline
        while not condition():
            if time.monotonic() > end:
                noted = " ".join(str(key) for key, _, _ in self.notes.read()[-20:])
                raise Hang(f"waited {self.server.deadline:g} s for {what}; the app noted: {noted or 'nothing'}")
            time.sleep(0.005)
        return self

    def handshake(self, target: str = "/", *more: tuple[str, str], leave_out: tuple[str, ...] = ()) -> Self:
        """Send the opening handshake of a WebSocket for the app."""
        self.client.handshake(target, *((k, str(v)) for k, v in self.headers), *more, leave_out=leave_out)
        return self


class RunningServer:
    """A server process that listens."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, folder: Path, log: Path, deadline: float) -> None:
        self.process = process
        self.port = port
        self.folder = folder
        self.deadline = deadline
        self._log = log
        self._exchanges: list[Exchange] = []

    def exchange(self, app: str | Callable[..., Any]) -> Exchange:
        """Connect for a request that `app` serves: a function of a test's module, or its name."""
        self._exchanges.append(Exchange(self, app if isinstance(app, str) else name_of(app)))
        return self._exchanges[-1]

    def get(self, app: Callable[..., Any], target: str | bytes = "/", **how: Any) -> tuple[Response, Exchange]:
        """Send a request and read its response."""
        exchange = self.exchange(app).request(how.pop("method", "GET"), target, **how)
        return exchange.response(), exchange

    def lifespan(self) -> list[tuple[str, Any, int]]:
        """Return the app's notes about its lifespans."""
        return Notes("lifespan", self.folder).read()

    def output(self) -> str:
        """Return what the server has written to stdout and stderr so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wire(self) -> str:
        """Return what the last client and the server sent, line by line, without the headers that name the app."""
        if not self._exchanges:
            return ""
        blocks = itertools.groupby(self._exchanges[-1].client.wire, key=lambda block: block[0])
        lines = []
        for sign, group in blocks:
            data = b"".join(block for _, block in group)
            data = b"\r\n".join(line for line in data.split(b"\r\n") if not line.startswith(b"X-Conformance-"))
            lines.append(f"{sign} {data[:_SHOWN]!r}{' ...' if len(data) > _SHOWN else ''}")
        ended = self._exchanges[-1].client.ended
        return "\n".join([*lines[:6], *(["< (closed)"] if ended else [])])

    def hang_up(self) -> None:
        """Close the connections that tests have left open."""
        for exchange in self._exchanges:
            exchange.client.close()
        self._exchanges.clear()

    def terminate(self) -> None:
        """Send SIGTERM, as a supervisor does."""
        self.process.terminate()

    def until_exited(self) -> int:
        """Wait until the process has ended; return its status."""
        try:
            return self.process.wait(_STOP)
        except subprocess.TimeoutExpired:
            raise Hang(f"the server did not end within {_STOP:g} s of SIGTERM") from None


def name_of(app: Callable[..., Any]) -> str:
    """Return the name by which the server's process finds the app."""
    return f"{app.__module__}:{app.__qualname__}"


@contextlib.contextmanager
def running(
    command: str, app: str, deadline: float, lifespan: str | None = None, wait: bool = True
) -> Iterator[RunningServer]:
    """Run a server's command, with {app}, {port} and the like filled in, as a process group.

    Yields when the server answers, or at once without `wait`. Raises DidNotStart.
    """
    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        names = {"app": app, "port": port, "python": sys.executable, "folder": folder}
        names["module"], _, names["attribute"] = app.partition(":")
        argv = [part.format(**names) for part in shlex.split(command)]
        variables = {FOLDER: name, "PYTHONUNBUFFERED": "1"} | ({LIFESPAN: lifespan} if lifespan else {})
        log = folder / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                argv,
                env=child_environ(**variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        server = RunningServer(process, port, folder, log, deadline)
        try:
            if wait:
                _until_answering(server, argv)
            yield server
        finally:
            server.hang_up()
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the group: workers may outlive their master
            process.wait()


def _until_answering(server: RunningServer, argv: list[str]) -> None:
    end = time.monotonic() + START
    while True:
        if server.process.poll() is not None:
            raise DidNotStart(f"{shlex.join(argv)} ended with {server.process.returncode}:\n{server.output()[-3000:]}")
        if time.monotonic() > end:
            raise DidNotStart(f"{shlex.join(argv)} does not answer on port {server.port}:\n{server.output()[-3000:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=2) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n")
            if client.recv(1):  # some servers drop the connections that come before they are ready
                return
        time.sleep(0.02)
