"""What a router is asked, and what it says."""

import enum
import functools
from typing import Any, NamedTuple, Protocol

from bridge.asgi_to_wsgi.servers import decode_path
from bridge.errors import ClientProtocolError
from bridge.sansio.request import environ_from_scope, scope_from_environ
from bridge.sansio.websocket import is_websocket_request, websocket_scope_from_http
from bridge.types import Environ, Scope


class Answer(enum.IntEnum):
    """How much of a request a router knows."""

    NOTHING = 0  # it would say 404
    PATH = 1  # it would say 405, or redirect for a slash
    REQUEST = 2  # it has a route for the path and the method


class Found(NamedTuple):
    """A router's answer, and the rule that it comes from, as its framework writes it."""

    answer: Answer
    rule: str = ""
    # Whether the answer depends on the request's type, method, host and path alone, so that it may be kept.
    lasting: bool = True
    # Whether the framework has made the rule, for its docs pages or static files.
    generated: bool = False


class Rule(NamedTuple):
    """One rule of a router, for those who want to see them all."""

    rule: str  # as its framework writes it
    methods: tuple[str, ...]  # empty: any
    paths: tuple[str, ...]  # samples that the rule matches, none if no value was found for a parameter
    websocket: bool = False
    host: str = ""  # a sample of it, where the rule has one
    is_async: bool = False  # whether a WSGI app's view is `async def`


class Router(Protocol):
    """What is asked of a framework."""

    def find(self, question: "Question") -> Found:
        """Return what the app would make of the request; nothing runs but the app's own matching of routes."""
        ...

    def rules(self) -> list[Rule]:
        """Return all rules, in no order that means anything."""
        ...


class Question:
    """A request without its body, in the form of either interface; one is made of the other when it is asked for.

    A CORS preflight counts as the request that it asks about.
    """

    def __init__(self, *, scope: Scope | None = None, environ: Environ | None = None) -> None:
        """One of the two, which stays as it is."""
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
        except ClientProtocolError:  # a Content-Length that is no number, which no router looks at
            del environ["CONTENT_LENGTH"]
            scope = scope_from_environ(environ)
        return websocket_scope_from_http(scope) if is_websocket_request(environ) else scope

    @functools.cached_property
    def environ(self) -> Environ:
        try:
            return environ_from_scope(self.scope)
        except ClientProtocolError:  # two Content-Lengths, say
            headers = [(name, value) for name, value in self.scope["headers"] if name.lower() != b"content-length"]
            return environ_from_scope({**self.scope, "headers": headers})


def maybe_preflight_method(scope: Scope) -> str | None:
    """Return the method that a CORS preflight asks about (Fetch standard, CORS-preflight request)."""
    if scope.get("method") != "OPTIONS":
        return None
    headers = {name.lower(): value for name, value in scope["headers"]}
    if b"origin" not in headers or not headers.get(b"access-control-request-method"):
        return None
    method: str = headers[b"access-control-request-method"].decode("latin-1").upper()
    return method


def maybe_preflight_method_from_environ(environ: Environ) -> str | None:
    """Return the method that a CORS preflight asks about (Fetch standard, CORS-preflight request)."""
    if environ.get("REQUEST_METHOD") != "OPTIONS" or "HTTP_ORIGIN" not in environ:
        return None
    return str(environ.get("HTTP_ACCESS_CONTROL_REQUEST_METHOD") or "").upper() or None
