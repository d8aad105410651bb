"""Real servers as child processes, on free ports of the loopback interface."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent


def free_port() -> int:
    """Return a port on which nobody is listening now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait_until(condition: Callable[[], object], timeout: float = 10.0, what: str = "the condition") -> None:
    """Wait until `condition` is true, for processes that set no event; fail after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout:g} s for {what}"
        time.sleep(0.01)


def run_script(script: str, timeout: float = 20) -> str:
    """Run a Python script in a process of its own, and return what it prints."""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, timeout=timeout, cwd=ROOT, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


class Server:
    """A server process that has answered its first connection, and a client for it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False)

    def output(self) -> str:
        """Return all that the server has written to stdout and stderr so far."""
        return self.log.read_text(errors="replace")

    def connect(self) -> socket.socket:
        """Return a plain connection to the server, with a timeout of 20 s."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def stop(self, timeout: float = 20.0) -> float:
        """Send SIGTERM, wait for the exit, and return the seconds it took."""
        start = time.monotonic()
        self.process.terminate()
        self.process.wait(timeout)
        return time.monotonic() - start


@contextlib.contextmanager
def serving(
    command: Sequence[str],
    *,
    cwd: Path = ROOT,
    env: dict[str, str] | None = None,
    timeout: float = 30.0,
    port: int | None = None,
) -> Iterator[Server]:
    """Run `command` with `{port}` and `{python}` filled in, as a process group of its own, and end it afterwards.

    The port is a free one, unless `port` names the one on which the server will listen.

    Yields once the port accepts connections.
    """
    port = port or free_port()
    argv = [part.format(port=port, python=sys.executable) for part in command]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                argv,
                cwd=cwd,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        server = Server(process, port, log)
        try:
            deadline = time.monotonic() + timeout
            while True:
                assert process.poll() is None, f"{argv} ended with {process.returncode}:\n{server.output()}"
                assert time.monotonic() < deadline, f"{argv} does not listen:\n{server.output()}"
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                time.sleep(0.02)
            yield server
        finally:
            server.client.close()
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the group: workers may outlive their master
            process.wait()
