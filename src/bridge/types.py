"""Types for what the specs name. They follow typeshed and Starlette, and are wide enough for any app."""

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
# `Any`, because Quart, Litestar and Falcon define types of their own for scopes and messages.
ASGIApp: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]
RawHeaders: TypeAlias = list[tuple[bytes, bytes]]

# WSGI (PEP 3333)
Environ: TypeAlias = dict[str, Any]
Headers: TypeAlias = list[tuple[str, str]]
ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
Write: TypeAlias = Callable[[bytes], object]
WSGIApp: TypeAlias = WSGIApplication
