"""One WebSocket to an ASGI app."""
