"""The environ of a request that an ASGI app answers, for what a WSGI app knows about it."""

import io
import sys

from bridge.sansio.request import environ_from_scope
from bridge.types import Environ, Scope


def environ_for(scope: Scope) -> Environ:
    """Return the WSGI environ of a request without its body, so that another app can read its session.

        with flask_app.request_context(environ_for(request.scope)):
            user = flask_login.current_user

    scope
        The scope of an http or websocket connection, as the server or a framework has it (`request.scope`). Under
        `ASGIToWSGI` the environ is that of the WSGI server, else one is made.

    Each call returns a new dict. `wsgi.input` is empty, and there is no CONTENT_LENGTH. Inside of a Starlette `Mount`
    the mount's prefix belongs to PATH_INFO, as the other app is not mounted there. Reading a session may block: call
    this from a `def` dependency, or in a thread. Raises ClientProtocolError where the request's headers contradict
    each other.
    """
    recorded: Environ | None = scope.get("wsgi_environ")
    if recorded is not None:
        environ = recorded.copy()
    else:
        # Starlette's Mount adds its prefix to root_path, and keeps the one from outside as app_root_path.
        root_path = scope.get("app_root_path", scope.get("root_path") or "")
        environ = environ_from_scope({**scope, "root_path": root_path})
        environ["wsgi.version"] = (1, 0)
        environ["wsgi.errors"] = sys.stderr
        environ["wsgi.multithread"] = environ["wsgi.multiprocess"] = True
        environ["wsgi.run_once"] = False
    environ["wsgi.input"] = io.BytesIO()
    for key in ("CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING", "HTTP_EXPECT", "wsgi.input_terminated"):
        environ.pop(key, None)
    return environ
