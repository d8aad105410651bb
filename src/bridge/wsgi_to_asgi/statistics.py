"""What a `WSGIToASGI` is doing, in numbers. Its twin is `asgi_to_wsgi/statistics.py`."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class WSGIToASGIStatistics:
    """What one `WSGIToASGI` is doing in this process; see `WSGIToASGI.statistics`."""

    requests: int
    """Requests that run in a worker thread, or wait for one."""
    waiting: int
    """Requests that wait for a worker thread."""
    threads: int
    """Worker threads that run a request."""
    max_threads: int
    """How many worker threads there may be: the option `workers`."""
    websockets: int
    """Open WebSockets, each in a thread of its own."""
    max_websockets: int
    """How many there may be."""
