"""Whole servers, measured by wrk with 32 connections. All of them run at once, and are measured in turn."""

import contextlib
import functools
import re
import shutil
import subprocess
from collections.abc import Iterator

from tests.benchmarks.rounds import Row, measure
from tests.processes import Server, serving

APPS = "tests.benchmarks.apps"
_UVICORN = ("{python}", "-m", "uvicorn", "--port", "{port}", "--log-level", "warning", "--no-access-log")
_GTHREAD = ("{python}", "-m", "gunicorn", "-k", "gthread", "--threads", "32", "-b", "127.0.0.1:{port}")
_GRANIAN = ("{python}", "-m", "granian", "--port", "{port}", "--log-level", "warning", "--blocking-threads", "32")

# Without asgiref's adapter, which here answers half of the requests with 500.
FLASK = {
    "bridge on uvicorn": (*_UVICORN, f"{APPS}:flask_bridge"),
    "a2wsgi on uvicorn": (*_UVICORN, f"{APPS}:flask_a2wsgi"),
    "native on gunicorn gthread": (*_GTHREAD, f"{APPS}:flask_app"),
    "native on granian": (*_GRANIAN, "--interface", "wsgi", f"{APPS}:flask_app"),
}
FASTAPI = {
    "bridge on gunicorn gthread": (*_GTHREAD, f"{APPS}:fastapi_bridge"),
    "a2wsgi on gunicorn gthread": (*_GTHREAD, f"{APPS}:fastapi_a2wsgi_app"),
    "a bare hop on gunicorn gthread": (*_GTHREAD, f"{APPS}:fastapi_bare_hop"),
    "native on uvicorn": (*_UVICORN, f"{APPS}:fastapi_app"),
    "bridge on granian": (*_GRANIAN, "--interface", "wsgi", f"{APPS}:fastapi_bridge"),
    "a bare hop on granian": (*_GRANIAN, "--interface", "wsgi", f"{APPS}:fastapi_bare_hop"),
}


def requests_a_second(server: Server) -> float:
    """Return what wrk counts in two seconds; raises if a response was not a success."""
    command = ["wrk", "-t1", "-c32", "-d2s", f"http://127.0.0.1:{server.port}/"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(output)
    match = re.search(r"Requests/sec:\s+([\d.]+)", output)
    assert match is not None
    return float(match[1])


def over_http_rows(rounds: int) -> Iterator[Row]:
    """Yield nothing where wrk is not installed; say so."""
    if shutil.which("wrk") is None:
        print("\nwrk is not installed: servers are not measured")
        return
    for what, commands in (("Flask", FLASK), ("FastAPI", FASTAPI)):
        with contextlib.ExitStack() as stack:
            servers = {name: stack.enter_context(serving(command)) for name, command in commands.items()}
            contenders = {name: functools.partial(requests_a_second, server) for name, server in servers.items()}
            ours = next(iter(contenders))
            yield measure(
                f"{what}, wrk with 32 connections", "requests a second", ours, contenders, max(3, rounds // 2)
            )
