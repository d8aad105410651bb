"""A guest book: an ordinary Flask app on an ASGI server. Run in the root of the repository:

    pip install -e ".[examples]"
    uvicorn examples.flask_on_asgi.app:asgi_app

Then open http://127.0.0.1:8000/, or upload a file from a shell:

    curl -F file=@README.md http://127.0.0.1:8000/upload    # as a form, like a browser
    curl -T README.md http://127.0.0.1:8000/upload          # as the plain request body

The environment variable GUESTBOOK_DB names the SQLite file that holds the entries.
"""

import asyncio
import csv
import hashlib
import io
import json
import logging
import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flask import Flask, Response, abort, g, redirect, render_template, request, stream_with_context, url_for
from flask_sock import Sock
from simple_websocket import Server
from werkzeug import Response as BaseResponse

from bridge import WSGIToASGI

DATABASE = os.environ.get("GUESTBOOK_DB") or Path(tempfile.gettempdir()) / "guestbook.sqlite3"
COLUMNS = "id INTEGER PRIMARY KEY, written TEXT DEFAULT CURRENT_TIMESTAMP, name TEXT NOT NULL, message TEXT NOT NULL"

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 64 * 1024 * 1024
app.logger.setLevel(logging.INFO)
sock = Sock(app)


def database() -> sqlite3.Connection:
    """Return the request's own connection: SQLite's belong to one thread, and a request stays in one."""
    if "connection" not in g:
        g.connection = sqlite3.connect(DATABASE, timeout=30)
        g.connection.execute(f"CREATE TABLE IF NOT EXISTS entry ({COLUMNS})")
    connection: sqlite3.Connection = g.connection
    return connection


@app.teardown_appcontext
def close_database(_error: BaseException | None) -> None:
    if "connection" in g:
        g.pop("connection").close()


@app.get("/")
def index() -> str:
    entries = database().execute("SELECT written, name, message FROM entry ORDER BY id DESC LIMIT 100").fetchall()
    return render_template("index.html", entries=entries)


@app.post("/")
def sign() -> BaseResponse:
    name, message = (request.form.get(field, "").strip() for field in ("name", "message"))
    if not (0 < len(name) <= 80 and 0 < len(message) <= 2000):
        abort(400, "A name (up to 80 characters) and a message (up to 2000), please.")
    with database() as connection:  # a transaction
        connection.execute("INSERT INTO entry (name, message) VALUES (?, ?)", (name, message))
    return redirect(url_for("index"), code=303)


@app.route("/upload", methods=["POST", "PUT"])
def upload() -> dict[str, object]:
    """Count and hash a file, sent as a form or as the plain body, with or without a Content-Length."""
    # Werkzeug spools a form's file to disk as it arrives. A plain body passes through, block by block.
    source = request.files["file"] if request.mimetype == "multipart/form-data" else request.stream
    size, digest = 0, hashlib.sha256()
    while block := source.read(64 * 1024):
        size += len(block)
        digest.update(block)
    return {"size": size, "sha256": digest.hexdigest()}


@app.get("/entries.csv")
def entries_csv() -> Response:
    def blocks() -> Iterator[str]:
        rows: list[tuple[Any, ...]] = [("id", "written", "name", "message")]
        last = 0
        while rows:
            text = io.StringIO()
            csv.writer(text).writerows(rows)
            yield text.getvalue()
            # No cursor stays open between blocks, because it would lock writers out for as long as a slow client reads.
            query = "SELECT id, written, name, message FROM entry WHERE id > ? ORDER BY id LIMIT 100"
            rows = database().execute(query, (last,)).fetchall()
            last = rows[-1][0] if rows else last

    return Response(stream_with_context(blocks()), mimetype="text/csv")


@app.get("/events")
def events() -> Response:
    """Send the time and the number of entries every second. Each client holds one of the adapter's `workers`."""
    client = f"{request.remote_addr}:{request.environ.get('REMOTE_PORT')}"
    # Set when the client leaves. A plain WSGI server has no such Event: there, the next write fails.
    disconnected = request.environ.get("bridge.disconnected", threading.Event())

    def stream() -> Iterator[str]:
        sent, gone = 0, False
        try:
            while not gone:
                (entries,) = database().execute("SELECT count(*) FROM entry").fetchone()
                yield f"data: {json.dumps({'entries': entries, 'time': time.strftime('%H:%M:%S')})}\n\n"
                sent += 1
                gone = disconnected.wait(1)  # like time.sleep(1), but ends when the client leaves
        finally:
            app.logger.info("%s left after %d events", client, sent)

    return Response(stream_with_context(stream()), mimetype="text/event-stream", headers={"Cache-Control": "no-cache"})


@sock.route("/live")  # type: ignore[untyped-decorator]
def live(ws: Server) -> None:
    """Send each new entry over a WebSocket, which has a thread of its own besides the adapter's `workers`."""
    (last,) = database().execute("SELECT coalesce(max(id), 0) FROM entry").fetchone()
    ws.send(json.dumps({"last": last}))
    while True:
        query = "SELECT id, written, name, message FROM entry WHERE id > ? ORDER BY id LIMIT 100"
        for entry_id, written, name, message in database().execute(query, (last,)).fetchall():
            ws.send(json.dumps({"written": written, "name": name, "message": message}))
            last = entry_id
        ws.receive(timeout=0.5)  # like time.sleep(0.5), but raises, and so ends the route, when the client leaves


@app.route("/async", methods=["POST", "PUT"])
async def async_upload() -> dict[str, object]:
    """Count and hash a body in an `async def` view. Flask runs each call on a loop in a thread of its own."""
    body = request.get_data()  # may wait for the client; with lend_loop=True the whole body is here already
    await asyncio.sleep(0)
    return {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}


@app.get("/async")
async def concurrent() -> dict[str, object]:
    """Wait a hundred times at once."""
    start = time.perf_counter()
    await asyncio.gather(*(asyncio.sleep(0.1) for _ in range(100)))
    loop, thread = asyncio.get_running_loop(), threading.current_thread()
    seconds = round(time.perf_counter() - start, 3)
    return {"loop": f"{type(loop).__module__} {id(loop):#x}", "thread": thread.name, "seconds": seconds}


asgi_app = WSGIToASGI(app)
