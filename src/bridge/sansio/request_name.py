"""How the log names a request."""

from urllib.parse import quote

from bridge.types import Scope


def request_name(scope: Scope) -> str:
    """Return the method and the path of a request, without the query, which may hold secrets.

    The path is percent-encoded, so that no client can write lines of its own into the log.
    """
    path = quote(str(scope.get("path")), "/:@!$&'()*+,;=~", errors="replace")
    return f"{'WebSocket' if scope.get('type') == 'websocket' else scope.get('method')} {path[:200]}"
