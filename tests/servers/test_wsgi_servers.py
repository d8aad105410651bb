"""`ASGIToWSGI` behind real WSGI servers.

The apps are in `asgi_apps.py`. What a server does not do for any WSGI app is said beside its name
in `wsgi_servers.KINDS`; where it is a fault of the server's, a plain WSGI app in the app's place shows it.
"""

import contextlib
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.processes import ROOT, Server, wait_until
from tests.servers.wsgi_servers import GRACE, KINDS, Kind, gunicorn, running, uwsgi

APPS = "tests.servers.asgi_apps"
APP = f"{APPS}:wsgi_app"
# What "at once" means on a busy machine; the adapter looks for a client that has left once a second.
AT_ONCE = 0.9
SEES_LEAVING = 3.0
DISCONNECT = {"type": "http.disconnect"}


def on(*names: str, where: Callable[[Kind], bool] = lambda kind: not kind.variant) -> pytest.MarkDecorator:
    """Run a test on the servers named, or on those for which `where` holds; without it, on all but the variants."""
    kinds = [kind for kind in KINDS.values() if (kind.name in names if names else where(kind))]
    return pytest.mark.parametrize("kind", kinds, ids=lambda kind: kind.name, indirect=True)


# --- The server's end, the client's and the app's -------------------------------------------------

ENDED_IN_FLIGHT = ("gunicorn-sync", "gunicorn-gthread", "uwsgi-threads", "werkzeug")
MAIN_KINDS = [kind for kind in KINDS.values() if not kind.variant]


@pytest.fixture(scope="module", params=MAIN_KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    chosen: Kind = request.param
    return chosen


@pytest.fixture(scope="module")
def server(kind: Kind) -> Iterator[Server]:
    """One server of each kind for all tests that leave it as it was."""
    with running(kind, APP) as server:
        if kind.name.startswith("uwsgi"):  # it closes each connection, and does not say so
            server.client.headers["Connection"] = "close"
        yield server


def pid_of(server: Server) -> int:
    """Return the pid of a process that serves requests."""
    response = server.client.get("/hello", headers={"Connection": "close"})
    assert response.text == "hello"
    return int(response.headers["x-pid"])


def request_head(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "\r\n"]).encode("latin-1")


def read_all(connection: socket.socket) -> bytes:
    """Return what comes until the server ends the connection, in one way or the other."""
    blocks = []
    with contextlib.suppress(ConnectionResetError):
        while block := connection.recv(1 << 20):
            blocks.append(block)
    return b"".join(blocks)


def read_until(connection: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        block = connection.recv(65536)
        assert block, f"the connection ended after {data!r:.500}"
        data += block
    return data


class Puppet:
    """The `puppet` app from the other side: tells it what to do, and hears how that went."""

    def __init__(self) -> None:
        self._connection = socket.create_server(("127.0.0.1", 0))  # the listener, until the app is there
        self._connection.settimeout(10)
        self.path = f"/puppet/{self._connection.getsockname()[1]}"
        self._unread = b""
        self._replies: dict[str, deque[Any]] = defaultdict(deque)

    def wait(self) -> None:
        """Wait until the app runs."""
        with self._connection as listener:
            self._connection, _ = listener.accept()
        self.pid: int = self.reply("pid")

    def close(self) -> None:
        self._connection.close()

    def tell(self, name: str, **message: Any) -> None:
        """Give an order, and do not wait until it is obeyed."""
        if "body" in message:
            message["body"] = message["body"].decode("latin-1")
        self._connection.sendall(json.dumps([name, message]).encode() + b"\n")

    def reply(self, name: str, timeout: float = 10.0) -> Any:
        """Return how an order ended; raises TimeoutError, and EOFError if the app is gone."""
        deadline = time.monotonic() + timeout
        while not self._replies[name]:
            while b"\n" not in self._unread:
                self._connection.settimeout(max(deadline - time.monotonic(), 0.001))
                block = self._connection.recv(65536)
                if not block:
                    raise EOFError("the app is gone")
                self._unread += block
            line, _, self._unread = self._unread.partition(b"\n")
            replied, result = json.loads(line)
            self._replies[replied].append(result)
        return self._replies[name].popleft()

    def start(self) -> None:
        self.tell("send", type="http.response.start", status=200, headers=[])
        assert self.reply("send") is None

    def send(self, body: bytes, more_body: bool = True) -> Any:
        self.tell("send", type="http.response.body", body=body, more_body=more_body)
        return self.reply("send")

    def receive(self) -> Any:
        self.tell("receive")
        return self.reply("receive")


@pytest.fixture
def puppet() -> Iterator[Puppet]:
    with contextlib.closing(Puppet()) as puppet:
        yield puppet


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def assert_idle(pid: int) -> None:
    """Watch the process for half a second."""
    before = cpu_seconds(pid)
    time.sleep(0.5)
    assert cpu_seconds(pid) - before < 0.15


# --- Requests -------------------------------------------------------------------------------------


def assert_every_worker_answers(kind: Kind, server: Server) -> None:
    pids: set[int] = set()

    def all_have_answered() -> bool:
        pids.add(pid_of(server))
        return len(pids) == kind.workers

    wait_until(all_have_answered)


def test_every_worker_answers(kind: Kind, server: Server) -> None:
    """An adapter that was made before a fork works after it, in each of the processes."""
    assert_every_worker_answers(kind, server)


def test_body_is_streamed_in_bounded_blocks(server: Server) -> None:
    """A body with a Content-Length arrives whole, in messages of 64 KiB at most."""
    body = os.urandom(3_000_000)
    answer = server.client.post("/digest", content=body).json()
    assert answer == {"sha256": hashlib.sha256(body).hexdigest(), "total": len(body), "largest": answer["largest"]}
    assert answer["largest"] <= 512 * 1024


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537])
def test_body_of_any_size_arrives(server: Server, size: int) -> None:
    """Bodies around the size up to which they are read at once arrive whole."""
    assert server.client.post("/digest", content=b"x" * size).json()["total"] == size


def test_chunked_body(kind: Kind, server: Server) -> None:
    """A chunked body arrives where the server sets wsgi.input_terminated; elsewhere it is as if there were none."""
    blocks = [os.urandom(size) for size in (1, 100_000, 5, 300_000)]
    body = b"".join(blocks)
    answer = server.client.post("/digest", content=iter(blocks)).json()
    if kind.takes_chunks:
        assert answer["sha256"] == hashlib.sha256(body).hexdigest()
        assert answer["largest"] <= 512 * 1024
    else:
        assert answer["total"] == 0


def test_body_after_100_continue(kind: Kind, server: Server) -> None:
    """A client that waits for "100 Continue" gets it once the app asks for the body, at the latest."""
    with server.connect() as connection:
        headers = ("Content-Length: 5", "Expect: 100-continue", "Connection: close")
        connection.sendall(request_head("/digest", *headers, method="POST"))
        if kind.continues:
            read_until(connection, b" 100 Continue\r\n\r\n")
        connection.sendall(b"12345")
        assert b'"total": 5' in read_all(connection)


@on(where=lambda kind: kind.streams_uploads and (not kind.variant or kind.name == "passenger-unbuffered"))
@pytest.mark.parametrize(("length", "sent"), [(1_000_000, 100_000), (1000, 10), (1000, 0)])
def test_aborted_upload_is_a_disconnect(kind: Kind, server: Server, puppet: Puppet, length: int, sent: int) -> None:
    """A client that leaves in mid-upload is http.disconnect, never a short body, and costs no CPU from then on."""
    with server.connect() as connection:
        connection.sendall(request_head(puppet.path, f"Content-Length: {length}", method="POST") + b"x" * sent)
        if length > 65536:  # a shorter body is read before the app is called
            puppet.wait()
            assert puppet.receive() == {"type": "http.request", "body": "x" * 65536, "more_body": True}
            puppet.tell("receive")
    if length > 65536:
        rest = puppet.reply("receive", SEES_LEAVING)
        if rest != DISCONNECT:  # some servers read what came before the client left, others raise at once
            assert rest == {"type": "http.request", "body": "x" * (sent - 65536), "more_body": True}
            assert puppet.receive() == DISCONNECT
        assert_idle(puppet.pid)
    else:
        puppet.wait()
    assert puppet.receive() == DISCONNECT
    assert puppet.receive() == DISCONNECT
    pid_of(server)


@on(where=lambda kind: kind.streams_uploads and kind.takes_chunks and not kind.variant)
def test_aborted_chunked_upload_is_no_whole_body(kind: Kind, server: Server, puppet: Puppet) -> None:
    """A client that leaves in the middle of a chunked body is not taken for its end."""
    with server.connect() as connection:
        connection.sendall(
            request_head(puppet.path, "Transfer-Encoding: chunked", method="POST") + b"8\r\n12345678\r\n9"
        )
        puppet.wait()
        puppet.tell("receive")
    answer = puppet.reply("receive", SEES_LEAVING)
    while answer["type"] == "http.request":
        assert answer["more_body"]
        answer = puppet.receive()
    assert answer == DISCONNECT


# --- Responses ------------------------------------------------------------------------------------


def test_client_that_does_not_read_holds_the_app_back(server: Server, puppet: Puppet) -> None:
    """An app gets ahead of its client by what the server and the sockets hold, and no further."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(request_head(puppet.path, "Connection: close"))
        puppet.wait()
        puppet.start()
        ahead = 0
        block = b"x" * 60_000
        while True:
            puppet.tell("send", type="http.response.body", body=block, more_body=True)
            ahead += 1
            try:
                assert puppet.reply("send", timeout=0.3) is None
            except TimeoutError:
                break
            assert ahead * len(block) < 40_000_000, "the app is never held back"
        received = 0
        while received < (ahead - 2) * len(block):
            received += len(connection.recv(1 << 20))
        assert puppet.reply("send") is None
        assert puppet.send(b"end", more_body=False) is None
        assert b"end" in read_all(connection)


def test_events_arrive_one_by_one(server: Server, puppet: Puppet) -> None:
    """Each block is with the client before the app goes on to the next."""
    with server.connect() as connection:
        connection.sendall(request_head(puppet.path, "Connection: close"))
        puppet.wait()
        puppet.start()
        for number in range(5):
            event = b"data: %d\n\n" % number
            assert puppet.send(event) is None
            read_until(connection, event)
        assert puppet.send(b"", more_body=False) is None
        read_all(connection)


@pytest.mark.parametrize("parts", [1, 2])
def test_background_work_does_not_hold_the_worker(server: Server, puppet: Puppet, parts: int) -> None:
    """A response ends with its last message, and the next request is served, while the app goes on."""
    with server.connect() as connection:
        connection.sendall(request_head(puppet.path, "Connection: close"))
        puppet.wait()
        puppet.start()
        for _ in range(parts - 1):
            puppet.send(b"hello")
        puppet.send(b"hello", more_body=False)
        assert b"hello" in read_all(connection)
    start = time.monotonic()
    pid_of(server)
    assert time.monotonic() - start < AT_ONCE
    if puppet.pid == pid_of(server):  # else a server without threads has stopped it in its tracks
        assert puppet.receive() == DISCONNECT
        puppet.tell("return")


# --- Clients that leave ---------------------------------------------------------------------------


def test_client_leaves_while_it_is_sent_to(server: Server, puppet: Puppet) -> None:
    """An app that goes on sending to a client that has left gets an OSError, and http.disconnect."""
    with server.connect() as connection:
        connection.sendall(request_head(puppet.path))
        puppet.wait()
        puppet.start()
        puppet.send(b"first")
        read_until(connection, b"first")
    wait_until(lambda: puppet.send(b"x" * 65536) is not None, what="an OSError")
    assert "OSError" in puppet.send(b"more")
    assert puppet.receive() == DISCONNECT
    pid_of(server)


@on(where=lambda kind: kind.shows_client and (not kind.variant or kind.name == "waitress-lookahead"))
def test_clients_leave_while_the_app_is_quiet(kind: Kind, server: Server) -> None:
    """In an idle stream, and in a long poll, an app hears of it where the server shows the connection."""
    with contextlib.ExitStack() as at_the_end:

        def leave(puppet: Puppet, streaming: bool) -> None:
            with server.connect() as connection:
                connection.sendall(request_head(puppet.path))
                puppet.wait()
                assert puppet.receive() == {"type": "http.request", "body": "", "more_body": False}
                if streaming:
                    puppet.start()
                    puppet.send(b"first")
                    read_until(connection, b"first")
                puppet.tell("receive")

        def hear(puppet: Puppet) -> None:
            assert puppet.reply("receive", SEES_LEAVING) == DISCONNECT
            assert "OSError" in puppet.send(b"more")

        polling, idle = (at_the_end.enter_context(contextlib.closing(Puppet())) for _ in range(2))
        leave(polling, streaming=False)
        if kind.parallel:
            leave(idle, streaming=True)
            hear(idle)
        hear(polling)
    pid_of(server)


# --- Apps that do wrong ---------------------------------------------------------------------------


def outcome(server: Server, path: str, timeout: float = AT_ONCE) -> str:
    """Return what a client makes of the response: "error", "cut" or the body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    start = time.monotonic()
    with contextlib.closing(connection):
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            response = connection.getresponse()
            body = response.read().decode()
        except (http.client.HTTPException, ConnectionError):
            response, body = None, "cut"
    assert time.monotonic() - start < timeout
    return "error" if response is not None and response.status >= 500 else body


@pytest.mark.parametrize(
    ("expected", "name"),
    [
        ("error", "sends_nothing"),
        ("error", "sends_only_start"),
        ("error", "sends_body_before_start"),
        ("error", "sends_unknown_type"),
        ("error", "sends_no_dict"),
        ("error", "sends_bad_header"),
        ("error", "is_cancelled"),
        ("error", "exits"),
        ("error", "without-lifespan/exits_in_a_task"),
        ("error", "raises_before_start"),
        ("error", "raises_after_start"),
        ("error", "raises_while_receiving"),
        ("error", "falls_short"),
        ("cut", "leaves_body_unfinished"),
        ("cut", "is_cancelled_in_body"),
        ("cut", "raises_in_body"),
        ("hello", "raises_after_end"),
        ("hello", "receives_after_end"),
        ("hello", "sends_after_end"),
        ("hello", "overruns"),
    ],
)
def test_faulty_app_ends_at_once(server: Server, name: str, expected: str) -> None:
    """A fault of the app's is an error response or a cut one, at once, and the next request is served.

    "error" is what the server makes of an exception: uWSGI just closes the connection.
    """
    if expected == "error":
        expected = outcome(server, "/native/raises")
        assert expected in ("error", "cut")
    assert outcome(server, f"/{name}") == expected
    pid_of(server)


@on("gunicorn-gthread", "gunicorn-gevent")
def test_loop_that_dies_answers_all(server: Server) -> None:
    """Where a task of the app's ends the loop, a request that comes meanwhile gets an answer, too."""

    def count(text: str) -> int:
        return server.output().count(f"</without-lifespan/unwinds_slowly {text}>")

    ran, unwound = count("runs"), count("unwinds")
    with ThreadPoolExecutor(3) as clients:
        first = clients.submit(outcome, server, "/without-lifespan/unwinds_slowly", timeout=5)
        wait_until(lambda: count("runs") > ran)
        second = clients.submit(outcome, server, "/without-lifespan/exits_in_a_task", timeout=5)
        wait_until(lambda: count("unwinds") > unwound)
        third = clients.submit(outcome, server, "/without-lifespan/slow/0.5", timeout=5)
        assert [first.result(), second.result()] == ["error", "error"]
        assert third.result() in ("error", "slept")


@pytest.mark.parametrize("name", ["raises_in_chunks", "leaves_chunks_unfinished"])
def test_faulty_stream_ends_as_it_would_natively(server: Server, name: str) -> None:
    """Without a Content-Length only a chunked response can be seen to be cut.

    wsgiref and uWSGI do not send such, and Werkzeug puts an error page behind what it has sent.
    """
    natively = outcome(server, "/native/raises_in_chunks")
    assert natively == "cut" or natively.startswith("start")
    assert outcome(server, f"/{name}") == natively
    pid_of(server)


@on("gunicorn-gthread")
@pytest.mark.parametrize(("method", "path"), [("HEAD", "/ticking"), ("GET", "/overruns_for_ever")])
def test_stream_that_sends_nothing_more_ends(server: Server, method: str, path: str) -> None:
    """Where nothing of what the app sends goes to the client, the thread is not held by an app that goes on.

    No write fails there, so the server cannot see that the client has left.
    """
    ended = server.output().count(f"{path} has ended")
    with server.connect() as connection:
        connection.sendall(request_head(path, method=method))
        read_until(connection, b"\r\n\r\n")
    wait_until(lambda: server.output().count(f"{path} has ended") > ended, SEES_LEAVING)


# --- What is carried over -------------------------------------------------------------------------


def test_context_variables_do_not_leak(server: Server) -> None:
    """What a request sets is seen in its own task, and by no later request of the same thread."""
    for _ in range(3):
        assert server.client.get("/context").json() == ["unset", "of an earlier request"]


def test_any_bytes_in_path_and_query(server: Server) -> None:
    """A path is decoded as UTF-8, and raw_path and query_string are as the client sent them."""
    scope = server.client.get("/describe/%C3%A9/a%20b?q=%FF&%C3%A9=1").json()
    assert scope["path"] == "/describe/\u00e9/a b"
    assert scope["raw_path"] == "/describe/%C3%A9/a%20b"
    assert scope["query_string"] == "q=%FF&%C3%A9=1"
    assert scope["server"][1] == server.port
    assert scope["root_path"] == ""


def test_path_that_is_not_utf_8(server: Server) -> None:
    """It can be told from raw_path what the client sent."""
    scope = server.client.get("/describe/%FF").json()
    assert scope["path"] == "/describe/\ufffd"
    assert scope["raw_path"] == "/describe/%FF"


def test_mounted_app(server: Server) -> None:
    """SCRIPT_NAME is the root_path, with which path and raw_path begin."""
    scope = server.client.get("/mounted/describe/a%20b").json()
    assert scope["root_path"] == "/mounted"
    assert scope["path"] == "/mounted/describe/a b"
    assert scope["raw_path"] == "/mounted/describe/a%20b"


def test_encoded_slash(server: Server) -> None:
    """A slash is decoded in the path; raw_path is what the client sent where the server has kept that."""
    scope = server.client.get("/describe/a%2Fb").json()
    assert scope["path"] == "/describe/a/b"
    keeps_target = "RAW_URI" in scope["variables"] or "REQUEST_URI" in scope["variables"]
    assert scope["raw_path"] == ("/describe/a%2Fb" if keeps_target else "/describe/a/b")


def test_target_may_be_a_url(kind: Kind, server: Server) -> None:
    """RFC 9112 3.2.2 has servers accept that; some cut the path out of it, and some leave that to the app."""
    with server.connect() as connection:
        connection.sendall(request_head("http://example.org:81/describe/%C3%A9/a%20b?q=1", "Connection: close"))
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
    if kind.name == "cheroot":
        assert head.startswith(b"HTTP/1.1 400 ")  # for any app
        return
    scope = json.loads(body)
    assert (scope["root_path"], scope["path"], scope["query_string"]) == ("", "/describe/\u00e9/a b", "q=1")
    assert scope["raw_path"] == "/describe/%C3%A9/a%20b"


def test_hosts_that_differ_are_refused(kind: Kind, server: Server) -> None:
    """By the server or by the adapter (RFC 9112 3.2), except that cheroot forgets the first one."""
    with server.connect() as connection:
        connection.sendall(request_head("/hello", "Host: example.org", "Connection: close"))
        status = read_all(connection).split(b" ", 2)[1]
    assert status == (b"200" if kind.name == "cheroot" else b"400")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("code", [200, 204, 304, 404])
def test_responses_without_a_body(server: Server, method: str, code: int) -> None:
    """HEAD, 204 and 304 have no body, whatever the app sends; and the next response is not mixed up with it."""
    for _ in range(2):
        response = server.client.request(method, f"/status/{code}")
        assert response.status_code == code
        assert response.text == ("body of it" if method == "GET" and code in (200, 404) else "")


def test_file_that_the_proxy_sends(server: Server) -> None:
    """An app that leaves a file to the proxy gives the file's length and no body: that arrives without the length."""
    for _ in range(2):
        response = server.client.get("/starlette/file_of_the_proxy")
        assert (response.status_code, response.content) == (200, b"")
        assert response.headers["X-Accel-Redirect"] == "/files/a"
        assert response.headers.get("Content-Length", "0") == "0"


def test_repeated_and_latin_1_headers(server: Server) -> None:
    """Repeated headers stay apart, and latin-1 values stay as they are."""
    headers = server.client.get("/cookies").headers
    assert headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert (b"x-latin", b"caf\xe9") in [(name.lower(), value) for name, value in headers.raw]


def test_early_hints(kind: Kind, server: Server) -> None:
    """They are sent where the server can, which is gunicorn; elsewhere they are not offered."""
    with server.connect() as connection:
        connection.sendall(request_head("/early_hints", "Connection: close"))
        response = read_all(connection)
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
    assert response.startswith(hints) == kind.name.startswith("gunicorn")
    assert response.endswith(b"hello")


@on("mod_wsgi", "passenger")
def test_websocket_is_refused(server: Server) -> None:
    """Where the server keeps its sockets to itself an upgrade is answered 501, and the server goes on."""
    with server.connect() as connection:
        headers = ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
        connection.sendall(request_head("/hello", "Connection: Upgrade", "Upgrade: websocket", *headers))
        assert read_until(connection, b"WebSockets are not possible on this server").split()[1] == b"501"
    pid_of(server)


# --- Frameworks -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def big_file() -> Iterator[Path]:
    """20 MB, of which every part can be told from every other."""
    with tempfile.NamedTemporaryFile() as file:
        os.chmod(file.name, 0o644)
        file.write(b"".join(b"%019d\n" % number for number in range(1_000_000)))
        file.flush()
        yield Path(file.name)


def test_file(server: Server, big_file: Path) -> None:
    """Starlette's FileResponse goes through the server's wsgi.file_wrapper, ranges by the app."""
    url, content = f"/starlette/file?path={big_file}", big_file.read_bytes()
    assert server.client.get(url).content == content
    head = server.client.head(url)
    assert (head.headers["content-length"], head.content) == (str(len(content)), b"")
    part = server.client.get(url, headers={"Range": "bytes=10000000-10099999"})
    assert (part.status_code, part.content) == (206, content[10_000_000:10_100_000])


def test_starlettes_threads_and_bodies(server: Server) -> None:
    """Endpoints in threads and request bodies do as on an ASGI server."""
    assert server.client.get("/starlette/thread").json() == ["unset", "AnyIO worker thread"]
    assert server.client.post("/starlette/upload", content=b"x" * 200_000).json() == 200_000


@on("gunicorn-sync", "gunicorn-gthread", "gunicorn-gevent", "uwsgi-threads", "mod_wsgi")
def test_fastapi(server: Server) -> None:
    """Endpoints in threads, dependencies, forms and background tasks do as on an ASGI server."""
    key = uuid4().hex
    connection, thread = server.client.get(f"/fastapi/items/{key}").json()
    assert (connection, thread) == (f"connection of {key}", "AnyIO worker thread")
    wait_until(lambda: f"background of {key} has run" in server.output())
    wait_until(lambda: f"connection of {key} is closed" in server.output())
    assert server.client.post("/fastapi/upload", files={"file": b"x" * 200_000}).json() == 200_000


@on("gunicorn-gthread")
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_stream_goes_on_behind_its_last_byte(server: Server, method: str) -> None:
    """What an app does after the last byte that goes to the client is done, as on an ASGI server.

    The response is complete for the client by its Content-Length, or as it is one to HEAD.
    """
    path = f"/starlette/exact/{uuid4().hex}"
    assert server.client.request(method, path).text == ("hello" if method == "GET" else "")
    wait_until(lambda: f"{path} is done" in server.output(), timeout=2)
    assert f"{path} went on to its end" in server.output()


@on("uwsgi-one-thread", "waitress")
def test_an_environ_that_is_kept_stays_its_requests_own(server: Server) -> None:
    """uWSGI empties its environ after each call, and fills it for the next request."""
    assert server.client.get("/keep", headers={"Cookie": "user=first"}).text == "kept"
    assert server.client.get("/hello", headers={"Cookie": "user=second"}).text == "hello"
    assert server.client.get("/kept", headers={"Cookie": "user=third"}).text == "user=first"


@on("gunicorn-gthread")
def test_error_behind_a_middleware_is_logged(server: Server) -> None:
    """What the app raises after its response is logged as it is.

    Starlette's middleware raises it out of a task group, so that it refers to a group that holds it.
    """
    assert server.client.get("/starlette/raises").status_code == 500
    wait_until(lambda: "RuntimeError: behind a middleware" in server.output())
    assert "GET /starlette/raises: the ASGI app raised after it had answered with 500" in server.output()
    assert "RecursionError" not in server.output()


@on("gunicorn-gthread")
def test_client_leaves_starlettes_stream(server: Server) -> None:
    """Starlette ends a StreamingResponse of its own accord once the client has left."""
    path = f"/starlette/stream/{uuid4().hex}"
    with server.client.stream("GET", path, headers={"Connection": "close"}) as response:
        assert next(response.iter_text()) == "data: first\n\n"
    wait_until(lambda: f"{path} has ended" in server.output(), SEES_LEAVING)


def test_fifty_requests_at_once(server: Server) -> None:
    """More requests than the server has threads are all answered, each with its own answer."""

    def request(number: int) -> bool:
        body = b"x" * (1000 + number)
        path = ("/digest", "/starlette/upload")[number % 2]
        with server.connect() as connection:
            head = request_head(path, f"Content-Length: {len(body)}", "Connection: close", method="POST")
            connection.sendall(head + body)
            answer = json.loads(read_all(connection).partition(b"\r\n\r\n")[2])
        return len(body) == int(answer["total"] if number % 2 == 0 else answer)

    with ThreadPoolExecutor(50) as clients:
        assert all(clients.map(request, range(50)))


@on("gunicorn-gevent", "gevent-pywsgi")
@pytest.mark.parametrize("path", ["/slow/0.5", "/starlette/sleep/0.5"])
def test_greenlets_run_side_by_side(server: Server, path: str) -> None:
    """Requests that wait, on the loop or in a thread, wait together on one gevent worker."""
    with ThreadPoolExecutor(20) as clients:
        start = time.monotonic()
        answers = list(clients.map(lambda _: outcome(server, path, timeout=5), range(20)))
        assert 0.5 <= time.monotonic() - start < 2
    assert all("slept" in answer for answer in answers)


@on(where=lambda kind: "gevent" not in kind.name and not kind.variant)
@pytest.mark.parametrize("backend", ["trio", "uvloop"])
def test_other_event_loops(server: Server, puppet: Puppet, backend: str) -> None:
    """trio and uvloop serve as asyncio does, and hear of a client that leaves."""
    assert server.client.post(f"/{backend}/digest", content=b"x" * 200_000).json()["total"] == 200_000
    assert server.client.get(f"/{backend}/starlette/thread").json()[0] == "unset"
    assert outcome(server, f"/{backend}/raises_before_start") == outcome(server, "/native/raises")
    with server.connect() as connection:
        connection.sendall(request_head(f"/{backend}{puppet.path}"))
        puppet.wait()
        puppet.start()
        puppet.send(b"first")
        read_until(connection, b"first")
    wait_until(lambda: puppet.send(b"x" * 65536) is not None, what="an OSError")
    assert puppet.receive() == DISCONNECT


@on("gunicorn-gevent", "gevent-pywsgi")
@pytest.mark.parametrize("backend", ["trio", "uvloop"])
def test_other_event_loops_are_refused_among_greenlets(server: Server, backend: str) -> None:
    """trio and uvloop would stop a gevent worker: a request gets an error that says so, and no hang."""
    assert outcome(server, f"/{backend}/hello") == "error"
    wait_until(lambda: "gevent has patched this process" in server.output())
    pid_of(server)


# --- Lifespan -------------------------------------------------------------------------------------


def test_lifespan(kind: Kind, server: Server) -> None:
    """It starts once a process, each request gets its state, and its tasks run between requests."""
    before = server.client.get("/lifespan_state").json()
    time.sleep(0.2)
    after = [server.client.get("/lifespan_state").json() for _ in range(10)]
    assert {answer["startups"] for answer in after} == {1}
    assert not any("of_an_earlier_request" in answer for answer in after)
    if kind.runs_between_requests and kind.workers == 1:
        assert after[0]["ticks"] > before["ticks"]


@on(where=lambda kind: kind.workers == 1 and not kind.variant)
def test_failed_startup_is_tried_again(server: Server) -> None:
    """A startup that fails is an error for its request, and the next one tries again."""
    path = f"/fails-at-first/{uuid4().hex}"
    error = outcome(server, "/native/raises")
    assert [outcome(server, path) for _ in range(4)] == [error, error, "started", "started"]


# --- The end --------------------------------------------------------------------------------------


def end(server: Server) -> None:
    """Have the server end in good order, with the app's shutdown in each process that serves."""
    pid = pid_of(server)
    assert server.stop() < GRACE + 2
    wait_until(lambda: f"shutdown of {pid}" in server.output(), GRACE)  # Apache does not wait for Passenger


@on(where=lambda kind: not kind.variant and kind.name not in ENDED_IN_FLIGHT)
def test_lifespan_ends_with_the_server(kind: Kind) -> None:
    """A process that ends in good order runs the app's shutdown."""
    with running(kind, APP) as server:
        end(server)


@on("gunicorn-gthread-preload", "uwsgi-lazy-apps")
def test_killed_worker_is_replaced(kind: Kind) -> None:
    """What a worker leaves behind does not keep the next one from serving, and from ending in good order."""
    with running(kind, APP) as server:
        assert_every_worker_answers(kind, server)
        pid = pid_of(server)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{pid}").exists())
        assert pid_of(server) != pid
        end(server)


@on(*ENDED_IN_FLIGHT)
def test_server_ends_with_requests_in_flight(kind: Kind, puppet: Puppet) -> None:
    """An endless stream holds the server for its own grace, and not for longer.

    The other servers give a thread that is in an app no end of time, or one of their own.
    """
    with running(kind, APP) as server, server.connect() as connection:
        connection.sendall(request_head(puppet.path))
        puppet.wait()
        puppet.start()
        puppet.send(b"first")
        read_until(connection, b"first")
        puppet.tell("receive")
        assert server.stop() < GRACE + 2
        with pytest.raises((EOFError, ConnectionError)):
            puppet.reply("nothing")


@pytest.mark.parametrize(
    "kind",
    [
        gunicorn("gevent-preload", "-k", "gevent", "--preload", optional="gevent"),
        uwsgi("gevent", "--processes", "1", "--gevent", "20", "--gevent-monkey-patch"),
    ],
    ids=lambda kind: kind.name,
)
def test_gevent_patches_after_the_import(kind: Kind) -> None:
    """An adapter that was imported before gevent patched the process works after it."""
    with running(kind, APP) as server:
        assert outcome(server, "/hello", timeout=5) == "hello"
        with ThreadPoolExecutor(5) as clients:
            assert list(clients.map(lambda _: outcome(server, "/slow/0.3", timeout=5), range(5))) == ["slept"] * 5


@on("gunicorn-gthread-preload")
def test_adapter_that_was_started_before_the_fork(kind: Kind) -> None:
    """Master and workers each have a lifespan of their own, which begins and ends with them."""
    with running(kind, APP, env={"START_AT_IMPORT": "1"}) as server:
        worker = pid_of(server)
        server.stop()
        for pid in (worker, server.process.pid):
            assert f"shutdown of {pid}" in server.output()


def script(code: str, *, env: dict[str, str] | None = None, timeout: float = 5) -> tuple[str, str, float]:
    """Run some lines of Python; return what they print, and the seconds from their last line to their end."""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(env or {})},
        bufsize=0,  # or communicate() would miss what was read ahead
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        lines: list[bytes] = []
        left = time.monotonic()
        try:
            for line in process.stdout:
                lines.append(line)
                left = time.monotonic()
                if line == b"leaving\n":
                    break
            rest, errors = process.communicate(timeout=timeout)
        finally:
            process.kill()
        return (b"".join(lines) + rest).decode().replace("\r\n", "\n"), errors.decode(), time.monotonic() - left


IN_FLIGHT = """
import threading
from tests.servers.asgi_apps import wsgi_app
from wsgiref.util import setup_testing_defaults

def request(path, first=lambda: None):
    environ = {"PATH_INFO": path}
    setup_testing_defaults(environ)
    try:
        for block in wsgi_app(environ, lambda *_: None):
            first()
    except Exception as error:
        print(type(error).__name__)
"""


def test_cgi() -> None:
    """A CGI script prints the whole response, shuts the app down, and ends."""
    code = f"from wsgiref.handlers import CGIHandler\nfrom {APPS} import wsgi_app\nCGIHandler().run(wsgi_app)"
    cgi = {"REQUEST_METHOD": "GET", "PATH_INFO": "/hello", "SERVER_NAME": "localhost", "SERVER_PORT": "80"}
    output, errors, seconds = script(code, env={**cgi, "SERVER_PROTOCOL": "HTTP/1.1", "CONTENT_LENGTH": ""})
    assert output.startswith("Status: 200 OK\n")
    assert output.endswith("\n\nhello")
    assert "<shutdown of" in errors
    assert seconds < 2


@pytest.mark.parametrize("first", ["pool", "adapter"])
def test_interpreter_ends_with_a_stream_in_flight(first: str) -> None:
    """It ends an event stream in a thread of a pool in good order, whether adapter or pool was there first."""
    code = (
        IN_FLIGHT
        + """
import concurrent.futures
if FIRST == "pool":
    pool = concurrent.futures.ThreadPoolExecutor()
request("/hello")
if FIRST == "adapter":
    pool = concurrent.futures.ThreadPoolExecutor()
begun = threading.Event()
pool.submit(request, "/ticking", begun.set)
begun.wait()
print("leaving")
"""
    )
    output, errors, seconds = script(f"FIRST = {first!r}\n{code}")
    assert output == "leaving\n"
    assert "<shutdown of" in errors
    assert seconds < 2


def test_interpreter_ends_with_a_server_in_a_thread() -> None:
    """A wsgiref server in a daemon thread does not keep the app from shutting down, or the interpreter from ending."""
    code = f"""
import threading, urllib.request
from wsgiref.simple_server import make_server
from {APPS} import wsgi_app

server = make_server("127.0.0.1", 0, wsgi_app)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(urllib.request.urlopen(f"http://127.0.0.1:{{server.server_port}}/hello").read())
print("leaving")
"""
    output, errors, seconds = script(code)
    assert output == "b'hello'\nleaving\n"
    assert "<shutdown of" in errors
    assert seconds < 2


def test_interpreter_ends_during_a_startup() -> None:
    """It does not wait for a startup that hangs, on behalf of a request in a thread of a pool."""
    code = """
import concurrent.futures, threading
from bridge import ASGIToWSGI
from wsgiref.util import setup_testing_defaults

begun = threading.Event()

async def app(scope, receive, send):
    begun.set()
    await receive()
    await receive()

environ = {}
setup_testing_defaults(environ)
concurrent.futures.ThreadPoolExecutor().submit(ASGIToWSGI(app), environ, lambda *_: None)
begun.wait()
print("leaving")
"""
    _, _, seconds = script(code)
    assert seconds < 2


@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="Python 3.12 starts no threads once it exits")
def test_shutdown_at_the_interpreters_end_may_use_threads() -> None:
    """An app that closes what it has in a thread, by asyncio.to_thread, can do so at the interpreter's exit."""
    code = """
import asyncio
from bridge import ASGIToWSGI

async def app(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await asyncio.to_thread(print, "closed in a thread")
    await send({"type": "lifespan.shutdown.complete"})

adapter = ASGIToWSGI(app)
adapter.start()
print("leaving")
"""
    output, errors, _ = script(code)
    assert output == "leaving\nclosed in a thread\n", errors


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_request_that_comes_during_the_shutdown(backend: str) -> None:
    """A request whose body is still being read when the app shuts down is refused, and the shutdown completed."""
    code = f"""
import anyio, io, threading
from bridge import ASGIToWSGI
from wsgiref.util import setup_testing_defaults

reading, shutting_down = threading.Event(), threading.Event()

class SlowInput(io.BytesIO):
    def read(self, size):
        reading.set()
        shutting_down.wait()
        return b"x" * size

async def app(scope, receive, send):
    if scope["type"] == "http":
        print("the app was called")
        return
    await receive()
    await send({{"type": "lifespan.startup.complete"}})
    await receive()
    shutting_down.set()
    await anyio.sleep(0.3)
    print("shut down")
    await send({{"type": "lifespan.shutdown.complete"}})

def request():
    environ = {{"wsgi.input": SlowInput(), "CONTENT_LENGTH": "5"}}
    setup_testing_defaults(environ)
    try:
        adapter(environ, lambda *_: None)
    except Exception as error:
        print(type(error).__name__)

adapter = ASGIToWSGI(app, backend={backend!r})
adapter.start()
thread = threading.Thread(target=request, daemon=True)
thread.start()
reading.wait()
adapter.close()
thread.join(2)
"""
    output, errors, _ = script(code)
    assert sorted(output.splitlines()) == ["AdapterClosed", "shut down"], errors


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_adapter_that_is_closed_while_it_starts(backend: str) -> None:
    """An app that has started is shut down, and its loop ends, whenever close() comes."""
    code = f"""
import threading, time
from bridge import AdapterClosed, ASGIToWSGI

started = shut_down = 0

async def app(scope, receive, send):
    global started, shut_down
    await receive()
    await send({{"type": "lifespan.startup.complete"}})
    started += 1
    await receive()
    shut_down += 1
    await send({{"type": "lifespan.shutdown.complete"}})

def start(adapter, begun):
    begun.set()
    try:
        adapter.start()
    except AdapterClosed:
        pass

for number in range(100):
    adapter, begun = ASGIToWSGI(app, backend={backend!r}), threading.Event()
    thread = threading.Thread(target=start, args=(adapter, begun))
    thread.start()
    begun.wait()
    time.sleep(number % 20 / 10_000)
    adapter.close()
    thread.join()
deadline = time.monotonic() + 1
while threading.active_count() > 1 and time.monotonic() < deadline:
    time.sleep(0.01)
print(started - shut_down, "not shut down,", threading.active_count() - 1, "threads left")
"""
    output, errors, _ = script(code, timeout=20)
    assert output == "0 not shut down, 0 threads left\n", errors


# --- What it takes --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gthread() -> Iterator[Server]:
    """gunicorn's gthread worker, warmed up."""
    with running(KINDS["gunicorn-gthread"], APP) as server:
        yield server


def memory_peak(pid: int) -> int:
    """Return the most memory that a process has had resident so far, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.mark.slow
def test_memory_does_not_grow_with_the_body(gthread: Server) -> None:
    """1 GiB up and 1 GiB down go through in a few blocks."""
    pid = pid_of(gthread)
    gthread.client.post("/total", content=b"x" * 1_000_000)
    before = memory_peak(pid)
    with gthread.connect() as connection:
        connection.sendall(request_head("/total", f"Content-Length: {1 << 30}", "Connection: close", method="POST"))
        block = bytes(1 << 20)
        for _ in range(1024):
            connection.sendall(block)
        assert read_all(connection).endswith(b"%d" % (1 << 30))
    with gthread.connect() as connection:
        connection.sendall(request_head(f"/download/{1 << 14}", "Connection: close"))
        received, buffer = 0, bytearray(1 << 20)
        while size := connection.recv_into(buffer):
            received += size
        assert received > 1 << 30
    assert memory_peak(pid) - before < 32 << 20


@pytest.mark.slow
def test_nothing_is_left_behind(gthread: Server) -> None:
    """After 1,000 requests of all kinds, many of them given up, the worker has the threads and files it had."""
    pid = pid_of(gthread)

    def request(number: int) -> None:
        path, body, sent, answer = (
            ("/hello", 0, 0, b"hello"),
            ("/digest", 100_000, 100_000, b"total"),
            ("/digest", 100_000, 70_000, b""),  # leaves in mid-upload
            ("/download/100", 0, 0, b"x"),  # leaves in mid-download
            ("/ticking", 0, 0, b"tick"),
            ("/slow/0.1", 0, 0, b""),  # leaves before the response
            ("/raises_in_body", 0, 0, b"start"),
            ("/starlette/thread", 0, 0, b"thread"),
        )[number % 8]
        with gthread.connect() as connection:
            connection.sendall(request_head(path, f"Content-Length: {body}", method="POST" if body else "GET"))
            connection.sendall(b"x" * sent)
            if answer:
                read_until(connection, answer)

    def tasks() -> int:
        return int(gthread.client.get("/tasks").text)

    def counts() -> tuple[int, int]:
        return len(os.listdir(f"/proc/{pid}/task")), len(os.listdir(f"/proc/{pid}/fd"))

    idle = tasks()
    with ThreadPoolExecutor(16) as clients:
        list(clients.map(request, range(200)))
        wait_until(lambda: tasks() == idle)
        threads, files = counts()
        list(clients.map(request, range(1000)))
    wait_until(lambda: tasks() == idle)
    wait_until(lambda: counts()[0] <= threads and counts()[1] <= files, what=f"{threads} threads and {files} files")
