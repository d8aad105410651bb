"""What to raise for a scope or an environ that cannot be read."""

from bridge.errors import ServerProtocolError
from bridge.sansio.shapes import SCOPES, TLS
from bridge.types import Environ, Scope


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


# What is read of an environ besides the request's headers; one of them that is no str is passed over.
_READ = ["REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "SERVER_NAME", "REMOTE_ADDR", "wsgi.url_scheme"]


def environ_error(environ: Environ) -> ServerProtocolError:
    """Return what to raise for an environ that cannot be read; it names keys and types, as values may be secrets."""
    faults = [f"a key is {type(key).__name__}" for key in environ if not isinstance(key, str)]
    keys = [*_READ, *(key for key in environ if str(key).startswith("SSL_"))]
    faults += [f"{key} is {type(environ[key]).__name__}" for key in keys if not isinstance(environ.get(key) or "", str)]
    return ServerProtocolError(f"environ must hold str: {', '.join(faults)} (PEP 3333, environ Variables)")
