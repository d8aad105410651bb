"""Types for the objects of the specs, wide enough for any app, so that no adapter needs to be installed."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias
from wsgiref.types import StartResponse as StartResponse
from wsgiref.types import WSGIApplication

# ASGI (specs/main, specs/www)
Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]
RawHeaders: TypeAlias = list[tuple[bytes, bytes]]

# WSGI (PEP 3333)
Environ: TypeAlias = dict[str, Any]
Headers: TypeAlias = list[tuple[str, str]]
WSGIApp: TypeAlias = WSGIApplication
