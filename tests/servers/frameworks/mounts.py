"""Apps inside apps: a WSGI app in an ASGI one and the other way round, and what there is natively."""

from fastapi import FastAPI
from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from tests.servers.frameworks import fastapi_app, flask_app

flask_in_fastapi = FastAPI()
flask_in_fastapi.mount("/legacy", flask_app.adapted)

fastapi_in_flask = DispatcherMiddleware(Flask("outer"), {"/api": fastapi_app.adapted})

flask_in_flask = DispatcherMiddleware(Flask("outer"), {"/legacy": flask_app.app})

# A mounted app's lifespan is for the outer app to run.
fastapi_in_fastapi = FastAPI(lifespan=fastapi_app.lifespan)
fastapi_in_fastapi.mount("/api", fastapi_app.app)
