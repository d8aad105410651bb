"""gunicorn for the app beside this file; the command line (--bind, --workers) has the last word."""  # noqa: N999

# The app starts with its worker rather than with the first request, so that a startup that fails is seen at once, and
# shuts down with it. At SIGTERM the hooks end event streams and WebSockets at once.
from bridge.gunicorn import post_worker_init, worker_exit

__all__ = ["post_worker_init", "worker_exit"]

bind = "127.0.0.1:8000"
workers = 2
worker_class = "gthread"
threads = 4
preload_app = True  # the event loop starts in each worker, so the app may be loaded before the fork
# How long a worker may take to end, in seconds: requests in flight at SIGTERM get half of it (but no more than
# shutdown_timeout), and are then cut, so that the app's shutdown runs before gunicorn kills the worker.
graceful_timeout = 5
