"""The smallest requests, for tests to add to."""

from typing import Any

from bridge.types import Environ


def scope_with(**keys: Any) -> dict[str, Any]:
    """Return an http scope with only the keys that the ASGI spec requires, and `keys`."""
    return {"type": "http", "http_version": "1.1", "method": "GET", "path": "/", "query_string": b"", **keys}


def environ_with(**variables: Any) -> Environ:
    """Return the smallest environ of a request, with `variables`."""
    return {"REQUEST_METHOD": "GET", "PATH_INFO": "/", **variables}
