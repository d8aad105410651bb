"""`WSGIToASGI`: a WSGI app as an ASGI app."""

from bridge.runtime import PerProcess
from bridge.sansio.callables import check_wsgi_app
from bridge.sansio.options import check_count, check_flag
from bridge.types import Receive, Scope, Send, WSGIApp
from bridge.wsgi_to_asgi.http.environ import environ_template
from bridge.wsgi_to_asgi.http.exchange import HTTPExchange
from bridge.wsgi_to_asgi.lifespan import serve_lifespan
from bridge.wsgi_to_asgi.runner import WorkerThreads
from bridge.wsgi_to_asgi.websocket.handshake import OpenWebSockets, serve_websocket


class WSGIToASGI:
    """Run a WSGI app behind an ASGI server, in worker threads.

        asgi_app = WSGIToASGI(flask_app)  # uvicorn module:asgi_app

    app
        Any WSGI callable (PEP 3333).
    workers
        The most requests that run at once, 40 by default; more wait their turn. Threads start as
        they are needed. With 1 the app runs single-threaded, and `wsgi.multithread` says so.
    buffer_body
        Whether to read a request body without Content-Length to its end before the app is called,
        in memory up to 1 MiB and on disk beyond, and to set CONTENT_LENGTH. For frameworks that
        read nothing without it (Django, Bottle). Off by default: bodies stream.
    multiprocess
        What `wsgi.multiprocess` says: whether the server may run the app in other processes, too.
        ASGI does not tell, so True by default. False is for debug tools that need one process
        (pyramid_debugtoolbar, Paste's), on a server with one worker.
    lend_loop
        Whether the app's `async def` views run on the server's loop, so that an `httpx.AsyncClient`
        made in one request works in the next. The request body is read to its end before the app
        is called, as with `buffer_body`. A view that blocks has every client wait, and what would
        wait for the loop raises WouldBlockLoop there. Off by default: asgiref runs each call of
        such a view on a new loop, as under any WSGI server.
    max_websockets
        The most WebSockets that are open at once, 1000 by default; the next one is refused with 503,
        and with 0 all are. Each has a thread of its own, beside the `workers`. They need `bridge[websocket]`.

    The adapter is called on the server's event loop, asyncio or trio, and serves any number of
    requests and loops at once. `environ["asgi.scope"]` is the scope, as a mapping whose repr shows
    no values, and `environ["bridge.disconnected"]` an Event-like object that tells whether the
    client has left.

    Raises TypeError if `app` is not callable, is an ASGI app, or a class or function that makes an
    app; TypeError or ValueError for an option that makes no sense. What the app raises reaches the
    server; AppProtocolError says that it broke PEP 3333, ServerProtocolError that the server broke
    the ASGI spec.
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
        """Serve one connection, on the loop that the server runs on (ASGI spec, Applications)."""
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
            # "If an application does not understand the scope, it should raise": ASGI spec.
            raise ValueError(f"no bridge for a scope of type {scope_type!r:.200}")
