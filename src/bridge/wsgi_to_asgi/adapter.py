"""`WSGIToASGI`: a WSGI app as an ASGI app. Its twin is `asgi_to_wsgi/adapter.py`."""

from bridge.runtime import PerProcess
from bridge.sansio.callables import check_wsgi_app
from bridge.sansio.options import check_count, check_flag
from bridge.types import Receive, Scope, Send, WSGIApp
from bridge.wsgi_to_asgi.http.environ import environ_template
from bridge.wsgi_to_asgi.http.exchange import HTTPExchange
from bridge.wsgi_to_asgi.lifespan import serve_lifespan
from bridge.wsgi_to_asgi.runner import WorkerThreads
from bridge.wsgi_to_asgi.statistics import WSGIToASGIStatistics
from bridge.wsgi_to_asgi.websocket.handshake import OpenWebSockets, serve_websocket


class WSGIToASGI:
    """Run a WSGI app behind an ASGI server, in worker threads.

        asgi_app = WSGIToASGI(flask_app)  # uvicorn module:asgi_app

    app
        Any WSGI callable (PEP 3333).
    workers
        The largest number of requests that run at once, 40 by default. Further requests wait. Threads
        start on demand. With 1 the app runs single-threaded, and `wsgi.multithread` is False.
    buffer_body
        Whether to read a request body without Content-Length completely before the app is called, in
        memory up to 1 MiB and on disk above, and to set CONTENT_LENGTH. For frameworks that read
        nothing without it (Django, Bottle). False by default: bodies stream.
    multiprocess
        The value of `wsgi.multiprocess`: whether the server may run the app in other processes as
        well. ASGI does not say, so it is True by default. Debug tools that need one process
        (pyramid_debugtoolbar, Paste's) need False, on a server with one worker.
    lend_loop
        Whether the app's `async def` views run on the server's loop, so that an `httpx.AsyncClient`
        made in one request works in the next. The request body is read completely before the app is
        called, as with `buffer_body`. A view that blocks stops every client, and a call that would
        wait for the loop raises WouldBlockLoop there. False by default: asgiref runs each call of
        such a view on a new loop, as under any WSGI server.
    max_websockets
        The largest number of WebSockets that are open at once, 1000 by default. Further ones are
        refused with 503, and all of them with 0. Each uses a thread of its own, in addition to the
        `workers`. They need `wsgi-asgi-bridge[websocket]`.

    The adapter follows PEP 3333 and the ASGI HTTP, WebSocket and lifespan specs. The server
    calls it on its event loop, asyncio or trio; one adapter can serve several loops and any
    number of requests at once. The app runs in worker threads. `environ["asgi.scope"]` is the scope,
    as a mapping whose repr shows no values, and `environ["bridge.disconnected"]` is an Event-like
    object that is set once the client has left.

    Raises TypeError if `app` is not callable, is an ASGI app, or is a class or function that makes an
    app, and TypeError or ValueError for an invalid option. Calls raise what the app raises,
    AppProtocolError if the app breaks PEP 3333, and ServerProtocolError if the server breaks the
    ASGI spec.
    """

    def __init__(
        self,
        app: WSGIApp,
        *,
        workers: int = 40,
        buffer_body: bool = False,
        multiprocess: bool = True,
        lend_loop: bool = False,
        max_websockets: int = 1000,
    ) -> None:
        check_wsgi_app(app)
        check_count("workers", workers, 1)
        check_flag("buffer_body", buffer_body)
        check_flag("multiprocess", multiprocess)
        check_flag("lend_loop", lend_loop)
        check_count("max_websockets", max_websockets, 0)
        self.app = app
        self._template = environ_template(workers > 1, multiprocess)
        self._buffer_body = buffer_body
        self._lend_loop = lend_loop
        self._workers = PerProcess(lambda: WorkerThreads(workers))
        self._websockets = PerProcess(lambda: OpenWebSockets(max_websockets))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request, WebSocket or lifespan, on the server's loop (ASGI spec, Applications).

        Raises ValueError for a scope of any other type, as the spec asks.
        """
        scope_type = scope.get("type")
        if scope_type == "http":
            workers, buffer_body, lend_loop = self._workers.get(), self._buffer_body, self._lend_loop
            exchange = HTTPExchange(self.app, workers, self._template, scope, receive, send, buffer_body, lend_loop)
            await exchange.serve()
        elif scope_type == "websocket":
            websockets, template = self._websockets.get(), self._template
            await serve_websocket(self.app, websockets, template, scope, receive, send, self._lend_loop)
        elif scope_type == "lifespan":
            await serve_lifespan(self._workers.get(), self._websockets.get(), receive, send)
        else:
            raise ValueError(f"expected a scope of type http, websocket or lifespan, got {scope_type!r:.200}")

    def statistics(self) -> WSGIToASGIStatistics:
        """Return what the adapter is doing in this process, for a health page or for metrics.

        Any thread may call this, a loop's own included. It takes no lock and starts nothing. The numbers are read one
        after another, so that they may not quite agree while requests come and go.
        """
        workers, websockets = self._workers.get(), self._websockets.get()
        threads, waiting = workers.busy, workers.waiting
        return WSGIToASGIStatistics(
            requests=threads + waiting,
            waiting=waiting,
            threads=threads,
            max_threads=workers.limit,
            websockets=len(websockets),
            max_websockets=websockets.limit,
        )
