"""An ASGI http or websocket scope <-> a WSGI environ, as adjacent inverse pairs.

ASGI uses bytes and Unicode; WSGI uses bytes decoded as latin-1 (PEP 3333, "A Note On String
Types"; ASGI HTTP spec, "WSGI Compatibility").
"""

import functools
import re
from typing import Any

from bridge.errors import ServerProtocolError
from bridge.sansio.native_text import bytes_from_native, native_from_text
from bridge.sansio.paths import maybe_target_path, paths_from_environ, script_name_and_path_info_from_scope
from bridge.sansio.redacted import RedactedMapping
from bridge.sansio.request_headers import add_headers, content_length_from_header, headers_from_environ
from bridge.sansio.tls import maybe_tls_from_environ, ssl_variables_from_tls
from bridge.sansio.unreadable import environ_error, scope_error
from bridge.sansio.websocket import add_upgrade
from bridge.types import Environ, Scope

# --- Protocol -----------------------------------------------------------------------------------

# RFC 3875 4.1.16 requires a minor version, which HTTP/2 lacks; gunicorn and nginx write "HTTP/2.0".
_SERVER_PROTOCOLS = {"1.1": "HTTP/1.1", "2": "HTTP/2.0", "3": "HTTP/3.0"}


def server_protocol_from_http_version(version: str) -> str:
    return _SERVER_PROTOCOLS.get(version) or "HTTP/" + version


@functools.lru_cache(maxsize=8)
def http_version_from_server_protocol(protocol: object) -> str:
    """Return ASGI's version for SERVER_PROTOCOL, in either spelling of HTTP/2 and 3.

    Anything that is not an HTTP version (such as CGI's INCLUDED) counts as 1.1.
    """
    match = re.fullmatch(r"HTTP/([1-9])(?:\.([0-9]))?", str(protocol), re.IGNORECASE)
    if match is None:
        return "1.1"
    major, minor = match.groups()
    return f"1.{minor or 0}" if major == "1" else major


# --- The whole ----------------------------------------------------------------------------------


# The keys of every environ: copying and filling a template is the fastest way to build a dict of this size.
CGI_TEMPLATE: Environ = dict.fromkeys(
    ["REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL"]
    + ["REMOTE_ADDR", "wsgi.url_scheme", "asgi.scope"]
)
CGI_TEMPLATE["REMOTE_ADDR"] = ""  # as gunicorn does on a Unix socket, because frameworks assume the key exists


def environ_from_scope(scope: Scope, template: Environ = CGI_TEMPLATE) -> Environ:
    """Return a copy of `template` with a request's CGI variables; the adapter adds the `wsgi.` ones.

    `scope` is an http or websocket scope. Raises ClientProtocolError if the request's headers
    contradict each other, and ServerProtocolError if the scope does not follow the ASGI spec.
    """
    try:
        script_name, path_info = script_name_and_path_info_from_scope(scope)
        query_string = (scope.get("query_string") or b"").decode("latin-1")
        scheme = scope.get("scheme")
        if scheme != "http":
            scheme = _url_scheme(scheme)
        method = scope.get("method", "GET")
        if not isinstance(method, str):
            raise TypeError
        environ = template.copy()
        environ["REQUEST_METHOD"] = method
        environ["SCRIPT_NAME"] = script_name
        environ["PATH_INFO"] = path_info
        environ["QUERY_STRING"] = query_string
        environ["SERVER_PROTOCOL"] = server_protocol_from_http_version(scope.get("http_version") or "1.1")
        environ["wsgi.url_scheme"] = scheme
        environ["asgi.scope"] = RedactedMapping(scope, "ASGI scope")
        add_headers(environ, scope.get("headers") or [])
        target = maybe_target_path(scope)
        if target:
            environ["RAW_URI"] = environ["REQUEST_URI"] = f"{target}?{query_string}" if query_string else target
        environ["SERVER_NAME"], environ["SERVER_PORT"] = _server_from_scope(scope, environ, scheme)
        client = scope.get("client")
        if client:
            address, port = client
            if address:
                environ["REMOTE_ADDR"] = native_from_text(address)
                if port is not None:
                    if type(port) is not int:
                        _check_port(port)
                    environ["REMOTE_PORT"] = str(port)
        if scheme == "https":
            environ["HTTPS"] = "on"
            extensions = scope.get("extensions")
            if extensions and "tls" in extensions:
                environ.update(ssl_variables_from_tls(extensions["tls"] or {}))
        if scope.get("type") == "websocket":
            add_upgrade(environ, scope)
        return environ
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise scope_error(scope) from error


def _url_scheme(scheme: object) -> str:
    if not isinstance(scheme or "", str):
        raise TypeError
    return "https" if scheme in ("https", "wss") else "http"


def _check_port(port: object) -> None:
    if not isinstance(port, (int, str)):  # the spec says int; a str does no harm
        raise TypeError


def _server_from_scope(scope: Scope, environ: Environ, scheme: str) -> tuple[str, str]:
    """Return SERVER_NAME and SERVER_PORT, which PEP 3333 requires and which must not be empty."""
    name, port = scope.get("server") or (None, None)
    if name and port is not None and not name.startswith("/"):  # granian reports port 0 with the path of a Unix socket
        return _server_name_and_port(name, port)
    default_port = "443" if scheme == "https" else "80"
    # On a Unix socket, or if the server is unknown, use the Host header, as gunicorn does.
    host = environ.get("HTTP_HOST") or "localhost"
    match = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::([0-9]*))?", host)
    if match is None or not match[1]:
        return "localhost", default_port
    return match[1], match[2] or default_port


# A server has few addresses. `typed`, because 80.0 must not pass for 80.
@functools.lru_cache(maxsize=32, typed=True)
def _server_name_and_port(name: str, port: object) -> tuple[str, str]:
    _check_port(port)
    name = native_from_text(name)
    # RFC 3875 4.1.14: an IPv6 address is written in brackets.
    return f"[{name}]" if ":" in name and not name.startswith("[") else name, str(port)


def scope_from_environ(environ: Environ) -> dict[str, Any]:
    """Return the http scope of a request; the adapter adds `state` and `extensions`.

    Raises ClientProtocolError if CONTENT_LENGTH is not a number or HTTP_HOST holds two hosts, and
    ServerProtocolError if REQUEST_METHOD is missing or a CGI variable is not a str.
    """
    try:
        method = environ.get("REQUEST_METHOD")
        if not method:
            raise ServerProtocolError("environ has no REQUEST_METHOD (PEP 3333, environ Variables)")
        root_path, path, raw_path = paths_from_environ(environ)
        if environ.get("CONTENT_LENGTH"):
            content_length_from_header(str(environ["CONTENT_LENGTH"]))
        client, name = environ.get("REMOTE_ADDR"), environ.get("SERVER_NAME")
        scheme = environ.get("wsgi.url_scheme") or "http"
        if not (isinstance(method, str) and isinstance(scheme, str) and isinstance(client or "", str)):
            raise TypeError
        scope: dict[str, Any] = {
            "type": "http",
            # Not 2.4, although `send` raises once the client has left, as 2.4 requires. With 2.4, Starlette would not
            # wait for http.disconnect, and so leave an idle stream open. uvicorn declares 2.3, too.
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": http_version_from_server_protocol(environ.get("SERVER_PROTOCOL")),
            "method": method.upper(),
            "scheme": scheme,
            "path": path,
            "raw_path": raw_path,
            "query_string": bytes_from_native(environ.get("QUERY_STRING") or ""),
            "root_path": root_path,
            "headers": headers_from_environ(environ),
            "client": (client, _maybe_port(environ.get("REMOTE_PORT")) or 0) if client else None,
            "server": _server_from_name_and_port(name, str(environ.get("SERVER_PORT"))) if name else None,
            "extensions": {},
            # A copy, because uWSGI reuses its environ for the next request.
            "wsgi_environ": RedactedMapping(environ.copy(), "WSGI environ"),
        }
        # On a plain connection, stray SSL_* variables make no extension (ASGI TLS spec, "When to use").
        if scheme == "https" and (tls := maybe_tls_from_environ(environ)) is not None:
            scope["extensions"] = {"tls": tls}
        return scope
    except (AttributeError, TypeError) as error:
        raise environ_error(environ) from error


@functools.lru_cache(maxsize=32)
def _server_from_name_and_port(name: str, port: str) -> tuple[str, int | None]:
    if name.startswith("["):  # CGI writes an IPv6 address in brackets (RFC 3875 4.1.14), ASGI does not
        name = name[1:].removesuffix("]")
    return name, None if name.startswith("/") else _maybe_port(port)


def _maybe_port(port: object) -> int | None:
    text = str(port)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else None
