"""A Bottle app."""

import time
from collections.abc import Iterator

from bottle import Bottle, redirect, request, response

from bridge import WSGIToASGI
from tests.servers.frameworks import parts

app = Bottle()


@app.hook("before_request")
def set_value() -> None:
    parts.value.set(request.query.getunicode("value", "nothing"))


@app.get("/json", name="json")
def json() -> dict[str, object]:
    return {"message": "héllo", "method": request.method}


@app.post("/multipart")
def multipart() -> dict[str, object]:
    upload = request.files.upload
    digest = parts.Digest()
    while block := upload.file.read(parts.BLOCK):
        digest.add(block)
    return {"name": request.forms.name, "filename": upload.raw_filename, **digest.result()}


@app.post("/upload")
def upload() -> dict[str, object]:
    digest = parts.Digest()
    body = request.body  # each access starts at its beginning
    while block := body.read(parts.BLOCK):
        digest.add(block)
    return digest.result()


@app.get("/download")
def download() -> Iterator[bytes]:
    response.content_type = "application/octet-stream"
    return parts.download(int(request.query.size))


@app.get("/events")
def events() -> Iterator[bytes]:
    response.content_type = "text/event-stream"
    return parts.events(int(request.query.count), float(request.query.pause))


@app.get("/left")
def left() -> dict[str, object]:
    return {"left": parts.counts.left}


@app.get("/cookies")
def cookies() -> dict[str, object]:
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return dict(request.cookies)


@app.get("/path/<rest:path>")
def path(rest: str) -> dict[str, object]:
    return {"path": rest, "query": {"q": request.query.getunicode("q")}}


@app.get("/empty/<status:int>")
def empty(status: int) -> None:
    response.status = status


@app.get("/error-before")
def error_before() -> None:
    raise RuntimeError("before")


@app.get("/error-mid")
def error_mid() -> Iterator[bytes]:
    response.content_type = "text/plain"
    return parts.fails()


@app.get("/slow")
def slow() -> dict[str, object]:
    seconds = float(request.query.seconds)
    time.sleep(seconds)
    return {"slept": seconds}


@app.get("/context")
def context() -> Iterator[bytes]:
    response.content_type = "text/plain"
    return parts.values()


@app.get("/redirect")
def redirect_to_json() -> None:
    redirect(app.get_url("json"))


@app.get("/client")
def client() -> dict[str, object]:
    return {"client": request.remote_addr, "scheme": request.urlparts.scheme, "host": request.urlparts.netloc}


# Bottle reads no body without a length, and would decode a chunked one again.
adapted = WSGIToASGI(app, buffer_body=True)
