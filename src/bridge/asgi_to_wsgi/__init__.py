"""An ASGI app behind a WSGI server."""
