"""The errors for a scope or an environ that cannot be read."""

from bridge.errors import ServerProtocolError
from bridge.sansio.shapes import SCOPES, TLS
from bridge.types import Environ, Scope


def scope_error(scope: Scope) -> ServerProtocolError:
    """Return the error for a scope that cannot be read. It names keys and types only, because values may be secret."""
    shape = SCOPES["websocket" if scope.get("type") == "websocket" else "http"]
    extensions = scope.get("extensions")
    tls = extensions.get("tls") if isinstance(extensions, dict) else None
    faults = [f"no {key!r}" for key in shape.required if key not in scope]
    for keys, values in ((shape.keys, scope), (TLS.keys, tls if isinstance(tls, dict) else {})):
        for key, (rule, *_) in keys.items():
            if key in values and not rule.allows(values[key]):
                faults.append(f"{key!r} must {rule.text}, got {type(values[key]).__name__}")
    return ServerProtocolError(f"the server's scope cannot be read: {'; '.join(faults)} ({shape.section})")


# The variables that must be str. A request header that is not a str is skipped instead.
_READ = ["REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "SERVER_NAME", "REMOTE_ADDR", "wsgi.url_scheme"]


def environ_error(environ: Environ) -> ServerProtocolError:
    """Return the error for an unreadable environ. It names keys and types only, because values may be secret."""
    faults = [f"a key is {type(key).__name__}" for key in environ if not isinstance(key, str)]
    keys = [*_READ, *(key for key in environ if str(key).startswith("SSL_"))]
    faults += [f"{key} is {type(environ[key]).__name__}" for key in keys if not isinstance(environ.get(key) or "", str)]
    return ServerProtocolError(f"environ must hold str: {', '.join(faults)} (PEP 3333, environ Variables)")
