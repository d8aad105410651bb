"""Configuration of gunicorn for the app in this folder; options on the command line (--bind, --workers) override it."""  # noqa: N999

# The hooks start the app with its worker instead of with the first request, so that a failed startup shows at once, and
# shut it down with the worker. At SIGTERM they end event streams and WebSockets at once.
from bridge.gunicorn import post_worker_init, worker_exit

__all__ = ["post_worker_init", "worker_exit"]

bind = "127.0.0.1:8000"
workers = 2
worker_class = "gthread"
threads = 4
preload_app = True  # the event loop starts in each worker, so the app may be loaded before the fork
# How many seconds a worker may take to end. Requests in flight at SIGTERM get up to half of it (and at most
# shutdown_timeout) and are then cut, so that the app's shutdown runs before gunicorn kills the worker.
graceful_timeout = 5
