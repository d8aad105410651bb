"""Both apps as one site, for either kind of server."""

from bridge.migration import ASGIFallback, WSGIFallback
from examples.flask_to_fastapi.api import app
from examples.flask_to_fastapi.legacy import app as legacy

# The header tells who answered: watch it while routes move, and leave it out later.
asgi_app = ASGIFallback(app, legacy, header="X-Answered-By")
wsgi_app = WSGIFallback(app, legacy, header="X-Answered-By")
