"""The WSGI environ of a request that an ASGI app answers, so that a WSGI app can read its session."""

import io
import sys

from bridge.sansio.request import environ_from_scope
from bridge.types import Environ, Scope


def environ_for(scope: Scope) -> Environ:
    """Return the WSGI environ of a request without its body, so that another app can read its session.

        with flask_app.request_context(environ_for(request.scope)):
            user = flask_login.current_user

    scope
        The scope of an http or websocket connection, from the server or from a framework (`request.scope`). Under
        `ASGIToWSGI` the result is a copy of the WSGI server's environ; under an ASGI server it is made from the scope.

    Each call returns a new dict. `wsgi.input` is empty, and there is no CONTENT_LENGTH. Inside a Starlette `Mount`,
    the prefix of the mount is part of PATH_INFO, because the other app is not mounted there. Reading a session may
    block, so call this in a `def` dependency or in a thread. Raises ClientProtocolError if the headers of the request
    contradict each other.
    """
    recorded: Environ | None = scope.get("wsgi_environ")
    if recorded is not None:
        environ = recorded.copy()
    else:
        # Starlette's Mount adds its prefix to root_path, and keeps the outer value in app_root_path.
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
