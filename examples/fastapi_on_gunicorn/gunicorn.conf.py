"""gunicorn for the app beside this file; the command line (--bind, --workers) has the last word."""  # noqa: N999

# The app starts with its worker rather than with the first request, so that a startup that fails is seen at once, and
# shuts down with it; clients of WebSockets are told that it does.
from bridge.gunicorn import post_worker_init, worker_exit

__all__ = ["post_worker_init", "worker_exit"]

bind = "127.0.0.1:8000"
workers = 2
worker_class = "gthread"
threads = 4
preload_app = True  # the event loop starts in each worker, so the app may be loaded before the fork
# Requests in flight at SIGTERM get this long, in seconds. A worker that still streams then is killed, and its app's
# shutdown does not run.
graceful_timeout = 5
