"""A Flask app."""

import atexit
import os
import time

from flask import Flask, Response, jsonify, redirect, request, url_for
from werkzeug import Response as Redirect

from bridge import WSGIToASGI
from tests.servers.frameworks import parts

app = Flask(__name__)


@app.before_request
def set_value() -> None:
    parts.value.set(request.args.get("value", "nothing"))


@app.get("/json")
def json() -> dict[str, object]:
    return {"message": "héllo", "method": request.method}


@app.post("/multipart")
def multipart() -> dict[str, object]:
    upload = request.files["upload"]
    return {"name": request.form["name"], "filename": upload.filename, **parts.digest(upload.read())}


@app.post("/upload")
def upload() -> dict[str, object]:
    digest = parts.Digest()
    while block := request.stream.read(parts.BLOCK):
        digest.add(block)
    return digest.result()


@app.get("/download")
def download() -> Response:
    return Response(parts.download(int(request.args["size"])), mimetype="application/octet-stream")


@app.get("/events")
def events() -> Response:
    stream = parts.events(int(request.args["count"]), float(request.args["pause"]))
    return Response(stream, mimetype="text/event-stream")


@app.get("/left")
def left() -> dict[str, object]:
    return {"left": parts.counts.left}


@app.get("/cookies")
def cookies() -> Response:
    response = jsonify(request.cookies)
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response


@app.get("/path/<path:rest>")
def path(rest: str) -> dict[str, object]:
    return {"path": rest, "query": {"q": request.args.get("q")}}


@app.get("/empty/<int:status>")
def empty(status: int) -> tuple[str, int]:
    return "", status


@app.get("/error-before")
def error_before() -> str:
    raise RuntimeError("before")


@app.get("/error-mid")
def error_mid() -> Response:
    return Response(parts.fails(), mimetype="text/plain")


@app.get("/slow")
def slow() -> dict[str, object]:
    seconds = float(request.args["seconds"])
    time.sleep(seconds)
    return {"slept": seconds}


@app.get("/context")
def context() -> Response:
    return Response(parts.values(), mimetype="text/plain")


@app.get("/redirect")
def redirect_to_json() -> Redirect:
    return redirect(url_for("json"))


@app.get("/client")
def client() -> dict[str, object]:
    return {"client": request.remote_addr, "scheme": request.scheme, "host": request.host}


# A WSGI app's lifespan is its import and this. It shows how a server ends.
atexit.register(parts.shut_down)


@app.get("/state")
def state() -> dict[str, object]:
    return {"pid": os.getpid()}


adapted = WSGIToASGI(app)
