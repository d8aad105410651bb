"""gunicorn for the app beside this file; the command line (--bind, --workers) has the last word."""  # noqa: N999

from typing import Any

bind = "127.0.0.1:8000"
workers = 2
worker_class = "gthread"
threads = 4
preload_app = True  # the event loop starts in each worker, so the app may be loaded before the fork
# Requests in flight at SIGTERM get this long, in seconds. A worker that still streams then is killed, and its app's
# shutdown does not run.
graceful_timeout = 5


def post_worker_init(worker: Any) -> None:
    worker.wsgi.start()  # rather than with the first request, so that a startup that fails is seen at once


def worker_exit(server: Any, worker: Any) -> None:
    worker.wsgi.close()
