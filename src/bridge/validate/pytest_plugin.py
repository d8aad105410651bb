"""A plugin of pytest: `--asgi-validate` judges the ASGI apps that tests call by the clients of httpx and Starlette.

It wraps what `httpx.ASGITransport` and `starlette.testclient.TestClient` (FastAPI's, too) are given. Only the app is
judged, because these clients are no servers: their scopes lack keys that the spec demands.
"""

import importlib.util
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from bridge.validate.connection import Validator

_ORIGINALS = pytest.StashKey[list[tuple[type, Callable[..., None]]]]()
# The clients that call an app in the test's own process.
_CLIENTS = (("httpx", "ASGITransport"), ("starlette.testclient", "TestClient"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    text = "raise where an app that is called by httpx.ASGITransport or Starlette's TestClient breaks the ASGI spec"
    parser.getgroup("asgi", "ASGI").addoption("--asgi-validate", action="store_true", help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Wrap the clients that are installed."""
    originals = config.stash.setdefault(_ORIGINALS, [])
    if config.getoption("asgi_validate"):
        for module, name in _CLIENTS:
            if importlib.util.find_spec(module.partition(".")[0]) is not None:
                client: type = getattr(importlib.import_module(module), name)
                originals.append((client, client.__init__))  # type: ignore[misc]  # of just this class
                _wrap(client)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave the clients as they were."""
    for client, original in config.stash.get(_ORIGINALS, []):
        client.__init__ = original  # type: ignore[misc]


def _wrap(client: type) -> None:
    original = client.__init__  # type: ignore[misc]

    def __init__(self: Any, app: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807  # it is one
        original(self, _Judged(app) if _is_asgi3(app) else app, *args, **kwargs)

    client.__init__ = __init__  # type: ignore[misc]


class _Judged(Validator):
    """A validator that passes for its app, as tests look at `client.app`."""

    def __init__(self, app: Any) -> None:
        super().__init__(app, "app")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app, name)


def _is_asgi3(app: Any) -> bool:
    """Return whether `app` is called with three arguments; apps of ASGI 2 are not judged."""
    return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(getattr(app, "__call__", None))  # noqa: B004
