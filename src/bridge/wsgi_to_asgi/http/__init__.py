"""One HTTP request to a WSGI app."""
