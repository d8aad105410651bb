"""A framework's app on a server, started for `checks.py`."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any, NamedTuple

import httpx

from tests.processes import Server, wait_until
from tests.servers import asgi_servers, wsgi_servers
from tests.servers.frameworks import FRAMEWORKS

ASGI_SERVERS = (
    "uvicorn-h11-asyncio",
    "uvicorn-httptools-uvloop",
    "hypercorn-asyncio",
    "hypercorn-trio",
    "daphne",
    "granian",
    "uvicorn-zttp-asyncio",
    "gunicorn-asgi",
    "h2corn",
    "m0serve",
    "peregrine",
    "pyvoy",
)
WSGI_SERVERS = (
    "gunicorn-sync",
    "gunicorn-gthread",
    "gunicorn-gthread-preload",
    "gunicorn-gevent",
    "uwsgi-threads",
    "uwsgi-lazy-apps",
    "waitress",
    "cheroot",
    "gevent-pywsgi",
    "werkzeug",
    "wsgiref",
    "granian-wsgi",
    "mod_wsgi",
    "mod_wsgi-package",
    "mod_wsgi-own-gil",
    "passenger",
    "m0serve-wsgi",
    "peregrine-wsgi",
    "pyvoy-wsgi",
)


class End(NamedTuple):
    """How a server ended after SIGTERM with a request in flight."""

    pid: int | None  # of the process that served the request, if the app tells
    events: list[bytes]  # the events that arrived after the signal
    cut: bool  # the event stream broke off instead of ending
    seconds: float | None  # until the server had exited


class Served:
    """An app on a server."""

    def __init__(self, server: Server, pair: tuple[str, str], workers: int, prefix: str, shutdowns: Path) -> None:
        self.server = server
        self.pair = pair
        self.workers = workers
        self.prefix = prefix
        self._shutdowns = shutdowns
        self.url = f"http://127.0.0.1:{server.port}{prefix}"
        self.client = self._new_client()
        self._end: End | None = None

    def _new_client(self) -> httpx.Client:
        # uWSGI closes each connection without announcing it.
        headers = {"Connection": "close"} if self.pair[1].startswith("uwsgi") else {}
        # There is no TLS here, and reading the certificates takes long.
        return httpx.Client(base_url=self.url, headers=headers, timeout=10, trust_env=False, verify=False)

    def json(self, path: str, **params: Any) -> Any:
        """Return the JSON of the app's answer."""
        response = self.client.get(path, params=params or None)
        assert response.status_code == 200, f"GET {path} is answered with {response.status_code}: {response.text:.200}"
        return response.json()

    def samples(self, path: str, key: str) -> set[int]:
        """Return the values of the processes that happen to answer."""
        headers = {"Connection": "close"}
        times = 1 if self.workers == 1 else 10
        return {self.client.get(path, headers=headers).json()[key] for _ in range(times)}

    def end(self) -> End:
        """Send SIGTERM while a stream of events runs, once."""
        if self._end is None:
            state = self.client.get("/state")
            pid = state.json()["pid"] if state.is_success else None
            self.client.close()  # otherwise some servers wait for more requests on it
            with contextlib.closing(self._new_client()) as client, ThreadPoolExecutor(1) as thread:
                events: list[bytes] = []
                cut = False
                with client.stream("GET", "/events", params={"count": 6, "pause": 0.1}) as response:
                    blocks = response.iter_raw()
                    events.append(next(blocks, b""))
                    stopped = thread.submit(self._stop)
                    try:
                        events.extend(blocks)
                    except httpx.TransportError:
                        cut = True
                self._end = End(pid, events, cut, stopped.result())
        return self._end

    def _stop(self) -> float | None:
        try:
            return self.server.stop(10)
        except TimeoutExpired:
            return None

    def wait_for_shutdown(self, pid: int) -> None:
        """Wait until the app in this process has noted that it shut down."""
        line = f"shutdown {pid}"
        wait_until(lambda: line in self._shutdowns.read_text().splitlines(), 5, f"{line!r} in the app's log")


def servers_of(framework: str) -> tuple[str, ...]:
    """Return the servers that run the framework's app behind an adapter."""
    if not FRAMEWORKS[framework].asgi:
        return ASGI_SERVERS
    # Other frameworks have extensions that no sub-interpreter with a lock of its own can import, such as pydantic's.
    own_lock = framework in ("starlette", "django-asgi", "quart")
    return tuple(server for server in WSGI_SERVERS if own_lock or server != "mod_wsgi-own-gil")


def maybe_missing(server: str) -> str | None:
    """Return the name of what is missing to run the server, or None."""
    if server in asgi_servers.KINDS:
        return asgi_servers.maybe_missing(asgi_servers.KINDS[server])
    return wsgi_servers.maybe_missing(wsgi_servers.KINDS[server])


@contextlib.contextmanager
def serving_pair(name: str, server: str, native: bool = False) -> Iterator[Served]:
    """Run a framework's app on a server, behind the adapter or natively."""
    framework = FRAMEWORKS[name]
    app = framework.path(framework.native if native else framework.adapted)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        os.chmod(folder, 0o755)  # Apache's processes run as another user
        shutdowns = Path(folder, "shutdowns")
        shutdowns.touch()
        shutdowns.chmod(0o666)
        env = {"BRIDGE_SHUTDOWN_LOG": str(shutdowns)}
        if server in asgi_servers.KINDS:
            workers = 1
            running = stack.enter_context(asgi_servers.running(asgi_servers.KINDS[server], app, env))
        else:
            workers = wsgi_servers.KINDS[server].workers
            running = stack.enter_context(wsgi_servers.running(wsgi_servers.KINDS[server], app, env, grace=8))
        served = Served(running, (name, server), workers, framework.prefix, shutdowns)
        stack.callback(served.client.close)
        yield served
