"""The ASGI servers, and how to run each."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.processes import Server, serving
from tests.servers.wsgi_servers import is_missing, of_scripts


class Kind(NamedTuple):
    """A server, and how to run it."""

    name: str
    command: list[str]  # the app is appended
    optional: str | None  # the tests skip the server without this module
    root_path: str  # the option for it
    grace: list[str]  # options that make shutdown wait for requests as briefly as possible, at most a second


def _uvicorn(http: str, loop: str, optional: str | None = None) -> Kind:
    options = ["--http", http, "--loop", loop, "--port", "{port}", "--log-level", "warning"]
    command = ["{python}", "-m", "uvicorn", *options]
    return Kind(f"uvicorn-{http}-{loop}", command, optional, "--root-path", ["--timeout-graceful-shutdown", "0"])


def _hypercorn(loop: str, optional: str | None = None) -> Kind:
    command = ["{python}", "-m", "hypercorn", "-k", loop, "-b", "127.0.0.1:{port}"]
    return Kind(f"hypercorn-{loop}", command, optional, "--root-path", ["--graceful-timeout", "0"])


_DAPHNE = ["{python}", "-m", "daphne", "-v", "0", "-p", "{port}"]
_GRANIAN = ["{python}", "-m", "granian", "--interface", "asgi", "--port", "{port}", "--log-level", "warning"]
_GUNICORN = ["{python}", "-m", "gunicorn", "-k", "asgi", "--bind", "127.0.0.1:{port}", "--log-level", "warning"]
_H2CORN = ["{python}", "-m", "h2corn", "--bind", "127.0.0.1:{port}"]
_M0SERVE = [of_scripts("m0serve"), "--protocol", "asgi", "--host", "127.0.0.1", "--port", "{port}", "--max-body", "1g"]
_PEREGRINE = ["{python}", "-m", "peregrine", "--protocol", "asgi", "--port", "{port}", "--max-body", str(2**30)]
_PYVOY = [of_scripts("pyvoy"), "--port", "{port}", "--websockets"]

KINDS = {
    kind.name: kind
    for kind in (
        _uvicorn("h11", "asyncio"),
        _uvicorn("httptools", "uvloop"),
        _hypercorn("asyncio"),
        _hypercorn("uvloop", "uvloop"),
        _hypercorn("trio"),
        Kind("daphne", _DAPHNE, "daphne", "--root-path", []),
        Kind("granian", _GRANIAN, "granian", "--url-path-prefix", ["--workers-kill-timeout", "1"]),
        _uvicorn("zttp", "asyncio", "zttp"),
        Kind("gunicorn-asgi", _GUNICORN, "gunicorn.asgi", "--root-path", ["--graceful-timeout", "1"]),
        Kind("h2corn", _H2CORN, "h2corn", "--root-path", ["--timeout-graceful-shutdown", "1"]),
        Kind("m0serve", _M0SERVE, "m0serve", "", []),
        Kind("peregrine", _PEREGRINE, "peregrine", "--root-path", ["--graceful-timeout", "1000"]),
        Kind("pyvoy", _PYVOY, "pyvoy", "--root-path", []),
    )
}


def maybe_missing(kind: Kind) -> str | None:
    """Return the name of what is missing to run the server, or None."""
    return kind.optional if kind.optional and is_missing(kind.optional) else None


@contextlib.contextmanager
def running(kind: Kind, app: str, env: dict[str, str] | None = None) -> Iterator[Server]:
    """Run the server, or skip the test if it is missing."""
    missing = maybe_missing(kind)
    if missing is not None:
        pytest.skip(f"{kind.name}: {missing} is not installed")
    with serving([*kind.command, app], env=env) as server:
        yield server
