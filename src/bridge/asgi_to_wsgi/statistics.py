"""What an `ASGIToWSGI` is doing, in numbers. Its twin is `wsgi_to_asgi/statistics.py`."""

from dataclasses import dataclass

from bridge.asgi_to_wsgi.http.detached import DetachedResponse
from bridge.asgi_to_wsgi.http.detaching import Detaching
from bridge.asgi_to_wsgi.http.exchange import HTTPExchange
from bridge.asgi_to_wsgi.tasks import Job
from bridge.asgi_to_wsgi.websocket.handshake import WebSockets


@dataclass(frozen=True, kw_only=True)
class ASGIToWSGIStatistics:
    """What one `ASGIToWSGI` is doing in this process; see `ASGIToWSGI.statistics`.

    The totals count from the adapter's first request in this process on. All other numbers say what is the case now.
    """

    requests: int
    """Requests whose client waits for something that the app has yet to send, and detached responses."""
    background: int
    """Requests whose app still runs, in background tasks for example, although the response has ended or the client has
    left."""
    threads: int
    """Threads of the server that these requests and WebSockets hold. While the server sends the end of a response, its
    thread is not counted."""
    max_threads: int | None
    """How many requests the server runs at once. None without `detach`, before the first request, and if the server
    does not tell or has no limit."""
    detached: int
    """Responses that have left the server's threads."""
    max_detached: int
    """How many responses may; 0 without `detach`."""
    detached_total: int
    """Responses that have left so far."""
    kept_total: int
    """Responses that were to leave so far, but could not; the logger "bridge" says why at debug level."""
    websockets: int
    """Open WebSockets."""
    max_websockets: int
    """How many there may be."""
    websockets_taken: int
    """Open WebSockets whose connection has moved to the event loop."""
    websockets_carried: int
    """Open WebSockets whose bytes a thread or a greenlet of the server carries."""


def statistics_of(jobs: list[Job], detaching: Detaching | None, websockets: WebSockets) -> ASGIToWSGIStatistics:
    """Count what an adapter is doing; from any thread."""
    detached = {job.exchange for job in jobs if isinstance(job, DetachedResponse)}
    others = {job for job in jobs if isinstance(job, HTTPExchange)} - detached
    open_websockets = websockets.open()
    their_apps = {id(websocket) for websocket in open_websockets}  # an exchange runs each of them as its app
    in_flight = sum(exchange.in_flight for exchange in others)
    after_end = [exchange for exchange in others if not exchange.in_flight and id(exchange.app) not in their_apps]
    holding = sum(websocket.holds_thread for websocket in open_websockets)
    carried = sum(websocket.carried for websocket in open_websockets)
    return ASGIToWSGIStatistics(
        requests=in_flight + len(detached),
        background=len(after_end),
        threads=in_flight + holding,
        max_threads=None if detaching is None else detaching.maybe_threads,
        detached=len(detached),
        max_detached=0 if detaching is None else detaching.limit,
        detached_total=0 if detaching is None else detaching.left.total(),
        kept_total=0 if detaching is None else detaching.kept.total(),
        websockets=len(open_websockets),
        max_websockets=websockets.limit,
        websockets_taken=len(open_websockets) - carried,
        websockets_carried=carried,
    )
