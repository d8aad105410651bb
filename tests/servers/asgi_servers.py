"""The ASGI servers, and how to run each."""

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.processes import Server, serving


class Kind(NamedTuple):
    """A server, and how to run it."""

    name: str
    command: list[str]  # the app is appended
    optional: str | None  # the tests skip the server without this module
    root_path: str  # the option for it
    grace: list[str]  # options that make shutdown wait for requests as briefly as possible, at most a second


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
    """Return the name of what is missing to run the server, or None."""
    return kind.optional if kind.optional and importlib.util.find_spec(kind.optional) is None else None


@contextlib.contextmanager
def running(kind: Kind, app: str, env: dict[str, str] | None = None) -> Iterator[Server]:
    """Run the server, or skip the test if it is missing."""
    missing = maybe_missing(kind)
    if missing is not None:
        pytest.skip(f"{kind.name}: {missing} is not installed")
    with serving([*kind.command, app], env=env) as server:
        yield server
