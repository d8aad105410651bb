"""Names for what the specs name."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from types import TracebackType
from typing import Any, Literal, NotRequired, Protocol, TypeAlias, TypedDict

# ASGI (specs/main, specs/www)
Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = Mapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
RawHeaders: TypeAlias = list[tuple[bytes, bytes]]


class RequestMessage(TypedDict):
    type: Literal["http.request"]
    body: bytes
    more_body: bool


class ResponseStart(TypedDict):
    type: Literal["http.response.start"]
    status: int
    headers: RawHeaders


class ResponseBody(TypedDict):
    type: Literal["http.response.body"]
    body: bytes
    more_body: NotRequired[bool]


# WSGI (PEP 3333)
Environ: TypeAlias = dict[str, Any]
Headers: TypeAlias = list[tuple[str, str]]
ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None]
Write: TypeAlias = Callable[[bytes], object]


class StartResponse(Protocol):
    def __call__(self, status: str, headers: Headers, exc_info: ExcInfo | None = ..., /) -> Write: ...


WSGIApp: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]
