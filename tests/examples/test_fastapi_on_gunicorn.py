"""The FastAPI example behind gunicorn (gthread and sync), uWSGI, and wsgiref in Passenger's place."""

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.processes import ROOT, Server, serving, wait_until

EXAMPLE = ROOT / "examples" / "fastapi_on_gunicorn"
LINES = dict(re.findall(r"<!-- ([^>]+) -->\n```sh\n(.*?)\n```\n", (EXAMPLE / "README.md").read_text()))
UWSGI = Path(sys.executable).parent / "uwsgi"
COUNTING_SECONDS = 2.0
SLOW_SECONDS = 2.0
READS_CHUNKS = ("gthread", "sync")
# One more than the requests that the example's servers run at once: 2 processes with 4 threads.
MORE_THAN_THREADS = 9

# Like Passenger's own loader: load the file by its path, in a process that starts in its folder.
PASSENGER = """
import importlib.util, signal, sys
from wsgiref.simple_server import make_server

spec = importlib.util.spec_from_file_location("passenger_wsgi", "passenger_wsgi.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
make_server("127.0.0.1", {port}, module.application).serve_forever()
"""
GUNICORN = [
    *("{python}", "-m", "gunicorn", "-c", "examples/fastapi_on_gunicorn/gunicorn.conf.py"),
    *("--bind", "127.0.0.1:{port}", "examples.fastapi_on_gunicorn.app:wsgi_app"),
]
COMMANDS: dict[str, list[str]] = {
    "gthread": GUNICORN,
    "sync": [*GUNICORN, "--worker-class", "sync", "--threads", "1"],
    "uwsgi": [str(UWSGI), "examples/fastapi_on_gunicorn/uwsgi.ini", "--http-socket", "127.0.0.1:{port}"],
    "passenger": ["{python}", "-c", PASSENGER],
}
SERVERS = [
    pytest.param(name, marks=pytest.mark.skipif(name == "uwsgi" and not UWSGI.exists(), reason="uwsgi is not there"))
    for name in COMMANDS
]


class Deployment(NamedTuple):
    """A server that runs the example, and the database that it uses."""

    name: str
    server: Server
    database: Path

    @property
    def client(self) -> httpx.Client:
        return self.server.client

    def add_note(self, text: str) -> None:
        """Add a note to the database directly, as another process would."""
        with contextlib.closing(sqlite3.connect(self.database)) as db, db:
            db.execute("INSERT INTO notes (text) VALUES (?)", (text,))


@contextlib.contextmanager
def deployed(name: str, folder: Path, options: Sequence[str] = (), *, tracebacks: bool = False) -> Iterator[Deployment]:
    """Run the example under the named server; fail if its output has a traceback, unless that is allowed."""
    env = {
        "NOTES_DB": str(folder / "notes.sqlite3"),
        "NOTES_COUNTING_SECONDS": str(COUNTING_SECONDS),
        "NOTES_SLOW_SECONDS": str(SLOW_SECONDS),
        "XDG_RUNTIME_DIR": str(folder),  # where newer gunicorns put a control socket, one for all otherwise
    }
    cwd = EXAMPLE if name == "passenger" else ROOT
    with serving([*COMMANDS[name], *options], cwd=cwd, env=env) as server:
        yield Deployment(name, server, folder / "notes.sqlite3")
        if server.process.poll() is None:
            server.stop()
        for word in ("never retrieved", "never awaited", "was destroyed", *([] if tracebacks else ["Traceback"])):
            assert word not in server.output(), server.output()


@pytest.fixture(scope="module", params=SERVERS)
def deployment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Run the example under each server, once for all tests that leave it unchanged."""
    with deployed(request.param, tmp_path_factory.mktemp(request.param)) as running:
        yield running


def pids_that_said(server: Server, text: str) -> Counter[str]:
    return Counter(re.findall(rf"\[(\d+)\] notes: {text}$", server.output(), re.MULTILINE))


def group_has_gone(process_group: int) -> bool:
    """Return whether all processes of the group have ended and been waited for."""
    try:
        os.killpg(process_group, 0)
    except ProcessLookupError:
        return True
    return False


def cpu_seconds(process_group: int) -> float:
    """Return the CPU time that the processes of a group have used so far (proc(5), stat)."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # a process that has just ended
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == process_group:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def received_until_end(deployment: Deployment, request: bytes, *, abort: bool = False) -> bytes:
    """Send `request`, or a part of one and an end of file; return what the server sends before it closes."""
    with deployment.server.connect() as connection:
        connection.sendall(request)
        if abort:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        with contextlib.suppress(ConnectionResetError):  # it closes before it has read everything
            while block := connection.recv(65536):
                received += block
        return received


def test_docs_page_and_its_schema_are_served(deployment: Deployment) -> None:
    """/docs is FastAPI's own page, and /openapi.json lists the routes."""
    docs = deployment.client.get("/docs")
    assert docs.status_code == 200
    assert "swagger-ui" in docs.text
    assert "/openapi.json" in docs.text
    schema = deployment.client.get("/openapi.json").json()
    assert schema["info"]["title"] == "Notes"
    assert set(schema["paths"]) == {"/notes", "/notes/{note_id}", "/files", "/slow", "/events"}


def test_notes_keep_their_characters(deployment: Deployment) -> None:
    """A note that one request writes is read by another one, in every script."""
    text = "zażółć gęślą jaźń \N{SNOWMAN} \N{GRINNING FACE} 日本"
    created = deployment.client.post("/notes", json={"text": text})
    assert created.status_code == 201
    assert created.json()["text"] == text
    assert deployment.client.get(f"/notes/{created.json()['id']}").json()["text"] == text
    assert text in [note["text"] for note in deployment.client.get("/notes").json()]


@pytest.mark.parametrize("content", [b'{"text": ""}', b'{"txt": "a"}', b"{", b""])
def test_invalid_note_is_answered_422(deployment: Deployment, content: bytes) -> None:
    """pydantic's error for an invalid note reaches the client."""
    response = deployment.client.post("/notes", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"][0] == "body"


@pytest.mark.parametrize("path", ["/nothing/here", "/notes/999999999"])
def test_what_is_not_there_is_answered_404(deployment: Deployment, path: str) -> None:
    """An unknown path and an unknown note are both 404, as JSON."""
    response = deployment.client.get(path)
    assert response.status_code == 404
    assert response.json()["detail"]


def test_head_has_the_headers_and_no_body(deployment: Deployment) -> None:
    """HEAD announces the length of what GET sends, and ends with its headers."""
    head = received_until_end(deployment, b"HEAD /docs HTTP/1.1\r\nHost: example\r\nConnection: close\r\n\r\n")
    length = len(deployment.client.get("/docs").content)
    assert head.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200"))
    assert f"content-length: {length}\r\n".encode() in head.lower()
    assert head.endswith(b"\r\n\r\n")
    assert head.count(b"\r\n\r\n") == 1


def test_background_task_outlives_its_response(deployment: Deployment) -> None:
    """Responses arrive while their tasks still run, and the tasks hold no worker."""
    notes = [deployment.client.post("/notes", json={"text": "one two three"}).json() for _ in range(MORE_THAN_THREADS)]
    assert [note["words"] for note in notes] == [None] * MORE_THAN_THREADS

    def words(note: dict[str, int]) -> object:
        return deployment.client.get(f"/notes/{note['id']}").json()["words"]

    assert words(notes[0]) is None  # so no request has waited for a task
    wait_until(lambda: words(notes[-1]) == 3, what="the background task")
    assert [words(note) for note in notes] == [3] * MORE_THAN_THREADS


def test_upload_with_its_length(deployment: Deployment) -> None:
    """A file of some MiB arrives whole."""
    content = random.Random(1).randbytes(5 * 1024 * 1024 + 1)
    response = deployment.client.post("/files", files={"file": ("bytes.bin", content)})
    assert response.json() == {
        "name": "bytes.bin",
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def test_upload_in_chunks(deployment: Deployment) -> None:
    """A file of unknown length arrives whole, if the server reads chunked bodies."""
    if deployment.name not in READS_CHUNKS:
        pytest.skip(f"{deployment.name} does not hand chunked bodies to WSGI apps")
    content = random.Random(2).randbytes(3 * 1024 * 1024 + 1)
    form = httpx.Request("POST", "http://example/", files={"file": ("bytes.bin", content)})
    body = form.read()
    chunks = (body[start : start + 10_000] for start in range(0, len(body), 10_000))
    response = deployment.client.post("/files", content=chunks, headers={"Content-Type": form.headers["Content-Type"]})
    assert response.request.headers["Transfer-Encoding"] == "chunked"
    assert response.json()["size"] == len(content)
    assert response.json()["sha256"] == hashlib.sha256(content).hexdigest()


def test_events_arrive_one_by_one(deployment: Deployment) -> None:
    """Each event reaches the client before the next one is caused."""
    last = deployment.client.post("/notes", json={"text": "before"}).json()["id"]
    with deployment.client.stream("GET", "/events", headers={"Last-Event-ID": str(last)}) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        lines = response.iter_lines()
        for text in ("first", "zweitens", "trzecie \N{SNOWMAN}"):
            assert next(line for line in lines if line) == ": nothing new"
            deployment.add_note(text)
            event = next(line for line in lines if line.startswith("data: "))
            assert json.loads(event.removeprefix("data: "))["text"] == text


@contextlib.contextmanager
def shell(deployment: Deployment, line: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a line of the example's README against the server that runs here."""
    line = line.replace("127.0.0.1:8000", f"127.0.0.1:{deployment.server.port}")
    with subprocess.Popen(
        ["sh", "-c", f"exec {line.removeprefix('time ')}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.kill()


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@needs_curl
def test_more_slow_requests_run_than_there_are_threads(deployment: Deployment) -> None:
    """The line of the README with a hundred requests: one after another in eight threads, they would take 25 s."""
    line = LINES["slow requests"]
    assert "[1-100]" in line
    if deployment.name == "passenger":
        line = line.replace("[1-100]", "[1-24]")  # wsgiref's queue is short, but it has a single thread
    elif deployment.name == "uwsgi":
        line = line.replace("[1-100]", "[1-90]")  # its queue has room for 100
    begin = time.monotonic()
    with shell(deployment, line) as curl:
        assert curl.wait(50) == 0
    assert time.monotonic() - begin < 20


@needs_curl
def test_lines_of_the_readme_show_an_event_stream(deployment: Deployment) -> None:
    """The stream shows a note that another line posts."""
    with shell(deployment, LINES["event stream"]) as events:
        assert events.stdout is not None
        assert events.stdout.readline().strip()
        with shell(deployment, LINES["note"]) as curl:
            assert curl.wait(20) == 0
        assert any(b'"text":"hello"' in line for line in events.stdout)


def test_live_feed_has_the_notes_of_all_its_clients(deployment: Deployment) -> None:
    """What a client sends or posts reaches all clients; more feeds than threads do not block HTTP."""
    url = f"ws://127.0.0.1:{deployment.server.port}/live"
    with contextlib.ExitStack() as clients:
        feeds = [clients.enter_context(connect(url, open_timeout=20, proxy=None)) for _ in range(MORE_THAN_THREADS)]
        feeds[0].send("said \N{SNOWMAN}")
        for feed in feeds:
            assert json.loads(feed.recv(20))["text"] == "said \N{SNOWMAN}"
        last = deployment.client.post("/notes", json={"text": "posted"}).json()["id"]
        for feed in feeds:
            assert json.loads(feed.recv(20))["text"] == "posted"
    wait_until(
        lambda: deployment.server.output().count(f"feed closed after note {last}\n") == MORE_THAN_THREADS,
        what="the feeds to close",
    )


def test_feeds_are_told_of_the_exit(tmp_path: Path) -> None:
    """At SIGTERM clients of feeds get 1012, and the exit does not wait for them."""
    with (
        deployed("gthread", tmp_path, ["--graceful-timeout", "30"]) as deployment,
        connect(f"ws://127.0.0.1:{deployment.server.port}/live", open_timeout=20, proxy=None) as feed,
    ):
        assert deployment.server.stop() < 15
        with pytest.raises(ConnectionClosed) as caught:
            feed.recv(20)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1012


def test_stream_ends_when_its_client_leaves(deployment: Deployment) -> None:
    """The generators behind abandoned streams are closed, and their workers serve others."""
    streams = [10**9] if deployment.name == "passenger" else [10**9, 10**9 + 1]  # wsgiref has one thread

    def closed(stream: int) -> bool:
        return f"stream closed after note {stream}\n" in deployment.server.output()

    with contextlib.ExitStack() as clients:
        for stream in streams:
            connection = clients.enter_context(deployment.server.connect())
            connection.sendall(f"GET /events HTTP/1.1\r\nHost: example\r\nLast-Event-ID: {stream}\r\n\r\n".encode())
            received = b""
            while b": nothing new" not in received:
                received += connection.recv(65536)
        assert not any(closed(stream) for stream in streams)
    wait_until(lambda: all(closed(stream) for stream in streams), what="the generators")
    assert deployment.client.get("/notes/999999999").status_code == 404


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("framing", ["Content-Length: 5000000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("name", SERVERS)
def test_aborted_uploads_hold_nothing(name: str, framing: str, tmp_path: Path) -> None:
    """Clients that leave during an upload leave no thread occupied and use no CPU."""
    chunked = "chunked" in framing
    if chunked and name not in READS_CHUNKS:
        pytest.skip(f"{name} does not hand chunked bodies to WSGI apps")
    head = (
        f"POST /files HTTP/1.1\r\nHost: example\r\nContent-Type: multipart/form-data; boundary=x\r\n{framing}\r\n\r\n"
    )
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + bytes(200_000)
    if chunked:
        body = b"%x\r\n%b\r\n1000\r\nno more" % (len(body), body)
    # uWSGI and wsgiref print every error that an app's read raises, even this one.
    with deployed(name, tmp_path, tracebacks=name in ("uwsgi", "passenger")) as deployment:
        for _ in range(MORE_THAN_THREADS):
            assert b" 200 " not in received_until_end(deployment, head.encode() + body, abort=True)
            with deployment.server.connect() as connection:
                connection.sendall(head.encode() + body)
        for _ in range(MORE_THAN_THREADS):
            assert deployment.client.post("/files", files={"file": b"whole"}).json()["size"] == 5
        used = cpu_seconds(deployment.server.process.pid)
        time.sleep(1)  # how long the idle processes are watched
        assert cpu_seconds(deployment.server.process.pid) - used < 0.2


@pytest.mark.parametrize("name", SERVERS)
def test_lifespan_runs_once_a_process(name: str, tmp_path: Path) -> None:
    """Each process starts the app up once, however many requests it serves, and shuts it down at SIGTERM."""
    with deployed(name, tmp_path) as deployment:
        if name in ("gthread", "sync"):  # by the hook, so without any request
            wait_until(lambda: len(pids_that_said(deployment.server, "database opened")) == 2, what="two startups")
        for _ in range(MORE_THAN_THREADS):
            assert httpx.get(f"{deployment.client.base_url}/notes", trust_env=False).status_code == 200
        deployment.client.close()
        assert deployment.server.stop() < 10
        opened = pids_that_said(deployment.server, "database opened")
        assert opened
        assert set(opened.values()) == {1}
        assert pids_that_said(deployment.server, "database closed") == opened


@pytest.mark.parametrize("name", ["gthread", "sync"])
def test_open_stream_does_not_hold_up_the_exit(name: str, tmp_path: Path) -> None:
    """At SIGTERM, an event stream ends at once, and both workers shut down properly."""
    with deployed(name, tmp_path, ["--graceful-timeout", "30"]) as deployment:
        wait_until(lambda: len(pids_that_said(deployment.server, "database opened")) == 2, what="two startups")
        with deployment.client.stream("GET", "/events") as response:
            assert next(line for line in response.iter_lines() if line) == ": nothing new"
            assert deployment.server.stop() < 15
        assert pids_that_said(deployment.server, "database closed")
        wait_until(lambda: group_has_gone(deployment.server.process.pid), what="the end of the workers")
