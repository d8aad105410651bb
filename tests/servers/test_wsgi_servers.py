"""`ASGIToWSGI` behind real WSGI servers.

The apps are in `asgi_apps.py`. `wsgi_servers.KINDS` lists what a server does for no WSGI app. Where that is a
fault of the server, the test shows it with a plain WSGI app in place of the adapter.
"""

import contextlib
import hashlib
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from tests.processes import Server, wait_until
from tests.servers.wsgi_client import (
    APP,
    AT_ONCE,
    Puppet,
    assert_every_worker_answers,
    assert_idle,
    on,
    outcome,
    pid_of,
    request_head,
)
from tests.servers.wsgi_servers import KINDS, Kind, running
from tests.sockets import read_all, read_until

SEES_LEAVING = 3.0
DISCONNECT = {"type": "http.disconnect"}


MAIN_KINDS = [kind for kind in KINDS.values() if not kind.variant]


@pytest.fixture(scope="module", params=MAIN_KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    chosen: Kind = request.param
    return chosen


@pytest.fixture(scope="module")
def server(kind: Kind) -> Iterator[Server]:
    """Run one server of each kind for all tests that leave it unchanged."""
    with running(kind, APP) as server:
        if kind.name.startswith("uwsgi"):  # it closes each connection without announcing it
            server.client.headers["Connection"] = "close"
        yield server


# --- Requests -------------------------------------------------------------------------------------


def test_every_worker_answers(kind: Kind, server: Server) -> None:
    """An adapter that was created before a fork works in each of the processes."""
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
    """A chunked body arrives if the server sets wsgi.input_terminated; otherwise the app gets no body."""
    blocks = [os.urandom(size) for size in (1, 100_000, 5, 300_000)]
    body = b"".join(blocks)
    answer = server.client.post("/digest", content=iter(blocks)).json()
    if kind.takes_chunks:
        assert answer["sha256"] == hashlib.sha256(body).hexdigest()
        assert answer["largest"] <= 512 * 1024
    else:
        assert answer["total"] == 0


def test_body_after_100_continue(kind: Kind, server: Server) -> None:
    """A client that waits for "100 Continue" gets it when the app asks for the body, or earlier."""
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
    """If a client leaves during an upload, the app gets http.disconnect, never a short body, and no CPU is used."""
    with server.connect() as connection:
        connection.sendall(request_head(puppet.path, f"Content-Length: {length}", method="POST") + b"x" * sent)
        if length > 65536:  # a shorter body is read before the app is called
            puppet.wait()
            assert puppet.receive() == {"type": "http.request", "body": "x" * 65536, "more_body": True}
            puppet.tell("receive")
    if length > 65536:
        rest = puppet.reply("receive", SEES_LEAVING)
        if rest != DISCONNECT:  # some servers return what came before the client left, others raise at once
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
    """If a client leaves in the middle of a chunked body, the app does not take that for the end."""
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
    """An app can be ahead of its client only by what the server and the sockets' buffers hold."""
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
    """The client gets each block before the app sends the next."""
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
    """A response ends with its last message, and the next request is served while the app still runs."""
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
    if puppet.pid == pid_of(server):  # otherwise a server without threads has stopped it
        assert puppet.receive() == DISCONNECT
        puppet.tell("return")


# --- Clients that leave ---------------------------------------------------------------------------


def test_client_leaves_while_it_is_sent_to(server: Server, puppet: Puppet) -> None:
    """An app that keeps sending to a client that has left gets an OSError and http.disconnect."""
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
    """In an idle stream or a long poll, an app is told that its client has left if the server shows the connection."""
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


# --- Faulty apps ----------------------------------------------------------------------------------


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
    """A faulty app leads at once to an error response or one that is cut, and the next request is served.

    "error" stands for the server's answer to an exception: uWSGI just closes the connection.
    """
    if expected == "error":
        expected = outcome(server, "/native/raises")
        assert expected in ("error", "cut")
    assert outcome(server, f"/{name}") == expected
    pid_of(server)


@on("gunicorn-gthread", "gunicorn-gevent")
def test_loop_that_dies_answers_all(server: Server) -> None:
    """If a task of the app ends the loop, a request that comes meanwhile also gets an answer."""

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
    """Without a Content-Length, a client can see only of a chunked response that it was cut.

    wsgiref and uWSGI send no chunks, and Werkzeug appends an error page to what it has sent.
    """
    natively = outcome(server, "/native/raises_in_chunks")
    assert natively == "cut" or natively.startswith("start")
    assert outcome(server, f"/{name}") == natively
    pid_of(server)


@on("gunicorn-gthread")
@pytest.mark.parametrize(("method", "path"), [("HEAD", "/ticking"), ("GET", "/overruns_for_ever")])
def test_stream_that_sends_nothing_more_ends(server: Server, method: str, path: str) -> None:
    """An app that keeps sending blocks of which the client gets nothing does not hold the thread.

    No write fails there, so the server cannot see that the client has left.
    """
    ended = server.output().count(f"{path} has ended")
    with server.connect() as connection:
        connection.sendall(request_head(path, method=method))
        read_until(connection, b"\r\n\r\n")
    wait_until(lambda: server.output().count(f"{path} has ended") > ended, SEES_LEAVING)


# --- What is carried over -------------------------------------------------------------------------


def test_context_variables_do_not_leak(server: Server) -> None:
    """A context variable that a request sets is seen in its own task, and not by later requests of the same thread."""
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
    """raw_path holds the bytes that the client sent."""
    scope = server.client.get("/describe/%FF").json()
    assert scope["path"] == "/describe/\ufffd"
    assert scope["raw_path"] == "/describe/%FF"


def test_mounted_app(server: Server) -> None:
    """SCRIPT_NAME becomes root_path, and path and raw_path begin with it."""
    scope = server.client.get("/mounted/describe/a%20b").json()
    assert scope["root_path"] == "/mounted"
    assert scope["path"] == "/mounted/describe/a b"
    assert scope["raw_path"] == "/mounted/describe/a%20b"


def test_encoded_slash(server: Server) -> None:
    """An encoded slash is decoded in path; raw_path is what the client sent, if the server has kept it."""
    scope = server.client.get("/describe/a%2Fb").json()
    assert scope["path"] == "/describe/a/b"
    keeps_target = "RAW_URI" in scope["variables"] or "REQUEST_URI" in scope["variables"]
    assert scope["raw_path"] == ("/describe/a%2Fb" if keeps_target else "/describe/a/b")


def test_target_may_be_a_url(kind: Kind, server: Server) -> None:
    """Servers must accept a URL as target (RFC 9112 3.2.2); some pass on only its path, and some the whole."""
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
    """The server or the adapter refuses differing Host headers (RFC 9112 3.2), except that cheroot drops the first."""
    with server.connect() as connection:
        connection.sendall(request_head("/hello", "Host: example.org", "Connection: close"))
        status = read_all(connection).split(b" ", 2)[1]
    assert status == (b"200" if kind.name == "cheroot" else b"400")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("code", [200, 204, 304, 404])
def test_responses_without_a_body(server: Server, method: str, code: int) -> None:
    """HEAD, 204 and 304 have no body, whatever the app sends, and the next response is whole."""
    for _ in range(2):
        response = server.client.request(method, f"/status/{code}")
        assert response.status_code == code
        assert response.text == ("body of it" if method == "GET" and code in (200, 404) else "")


def test_file_that_the_proxy_sends(server: Server) -> None:
    """An app that lets the proxy send a file declares its length and sends no body; the length is dropped."""
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
    """Early hints are sent on servers that can, which is gunicorn; elsewhere they are not offered."""
    with server.connect() as connection:
        connection.sendall(request_head("/early_hints", "Connection: close"))
        response = read_all(connection)
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
    assert response.startswith(hints) == kind.name.startswith("gunicorn")
    assert response.endswith(b"hello")


@on("mod_wsgi", "passenger")
def test_websocket_is_refused(server: Server) -> None:
    """If the server does not show its sockets, an upgrade gets a 501, and the server goes on."""
    with server.connect() as connection:
        headers = ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
        connection.sendall(request_head("/hello", "Connection: Upgrade", "Upgrade: websocket", *headers))
        assert read_until(connection, b"WebSockets are not possible on this server").split()[1] == b"501"
    pid_of(server)


# --- Frameworks -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def big_file() -> Iterator[Path]:
    """Create a file of 20 MB in which no two parts are equal."""
    with tempfile.NamedTemporaryFile() as file:
        os.chmod(file.name, 0o644)
        file.write(b"".join(b"%019d\n" % number for number in range(1_000_000)))
        file.flush()
        yield Path(file.name)


def test_file(server: Server, big_file: Path) -> None:
    """The server's wsgi.file_wrapper sends Starlette's FileResponse; the app sends ranges."""
    url, content = f"/starlette/file?path={big_file}", big_file.read_bytes()
    assert server.client.get(url).content == content
    head = server.client.head(url)
    assert (head.headers["content-length"], head.content) == (str(len(content)), b"")
    part = server.client.get(url, headers={"Range": "bytes=10000000-10099999"})
    assert (part.status_code, part.content) == (206, content[10_000_000:10_100_000])


def test_starlettes_threads_and_bodies(server: Server) -> None:
    """Endpoints in threads and request bodies work as on an ASGI server."""
    assert server.client.get("/starlette/thread").json() == ["unset", "AnyIO worker thread"]
    assert server.client.post("/starlette/upload", content=b"x" * 200_000).json() == 200_000


@on("gunicorn-sync", "gunicorn-gthread", "gunicorn-gevent", "uwsgi-threads", "mod_wsgi")
def test_fastapi(server: Server) -> None:
    """Endpoints in threads, dependencies, forms and background tasks work as on an ASGI server."""
    key = uuid4().hex
    connection, thread = server.client.get(f"/fastapi/items/{key}").json()
    assert (connection, thread) == (f"connection of {key}", "AnyIO worker thread")
    wait_until(lambda: f"background of {key} has run" in server.output())
    wait_until(lambda: f"connection of {key} is closed" in server.output())
    assert server.client.post("/fastapi/upload", files={"file": b"x" * 200_000}).json() == 200_000


@on("gunicorn-gthread")
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_stream_goes_on_behind_its_last_byte(server: Server, method: str) -> None:
    """The app still runs after the last byte that goes to the client, as on an ASGI server.

    The client knows by the Content-Length, or because it sent HEAD, that the response is complete.
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
    """An error that the app raises after its response is logged unchanged.

    Starlette's middleware raises it out of a task group, so it refers to a group that holds it.
    """
    assert server.client.get("/starlette/raises").status_code == 500
    wait_until(lambda: "RuntimeError: behind a middleware" in server.output())
    assert "GET /starlette/raises: the ASGI app raised after it had answered with 500" in server.output()
    assert "RecursionError" not in server.output()


@on("gunicorn-gthread")
def test_client_leaves_starlettes_stream(server: Server) -> None:
    """Starlette itself ends a StreamingResponse once the client has left."""
    path = f"/starlette/stream/{uuid4().hex}"
    with server.client.stream("GET", path, headers={"Connection": "close"}) as response:
        assert next(response.iter_text()) == "data: first\n\n"
    wait_until(lambda: f"{path} has ended" in server.output(), SEES_LEAVING)


def test_fifty_requests_at_once(server: Server) -> None:
    """Fifty requests on fewer threads all get their own answers."""

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
    """Requests that wait, on the loop or in a thread, wait at the same time on one gevent worker."""
    with ThreadPoolExecutor(20) as clients:
        start = time.monotonic()
        answers = list(clients.map(lambda _: outcome(server, path, timeout=5), range(20)))
        assert 0.5 <= time.monotonic() - start < 2
    assert all("slept" in answer for answer in answers)


@on(where=lambda kind: "gevent" not in kind.name and not kind.variant)
@pytest.mark.parametrize("backend", ["trio", "uvloop"])
def test_other_event_loops(server: Server, puppet: Puppet, backend: str) -> None:
    """Apps on trio and uvloop are served as on asyncio, and are told when a client leaves."""
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
    """trio and uvloop would stop a gevent worker, so a request gets an error that says so, and does not hang."""
    assert outcome(server, f"/{backend}/hello") == "error"
    wait_until(lambda: "gevent has patched this process" in server.output())
    pid_of(server)


# --- Lifespan -------------------------------------------------------------------------------------


def test_lifespan(kind: Kind, server: Server) -> None:
    """The lifespan starts once per process, each request gets its state, and its tasks run between requests."""
    before = server.client.get("/lifespan_state").json()
    time.sleep(0.2)
    after = [server.client.get("/lifespan_state").json() for _ in range(10)]
    assert {answer["startups"] for answer in after} == {1}
    assert not any("of_an_earlier_request" in answer for answer in after)
    if kind.runs_between_requests and kind.workers == 1:
        assert after[0]["ticks"] > before["ticks"]


@on(where=lambda kind: kind.workers == 1 and not kind.variant)
def test_failed_startup_is_tried_again(server: Server) -> None:
    """A startup that fails is an error for its request, and the next request tries again."""
    path = f"/fails-at-first/{uuid4().hex}"
    error = outcome(server, "/native/raises")
    assert [outcome(server, path) for _ in range(4)] == [error, error, "started", "started"]
