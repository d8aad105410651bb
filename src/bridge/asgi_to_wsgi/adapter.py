"""`ASGIToWSGI`: an ASGI app as a WSGI app."""

import math
from collections.abc import Iterable
from types import NoneType, TracebackType
from typing import Any, Literal

from bridge.asgi_to_wsgi.http.exchange import serve_http
from bridge.asgi_to_wsgi.runner import PrivateLoop, WeakRegistry
from bridge.asgi_to_wsgi.websocket.handshake import WebSocketOptions, WebSockets
from bridge.errors import AdapterClosed
from bridge.runtime import PerProcess
from bridge.sansio.callables import check_asgi_app
from bridge.sansio.options import check_backend, check_count, check_flag, check_seconds, check_word
from bridge.sansio.websocket import is_websocket_request
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
    pathsend
        Whether to offer `http.response.pathsend`, by which an app has a file sent by the server's
        `wsgi.file_wrapper`. Off by default, as not every middleware knows it: turn it on if all of
        the app's do.
    websocket
        "auto" (the default) takes the client's connection from the server, so that a WebSocket
        needs none of its threads; where that cannot be (TLS in the server, gevent, eventlet), the
        request's thread carries it, as "hold" has it do everywhere. "off" refuses WebSockets.
        They need `bridge[websocket]`; where a server keeps its connections to itself they are
        refused with 501.
    websocket_options
        How they are kept, a `WebSocketOptions`: pings, the size of messages, compression.
    max_websockets
        The most WebSockets that are open at once in a process: 1000. The next one gets 503. 0 refuses them all.
    startup_timeout, shutdown_timeout
        How long the app's startup, and its shutdown, may take, in seconds: 60 and 10. At `close()`
        requests in flight and background work get `shutdown_timeout` as well; at the interpreter's
        exit they get one second. Event streams (`text/event-stream`) and WebSockets end at once.

    The loop and the lifespan start in each process with its first request, or at `start()`, so an
    adapter may be made before a server forks. They end with `close()` (the adapter is a context
    manager too), or at the interpreter's exit; if the adapter is dropped, they end after the requests
    and the background work that it has begun. Any thread but the loop's may call the adapter and
    its methods.

    `scope["wsgi_environ"]` is the environ, as a mapping whose repr shows no values; its `copy()` is
    the dict that WSGI code asks for. Raises TypeError if `app` is not callable, is a WSGI app,
    or a class or function that makes an app; TypeError or ValueError for an option that makes no
    sense. What the app raises reaches the server; AppProtocolError says that it broke the ASGI spec,
    StartupFailed that its lifespan did not start (requests that waited for that start share the
    failure, and the next one tries again).
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        backend: str = "asyncio",
        backend_options: dict[str, Any] | None = None,
        lifespan: Literal["auto", "on", "off"] = "auto",
        pathsend: bool = False,
        websocket: Literal["auto", "hold", "off"] = "auto",
        websocket_options: WebSocketOptions | None = None,
        max_websockets: int = 1000,
        startup_timeout: float = 60.0,
        shutdown_timeout: float = 10.0,
    ) -> None:
        check_asgi_app(app)
        check_backend(backend, backend_options)
        check_word("lifespan", lifespan, ("auto", "on", "off"))
        check_flag("pathsend", pathsend)
        check_word("websocket", websocket, ("auto", "hold", "off"))
        if not isinstance(websocket_options, (WebSocketOptions, NoneType)):
            raise TypeError(
                f"websocket_options must be a WebSocketOptions, got {websocket_options!r:.200}: give "
                "WebSocketOptions(ping_interval=20.0), say"
            )
        check_count("max_websockets", max_websockets, 0)
        check_seconds("startup_timeout", startup_timeout)
        check_seconds("shutdown_timeout", shutdown_timeout)
        self.app = app
        self._pathsend = pathsend
        options = {
            "backend": backend,
            "backend_options": backend_options,
            "lifespan": lifespan,
            "startup_timeout": startup_timeout,
            "shutdown_timeout": shutdown_timeout,
        }
        self._private_loop = PerProcess(lambda: PrivateLoop(app, options))
        kept = websocket_options or WebSocketOptions()
        self._websockets = PerProcess(lambda: WebSockets(app, websocket, max_websockets, kept))
        _adapters.add(self)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request (PEP 3333), in the server's thread."""
        if is_websocket_request(environ):
            return self._websockets.get().serve(self._private_loop.get().get(), environ, start_response)
        return serve_http(self.app, self._private_loop.get().get(), environ, start_response, self._pathsend)

    def start(self) -> None:
        """Start the loop and the app's lifespan in this process, if they do not run yet.

        For a server's hook after the fork, so that the first request need not wait. Raises
        StartupFailed. After `close()` it opens the adapter again.
        """
        self._private_loop.get().reopen()

    def close(self, *, wait: bool = True) -> None:
        """Let what runs end, shut the app down, and end the loop; wait for it. Idempotent.

        Event streams and WebSockets end at once; requests and background work get `shutdown_timeout`
        and are then cancelled. All of it takes up to twice `shutdown_timeout` and a second or two.
        Later requests get AdapterClosed. Raises WouldBlockLoop if the app calls it on its event loop.

        With `wait=False` the call returns at once, and a signal's handler may make it. For a server
        that waits for its requests before it exits: requests are served for `shutdown_timeout`
        more, and then the app shuts down.
        """
        if wait:
            self._private_loop.get().close()
        else:
            self._private_loop.get().begin_to_stop(math.inf)

    def close_websockets(self) -> None:
        """Take leave of the clients of all WebSockets, with code 1012, "service restart"; do not wait.

        For a server that is about to stop, and would wait for the threads that WebSockets hold. A
        signal's handler may call it.
        """
        private_loop = self._private_loop.maybe_get()
        if private_loop is not None:
            private_loop.close_websockets()

    def __enter__(self) -> "ASGIToWSGI":
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


_adapters: WeakRegistry[ASGIToWSGI] = WeakRegistry()


def start_all() -> None:
    """Start every adapter of the process, but for those that the app itself has closed. Raises StartupFailed."""
    for adapter in _adapters.items():
        try:
            adapter._private_loop.get().get()
        except AdapterClosed:
            pass
