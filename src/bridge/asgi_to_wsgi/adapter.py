"""`ASGIToWSGI`: an ASGI app as a WSGI app."""

from collections.abc import Iterable
from types import TracebackType
from typing import Any, Literal

from bridge.asgi_to_wsgi.http import serve_http
from bridge.asgi_to_wsgi.runner import PrivateLoop
from bridge.asgi_to_wsgi.websocket import is_websocket_request, refuse_websocket
from bridge.runtime import PerProcess
from bridge.sansio.callables import check_asgi_app
from bridge.types import ASGIApp, Environ, StartResponse


class ASGIToWSGI:
    """Run an ASGI app behind a WSGI server, on a private event loop.

        wsgi_app = ASGIToWSGI(fastapi_app)  # gunicorn module:wsgi_app

    app
        Any ASGI 3 callable.
    backend, backend_options
        As for `anyio.run`: "asyncio" (the default) or "trio", and a dict or None;
        `{"use_uvloop": True}` has asyncio run on uvloop.
    lifespan
        "auto" (the default) runs the app's lifespan, and does without if the app raises at it;
        "on" takes that for a failed startup; "off" runs none.
    startup_timeout, shutdown_timeout
        How long the app's startup, and its shutdown, may take, in seconds: 60 and 10. At `close()`
        requests in flight and background work get `shutdown_timeout` as well; at the interpreter's
        exit they get one second.

    The loop and the lifespan start in each process with its first request, or at `start()`, so an
    adapter may be made before a server forks. They end with `close()` (the adapter is a context
    manager too), or at the interpreter's exit. Any thread may call the adapter and its methods.

    `scope["wsgi_environ"]` is the environ. Raises TypeError if `app` is not callable, or is a WSGI
    app. What the app raises reaches the server; AppProtocolError says that it broke the ASGI spec,
    StartupFailed that its lifespan did not start (the next request tries again).
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        backend: str = "asyncio",
        backend_options: dict[str, Any] | None = None,
        lifespan: Literal["auto", "on", "off"] = "auto",
        startup_timeout: float = 60.0,
        shutdown_timeout: float = 10.0,
    ) -> None:
        check_asgi_app(app)
        if lifespan not in ("auto", "on", "off"):
            raise ValueError(f"lifespan must be 'auto', 'on' or 'off', got {lifespan!r}")
        self.app = app
        self._shutdown_timeout = shutdown_timeout
        options = {
            "backend": backend,
            "backend_options": backend_options,
            "lifespan": lifespan,
            "startup_timeout": startup_timeout,
            "shutdown_timeout": shutdown_timeout,
        }
        self._private_loop = PerProcess(lambda: PrivateLoop(app, options))

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request (PEP 3333), in the server's thread."""
        if is_websocket_request(environ):
            return refuse_websocket(start_response)
        return serve_http(self.app, self._private_loop.get().get(), environ, start_response)

    def start(self) -> None:
        """Start the loop and the app's lifespan in this process, if they do not run yet.

        For a server's hook after the fork, so that the first request need not wait. Raises
        StartupFailed. After `close()` it opens the adapter again.
        """
        self._private_loop.get().get(reopen=True)

    def close(self) -> None:
        """Let what runs end, shut the app down, and end the loop; wait for it. Idempotent.

        Takes up to twice `shutdown_timeout` and a second or two. Later requests get AdapterClosed.
        """
        self._private_loop.get().close(self._shutdown_timeout)

    def __enter__(self) -> "ASGIToWSGI":
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
