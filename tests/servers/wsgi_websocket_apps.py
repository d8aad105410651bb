"""WSGI apps with WebSockets, one for each library, in one ASGI app: `asgi_app`.

Besides its messages, an app writes notes to stdout, one per line, each after the `id` of its query.
"""

import os
import time
from collections.abc import Iterable
from typing import Any

import bottle
import simple_websocket
from flask import Flask, Response, redirect, request
from flask_sock import Sock
from flask_socketio import SocketIO, emit
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from bridge import WSGIToASGI
from bridge.types import Environ, StartResponse

# --- flask-sock -----------------------------------------------------------------------------------

app = Flask(__name__)
app.config["SOCK_SERVER_OPTIONS"] = {"subprotocols": ["v2"]}
sock = Sock(app)


def note(text: str) -> None:
    os.write(1, f"{request.args.get('id', '')} {text}\n".encode())


@app.get("/hello")
def hello() -> str:
    return "hello"


@sock.route("/echo")  # type: ignore[untyped-decorator]
def echo(ws: Any) -> None:
    """Echo until the client leaves; note how it left."""
    try:
        while True:
            ws.send(ws.receive())
    except simple_websocket.ConnectionClosed as error:
        note(f"closed {error.reason} {error.message or ''}".rstrip())
        raise


@sock.route("/subprotocol")  # type: ignore[untyped-decorator]
def subprotocol(ws: Any) -> None:
    ws.send(str(ws.subprotocol))


@sock.route("/close")  # type: ignore[untyped-decorator]
def close(ws: Any) -> None:
    ws.close(int(request.args["code"]), request.args.get("reason"))


@sock.route("/raise")  # type: ignore[untyped-decorator]
def fail(ws: Any) -> None:
    raise ValueError("Deliberate")


@sock.route("/flood")  # type: ignore[untyped-decorator]
def flood(ws: Any) -> None:
    """Send until send raises; note how much was sent."""
    sent = 0
    try:
        while True:
            ws.send(b"x" * 65536)
            sent += 65536
    finally:
        note(f"flooded {sent}")


@sock.route("/count")  # type: ignore[untyped-decorator]
def count(ws: Any) -> None:
    for number in range(int(request.args["to"])):
        ws.send(str(number))


@app.get("/room", websocket=True)
def room() -> Response | str:
    """Refuse users who are not logged in."""
    return redirect("/login") if "login" not in request.args else "<form>Who are you?</form>"  # type: ignore[return-value]


# --- Flask-SocketIO -------------------------------------------------------------------------------

# Its client may leave without a Close frame if it has just sent something; the server then notices at the next ping.
socketio = SocketIO(app, async_mode="threading", ping_interval=1)


@socketio.on("shout")
def shout(message: str) -> str:
    emit("echo", message.upper())
    return f"{len(message)} letters"


@socketio.on("blob")
def blob(content: bytes) -> None:
    emit("blob", content[::-1])


# --- bottle, by wsgi.websocket --------------------------------------------------------------------

room_app = bottle.Bottle()


@room_app.route("/echo")  # type: ignore[untyped-decorator]
def bottle_echo() -> str:
    ws = bottle.request.environ.get("wsgi.websocket")
    if not ws:
        bottle.abort(400, "Expected WebSocket request.")
    while (message := ws.receive()) is not None:
        ws.send(message)
    os.write(1, f"{bottle.request.query.id} closed\n".encode())
    return ""


@room_app.route("/close")  # type: ignore[untyped-decorator]
def bottle_close() -> str:
    bottle.request.environ["wsgi.websocket"].close(4001, "bye")
    return ""


# --- simple-websocket, by itself ------------------------------------------------------------------


def bare(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Echo with pings of its own, and return something that is not a response."""
    ws = simple_websocket.Server.accept(environ, ping_interval=0.5)
    try:
        while True:
            ws.send(ws.receive())
    except simple_websocket.ConnectionClosed:
        return []


def stubborn(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Accept, and then ignore everything for a while."""
    simple_websocket.Server.accept(environ)
    time.sleep(3)
    return []


asgi_app = WSGIToASGI(
    DispatcherMiddleware(app.wsgi_app, {"/bottle": room_app, "/bare": bare, "/stubborn": stubborn}),
    workers=int(os.environ.get("WORKERS", "8")),
    max_websockets=int(os.environ.get("MAX_WEBSOCKETS", "1000")),
)
