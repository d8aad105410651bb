"""The ASGI servers, and how each is run."""

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.processes import Server, serving


class Kind(NamedTuple):
    """A server and how it is run."""

    name: str
    command: list[str]  # to which the app is added
    optional: str | None  # the module without which it is skipped
    root_path: str  # the option for it
    grace: list[str]  # the options that have it wait for requests at shutdown as shortly as it can, a second at most


def _uvicorn(http: str, loop: str) -> Kind:
    options = ["--http", http, "--loop", loop, "--port", "{port}", "--log-level", "warning"]
    command = ["{python}", "-m", "uvicorn", *options]
    return Kind(f"uvicorn-{http}-{loop}", command, None, "--root-path", ["--timeout-graceful-shutdown", "0"])


def _hypercorn(loop: str, optional: str | None = None) -> Kind:
    command = ["{python}", "-m", "hypercorn", "-k", loop, "-b", "127.0.0.1:{port}"]
    return Kind(f"hypercorn-{loop}", command, optional, "--root-path", ["--graceful-timeout", "0"])


_DAPHNE = ["{python}", "-m", "daphne", "-v", "0", "-p", "{port}"]
_GRANIAN = ["{python}", "-m", "granian", "--interface", "asgi", "--port", "{port}", "--log-level", "warning"]

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
    )
}


def maybe_missing(kind: Kind) -> str | None:
    """Return what it takes to run the server and is not there."""
    return kind.optional if kind.optional and importlib.util.find_spec(kind.optional) is None else None


@contextlib.contextmanager
def running(kind: Kind, app: str, env: dict[str, str] | None = None) -> Iterator[Server]:
    """Run the server, or skip the test if it is missing."""
    missing = maybe_missing(kind)
    if missing is not None:
        pytest.skip(f"{kind.name}: {missing} is not installed")
    with serving([*kind.command, app], env=env) as server:
        yield server
