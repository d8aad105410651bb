"""An ASGI http or websocket scope <-> a WSGI environ, as adjacent inverse pairs.

ASGI's side is bytes and Unicode; WSGI's is bytes decoded as latin-1 (PEP 3333, "A Note On String
Types"; ASGI HTTP spec, "WSGI Compatibility").
"""

import enum
import functools
import re
import string
from typing import Any, Final
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
_PLAIN = (_PATH_SAFE + string.ascii_letters + string.digits).encode()
# cheroot leaves encoded slashes encoded, and so does Apache where it is told to.
_ENCODED_SLASH = re.compile(rb"%(2[Ff])")


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
            _check_same("Content-Length", values)  # RFC 9112 6.3: differing lengths are how requests are smuggled
        elif key == "HTTP_HOST":
            _check_same("Host", values)  # RFC 9112 3.2; over HTTP/2 there may be one beside an equal :authority
        elif key != "CONTENT_TYPE":  # joining would not mean the same; the first one counts
            # RFC 9113 8.2.3: HTTP/2 may split the Cookie header, and "; " is its separator.
            environ[key] = ("; " if key == "HTTP_COOKIE" else ",").join(values)
    if "CONTENT_LENGTH" in environ:
        content_length_from_header(environ["CONTENT_LENGTH"])
        if "HTTP_TRANSFER_ENCODING" in environ:
            # RFC 9112 6.3: Transfer-Encoding wins; the length is not that of the body we get.
            del environ["CONTENT_LENGTH"]


def _check_same(name: str, values: list[str]) -> None:
    if len(set(values)) > 1:
        raise ClientProtocolError(f"differing {name} headers: {', '.join(values)[:64]}")


def headers_from_environ(environ: Environ) -> RawHeaders:
    """Return the request headers of an environ, in its order.

    Raises ClientProtocolError where Host holds two that differ.
    """
    headers: RawHeaders = []
    for key, value in environ.items():
        if key.startswith(("HTTP_", "CONTENT_")):
            if not isinstance(value, str):
                if key != "CONTENT_LENGTH" or not isinstance(value, int):
                    continue
                value = str(value)  # Django's test client and some middleware set an int
            name = maybe_header_from_cgi_name(key)
            # An empty CONTENT_TYPE or CONTENT_LENGTH means the same as none (PEP 3333, environ).
            if name is not None and (value or key.startswith("HTTP_")):
                if key == "HTTP_HOST" and "," in value:  # most servers join headers that repeat, Host among them
                    hosts = [host.strip() for host in value.split(",")]
                    _check_same("Host", hosts)
                    value = hosts[0]
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


class Announcement(enum.Enum):
    """What the headers of a request say of its body."""

    NONE = "nothing: over HTTP/1 there is no body (RFC 9112 6.3), over HTTP/2 there may be one"
    BODY = "there is a body"
    CONTINUE = "the client waits for 100 Continue before it sends the body (RFC 9110 10.1.1)"


# Python 3.11 takes ten times as long to find a member in its class.
NOTHING_ANNOUNCED: Final = Announcement.NONE
BODY_ANNOUNCED: Final = Announcement.BODY
CONTINUE_EXPECTED: Final = Announcement.CONTINUE


# "Content received in a GET request has no generally defined semantics" (RFC 9110 9.3.1), and so on for the others.
BODILESS_METHODS = frozenset(("GET", "HEAD", "DELETE", "OPTIONS", "TRACE", "CONNECT"))


def announcement_from_scope(scope: Scope) -> Announcement:
    """Return what the headers say of the body."""
    announcement = NOTHING_ANNOUNCED
    try:
        for name, value in scope.get("headers") or ():
            if len(name) in _ANNOUNCING_LENGTHS:
                lowered = name.lower()
                if lowered == b"expect":
                    if bytes(value).lower() == b"100-continue":
                        return CONTINUE_EXPECTED
                elif lowered == b"transfer-encoding" or (lowered == b"content-length" and bytes(value).strip(b"0, ")):
                    announcement = BODY_ANNOUNCED
    except (AttributeError, TypeError, ValueError) as error:
        raise scope_error(scope) from error
    return announcement


# Of the names below, as most headers are told apart by their length alone.
_ANNOUNCING_LENGTHS = frozenset(map(len, (b"expect", b"content-length", b"transfer-encoding")))


# --- Path ---------------------------------------------------------------------------------------


# RFC 9112 3.2.2: a target may be a whole URL, which most servers pass on as it is.
_SCHEME_AND_AUTHORITY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")


def _without_authority(target: str, root_path: str = "") -> str:
    """Return a target, or its path, without the scheme and authority of the absolute form.

    uvicorn puts its --root-path in front of that, too.
    """
    rest = target.removeprefix(root_path.rstrip("/"))
    match = _SCHEME_AND_AUTHORITY.match(rest)
    if match is None:
        return target
    origin = rest[match.end() :]
    # RFC 9110 4.2.3: an empty path is the same as "/".
    return target[: len(target) - len(rest)] + (origin if origin.startswith("/") else f"/{origin}")


def script_name_and_path_info_from_scope(scope: Scope) -> tuple[str, str]:
    """Split `path` behind `root_path`, once and at a segment boundary.

    The ASGI spec has `path` begin with `root_path`. Behind a proxy that strips the prefix, older
    servers leave it out: then `path` is PATH_INFO as it stands.
    """
    path, root_path = scope["path"], scope.get("root_path") or ""
    if "://" in path:
        path = _without_authority(path, root_path)
    if not path.startswith("/"):  # "*" of OPTIONS *, for which CGI has no word
        path = f"/{path}" if path not in ("", "*") else ""
    if root_path:
        root_path = root_path.strip("/")
        root_path = f"/{root_path}" if root_path else ""
        if path == root_path or path.startswith(f"{root_path}/"):
            path = path[len(root_path) :]
    path_info = _native_from_text(path)
    if not path.isascii() and (target := _maybe_target_path(scope)):
        path_info = _maybe_path_info_from_target(target, root_path, path) or path_info
    return _native_from_text(root_path), path_info


def _maybe_target_path(scope: Scope) -> str | None:
    """Return `raw_path` as a WSGI string, without an authority."""
    raw_path = scope.get("raw_path")
    if not raw_path:
        return None
    target: str = raw_path.decode("latin-1")
    return _without_authority(target, scope.get("root_path") or "") if "://" in target else target


def _maybe_path_info_from_target(target: str, root_path: str, path: str) -> str | None:
    """Recover the path's bytes, if `raw_path` still speaks of the same path.

    Servers decode what is not UTF-8 to U+FFFD. Middleware may have rewritten `path` since, and
    then `path` counts.
    """
    raw = unquote_to_bytes(target.encode("latin-1"))
    if not raw.startswith(b"/"):
        raw = b"/" + raw  # as `path` got one
    for prefix in (root_path.encode("utf-8", "replace"), b""):
        if raw.startswith(prefix) and raw[len(prefix) :].decode("utf-8", "replace") == path:
            return raw[len(prefix) :].decode("latin-1")
    return None


def paths_from_environ(environ: Environ) -> tuple[str, str, bytes]:
    """Return the scope's `root_path`, `path` (which begins with it) and `raw_path`.

    `raw_path` is the request target that the server kept as RAW_URI or REQUEST_URI, if that still
    is SCRIPT_NAME + PATH_INFO; else it is these, quoted.
    """
    script_name = _bytes_from_native(environ.get("SCRIPT_NAME") or "").rstrip(b"/")
    native = environ.get("PATH_INFO") or ""
    path_info = _bytes_from_native(_without_authority(native) if "://" in native else native)
    raw_path = b""
    target = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if target and isinstance(target, str):
        candidate = _bytes_from_native(_without_authority(target) if "://" in target else target).partition(b"?")[0]
        unquoted = unquote_to_bytes(candidate) if b"%" in candidate else candidate
        raw_path = _raw_path_from_target(candidate, unquoted, script_name, path_info)
        if not raw_path:
            if candidate == b"*" and not script_name and path_info in (b"", b"/*"):
                path_info = raw_path = b"*"  # our other direction, and cheroot
            elif b"%2" in path_info:
                slashes_kept = unquote_to_bytes(_ENCODED_SLASH.sub(rb"%25\1", candidate))
                raw_path = _raw_path_from_target(candidate, slashes_kept, script_name, path_info)
                if raw_path:
                    path_info = unquoted[len(script_name) :] if raw_path == candidate else unquoted
    if not raw_path:
        raw_path = _quoted(script_name + path_info or b"/")
    root_path = script_name.decode("utf-8", "replace")
    return root_path, root_path + path_info.decode("utf-8", "replace") or "/", raw_path


def _quoted(path: bytes) -> bytes:
    return quote_from_bytes(path, _PATH_SAFE).encode() if path.translate(None, _PLAIN) else path


def _raw_path_from_target(target: bytes, decoded: bytes, script_name: bytes, path_info: bytes) -> bytes:
    """Return a target, which is `decoded` when decoded, as the `raw_path`; b"" if it is not of the request's path."""
    if _same_text(decoded, script_name + path_info or b"/"):
        return target
    if _same_text(decoded, path_info):  # a server that was told its SCRIPT_NAME by configuration
        return _quoted(script_name) + target
    return b""


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
    + ["REMOTE_ADDR", "wsgi.url_scheme", "asgi.scope"]
)
CGI_TEMPLATE["REMOTE_ADDR"] = ""  # as under gunicorn on a Unix socket: frameworks take it that there is one


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
    target = _maybe_target_path(scope)
    if target:
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
    if name and port is not None and not name.startswith("/"):  # granian has a port 0 beside a Unix socket's path
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

    Raises ClientProtocolError for a CONTENT_LENGTH that is no number and for two hosts in HTTP_HOST,
    ServerProtocolError for an environ without REQUEST_METHOD, or with anything but str for a variable of CGI.
    """
    try:
        return _scope_from_environ(environ)
    except (AttributeError, TypeError) as error:
        raise _environ_error(environ) from error


# What is read of an environ besides the request's headers; one of them that is no str is passed over.
_READ = CGI_TEMPLATE.keys() - {"asgi.scope", "SERVER_PORT", "SERVER_PROTOCOL"}


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
    client = environ.get("REMOTE_ADDR")
    scheme = environ.get("wsgi.url_scheme") or "http"
    if not (isinstance(method, str) and isinstance(scheme, str) and isinstance(client or "", str)):
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
        "raw_path": raw_path,
        "query_string": _bytes_from_native(environ.get("QUERY_STRING") or ""),
        "root_path": root_path,
        "headers": headers_from_environ(environ),
        "client": (client, _maybe_port(environ.get("REMOTE_PORT")) or 0) if client else None,
        "server": _maybe_server_from_environ(environ),
        "extensions": {},
        # A copy, as uWSGI empties its environ after the call, and fills it for the next request.
        "wsgi_environ": RedactedMapping(environ.copy(), "WSGI environ"),
    }
    tls = maybe_tls_from_environ(environ)
    if tls is not None:
        scope["extensions"] = {"tls": tls}
    return scope


def _maybe_server_from_environ(environ: Environ) -> tuple[str, int | None] | None:
    name: str = environ.get("SERVER_NAME") or ""
    if not name:
        return None
    if name.startswith("["):  # RFC 3875 4.1.14 has brackets about an IPv6 address, and ASGI has not
        name = name[1:].removesuffix("]")
    return name, None if name.startswith("/") else _maybe_port(environ.get("SERVER_PORT"))


def _maybe_port(port: object) -> int | None:
    text = str(port)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else None
