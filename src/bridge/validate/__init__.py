"""An ASGI counterpart of `wsgiref.validate`: it reports who breaks the ASGI spec, and which clause of it.

    from bridge.validate import validator

    app = validator(app)  # uvicorn module:app, ASGIToWSGI(validator(app)), validator(WSGIToASGI(app))

Put it between a server and an app, in tests and in development. It checks the scope and each message of http, websocket
and lifespan connections, in both directions: which keys there are, what they hold, and whether the message may come at
this point. It passes on legal scopes and messages unchanged, including unknown keys, extensions that the server
offered, and connections of other protocols. The one exception: an iterator becomes a list, because checking it uses
it up.

`validator(app, judge="app")` lets the server do what it wants, such as a test client whose scopes lack keys;
`judge="server"` lets the app. `pytest --asgi-validate` judges the apps that tests call by `httpx.ASGITransport` and
by the `TestClient` of Starlette and FastAPI (`bridge.validate.pytest_plugin`).

Where something is not legal, the validator raises an error in the place that can act on it:

AppProtocolError
    Raised by `send` and `receive`: the app sent what it must not, or called them after it had returned. Raised to the
    server: the app returned too early, or returned something other than None.
ServerProtocolError
    Raised to the server for its scope, and by `receive` for its messages.

If the app catches one of these errors, the validator raises it again when the app returns. Each error ends with the
document, section and clause that were broken; docs/clauses.md has a paragraph for each clause. An ASGIWarning reports
what a server should do but need not, and what apps must not send but today's servers take: header names that are not in
lower case, as Django's are, a bytearray or memoryview as a body, `http.response.debug` after the start, and a list as
the reason of a close.
A server that takes any error in the lifespan as lack of support hides the validator's errors there: run
uvicorn with `--lifespan on`.

`validator(app)` may serve any number of connections on any number of loops, asyncio or trio, at once. Call `send` and
`receive` on the loop on which the app was called. They never wait except for the server.
"""

from bridge.validate.connection import validator
from bridge.validate.side import ASGIWarning

__all__ = ["ASGIWarning", "validator"]
