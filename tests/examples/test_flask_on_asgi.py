"""The guest book of `examples/flask_on_asgi`, under ASGI servers, over loopback."""

import contextlib
import csv
import hashlib
import html
import io
import json
import re
import socket
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from websockets.sync.client import connect

from tests.processes import Server, serving, wait_until
from tests.servers.asgi_servers import KINDS, running

pytest.importorskip("flask")
pytest.importorskip("uvicorn")

FILE = bytes(range(256)) * 16 * 1024  # 4 MiB
WORKERS = 40  # the adapter's default


class GuestBook(NamedTuple):
    server: Server
    database: Path


@contextlib.contextmanager
def guest_book_on(http: str, loop: str, folder: Path) -> Iterator[GuestBook]:
    for name in {http, loop} - {"asyncio"}:
        pytest.importorskip(name)
    database = folder / "guestbook.sqlite3"
    command = "{python} -m uvicorn examples.flask_on_asgi.app:asgi_app --port {port} --timeout-graceful-shutdown 1"
    with serving([*command.split(), "--http", http, "--loop", loop], env={"GUESTBOOK_DB": str(database)}) as server:
        yield GuestBook(server, database)


@pytest.fixture(scope="module", params=[("h11", "asyncio"), ("httptools", "uvloop")], ids="-".join)
def stack(request: pytest.FixtureRequest) -> tuple[str, str]:
    """uvicorn's parts: the HTTP parser and the loop."""
    http, loop = request.param
    return http, loop


@pytest.fixture(scope="module")
def guest_book(stack: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuestBook]:
    """Run a guest book for all tests of the module; fail if its output has a traceback."""
    with guest_book_on(*stack, tmp_path_factory.mktemp("guestbook")) as book:
        yield book
        book.server.stop()
        assert "Traceback" not in book.server.output()


@pytest.fixture
def client(guest_book: GuestBook) -> httpx.Client:
    return guest_book.server.client


def sign(client: httpx.Client, message: str) -> None:
    response = client.post("/", data={"name": "Anna", "message": message})
    assert response.status_code == 303, response.text


def events_from(response: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in response.iter_lines():
        field, _, value = line.partition(": ")
        if field == "data":
            yield json.loads(value)


def open_events(server: Server) -> socket.socket:
    """Open the event stream on a new connection, and return the connection after the first event."""
    connection = server.connect()
    connection.sendall(b"GET /events HTTP/1.1\r\nHost: test\r\n\r\n")
    received = b""
    while b"data: " not in received:
        block = connection.recv(65536)
        assert block, received
        received += block
    return connection


def events_left(server: Server, port: int) -> int:
    """Return how often the app has logged that the client at `port` left its events."""
    return server.output().count(f"127.0.0.1:{port} left after ")


def test_an_entry_of_any_script_is_shown_escaped(client: httpx.Client) -> None:
    """Signing redirects to the front page, which shows any entry as text."""
    entry = {"name": "Zoë <b>", "message": "日本語 ☃ \N{GRINNING FACE}\n<script>alert('&')</script>"}
    response = client.post("/", data=entry)
    assert (response.status_code, response.headers["location"]) == (303, "/")
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert entry["name"] in html.unescape(page.text)
    assert entry["message"] in html.unescape(page.text)
    assert "<script>alert" not in page.text


def test_the_front_page_links_to_pages_that_exist(client: httpx.Client) -> None:
    """Every link, form and event source of the front page leads to a route."""
    page = client.get("/").text
    paths = set(re.findall(r'(?:href|action)="(/.*?)"|EventSource\("(.*?)"\)', page))
    links = {link or source for link, source in paths}
    assert links == {"/upload", "/entries.csv", "/events", "/async"}
    assert all(client.head(link).status_code != 404 for link in links)


@pytest.mark.parametrize(
    "entry", [{"name": "Anna"}, {"name": " ", "message": "x"}, {"name": "A", "message": "x" * 2001}]
)
def test_an_incomplete_or_endless_entry_is_refused(client: httpx.Client, entry: dict[str, str]) -> None:
    """An entry needs a name and a message, of limited length."""
    assert client.post("/", data=entry).status_code == 400


@pytest.mark.parametrize("chunked", [False, True], ids=["content-length", "chunked"])
@pytest.mark.parametrize("form", [False, True], ids=["plain", "form"])
def test_upload_tells_size_and_digest(client: httpx.Client, chunked: bool, form: bool) -> None:
    """A file arrives whole, plain and in a form, with and without a Content-Length."""
    request = client.build_request("POST", "/upload", files={"file": FILE}) if form else None
    body = request.read() if request else FILE
    headers = {"content-type": request.headers["content-type"]} if request else {}
    blocks = (body[start : start + 100_000] for start in range(0, len(body), 100_000))
    response = client.post("/upload", content=blocks if chunked else body, headers=headers)
    assert ("content-length" in response.request.headers) is not chunked
    assert response.json() == {"size": len(FILE), "sha256": hashlib.sha256(FILE).hexdigest()}


def test_upload_refuses_a_form_without_a_file(client: httpx.Client) -> None:
    """A form that lacks the field is the client's mistake."""
    assert client.post("/upload", files={"other": b""}).status_code == 400


def test_upload_refuses_a_file_that_is_too_large(guest_book: GuestBook) -> None:
    """A Content-Length beyond the limit is answered with the first block of the body."""
    with guest_book.server.connect() as connection:
        connection.sendall(b"PUT /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 99999999\r\n\r\nfirst block")
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_csv_streams_while_entries_are_added(guest_book: GuestBook, client: httpx.Client) -> None:
    """While a large download stalls, others can sign, and the download ends with their entries."""
    with contextlib.closing(sqlite3.connect(guest_book.database)) as database, database:
        sign(client, "the table is there")
        rows = [("Łukasz", 'x, "y"\n' * 2000)] * 1000  # 20 MB as CSV
        database.executemany("INSERT INTO entry (name, message) VALUES (?, ?)", rows)
    with client.stream("GET", "/entries.csv") as response:
        assert response.headers["content-type"] == "text/csv; charset=utf-8"
        assert "content-length" not in response.headers
        text = response.iter_text()
        beginning = next(text)
        sign(client, "signed during the download")
        header, *entries = csv.reader(io.StringIO("".join([beginning, *text]), newline=""))
    assert header == ["id", "written", "name", "message"]
    assert [entry[2:] for entry in entries].count(list(rows[0])) == len(rows)
    assert entries[-1][2:] == ["Anna", "signed during the download"]


def test_events_arrive_one_by_one(client: httpx.Client) -> None:
    """Each event arrives before the next one is made, a second later."""
    with client.stream("GET", "/events") as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        events = events_from(response)
        before = next(events)["entries"]
        start = time.monotonic()
        sign(client, "between two events")
        assert next(event["entries"] for event in events if event["entries"] != before) == before + 1
        next(events)
        assert time.monotonic() - start > 1


def test_events_end_when_the_client_leaves(guest_book: GuestBook) -> None:
    """The generator is closed soon after its client is gone."""
    with open_events(guest_book.server) as connection:
        port = connection.getsockname()[1]
        before = events_left(guest_book.server, port)  # the system may reuse a port
    wait_until(lambda: events_left(guest_book.server, port) == before + 1, what="the end of the events")


def test_clients_that_leave_give_their_threads_back(guest_book: GuestBook, client: httpx.Client) -> None:
    """As many clients as there are threads leave during events and during uploads, and the next one is served."""
    with contextlib.ExitStack() as stack:
        for _ in range(WORKERS):
            stack.enter_context(open_events(guest_book.server))
    assert client.get("/").status_code == 200
    with contextlib.ExitStack() as stack:
        for _ in range(WORKERS):
            connection = stack.enter_context(guest_book.server.connect())
            connection.sendall(b"PUT /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 9999\r\n\r\nfirst block")
    assert client.get("/").status_code == 200


def test_async_views_run_beside_the_loop_of_the_server(client: httpx.Client) -> None:
    """Each call has a loop and a thread of its own, so that none can hold up the server."""
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: client.get("/async").json(), range(8)))
    assert "MainThread" not in {answer["thread"] for answer in answers}
    assert all(answer["seconds"] < 5 for answer in answers)  # a hundred times 0.1 s at the same time


@pytest.fixture(
    scope="module", params=["uvicorn-h11-asyncio", "uvicorn-httptools-uvloop", "hypercorn-asyncio", "granian", "daphne"]
)
def any_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The guest book on each kind of server that the README names."""
    kind = KINDS[request.param]
    if kind.name != "uvicorn-h11-asyncio":
        pytest.importorskip(kind.name.split("-")[0])
    database = tmp_path_factory.mktemp("guestbook") / "guestbook.sqlite3"
    with running(kind, "examples.flask_on_asgi.app:asgi_app", {"GUESTBOOK_DB": str(database)}) as server:
        yield server


@pytest.mark.parametrize(
    ("size", "header"),
    [(10, ""), (200_000, ""), (200_000, "Expect: 100-continue\r\n"), (10, "Transfer-Encoding: chunked\r\n")],
    ids=["small", "large", "expect", "chunked"],
)
def test_an_async_view_takes_an_upload(any_server: Server, size: int, header: str) -> None:
    """A body in two packets, or after 100 Continue, is read whole, and the server goes on."""
    body = FILE[:size]
    length = "" if "chunked" in header else f"Content-Length: {size}\r\n"
    packets = [body[: size // 2], body[size // 2 :]]
    if "chunked" in header:
        packets = [b"%x\r\n%b\r\n" % (len(packet), packet) for packet in packets] + [b"0\r\n\r\n"]
    with any_server.connect() as connection:
        connection.settimeout(20)
        connection.sendall(f"PUT /async HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{length}{header}\r\n".encode())
        if "Expect" in header:
            assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        for packet in packets:
            connection.sendall(packet)
            time.sleep(0.05)  # so that it is a packet of its own
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"size": size, "sha256": hashlib.sha256(body).hexdigest()}
    assert any_server.client.get("/async").json()["seconds"] < 5


@pytest.mark.parametrize("path", ["/", "/entries.csv", "/events", "/async"])
def test_head_has_the_headers_of_get_and_no_body(guest_book: GuestBook, client: httpx.Client, path: str) -> None:
    """HEAD is answered at once, streams included."""
    with client.stream("GET", path) as response:
        content_type = response.headers["content-type"]
    with guest_book.server.connect() as connection:
        connection.sendall(f"HEAD {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
        head, _, body = b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert f"content-type: {content_type}".encode() in head
    assert body == b""


def test_unknown_paths_and_methods_are_refused(client: httpx.Client) -> None:
    """Flask's own error pages reach the client: 404, and 405 with the allowed methods."""
    assert client.get("/nowhere").status_code == 404
    response = client.delete("/")
    assert response.status_code == 405
    assert {"GET", "POST"} <= set(response.headers["allow"].split(", "))


def test_the_first_entries_may_come_all_at_once(tmp_path: Path) -> None:
    """Threads that find no database create one, and lose no entry."""
    with guest_book_on("h11", "asyncio", tmp_path) as book, ThreadPoolExecutor(16) as threads:
        assert not book.database.exists()
        list(threads.map(lambda number: sign(book.server.client, f"number {number}"), range(32)))
        page = book.server.client.get("/").text
        assert all(f"number {number}<" in page for number in range(32))
        assert "Traceback" not in book.server.output()


def test_sigterm_ends_the_server_amid_events(stack: tuple[str, str], tmp_path: Path) -> None:
    """uvicorn gives an open stream its second of grace, cancels it and exits; the generator is closed before."""
    with guest_book_on(*stack, tmp_path) as book, open_events(book.server) as connection:
        assert book.server.stop() < 8  # less than the 10 s that the adapter gives requests which do not end
        output = book.server.output()
        assert events_left(book.server, connection.getsockname()[1]) == 1
        assert "Application shutdown complete" in output
        # uvicorn reports each task that it cancels as an exception; there must be no other.
        assert output.count("Traceback") == 1
        assert "CancelledError: Task cancelled, timeout graceful shutdown exceeded" in output


def test_new_entries_come_over_a_websocket(guest_book: GuestBook, client: httpx.Client) -> None:
    """Each entry is sent as it is signed, in order, while others use the guest book."""
    with connect(f"ws://127.0.0.1:{guest_book.server.port}/live", open_timeout=20, proxy=None) as websocket:
        assert "last" in json.loads(websocket.recv(20))
        for number in range(3):
            sign(client, f"live {number} <b>")
        entries = [json.loads(websocket.recv(20)) for _ in range(3)]
    assert [entry["message"] for entry in entries] == [f"live {number} <b>" for number in range(3)]
    assert [entry["name"] for entry in entries] == ["Anna"] * 3


def test_websockets_take_no_worker(guest_book: GuestBook, client: httpx.Client) -> None:
    """Even with more WebSockets than workers, all requests are served."""
    url = f"ws://127.0.0.1:{guest_book.server.port}/live"
    with contextlib.ExitStack() as stack:
        for _ in range(WORKERS + 5):
            stack.enter_context(connect(url, open_timeout=20, proxy=None)).recv(20)
        assert client.get("/").status_code == 200
