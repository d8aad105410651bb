"""One HTTP request to an ASGI app."""
