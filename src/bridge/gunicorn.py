"""Hooks for gunicorn, by one line in gunicorn.conf.py:

    from bridge.gunicorn import post_worker_init, worker_exit

The app starts with its worker, and shuts down with it; a worker that is told to stop takes leave of
its WebSockets at once, and so does not wait for those that hold a thread (TLS, gevent, "hold").

They are for a worker whose app is an `ASGIToWSGI`. Around other middleware write hooks like these.
"""

import signal
from types import FrameType
from typing import Any


def post_worker_init(worker: Any) -> None:
    """Start the app, and have SIGTERM, on its way to gunicorn, take leave of the WebSockets."""
    worker.wsgi.start()
    gunicorns = signal.getsignal(signal.SIGTERM)

    def leave(number: int, frame: FrameType | None) -> None:
        worker.wsgi.close_websockets()
        if callable(gunicorns):
            gunicorns(number, frame)

    signal.signal(signal.SIGTERM, leave)


def worker_exit(server: Any, worker: Any) -> None:
    """Shut the app down."""
    worker.wsgi.close()
