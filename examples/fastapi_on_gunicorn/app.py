"""A small FastAPI app behind a WSGI server: notes in SQLite, uploads, server-sent events, a WebSocket, slow requests.

From the repository root:

    gunicorn -c examples/fastapi_on_gunicorn/gunicorn.conf.py examples.fastapi_on_gunicorn.app:wsgi_app

NOTES_DB names the database file. NOTES_COUNTING_SECONDS sets how long counting the words takes, and NOTES_SLOW_SECONDS
how long a slow request takes. README.md, beside this file, shows what to try.
"""

import hashlib
import logging
import os
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Annotated, Any

import anyio
from fastapi import (
    BackgroundTasks,
    Depends,
    FastAPI,
    Header,
    HTTPException,
    Request,
    UploadFile,
    WebSocket,
    WebSocketDisconnect,
)
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from bridge import ASGIToWSGI

logging.basicConfig(level=logging.INFO, format="[%(process)d] %(name)s: %(message)s")
log = logging.getLogger("notes")

DATABASE = Path(os.environ.get("NOTES_DB") or Path(tempfile.gettempdir()) / "notes.sqlite3")
COUNTING_SECONDS = float(os.environ.get("NOTES_COUNTING_SECONDS") or 0.1)
EVENTS_INTERVAL = 0.25
SLOW_SECONDS = float(os.environ.get("NOTES_SLOW_SECONDS") or 1)


class NewNote(BaseModel):
    text: str = Field(min_length=1, max_length=10_000)


class Note(NewNote):
    id: int
    words: int | None = None


class Uploaded(BaseModel):
    name: str | None
    size: int
    sha256: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    # A SQLite connection belongs to one process and one thread. This runs after the fork, in the event loop's thread,
    # where the `async def` routes run too.
    with closing(sqlite3.connect(DATABASE, isolation_level=None)) as db:
        db.row_factory = sqlite3.Row
        db.execute("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL, words INTEGER)")
        log.info("database opened")
        yield {"db": db}
    log.info("database closed")


async def opened_database(request: Request) -> sqlite3.Connection:
    db: sqlite3.Connection = request.state.db
    return db


Database = Annotated[sqlite3.Connection, Depends(opened_database)]
app = FastAPI(title="Notes", lifespan=lifespan)


def notes_after(db: sqlite3.Connection, note_id: int) -> list[Note]:
    rows = db.execute("SELECT id, text, words FROM notes WHERE id > ? ORDER BY id", (note_id,))
    return [Note(**dict(row)) for row in rows]


@app.get("/notes")
async def list_notes(db: Database) -> list[Note]:
    return notes_after(db, 0)


@app.post("/notes", status_code=201)
async def create_note(new: NewNote, db: Database, background: BackgroundTasks) -> Note:
    note_id = db.execute("INSERT INTO notes (text) VALUES (?)", (new.text,)).lastrowid
    assert note_id is not None
    background.add_task(count_words, db, note_id, new.text)
    return Note(id=note_id, text=new.text)


async def count_words(db: sqlite3.Connection, note_id: int, text: str) -> None:
    await anyio.sleep(COUNTING_SECONDS)  # stands for real work: a mail, a search index, another service
    db.execute("UPDATE notes SET words = ? WHERE id = ?", (len(text.split()), note_id))


@app.get("/notes/{note_id}")
async def read_note(note_id: int, db: Database) -> Note:
    row = db.execute("SELECT id, text, words FROM notes WHERE id = ?", (note_id,)).fetchone()
    if row is None:
        raise HTTPException(404, f"there is no note {note_id}")
    return Note(**dict(row))


@app.post("/files")
async def upload(file: UploadFile) -> Uploaded:
    digest = hashlib.sha256()
    size = 0
    while block := await file.read(64 * 1024):
        digest.update(block)
        size += len(block)
    return Uploaded(name=file.filename, size=size, sha256=digest.hexdigest())


@app.get("/slow")
async def slow() -> str:
    await anyio.sleep(SLOW_SECONDS)  # stands for a wait: a model, a slow query, another service
    return "done"


@app.get("/events")
async def events(db: Database, last_event_id: Annotated[int, Header()] = 0) -> StreamingResponse:
    """Send each note as an event, also from other processes. A browser that reconnects goes on where it was."""

    async def new_notes(last: int) -> AsyncIterator[str]:
        try:
            while True:
                notes = notes_after(db, last)
                for note in notes:
                    yield f"id: {note.id}\ndata: {note.model_dump_json()}\n\n"
                    last = note.id
                if not notes:
                    # A comment, so that proxies keep the connection. On some servers only a write shows who has left.
                    yield ": nothing new\n\n"
                await anyio.sleep(EVENTS_INTERVAL)
        finally:
            log.info("stream closed after note %d", last)

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(new_notes(last_event_id), media_type="text/event-stream", headers=headers)


@app.websocket("/live")
async def live(websocket: WebSocket) -> None:
    """Send each new note, also from other processes, and store what the client says as a note."""
    db: sqlite3.Connection = websocket.state.db
    (last,) = db.execute("SELECT coalesce(max(id), 0) FROM notes").fetchone()
    await websocket.accept()

    async def take_notes() -> None:
        async for text in websocket.iter_text():
            db.execute("INSERT INTO notes (text) VALUES (?)", (text,))
        tasks.cancel_scope.cancel()  # the client has left

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take_notes)
            while True:
                for note in notes_after(db, last):
                    await websocket.send_text(note.model_dump_json())
                    last = note.id
                await anyio.sleep(EVENTS_INTERVAL)
    except* WebSocketDisconnect:
        pass  # the client left while a note was on its way
    log.info("feed closed after note %d", last)


# With "auto", /slow and /events hold none of the server's threads while they wait.
wsgi_app = ASGIToWSGI(app, detach="auto")
