"""Plain requests as both kinds of server describe them."""

import io
import sys
from typing import Any

from wsgi_asgi_conformance.types import Environ


def http_scope(method: str = "GET", path: str = "/", **keys: Any) -> dict[str, Any]:
    """Return the scope of a plain request as uvicorn builds it; `keys` replace its own."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"example.org")],
        "client": ("192.0.2.1", 50000),
        "server": ("192.0.2.2", 80),
        "extensions": {},
        **keys,
    }


def websocket_scope(path: str = "/", **keys: Any) -> dict[str, Any]:
    """Return the scope of a WebSocket as uvicorn builds it; `keys` replace its own."""
    headers = [
        (b"host", b"example.org"),
        (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"),
        (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-extensions", b"permessage-deflate"),
    ]
    scope = http_scope(path=path, type="websocket", scheme="ws", headers=headers, subprotocols=[])
    scope["asgi"]["spec_version"] = "2.4"
    scope["extensions"] = {"websocket.http.response": {}}
    del scope["method"]
    return {**scope, **keys}


def http_environ(method: str = "GET", path: str = "/", body: bytes | None = None, /, **keys: Any) -> Environ:
    """Return the environ of a plain request; `keys` replace its own, and None removes a key."""
    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "192.0.2.2",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.1",
        "REMOTE_PORT": "50000",
        "HTTP_HOST": "example.org",
        "CONTENT_LENGTH": None if body is None else str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body or b""),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **keys,
    }
    return {key: value for key, value in environ.items() if value is not None}
