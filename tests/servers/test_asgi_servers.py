"""`WSGIToASGI` behind real ASGI servers."""

import contextlib
import gzip
import http.client
import io
import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.processes import Server, serving, wait_until
from tests.servers.asgi_client import APP, AT_ONCE, Client, chunk, head, in_odd_pieces, notes, wait_for_note
from tests.servers.asgi_servers import KINDS, Kind, maybe_missing, running
from tests.servers.wsgi_apps import READS


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Return each kind of server, and skip the test if that is not installed."""
    kind = KINDS[request.param]
    if (missing := maybe_missing(kind)) is not None:
        pytest.skip(f"{kind.name}: {missing} is not installed")
    return kind


@pytest.fixture(scope="module")
def server(kind: Kind) -> Iterator[Server]:
    """Run one server for all tests that do not stop it."""
    with running(kind, APP) as server:
        yield server


# --- The request ----------------------------------------------------------------------------------

# Long and short lines, an empty one, one that ends in CRLF, every possible byte, and no newline at the end.
BODY = b"first\n\nsecond line\r\n" + bytes(range(256)) * 3 + b"\n" * 3 + b"x" * 1000 + b"\nthe last"


@pytest.mark.parametrize("chunked", [False, True], ids=["Content-Length", "chunked"])
def test_body_is_read_as_a_file_is(server: Server, chunked: bool) -> None:
    """Each way to read a body returns what it returns for a file, however the body arrives."""
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(BODY)}"
    with contextlib.ExitStack() as stack:
        clients = {how: stack.enter_context(Client(server)) for how in READS}
        for how, client in clients.items():
            client.post(f"/body?how={how.replace(' ', '+')}", framing)
        for piece in in_odd_pieces(BODY):
            time.sleep(0.005)  # the test is about the pauses
            for client in clients.values():
                client.send(chunk(piece) if chunked else piece)
        for how, client in clients.items():
            if chunked:
                client.send(chunk(b""))
            assert client.json() == [piece.decode("latin-1") for piece in READS[how](io.BytesIO(BODY))], how


@pytest.mark.parametrize("how", ["read", "read(7)", "iteration"])
@pytest.mark.parametrize("chunked", [False, True], ids=["Content-Length", "chunked"])
def test_large_body_arrives_whole(server: Server, how: str, chunked: bool) -> None:
    """A body of many messages reaches the app unchanged."""
    body = BODY * 300
    content: Any = iter([body[:100_000], body[100_000:]]) if chunked else body
    pieces = server.client.post("/body", params={"how": how}, content=content).json()
    assert pieces == [piece.decode("latin-1") for piece in READS[how](io.BytesIO(body))]


@pytest.mark.parametrize("framework", ["flask", "django"])
@pytest.mark.parametrize("chunked", [False, True], ids=["Content-Length", "chunked"])
def test_frameworks_read_uploads(server: Server, framework: str, chunked: bool) -> None:
    """Flask reads a chunked body as it is, Django with `buffer_body`: whole, by lines, as a form."""

    def post(path: str, body: bytes, content_type: str = "text/plain") -> Any:
        content: Any = in_odd_pieces(body) if chunked else body
        headers = {"Content-Type": content_type}
        return server.client.post(f"/{framework}/{path}", content=content, headers=headers).json()

    text = "first\nsecond\n\nlast"
    assert post("body", text.encode()) == {"body": text}
    assert post("lines", text.encode()) == {"lines": text.splitlines(keepends=True)}
    form = httpx.Request("POST", "http://localhost", data={"field": "value"}, files={"file": b"x" * 50_000})
    assert post("form", form.read(), form.headers["Content-Type"]) == {"field": "value", "size": 50_000, "x": 50_000}


def test_lines_are_answered_before_the_next_is_sent(kind: Kind, server: Server) -> None:
    """A request body and a response body flow at the same time."""
    if kind.name == "daphne":
        pytest.skip("daphne calls an app with the whole body")
    with Client(server) as client:
        client.post("/duplex", "Transfer-Encoding: chunked", body=chunk(b"first\n"))
        response = client.answer()
        assert response.readline() == b"FIRST\n"
        for word in (b"second\n", b"third\n"):
            client.send(chunk(word))
            assert response.readline() == word.upper()
        client.send(chunk(b""))
        assert response.read() == b""


def test_environ_of_a_request(server: Server) -> None:
    """Path and query keep their bytes; repeated headers are joined, and ambiguous ones dropped."""
    target = "/variables/%FF/a%2Fb/%C3%A9%E2%82%AC/%41;x=1//end/%00?a=%FF&b=%2F&b=+%C3%A9"
    lines = ["X-Word: one", "X_Word: two", "X-Word: three", "Cookie: a=1", "Cookie: b=2", "Proxy: evil", "X-Empty:"]
    with Client(server) as client:
        client.get(target, *lines, "X-Bytes: \xe9\xff")
        environ = client.json()
    assert environ["PATH_INFO"].encode("latin-1") == b"/variables/\xff/a/b/\xc3\xa9\xe2\x82\xac/A;x=1//end/\0"
    assert environ["QUERY_STRING"] == "a=%FF&b=%2F&b=+%C3%A9"
    assert environ["REQUEST_URI"] == environ["RAW_URI"] == target
    assert environ["HTTP_X_WORD"] == "one,three"
    assert environ["HTTP_COOKIE"] == "a=1; b=2"
    assert environ["HTTP_X_EMPTY"] == ""
    assert environ["HTTP_X_BYTES"] == "\xe9\xff"
    assert "HTTP_PROXY" not in environ
    assert (environ["REQUEST_METHOD"], environ["SERVER_PROTOCOL"]) == ("GET", "HTTP/1.1")
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("127.0.0.1", str(server.port))
    assert environ["REMOTE_ADDR"] == "127.0.0.1"
    assert environ["SCRIPT_NAME"] == ""


def test_target_may_be_a_url(server: Server) -> None:
    """Servers must accept a URL as target (RFC 9112 3.2.2); some pass on only its path, and some the whole."""
    with Client(server) as client:
        client.get("http://example.org:81/variables/%FF/a%2Fb?a=%FF")
        environ = client.json()
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("", "/variables/\xff/a/b")
    assert environ["REQUEST_URI"] == environ["RAW_URI"] == "/variables/%FF/a%2Fb?a=%FF"
    assert environ["QUERY_STRING"] == "a=%FF"


def test_hosts_that_differ_are_refused(server: Server) -> None:
    """By the server or by the adapter (RFC 9112 3.2)."""
    with Client(server) as client:
        client.get("/variables/x", "Host: example.org")
        assert client.answer().status == 400


def test_body_waits_for_100_continue(server: Server) -> None:
    """A client that expects 100 Continue gets it, and then sends its body."""
    with Client(server) as client:
        client.post("/body", "Content-Length: 5", "Expect: 100-continue")
        interim = b""
        while not interim.endswith(b"\r\n\r\n"):
            interim += client.sock.recv(1)
        assert interim.startswith(b"HTTP/1.1 100 ")
        client.send(b"hello")
        assert client.json() == ["hello"]


def test_app_that_reads_nothing_does_not_ask_for_the_body(kind: Kind, server: Server) -> None:
    """An app that answers without reading the body does not make the client send it (RFC 9110 10.1.1)."""
    if kind.name.startswith(("hypercorn", "daphne")):
        pytest.skip(f"{kind.name} sends 100 Continue before it calls the app")
    with Client(server) as client:
        client.post("/empty?status=403+Forbidden", "Content-Length: 5", "Expect: 100-continue")
        assert client.sock.recv(12) == b"HTTP/1.1 403"


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    """Requests that arrive together on one connection are all answered in order, including streams."""
    targets = ["/late", "/empty", "/flask/stream?word=a", "/written", "/declared?blocks=2&length=10", "/headers"]
    with Client(server) as client:
        client.send(b"".join(head(target) for target in targets))
        answers = [client.answer().read() for _ in targets]
    assert answers == [b"one,two", b"", b"a 0\na 1\na 2\n", b"one,two,three", b"0123401234", b"hello"]


# --- The response ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "status", "body"),
    [
        ("/late", 202, b"one,two"),
        ("/written", 200, b"one,two,three"),
        ("/replaced", 503, b"sorry"),
        ("/empty", 200, b""),
        ("/empty?status=204+No+Content", 204, b""),
        ("/empty?status=304+Not+Modified", 304, b""),
        ("/empty?status=404", 404, b""),
        ("/sized?size=3000000", 200, bytes(3_000_000)),
        ("/declared?blocks=2&length=10", 200, b"0123401234"),
        ("/declared?blocks=2&length=7", 200, b"0123401"),
        ("/declared?blocks=2&length=5", 200, b"01234"),
        ("/declared?blocks=2&length=0", 200, b""),
        ("/flask/stream?word=a", 200, b"a 0\na 1\na 2\n"),
        ("/flask/page", 200, b"page"),
        ("/flask/nowhere", 404, None),
        ("/flask/error", 500, None),
        ("/django/stream?word=b", 200, b"b 0\nb 1\nb 2\n"),
        ("/django/nowhere", 404, None),
    ],
)
def test_response_arrives_as_the_app_gave_it(server: Server, target: str, status: int, body: bytes | None) -> None:
    """Status and body are the app's, HEAD gets the same headers, and the connection can be used again."""
    with Client(server) as client:
        for method in ("GET", "HEAD", "GET"):
            client.send(head(target, method=method))
            response = client.answer(method)
            assert response.status == status
            content = response.read()
            assert content == b"" if method == "HEAD" else body is None or content == body
            assert not response.will_close


def test_repeated_headers_and_cookies_keep_their_order(server: Server) -> None:
    """A header that the app sends twice arrives twice."""
    with Client(server) as client:
        client.get("/headers")
        response = client.answer()
        assert response.headers.get_all("X-Word") == ["one", "two"]
        assert response.headers.get_all("Set-Cookie") == ["a=1; Path=/", "b=2"]
        response.read()
        client.get("/flask/page")
        assert client.answer().headers.get_all("Set-Cookie") == ["a=1; Path=/", "b=2; Path=/"]


def test_not_modified_by_flask(server: Server) -> None:
    """A conditional request gets a 304, with its ETag and no body."""
    etag = server.client.get("/flask/page").headers["ETag"]
    response = server.client.get("/flask/page", headers={"If-None-Match": etag})
    assert (response.status_code, response.headers["ETag"], response.content) == (304, etag, b"")


@pytest.mark.parametrize(("framework", "name"), [("flask", "X-Sendfile"), ("django", "X-Accel-Redirect")])
def test_file_that_the_proxy_sends(server: Server, framework: str, name: str) -> None:
    """An app that lets the proxy send a file declares its length and sends no body; the length is dropped."""
    with Client(server) as client:
        for _ in range(2):
            client.get(f"/{framework}/file_of_the_proxy")
            response = client.answer()
            assert (response.status, response.read()) == (200, b"")
            assert response.headers[name]
            assert response.headers.get("Content-Length", "0") == "0"


@pytest.mark.parametrize("target", ["/early_error", "/no_start", "/declared?blocks=0&length=10"])
def test_error_before_the_first_byte_is_a_500(server: Server, target: str) -> None:
    """An error before the first byte of output gets a 500."""
    with Client(server) as client:
        client.sock.settimeout(5)
        client.get(target)
        assert client.answer().status == 500


# The last app runs without the adapter, and shows what the server does by itself.
@pytest.mark.parametrize("target", ["/late_error", "/too_late_to_replace", "/declared?blocks=2&length=20", "/native"])
def test_error_behind_the_first_byte_cuts_the_connection(kind: Kind, server: Server, target: str) -> None:
    """After an error in mid-stream, the client gets a broken response, never one that looks whole."""
    if kind.name == "daphne":
        pytest.skip("daphne leaves the response open: test_daphne_leaves_a_failed_stream_open")
    with Client(server) as client:
        client.get(target)
        response = client.answer()
        assert response.status == 200
        with pytest.raises(http.client.IncompleteRead):
            response.read()


@pytest.mark.slow
def test_daphne_leaves_a_failed_stream_open() -> None:
    """daphne never ends a response if the ASGI app raises in mid-stream."""
    pytest.importorskip("daphne")
    with serving([*KINDS["daphne"].command, APP]) as server, Client(server) as client:
        client.get("/native")
        response = client.answer()
        assert response.read(1000) == b"x" * 1000
        wait_until(lambda: "ValueError: late error" in server.output(), what="the error in the log")
        client.sock.settimeout(1)
        with pytest.raises(TimeoutError):
            response.read(1)
        server.process.kill()  # it no longer ends at SIGTERM


@pytest.mark.parametrize(
    ("way", "size", "offset", "name"),
    [
        ("plain", 20_000_000, 0, b"file"),
        ("plain", 2_000_000, 500_001, b"file"),
        ("plain", 200_000, 0, b"\xff"),
        ("temporary", 200_000, 0, b"file"),
        ("gzip", 200_000, 0, b"file"),
    ],
)
def test_file_arrives_whole(
    kind: Kind, server: Server, tmp_path: Path, request_id: str, way: str, size: int, offset: int, name: bytes
) -> None:
    """`wsgi.file_wrapper` sends what read() would return, and lets a server send a plain file if it can."""
    content = random.Random(1).randbytes(size)
    path = os.path.join(os.fsencode(tmp_path), name)
    with gzip.open(path, "wb") if way == "gzip" else open(path, "wb") as file:
        file.write(content)
    target = f"/file?id={request_id}&path={quote(path)}&way={way}&offset={offset}"
    times = 5 if way == "temporary" else 1  # whether the file is deleted too early is a matter of luck
    for _ in range(times):
        assert server.client.get(target).content == content[offset:]
    by_the_server = kind.name in ("granian", "h2corn") and (way, offset, name) == ("plain", 0, b"file")
    assert notes(server, request_id) == ["pathsend"] * by_the_server


def test_error_in_close_leaves_the_next_request_alone(server: Server) -> None:
    """An error that close() raises after a complete response does not cut the connection, which others use by then."""
    with Client(server) as client:
        client.get("/close_error")
        assert client.answer().read() == b"hello"
        client.get("/slow")
        assert client.json() == "done"


# --- Clients that leave ---------------------------------------------------------------------------

LEAVES: list[Callable[[Client], object]] = [Client.close, Client.reset]


@pytest.mark.parametrize("leave", LEAVES)
@pytest.mark.parametrize("app", ["ticks", "written_ticks"])
def test_stream_ends_when_its_client_leaves(
    server: Server, request_id: str, app: str, leave: Callable[[Client], object]
) -> None:
    """A stream is closed at its next block, with `bridge.disconnected` set."""
    with Client(server) as client:
        client.get(f"/{app}?id={request_id}")
        assert client.answer().readline() == b"tick\n"
        leave(client)
        wait_for_note(server, request_id, "closed, disconnected is True", timeout=AT_ONCE)


@pytest.mark.parametrize("leave", LEAVES)
def test_empty_blocks_end_when_their_client_leaves(
    server: Server, request_id: str, leave: Callable[[Client], object]
) -> None:
    """An app that yields empty blocks while it waits is also closed at its next block."""
    with Client(server) as client:
        client.get(f"/empty_ticks?id={request_id}")
        wait_for_note(server, request_id, "called")
        leave(client)
        wait_for_note(server, request_id, "closed, disconnected is True", timeout=AT_ONCE)


@pytest.mark.parametrize("size", [100, 100_000, 1_000_000])
def test_stream_ends_though_the_request_body_was_never_read(server: Server, request_id: str, size: int) -> None:
    """An app that streams notices that its client has left, even if it has not read the request body."""
    with Client(server) as client:
        client.sock.settimeout(0.2)
        with contextlib.suppress(TimeoutError):  # a server that stops reading accepts no more
            client.post(f"/ticks?id={request_id}", f"Content-Length: {size}", body=bytes(size))
        client.sock.settimeout(20)
        assert client.answer().readline() == b"tick\n"
        client.close()
        # After five seconds the adapter reads beyond 1 MiB of the body, because the disconnect comes after it.
        timeout = AT_ONCE if size <= 1_000_000 else AT_ONCE + 5
        wait_for_note(server, request_id, "closed, disconnected is True", timeout=timeout)


def test_non_reading_client_gets_a_bounded_number_of_blocks(kind: Kind, server: Server, request_id: str) -> None:
    """An app waits while its client does not read, and its stream is closed when the client leaves."""
    if kind.name == "daphne":
        pytest.skip("daphne takes all that an app sends, and holds it in memory")
    with Client(server) as client:
        client.get(f"/blocks?id={request_id}")
        assert unchanging(lambda: notes(server, request_id).count("block")) <= 12  # the sockets' buffers hold some MiB
        client.close()
        wait_for_note(server, request_id, "closed", timeout=AT_ONCE)


def unchanging(count: Callable[[], int], seconds: float = 0.3) -> int:
    """Wait for a count that is not 0 and has not changed for a while, and return it."""
    last, since = 0, time.monotonic()
    while not last or time.monotonic() - since < seconds:
        now = count()
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.02)
    return last


@pytest.mark.parametrize("leave", LEAVES)
@pytest.mark.parametrize(
    ("framing", "body"),
    [("Content-Length: 1000000", bytes(300_000)), ("Transfer-Encoding: chunked", chunk(b"hello"))],
    ids=["Content-Length", "chunked"],
)
def test_upload_that_is_cut_off_raises(
    kind: Kind, server: Server, request_id: str, framing: str, body: bytes, leave: Callable[[Client], object]
) -> None:
    """If an upload is cut off, an app that reads gets ClientDisconnected, never a short body."""
    if kind.name == "daphne":
        pytest.skip("daphne calls an app with the whole body")
    with Client(server) as client:
        client.post(f"/upload?id={request_id}", framing, body=body)
        wait_for_note(server, request_id, "called")
        leave(client)
        wait_for_note(server, request_id, "cut off", timeout=AT_ONCE)
        assert notes(server, request_id) == ["called", "cut off"]


@pytest.mark.parametrize("leave", LEAVES)
def test_app_can_wait_for_its_client_to_leave(
    server: Server, request_id: str, leave: Callable[[Client], object]
) -> None:
    """`bridge.disconnected` wakes an app that has not begun its response."""
    with Client(server) as client:
        client.get(f"/patient?id={request_id}")
        wait_for_note(server, request_id, "called")
        leave(client)
        wait_for_note(server, request_id, "disconnected is True", timeout=AT_ONCE)


@pytest.mark.slow
def test_app_can_wait_though_the_request_body_was_never_read(server: Server, request_id: str) -> None:
    """`bridge.disconnected` is also set after a large body that the app has not read."""
    with Client(server) as client:
        client.sock.settimeout(0.2)
        with contextlib.suppress(TimeoutError):  # a server that stops reading accepts no more
            client.post(f"/patient?id={request_id}", "Content-Length: 3000000", body=bytes(3_000_000))
        wait_for_note(server, request_id, "called")
        client.close()
        # The adapter reads the rest of the body once the app has not read for five seconds.
        wait_for_note(server, request_id, "disconnected is True", timeout=AT_ONCE + 5)


def test_client_that_got_everything_has_not_left(server: Server, request_id: str) -> None:
    """`bridge.disconnected` is not set when a response ends and its client is still connected."""
    assert server.client.get("/accomplished", params={"id": request_id}).content == b"one,two"
    wait_until(lambda: notes(server, request_id), what="the note of close()")
    assert notes(server, request_id) == ["disconnected is False"]


def test_abandoned_streams_leave_the_workers_free(server: Server, request_id: str) -> None:
    """A hundred clients that leave occupy none of the four workers: the next client is served."""
    for _ in range(100):
        with Client(server) as client:
            client.get(f"/few/ticks?id={request_id}")
    start = time.monotonic()
    assert server.client.get("/few/late").content == b"one,two"
    assert time.monotonic() - start < 10


# --- Many at once ---------------------------------------------------------------------------------


def test_twenty_requests_run_at_the_same_time(server: Server) -> None:
    """Requests that wait for each other each get a worker thread."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(server)) for _ in range(20)]
        for client in clients:
            client.get("/together")
        assert len({client.json() for client in clients}) == 20


def test_two_hundred_requests_at_the_same_time(server: Server) -> None:
    """Two hundred requests on fewer worker threads all get their own answers."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(server)) for _ in range(200)]
        for number, client in enumerate(clients):
            client.post("/body", "Content-Length: 4", body=b"%04d" % number)
        for number, client in enumerate(clients):
            assert client.json() == [f"{number:04d}"]


def test_slow_uploads_do_not_hold_worker_threads(server: Server, request_id: str) -> None:
    """Clients that have not sent a byte of their body do not occupy worker threads."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(server)) for _ in range(50)]
        for client in clients:
            client.post(f"/upload?id={request_id}", "Content-Length: 5")
        assert server.client.get("/late").content == b"one,two"
        assert notes(server, request_id) == []
        for client in clients:
            client.send(b"hello")
        for client in clients:
            assert client.json() == 5


def test_body_is_read_in_another_thread(kind: Kind, server: Server) -> None:
    """Another thread than the worker's may read the body, and neither blocks the other."""
    if kind.name == "daphne":
        pytest.skip("daphne calls an app with the whole body")
    with Client(server) as client:
        client.sock.settimeout(5)
        client.post("/beside", "Transfer-Encoding: chunked", body=chunk(b"."))
        response = client.answer()
        assert response.readline() == b"ready\n"

        def send() -> None:
            for _ in range(300):
                client.send(chunk(b"..."))
            client.send(chunk(b""))

        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(send)
            assert response.read() == bytes(10_000_000) + b"\n901"
            sent.result()


@pytest.mark.parametrize("app", ["left_reading", "read_too_late"])
def test_reader_ends_with_the_response(kind: Kind, server: Server, request_id: str, app: str) -> None:
    """Once the response is complete, no thread waits for more of the body."""
    if kind.name == "daphne":
        pytest.skip("daphne calls an app with the whole body")
    with Client(server) as client:
        client.sock.settimeout(5)
        client.post(f"/{app}?id={request_id}", "Content-Length: 1000", body=b"first")
        assert client.answer().read() == b"hello"
        wait_for_note(server, request_id, "reader ended", timeout=AT_ONCE)


@pytest.mark.parametrize("framework", ["flask_lent", "django_lent"])
def test_async_views_run_on_the_loop_of_the_server(kind: Kind, server: Server, framework: str) -> None:
    """With `lend_loop`, async views of two requests share the server's asyncio loop; under trio each gets its own."""
    loops = {server.client.get(f"/{framework}/loop").raise_for_status().text for _ in range(5)}
    if kind.name != "hypercorn-trio":
        assert len(loops) == 1


# --- The process ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_threads_and_files_do_not_pile_up(kind: Kind, server: Server) -> None:
    """A thousand requests, some of them abandoned, leave no thread and no open file behind."""
    process = Path("/proc", server.client.get("/process").text)
    targets = ["/late", "/empty?status=204", "/flask/page", "/django/stream?word=a", "/headers", "/early_error"]
    if kind.name == "daphne":
        targets.pop()  # daphne is slow to notice errors
    else:
        targets.append("/late_error")

    def requests(count: int) -> None:
        for number in range(count):
            with Client(server) as client:
                client.get("/ticks" if number % 5 == 0 else targets[number % len(targets)], "Connection: close")
                if number % 10 == 5:
                    client.reset()
                elif number % 5:
                    while client.sock.recv(65536):
                        pass

    def used() -> tuple[int, int]:
        return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))

    def run(count: int) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(requests, [count // 8] * 8))

    run(200)
    files, threads = used()
    run(800)
    # Worker threads start on demand and stay, so there may be more by now, but not one per request.
    wait_until(lambda: used()[0] <= files + 2 and used()[1] <= threads + 40, what=f"{files}, {threads}, not {used()}")


def test_shutdown_lets_a_request_end(kind: Kind, request_id: str) -> None:
    """After SIGTERM in the middle of a request, the server answers it and then exits at once."""
    if kind.name == "daphne":
        pytest.skip("daphne drops requests in flight")
    with serving([*kind.command, APP]) as server, Client(server) as client:
        client.get(f"/slow?id={request_id}")
        wait_for_note(server, request_id, "called")
        server.process.terminate()
        assert client.json() == "done"
        client.close()
        assert server.stop() < 3


def test_shutdown_ends_endless_streams(kind: Kind, request_id: str) -> None:
    """After SIGTERM while streams run, one of them abandoned, the server waits as long as configured, and exits."""
    with serving([*kind.command, *kind.grace, APP]) as server, contextlib.ExitStack() as stack:
        apps = ["ticks", "ticks", "written_ticks", "blocks"]
        if kind.name == "hypercorn-trio":
            apps.remove("blocks")  # it waits for ever for a client that does not read, whatever the app does
        clients = [stack.enter_context(Client(server)) for _ in apps]
        for app, client in zip(apps, clients, strict=True):
            client.get(f"/{app}?id={request_id}")
            assert client.answer().read(1)
        patient = stack.enter_context(Client(server))
        patient.get(f"/patient?id={request_id}")
        wait_for_note(server, request_id, "called", 4)
        clients[0].close()
        assert server.stop() < 1 + 2
