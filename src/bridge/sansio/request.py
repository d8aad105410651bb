"""An ASGI http or websocket scope <-> a WSGI environ, as adjacent inverse pairs.

ASGI's side is bytes and Unicode; WSGI's is bytes decoded as latin-1 (PEP 3333, "A Note On String
Types"; ASGI HTTP spec, "WSGI Compatibility").
"""

import functools
import re
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from bridge.errors import ClientProtocolError, ServerProtocolError
from bridge.sansio.redacted import RedactedMapping
from bridge.sansio.shapes import SCOPES, TLS
from bridge.sansio.tls import maybe_tls_from_environ, ssl_variables_from_tls
from bridge.sansio.websocket import add_upgrade
from bridge.types import Environ, RawHeaders, Scope

# Many, but no more than int() takes.
_DIGITS = re.compile("[0-9]{1,1000}")
# RFC 3986 3.3: what may stand in a path as itself; all else is percent-encoded.
_PATH_SAFE = "/:@!$&'()*+,;=-._~"


# --- Protocol -----------------------------------------------------------------------------------

# RFC 3875 4.1.16 wants a minor version, HTTP/2 has none: "HTTP/2.0" is what gunicorn and nginx say.
_SERVER_PROTOCOLS = {"1.1": "HTTP/1.1", "2": "HTTP/2.0", "3": "HTTP/3.0"}


def server_protocol_from_http_version(version: str) -> str:
    return _SERVER_PROTOCOLS.get(version) or "HTTP/" + version


@functools.lru_cache(maxsize=8)
def http_version_from_server_protocol(protocol: object) -> str:
    """Read both spellings of HTTP/2 and 3; what is no HTTP version (CGI's INCLUDED) is 1.1."""
    match = re.fullmatch(r"HTTP/([1-9])(?:\.([0-9]))?", str(protocol), re.IGNORECASE)
    if match is None:
        return "1.1"
    major, minor = match.groups()
    return f"1.{minor or 0}" if major == "1" else major


# --- Headers ------------------------------------------------------------------------------------


# Names are few and come again; the caches are small, as a client may also send any it likes.
@functools.lru_cache(maxsize=256)
def maybe_cgi_name_from_header(name: bytes) -> str | None:
    """Return the environ key of a request header; None for one that must not get through.

    A `_` would pass for a `-` (nginx and gunicorn drop such names), `Proxy` would become the
    HTTP_PROXY that HTTP clients obey ("httpoxy"), and a pseudo header is not a header.
    """
    key = name.upper().decode("latin-1")  # in this order: case is a matter of ASCII
    if not key or "_" in key or key == "PROXY" or key.startswith(":"):
        return None
    key = key.replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


# HTTP_PROXY is the process's own: wsgiref and CGI handlers copy os.environ.
_NOT_OF_A_HEADER = ("HTTP_", "HTTP_PROXY", "HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH")


@functools.lru_cache(maxsize=256)
def maybe_header_from_cgi_name(key: str) -> bytes | None:
    """Return the name of the request header behind an environ key; None where there is none."""
    if key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        return key.lower().replace("_", "-").encode()
    if not key.startswith("HTTP_") or key in _NOT_OF_A_HEADER or ":" in key:
        return None
    return key[5:].encode("latin-1", "replace").lower().replace(b"_", b"-")


def add_headers(environ: Environ, headers: RawHeaders) -> None:
    """Add the request headers to an environ that has none.

    RFC 3875 4.1.18: repeated headers become one value of the same meaning. They are joined once,
    at the end, so that 60,000 repeats cost 60,000 steps.
    """
    repeated: dict[str, list[str]] = {}
    for name, value in headers:
        key = maybe_cgi_name_from_header(name)
        if key is None:
            continue
        if key in environ:
            repeated.setdefault(key, [environ[key]]).append(value.decode("latin-1"))
        else:
            environ[key] = value.decode("latin-1")
    for key, values in repeated.items():
        if key == "CONTENT_LENGTH":
            if len(set(values)) > 1:  # RFC 9112 6.3: differing lengths are how requests are smuggled
                raise ClientProtocolError(f"differing Content-Length headers: {', '.join(values)[:64]}")
        elif key != "CONTENT_TYPE":  # joining would not mean the same; the first one counts
            # RFC 9113 8.2.3: HTTP/2 may split the Cookie header, and "; " is its separator.
            environ[key] = ("; " if key == "HTTP_COOKIE" else ",").join(values)
    if "CONTENT_LENGTH" in environ:
        content_length_from_header(environ["CONTENT_LENGTH"])
        if "HTTP_TRANSFER_ENCODING" in environ:
            # RFC 9112 6.3: Transfer-Encoding wins; the length is not that of the body we get.
            del environ["CONTENT_LENGTH"]


def headers_from_environ(environ: Environ) -> RawHeaders:
    """Return the request headers of an environ, in its order."""
    headers: RawHeaders = []
    for key, value in environ.items():
        if key.startswith(("HTTP_", "CONTENT_")) and isinstance(value, str):
            name = maybe_header_from_cgi_name(key)
            # An empty CONTENT_TYPE or CONTENT_LENGTH means the same as none (PEP 3333, environ).
            if name is not None and (value or key.startswith("HTTP_")):
                headers.append((name, _bytes_from_native(value)))
    return headers


def content_length_from_header(value: str) -> int:
    """Return the length in bytes; RFC 9110 8.6 allows digits, and nothing else."""
    if _DIGITS.fullmatch(value) is None:
        raise ClientProtocolError(f"Content-Length is not a number: {value[:64]!r}")
    return int(value)


def with_header_pairs(scope: Scope) -> Scope:
    """Return `scope`; where its headers can be read but once, as ASGI allows, a copy with a list of pairs."""
    headers = scope.get("headers") or []
    if isinstance(headers, (list, tuple)) and (not headers or isinstance(headers[0], (tuple, list))):
        return scope
    try:
        return {**scope, "headers": [tuple(header) for header in headers]}
    except TypeError as error:
        raise scope_error(scope) from error


def expects_continue(scope: Scope) -> bool:
    """Return whether the client waits for 100 Continue before it sends a body (RFC 9110 10.1.1)."""
    try:
        for name, value in scope.get("headers") or ():
            if len(name) == 6 and name.lower() == b"expect":
                return bytes(value).lower() == b"100-continue"
    except (AttributeError, TypeError, ValueError) as error:
        raise scope_error(scope) from error
    return False


# --- Path ---------------------------------------------------------------------------------------


def script_name_and_path_info_from_scope(scope: Scope) -> tuple[str, str]:
    """Split `path` behind `root_path`, once and at a segment boundary.

    The ASGI spec has `path` begin with `root_path`. Behind a proxy that strips the prefix, older
    servers leave it out: then `path` is PATH_INFO as it stands.
    """
    path, root_path = scope["path"], scope.get("root_path") or ""
    if not path.startswith("/"):  # "*" of OPTIONS *, for which CGI has no word
        path = f"/{path}" if path not in ("", "*") else ""
    if root_path:
        root_path = root_path.strip("/")
        root_path = f"/{root_path}" if root_path else ""
        if path == root_path or path.startswith(f"{root_path}/"):
            path = path[len(root_path) :]
    path_info = _native_from_text(path)
    if not path.isascii() and scope.get("raw_path"):
        path_info = _maybe_path_info_from_raw_path(scope["raw_path"], root_path, path) or path_info
    return _native_from_text(root_path), path_info


def _maybe_path_info_from_raw_path(raw_path: bytes, root_path: str, path: str) -> str | None:
    """Recover the path's bytes, if `raw_path` still speaks of the same path.

    Servers decode what is not UTF-8 to U+FFFD. Middleware may have rewritten `path` since, and
    then `path` counts.
    """
    raw = unquote_to_bytes(raw_path)
    for prefix in (root_path.encode("utf-8", "replace"), b""):
        if raw.startswith(prefix) and raw[len(prefix) :].decode("utf-8", "replace") == path:
            return raw[len(prefix) :].decode("latin-1")
    return None


def paths_from_environ(environ: Environ) -> tuple[str, str, bytes | None]:
    """Return the scope's `root_path`, `path` (which begins with it) and `raw_path`.

    `raw_path` is the request target that the server kept as RAW_URI or REQUEST_URI, if that still
    is SCRIPT_NAME + PATH_INFO. Without one it is None, save for a path that is not UTF-8: there
    it is the only place that can hold the path's bytes.
    """
    script_name = _bytes_from_native(environ.get("SCRIPT_NAME") or "").rstrip(b"/")
    path_info = _bytes_from_native(environ.get("PATH_INFO") or "")
    path = script_name + path_info or b"/"
    raw_path: bytes | None = None
    target = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if isinstance(target, str) and target.startswith("/"):
        candidate = _bytes_from_native(target).partition(b"?")[0]
        unquoted = unquote_to_bytes(candidate) if b"%" in candidate else candidate
        if _same_text(unquoted, path):
            raw_path = candidate
        elif _same_text(unquoted, path_info):  # a server that was told its SCRIPT_NAME by configuration
            raw_path = quote_from_bytes(script_name, _PATH_SAFE).encode() + candidate
    try:
        root_path, rest = script_name.decode("utf-8"), path_info.decode("utf-8")
    except UnicodeDecodeError:
        root_path, rest = script_name.decode("utf-8", "replace"), path_info.decode("utf-8", "replace")
        raw_path = raw_path or quote_from_bytes(path, _PATH_SAFE).encode()
    return root_path, root_path + rest or "/", raw_path


def _same_text(target: bytes, path: bytes) -> bool:
    """Return whether both are one path; a server (Werkzeug's) may have put U+FFFD for what is not UTF-8."""
    return target == path or target.decode("utf-8", "replace").encode() == path


def _native_from_text(text: str) -> str:
    """Return the UTF-8 bytes of `text` as WSGI carries bytes; a surrogate stands for its byte."""
    if str.isascii(text):  # bytes, which have an isascii() of their own, raise TypeError here
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode("latin-1")


def _bytes_from_native(native: str) -> bytes:
    """Return the bytes of a WSGI string; text beyond latin-1 (the server's slip) as UTF-8."""
    try:
        return native.encode("latin-1")
    except UnicodeEncodeError:
        return _native_from_text(native).encode("latin-1")


# --- The whole ----------------------------------------------------------------------------------


# What is in every environ: to copy it, and then fill it in, is the fast way to a dict of this size.
CGI_TEMPLATE: Environ = dict.fromkeys(
    ["REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL"]
    + ["wsgi.url_scheme", "asgi.scope"]
)


def environ_from_scope(scope: Scope, template: Environ = CGI_TEMPLATE) -> Environ:
    """Return `template`, copied, with the CGI variables of a request; the `wsgi.` ones are the adapter's to add.

    Raises ClientProtocolError where the request's headers contradict each other, and
    ServerProtocolError for a scope that is not made as the ASGI spec has it.
    """
    try:
        return _environ_from_scope(scope, template)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise scope_error(scope) from error


def scope_error(scope: Scope) -> ServerProtocolError:
    """Return what to raise for a scope that cannot be read; it names keys and types, as values may be secrets."""
    shape = SCOPES["websocket" if scope.get("type") == "websocket" else "http"]
    extensions = scope.get("extensions")
    tls = extensions.get("tls") if isinstance(extensions, dict) else None
    faults = [f"no {key!r}" for key in shape.required if key not in scope]
    for keys, values in ((shape.keys, scope), (TLS.keys, tls if isinstance(tls, dict) else {})):
        for key, (rule, *_) in keys.items():
            if key in values and not rule.allows(values[key]):
                faults.append(f"{key!r} must be {rule.text}, got {type(values[key]).__name__}")
    return ServerProtocolError(f"the server's scope cannot be read: {'; '.join(faults)} ({shape.section})")


def _environ_from_scope(scope: Scope, template: Environ) -> Environ:
    script_name, path_info = script_name_and_path_info_from_scope(scope)
    query_string = (scope.get("query_string") or b"").decode("latin-1")
    scheme = "https" if scope.get("scheme") in ("https", "wss") else "http"
    environ = template.copy()
    environ["REQUEST_METHOD"] = scope.get("method", "GET")
    if not (isinstance(environ["REQUEST_METHOD"], str) and isinstance(scope.get("scheme") or "", str)):
        raise TypeError
    environ["SCRIPT_NAME"] = script_name
    environ["PATH_INFO"] = path_info
    environ["QUERY_STRING"] = query_string
    environ["SERVER_PROTOCOL"] = server_protocol_from_http_version(scope.get("http_version") or "1.1")
    environ["wsgi.url_scheme"] = scheme
    environ["asgi.scope"] = RedactedMapping(scope, "ASGI scope")
    add_headers(environ, scope.get("headers") or [])
    raw_path = scope.get("raw_path")
    if raw_path:
        target = raw_path.decode("latin-1")
        environ["RAW_URI"] = environ["REQUEST_URI"] = f"{target}?{query_string}" if query_string else target
    environ["SERVER_NAME"], environ["SERVER_PORT"] = _server_from_scope(scope, environ, scheme)
    client = scope.get("client")
    if client:
        address, port = client
        if address:
            environ["REMOTE_ADDR"] = _native_from_text(address)
            if port is not None:
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


def _check_port(port: object) -> None:
    if not isinstance(port, (int, str)):  # the spec has an int; a str is as good
        raise TypeError


def _server_from_scope(scope: Scope, environ: Environ, scheme: str) -> tuple[str, str]:
    """Return SERVER_NAME and SERVER_PORT, which PEP 3333 wants non-empty, always."""
    name, port = scope.get("server") or (None, None)
    default_port = "443" if scheme == "https" else "80"
    if name and port is not None:
        name = _native_from_text(name)
        _check_port(port)
        # RFC 3875 4.1.14: an IPv6 address stands in brackets.
        return f"[{name}]" if ":" in name and not name.startswith("[") else name, str(port)
    # A Unix socket, or unknown: the Host header is the next best, as gunicorn has it.
    host = environ.get("HTTP_HOST") or "localhost"
    match = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::([0-9]*))?", host)
    if match is None or not match[1]:
        return "localhost", default_port
    return match[1], match[2] or default_port


def scope_from_environ(environ: Environ) -> dict[str, Any]:
    """Return the http scope of a request; `state` and `extensions` are the adapter's to add.

    Raises ClientProtocolError for a CONTENT_LENGTH that is no number, ServerProtocolError for an
    environ without REQUEST_METHOD, or with anything but str for a variable of CGI.
    """
    try:
        return _scope_from_environ(environ)
    except (AttributeError, TypeError) as error:
        raise _environ_error(environ) from error


# What is read of an environ besides the request's headers; one of them that is no str is passed over.
_READ = [*CGI_TEMPLATE.keys() - {"asgi.scope", "SERVER_PORT", "SERVER_PROTOCOL"}, "REMOTE_ADDR"]


def _environ_error(environ: Environ) -> ServerProtocolError:
    """Return what to raise for an environ that cannot be read; it names keys and types, as values may be secrets."""
    faults = [f"a key is {type(key).__name__}" for key in environ if not isinstance(key, str)]
    keys = [*_READ, *(key for key in environ if str(key).startswith("SSL_"))]
    faults += [f"{key} is {type(environ[key]).__name__}" for key in keys if not isinstance(environ.get(key) or "", str)]
    return ServerProtocolError(f"environ must hold str: {', '.join(faults)} (PEP 3333, environ Variables)")


def _scope_from_environ(environ: Environ) -> dict[str, Any]:
    method = environ.get("REQUEST_METHOD")
    if not method:
        raise ServerProtocolError("environ has no REQUEST_METHOD (PEP 3333, environ Variables)")
    root_path, path, raw_path = paths_from_environ(environ)
    if environ.get("CONTENT_LENGTH"):
        content_length_from_header(str(environ["CONTENT_LENGTH"]))
    client, server_name = environ.get("REMOTE_ADDR"), environ.get("SERVER_NAME")
    scheme = environ.get("wsgi.url_scheme") or "http"
    if not (isinstance(method, str) and isinstance(scheme, str)):
        raise TypeError
    if not (isinstance(client or "", str) and isinstance(server_name or "", str)):
        raise TypeError
    scope: dict[str, Any] = {
        "type": "http",
        # 2.4 has `send` raise for a client that left, and so it does. But frameworks that are told so
        # (Starlette) look out for nothing else, and keep a stream that is idle; uvicorn says 2.3 too.
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": http_version_from_server_protocol(environ.get("SERVER_PROTOCOL")),
        "method": method.upper(),
        "scheme": scheme,
        "path": path,
        "query_string": _bytes_from_native(environ.get("QUERY_STRING") or ""),
        "root_path": root_path,
        "headers": headers_from_environ(environ),
        "client": (client, _maybe_port(environ.get("REMOTE_PORT")) or 0) if client else None,
        "server": (server_name, _maybe_port(environ.get("SERVER_PORT"))) if server_name else None,
        "extensions": {},
        "wsgi_environ": RedactedMapping(environ, "WSGI environ"),
    }
    if raw_path is not None:
        scope["raw_path"] = raw_path
    tls = maybe_tls_from_environ(environ)
    if tls is not None:
        scope["extensions"] = {"tls": tls}
    return scope


def _maybe_port(port: object) -> int | None:
    text = str(port)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else None
