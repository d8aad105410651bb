"""A WSGI server's call for one HTTP request to an ASGI app."""

from collections.abc import Iterable

from bridge.asgi_to_wsgi.http.body import RequestBody
from bridge.asgi_to_wsgi.http.call import WSGICall
from bridge.asgi_to_wsgi.http.detaching import Detaching
from bridge.asgi_to_wsgi.http.exchange import HTTPExchange
from bridge.asgi_to_wsgi.http.leaving import LeavableCall
from bridge.asgi_to_wsgi.loop import LoopThread
from bridge.asgi_to_wsgi.servers import decode_path
from bridge.errors import ClientProtocolError
from bridge.sansio.request import scope_from_environ
from bridge.sansio.trailers import EXTENSION as TRAILERS
from bridge.sansio.trailers import GUNICORNS_SEND_TRAILERS, SEND_TRAILERS, maybe_send_trailers
from bridge.types import ASGIApp, Environ, StartResponse


def serve_http(
    app: ASGIApp,
    loop_thread: LoopThread,
    environ: Environ,
    start_response: StartResponse,
    pathsend: bool = False,
    detaching: Detaching | None = None,
) -> Iterable[bytes]:
    """Answer one request with `app`, as a WSGI app would; in the request's WSGI thread.

    `pathsend` offers http.response.pathsend. Starlette uses it for every file if it is offered. Middleware that knows
    only http.response.body then loses the response, or fails.
    """
    decode_path(environ)
    try:
        scope = scope_from_environ(environ)
    except ClientProtocolError as error:
        text = f"Bad request: {error}\n".encode()
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(text)))]
        start_response("400 Bad Request", headers)
        return [text]
    if pathsend:
        scope["extensions"]["http.response.pathsend"] = {}
    if callable(environ.get("wsgi.early_hints")):
        scope["extensions"]["http.response.early_hint"] = {}
    if (SEND_TRAILERS in environ or GUNICORNS_SEND_TRAILERS in environ) and maybe_send_trailers(environ) is not None:
        scope["extensions"][TRAILERS] = {}
    if loop_thread.state is not None:
        scope["state"] = loop_thread.state.copy()
    exchange = HTTPExchange(app, loop_thread, scope)
    body = RequestBody(environ)
    if detaching is None:
        return WSGICall(exchange, environ, body).serve(loop_thread, start_response)
    call = LeavableCall(exchange, environ, body)
    call.detaching = detaching
    exchange.may_detach = True
    return call.serve(loop_thread, start_response)
