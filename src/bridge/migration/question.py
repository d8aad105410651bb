"""What a fallback asks a router, and what the router answers."""

import enum
import functools
from typing import Any, NamedTuple, Protocol

from bridge.asgi_to_wsgi.servers import decode_path
from bridge.errors import ClientProtocolError
from bridge.sansio.request import environ_from_scope, scope_from_environ
from bridge.sansio.websocket import is_websocket_request, websocket_scope_from_http
from bridge.types import Environ, Scope


class Answer(enum.IntEnum):
    """How much of a request a router has a route for."""

    NOTHING = 0  # it would answer 404
    PATH = 1  # it would answer 405, or redirect because of a slash
    REQUEST = 2  # it has a route for the path and the method


class Found(NamedTuple):
    """A router's answer, and the rule that led to it, in the framework's notation."""

    answer: Answer
    rule: str = ""
    # Whether the answer depends only on the request's type, method, host and path, so that it may be remembered.
    lasting: bool = True
    # Whether the framework has added the rule itself, for docs pages or static files.
    generated: bool = False


class Rule(NamedTuple):
    """One rule of a router."""

    rule: str  # in the framework's notation
    methods: tuple[str, ...]  # empty: any
    paths: tuple[str, ...]  # sample paths that the rule matches; empty if no value was found for a parameter
    websocket: bool = False
    host: str = ""  # a sample host, if the rule has a host
    is_async: bool = False  # whether a WSGI app's view is `async def`


class Router(Protocol):
    """The router of an app."""

    def find(self, question: "Question") -> Found:
        """Return whether the app has a route for the request. Only the framework's own matching of routes runs."""
        ...

    def rules(self) -> list[Rule]:
        """Return all rules, in no particular order."""
        ...


class Question:
    """A request without its body, as a scope and as an environ; each is made from the other when it is needed.

    A CORS preflight counts as the request that it announces.
    """

    def __init__(self, *, scope: Scope | None = None, environ: Environ | None = None) -> None:
        """Take one of the two, which is not changed."""
        if scope is not None:
            method = maybe_preflight_method(scope)
            self.scope = {**scope, "method": method} if method else dict(scope)
        if environ is not None:
            method = maybe_preflight_method_from_environ(environ)
            self.environ = {**environ, "REQUEST_METHOD": method} if method else environ.copy()

    @functools.cached_property
    def scope(self) -> dict[str, Any]:
        environ = self.environ.copy()
        decode_path(environ)
        try:
            scope = scope_from_environ(environ)
        except ClientProtocolError:  # a bad Content-Length, which no router looks at
            del environ["CONTENT_LENGTH"]
            scope = scope_from_environ(environ)
        return websocket_scope_from_http(scope) if is_websocket_request(environ) else scope

    @functools.cached_property
    def environ(self) -> Environ:
        try:
            return environ_from_scope(self.scope)
        except ClientProtocolError:  # differing Content-Lengths, for example
            headers = [(name, value) for name, value in self.scope["headers"] if name.lower() != b"content-length"]
            return environ_from_scope({**self.scope, "headers": headers})


def maybe_preflight_method(scope: Scope) -> str | None:
    """Return the method that a CORS preflight announces (Fetch standard, CORS-preflight request)."""
    if scope.get("method") != "OPTIONS":
        return None
    headers = {name.lower(): value for name, value in scope["headers"]}
    if b"origin" not in headers or not headers.get(b"access-control-request-method"):
        return None
    method: str = headers[b"access-control-request-method"].decode("latin-1").upper()
    return method


def maybe_preflight_method_from_environ(environ: Environ) -> str | None:
    """Return the method that a CORS preflight announces (Fetch standard, CORS-preflight request)."""
    if environ.get("REQUEST_METHOD") != "OPTIONS" or "HTTP_ORIGIN" not in environ:
        return None
    return str(environ.get("HTTP_ACCESS_CONTROL_REQUEST_METHOD") or "").upper() or None
