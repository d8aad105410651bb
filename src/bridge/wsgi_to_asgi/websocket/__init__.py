"""One WebSocket to a WSGI app."""
