"""Apps mounted in apps: a WSGI app in an ASGI app and the reverse, and the native counterparts."""

from fastapi import FastAPI
from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from tests.servers.frameworks import fastapi_app, flask_app

flask_in_fastapi = FastAPI()
flask_in_fastapi.mount("/legacy", flask_app.adapted)

fastapi_in_flask = DispatcherMiddleware(Flask("outer"), {"/api": fastapi_app.adapted})

flask_in_flask = DispatcherMiddleware(Flask("outer"), {"/legacy": flask_app.app})

# The outer app runs a mounted app's lifespan.
fastapi_in_fastapi = FastAPI(lifespan=fastapi_app.lifespan)
fastapi_in_fastapi.mount("/api", fastapi_app.app)
