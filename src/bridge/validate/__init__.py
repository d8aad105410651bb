"""An ASGI twin of `wsgiref.validate`: a layer that tells who breaks the ASGI spec, and which clause of it.

    from bridge.validate import validator

    app = validator(app)  # uvicorn module:app, ASGIToWSGI(validator(app)), validator(WSGIToASGI(app))

It goes between a server and an app, in tests and in development, and looks at the scope and at every message
of http, websocket and lifespan connections, both ways: its keys and their types, and whether its turn has
come. What is legal passes as it is, with it unknown keys, extensions that were offered, and connections of
other protocols; only an iterator becomes a list, as to look at it uses it up. What is not legal is an error,
raised to the one who can be told:

AppProtocolError
    Out of `send` and `receive`, for what the app sends, and for calls after its return; to the server, for an
    app that returns too early, or anything but None.
ServerProtocolError
    To the server, for its scope; out of `receive`, for its messages.

What the app catches of these is raised again when it returns. Each ends with the document, the section and
the clause (conformance/src/wsgi_asgi_conformance/clauses). What a server should do and need not is an ASGIWarning,
and so are response headers that are not in lower case, as all of Django's are not. A server that takes any error in the
lifespan for a lack of support hides what it would tell: set uvicorn's to "on".

`validator(app)` may serve any number of connections and loops, asyncio or trio, at once. `send` and `receive`
belong to the loop that the app was called on. They wait for nothing of their own.
"""

from bridge.validate.connection import validator
from bridge.validate.side import ASGIWarning

__all__ = ["ASGIWarning", "validator"]
