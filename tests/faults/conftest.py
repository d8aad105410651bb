"""The servers of these tests: one for each direction, and with `--all-servers` those that behave differently."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults.clients import Idle, idle_of
from tests.processes import Server, serving

ASGI_APP, WSGI_APP = "tests.faults.wsgi_app:asgi_app", "tests.faults.asgi_app:wsgi_app"


class Kind(NamedTuple):
    """One way to run a server: how many requests it serves at once, how to get more workers, and what it can do."""

    name: str
    command: tuple[str, ...]
    parallel: int = 8
    optional: str | None = None
    workers: str = "--workers"
    keeps_alive: bool = True  # serves several requests on one connection
    takes_chunks: bool = True  # accepts chunked requests, and sends chunked responses
    quiet: bool = True  # logs no error if a client has left
    answers_errors: bool = True  # answers 500 if an app raises, instead of hanging up
    restarts: bool = True  # replaces a worker that died

    @property
    def app(self) -> str:
        """The name of the app's module, which stands for the direction."""
        return "wsgi_app" if ASGI_APP in self.command else "asgi_app"


def _gunicorn(name: str, *options: str, parallel: int, keeps_alive: bool = True) -> Kind:
    command = ("{python}", "-m", "gunicorn", "--bind", "127.0.0.1:{port}", "--keep-alive", "75", *options, WSGI_APP)
    return Kind(name, command, parallel, keeps_alive=keeps_alive)


_UVICORN = ("{python}", "-m", "uvicorn", "--port", "{port}", "--log-level", "warning", "--timeout-keep-alive", "75")
# It notices that a client left before its first request only when its keep-alive time has passed.
_HYPERCORN = ("{python}", "-m", "hypercorn", "-b", "127.0.0.1:{port}", "--keep-alive", "2")
_UWSGI = (
    *(str(Path(sys.executable).parent / "uwsgi"), "--http-socket", "127.0.0.1:{port}", "--home", sys.prefix),
    *("--master", "--need-app", "--die-on-term", "--threads", "8", "--module", WSGI_APP),
)
UVICORN = Kind("uvicorn", (*_UVICORN, ASGI_APP))
GUNICORN = _gunicorn("gunicorn-gthread", "-k", "gthread", "--threads", "8", parallel=8)
CORE = (UVICORN, GUNICORN)
OTHERS = (
    Kind("uvicorn-h11", (*_UVICORN, "--http", "h11", ASGI_APP)),
    Kind("hypercorn", (*_HYPERCORN, ASGI_APP), optional="hypercorn", restarts=False),
    _gunicorn("gunicorn-sync", parallel=1, keeps_alive=False),
    Kind(
        "uwsgi",
        _UWSGI,
        optional="uwsgidecorators",
        workers="--processes",
        keeps_alive=False,
        takes_chunks=False,
        quiet=False,
        answers_errors=False,
    ),
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on each kind of server that it can be run on."""
    if "server_kind" in metafunc.fixturenames:
        kinds = [*CORE, *OTHERS] if metafunc.config.getoption("--all-servers") else CORE
        metafunc.parametrize("server_kind", kinds, ids=lambda kind: kind.name, scope="module")


@pytest.fixture(scope="module")
def server(server_kind: Kind) -> Iterator[Server]:
    """Return a server process."""
    if server_kind.optional and importlib.util.find_spec(server_kind.optional) is None:
        pytest.skip(f"{server_kind.name}: {server_kind.optional} is not installed")
    with serving(server_kind.command) as server:
        yield server


@pytest.fixture(scope="module")
def idle(server: Server, server_kind: Kind) -> Idle:
    """Return what the server has open while it is idle."""
    return idle_of(server, spare_threads=server_kind.parallel)
