"""Hooks for gunicorn, by one line in gunicorn.conf.py:

    from bridge.gunicorn import post_worker_init, worker_exit

They act on every `ASGIToWSGI` of the process, including those inside middleware or other apps. The
apps start with their worker. If one cannot start, the worker exits and logs the app's traceback once.

When a worker is told to stop, it ends event streams and WebSockets at once. Other requests and
background work have `shutdown_timeout` seconds before they are cancelled. Then the apps shut down. All
of this happens within nine tenths of gunicorn's `graceful_timeout` (or `timeout`, if that is shorter).

A detached response (`ASGIToWSGI(detach="auto")`) has its line in gunicorn's access log when it ends, with
its own status, size and time, in gunicorn's format. The line that gunicorn writes when the response leaves
its thread is left out. `post_request` is called at that moment, with "bridge.detached" in the environ.
"""

import datetime
import signal
import sys
from types import FrameType, SimpleNamespace
from typing import Any

from bridge.asgi_to_wsgi.adapter import start_all
from bridge.asgi_to_wsgi.http import access
from bridge.asgi_to_wsgi.runner import begin_to_stop_all, close_all
from bridge.errors import StartupFailed

# The share of gunicorn's timeout to use; the worker needs the rest to notice and exit.
_SHARE = 0.9
# gunicorn.arbiter.Arbiter.WORKER_BOOT_ERROR, at which the master gives up
_BOOT_ERROR = 3


def post_worker_init(worker: Any) -> None:
    """Start the apps, and make SIGTERM begin to stop them before gunicorn handles it; join the access logs."""
    _join_access_logs(worker.log)
    gunicorns = signal.getsignal(signal.SIGTERM)

    def begin_to_stop(number: int, frame: FrameType | None) -> None:
        begin_to_stop_all(_patience(worker))
        if callable(gunicorns):
            gunicorns(number, frame)

    signal.signal(signal.SIGTERM, begin_to_stop)
    signal.siginterrupt(signal.SIGTERM, False)  # gunicorn sets this too, and signal() resets it
    try:
        start_all()
    except StartupFailed as error:
        worker.log.error("%s", error, exc_info=error.__cause__)
        sys.exit(_BOOT_ERROR)


def worker_exit(server: Any, worker: Any) -> None:
    """Shut the apps down."""
    begin_to_stop_all(_patience(worker))
    close_all()


def _join_access_logs(log: Any) -> None:
    """Have a gunicorn.glogging.Logger, or one of the user's class, log detached responses when they end."""
    gunicorns = log.access

    def log_unless_detached(resp: Any, req: Any, environ: dict[str, Any], request_time: datetime.timedelta) -> None:
        if access.MARK not in environ:
            gunicorns(resp, req, environ, request_time)

    def log_detached(answered: access.Answered) -> None:
        environ = dict(answered.environ)
        headers = [(name[5:].replace("_", "-"), value) for name, value in environ.items() if name.startswith("HTTP_")]
        response = SimpleNamespace(status=answered.status, headers=answered.headers, sent=answered.size)
        request = SimpleNamespace(headers=headers)
        gunicorns(response, request, environ, datetime.timedelta(seconds=answered.seconds))

    log.access = log_unless_detached
    access.listeners.append(log_detached)


def _patience(worker: Any) -> float:
    """Return how many seconds a worker has from SIGTERM on until the master kills it."""
    timeout: float = worker.cfg.timeout  # seconds between two heartbeats; 0 means no limit
    graceful_timeout: float = worker.cfg.graceful_timeout
    return _SHARE * (min(graceful_timeout, timeout) if timeout else graceful_timeout)
