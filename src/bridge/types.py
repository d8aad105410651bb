"""Names for what the specs name. They are typeshed's and Starlette's types, and wide enough that any app fits."""

from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any, TypeAlias
from wsgiref.types import StartResponse as StartResponse
from wsgiref.types import WSGIApplication

# ASGI (specs/main, specs/www)
Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
# Quart, Litestar and Falcon have types of their own for scopes and messages; what all apps share is the shape.
ASGIApp: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]
RawHeaders: TypeAlias = list[tuple[bytes, bytes]]

# WSGI (PEP 3333)
Environ: TypeAlias = dict[str, Any]
Headers: TypeAlias = list[tuple[str, str]]
ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
Write: TypeAlias = Callable[[bytes], object]
WSGIApp: TypeAlias = WSGIApplication
