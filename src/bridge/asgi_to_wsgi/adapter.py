"""`ASGIToWSGI`: an ASGI app as a WSGI app."""

import math
from collections.abc import Iterable
from types import NoneType
from typing import Any, Literal

from bridge.asgi_to_wsgi.http.detaching import Detaching
from bridge.asgi_to_wsgi.http.serve import serve_http
from bridge.asgi_to_wsgi.runner import PrivateLoop, WeakRegistry
from bridge.asgi_to_wsgi.statistics import ASGIToWSGIStatistics, statistics_of
from bridge.asgi_to_wsgi.websocket.handshake import WebSockets
from bridge.asgi_to_wsgi.websocket.options import WebSocketOptions
from bridge.errors import AdapterClosed
from bridge.runtime import Lifetime, PerProcess
from bridge.sansio.callables import check_asgi_app
from bridge.sansio.options import check_backend, check_count, check_flag, check_seconds, check_word
from bridge.sansio.websocket import is_websocket_request
from bridge.types import ASGIApp, Environ, StartResponse


class ASGIToWSGI(Lifetime):
    """Run an ASGI app behind a WSGI server, on a private event loop.

        wsgi_app = ASGIToWSGI(fastapi_app)  # gunicorn module:wsgi_app

    app
        Any ASGI 3 callable.
    backend, backend_options
        The event loop, as for `anyio.run`: "asyncio" (the default) or "trio", and a dict or None.
        `{"use_uvloop": True}` runs asyncio on uvloop.
    lifespan
        "auto" (the default) runs the app's lifespan, and serves the app without it if the app raises
        before it answers startup. "on" treats that as a failed startup. "off" runs no lifespan.
    pathsend
        Whether to offer `http.response.pathsend`, with which an app asks the server's
        `wsgi.file_wrapper` to send a file. Default: False, because some middleware does not know
        this message. Turn it on if all of the app's middleware does.
    detach, detach_after, max_detached
        "auto" takes the client's connection from the server if the app has sent nothing for
        `detach_after` seconds (0.05 by default) and waits, if it streams, or if it sends a large body
        or a file; sooner if all of the server's threads wait, and at once if the last request like it
        took that long. The adapter then answers on the private loop, and the server's thread is free. At
        most `max_detached` responses (default: 10,000) are detached at once in a process; the next
        one keeps its thread. So does every response if the connection cannot be taken (TLS in the
        server, gevent, eventlet, HTTP/2, mod_wsgi, Passenger), or if middleware passes its own
        `start_response`, because its headers would be lost; "always" does not check for such
        middleware. The server logs a detached response as 202. "off" (the default) detaches nothing.
    websocket
        "auto" (the default) takes the client's connection from the server, so that a WebSocket
        occupies none of the server's threads. Where that is impossible (TLS in the server, gevent,
        eventlet), the request's thread carries the bytes. "hold" occupies the request's thread
        everywhere. "off" refuses WebSockets. They need `wsgi-asgi-bridge[websocket]`. The adapter refuses
        them with 501 on a server that does not expose its connections.
    websocket_options
        A `WebSocketOptions` with pings, the size of messages and compression; None (the default)
        means `WebSocketOptions()`.
    max_websockets
        How many WebSockets may be open at once in a process. Default: 1000. The adapter answers
        further handshakes with 503. 0 refuses all of them.
    startup_timeout, shutdown_timeout
        Seconds that the app's startup and its shutdown may take. Defaults: 60 and 10. At `close()`,
        requests in flight and background work may take `shutdown_timeout` as well. At the
        interpreter's exit they may take one second, or `shutdown_timeout` if responses are detached,
        because no server waits for those. Event streams (`text/event-stream`) and WebSockets end at
        once.

    The loop and the lifespan start in each process with its first request, or at `start()`, so the
    adapter may be created before a server forks. They end at `close()` (the adapter is also a context
    manager) or at the interpreter's exit. If the adapter is garbage-collected first, they end after
    the requests and the background work that are under way. Any thread except the loop's own may
    call the adapter and its methods.

    `scope["wsgi_environ"]` is the environ, as a mapping whose repr hides the values. Its `copy()`
    returns a plain dict, which WSGI code needs.

    Raises TypeError if `app` is not callable, is a WSGI app, or is a class or function that creates
    an app; TypeError or ValueError for an invalid option. A call raises what the app raised, so that
    the server answers with 500; AppProtocolError if the app broke the ASGI spec; and StartupFailed if
    the lifespan did not start. Requests that waited for the same start share that failure, and the
    next request tries again.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        backend: str = "asyncio",
        backend_options: dict[str, Any] | None = None,
        lifespan: Literal["auto", "on", "off"] = "auto",
        pathsend: bool = False,
        detach: Literal["off", "auto", "always"] = "off",
        detach_after: float = 0.05,
        max_detached: int = 10_000,
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
        check_word("detach", detach, ("off", "auto", "always"))
        check_seconds("detach_after", detach_after, zero=True)
        check_count("max_detached", max_detached, 0)
        check_word("websocket", websocket, ("auto", "hold", "off"))
        if not isinstance(websocket_options, (WebSocketOptions, NoneType)):
            raise TypeError(
                f"websocket_options must be a WebSocketOptions, got {websocket_options!r:.200}: pass "
                "WebSocketOptions(ping_interval=20.0), for example"
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
        self._detaching = None
        if detach != "off":
            self._detaching = PerProcess(lambda: Detaching(detach == "always", detach_after, max_detached))
        effective_options = websocket_options or WebSocketOptions()
        self._websockets = PerProcess(lambda: WebSockets(app, websocket, max_websockets, effective_options))
        _adapters.add(self)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request (PEP 3333), in the server's thread."""
        if is_websocket_request(environ):
            return self._websockets.get().serve(self._private_loop.get().get(), environ, start_response)
        loop_thread = self._private_loop.get().get()
        detaching = loop_thread.detaching
        if detaching is None and self._detaching is not None:
            detaching = loop_thread.detaching = self._detaching.get()
            detaching.patience.count_threads(environ, start_response)
        return serve_http(self.app, loop_thread, environ, start_response, self._pathsend, detaching)

    def start(self) -> None:
        """Start the loop and the app's lifespan in this process, unless they already run.

        A server's post-fork hook can call it, so that the first request does not wait for the app's
        startup. After `close()` it opens the adapter again. Raises StartupFailed.
        """
        self._private_loop.get().reopen()

    def close(self, *, wait: bool = True) -> None:
        """End what is running, shut the app down, and end the loop; wait until that is done. Idempotent.

        Event streams and WebSockets end at once. Requests and background work have `shutdown_timeout`
        seconds before they are cancelled, and then the app's shutdown has as long. In all, the call
        takes at most twice `shutdown_timeout` and a second or two. Later requests raise AdapterClosed.
        Raises WouldBlockLoop if the app calls it on its own event loop.

        With `wait=False` the call returns at once, and is safe in a signal handler. Use it with a
        server that waits for its requests before it exits: the adapter still serves requests for
        `shutdown_timeout` seconds, and then shuts the app down.
        """
        if wait:
            self._private_loop.get().close()
        else:
            self._private_loop.get().begin_to_stop(math.inf)

    def close_websockets(self) -> None:
        """Close all WebSockets with code 1012, "service restart" (RFC 6455 7.4); do not wait.

        For a server that, before it stops, waits for the threads that WebSockets occupy. Safe in a
        signal handler.
        """
        private_loop = self._private_loop.maybe_get()
        if private_loop is not None:
            private_loop.close_websockets()

    def close_streams(self) -> None:
        """End all event streams (`text/event-stream`), detached or not; do not wait.

        Their clients see a clean end, and connect again as `EventSource` does; the app receives
        `http.disconnect`. The adapter continues to serve, event streams included. For a server that, before it
        stops, waits for the threads that event streams occupy, and for a worker that is to hand its clients over to
        others. Safe in a signal handler.
        """
        private_loop = self._private_loop.maybe_get()
        if private_loop is not None:
            private_loop.close_streams()

    def statistics(self) -> ASGIToWSGIStatistics:
        """Return what the adapter is doing in this process, for a health page or for metrics.

        Any thread may call this, the loop's own included, and a signal handler. It takes no lock and starts nothing.
        It looks once at each request that is in flight, which takes about a millisecond for 10,000. The numbers are
        read one after another, so that they may not quite agree while requests come and go.
        """
        private_loop = self._private_loop.maybe_get()
        jobs = [] if private_loop is None else private_loop.jobs()
        detaching = None if self._detaching is None else self._detaching.get()
        return statistics_of(jobs, detaching, self._websockets.get())


_adapters: WeakRegistry[ASGIToWSGI] = WeakRegistry()


def start_all() -> None:
    """Start every adapter of the process, except those that the app itself has closed. Raises StartupFailed."""
    for adapter in _adapters.items():
        try:
            adapter._private_loop.get().get()
        except AdapterClosed:
            pass
