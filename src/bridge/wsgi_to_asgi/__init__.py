"""A WSGI app behind an ASGI server."""
