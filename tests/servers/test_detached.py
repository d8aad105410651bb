"""Responses that leave their WSGI thread, on real servers: more of them at once than the server has threads."""

import collections
import contextlib
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import anyio
import httpx
import pytest

from bridge import ASGIToWSGI
from bridge.types import Receive, Scope, Send
from tests.processes import Server
from tests.servers.wsgi_servers import KINDS, running
from tests.sockets import read_all

SLEEPERS = 24
_asleep = 0
_calls: collections.Counter[str] = collections.Counter()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer /meet only once all expected requests are here, so that no thread can serve one after the other."""
    global _asleep
    path = scope["path"]
    if path == "/error":
        while not wsgi_app.statistics().detached:
            await anyio.sleep(0.001)
        raise ZeroDivisionError("the app's error")
    if path.startswith("/sleep/"):
        _calls[path] += 1
        await anyio.sleep(0.2)
        await _answer(send, path.encode())
        return
    if path == "/calls":
        body = b"%d paths, %d calls" % (len(_calls), _calls.total())
        _calls.clear()
        await _answer(send, body)
        return
    if path == "/meet":
        _asleep += 1
        while _asleep % SLEEPERS:
            await anyio.sleep(0.01)
    headers = [(b"content-type", b"text/event-stream" if path == "/events" else b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if path == "/events":
        for number in range(3):
            await anyio.sleep(0.05)
            await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
    await send({"type": "http.response.body", "body": b"" if path == "/events" else b"met"})


async def _answer(send: Send, body: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


wsgi_app = ASGIToWSGI(app, lifespan="off", detach="auto")

SERVERS = ("gunicorn-sync", "gunicorn-gthread", "uwsgi-threads", "waitress", "cheroot", "werkzeug", "wsgiref")


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    kind = KINDS[request.param]
    command = list(kind.command)
    if "--processes" in command:  # the requests that meet must be in one process
        command[command.index("--processes") + 1] = "1"
    with running(kind._replace(command=tuple(command)), f"{__name__}:wsgi_app") as server:
        yield server


def test_more_requests_wait_than_the_server_has_threads(server: Server) -> None:
    """All of them run at once, and each gets its answer."""

    def get(_: int) -> tuple[int, bytes]:
        with httpx.Client(base_url=server.client.base_url, timeout=20, trust_env=False) as client:
            response = client.get("/meet")
            return response.status_code, response.content

    with ThreadPoolExecutor(SLEEPERS) as threads:
        assert list(threads.map(get, range(SLEEPERS))) == [(200, b"met")] * SLEEPERS


def test_an_event_stream_comes_whole(server: Server) -> None:
    """The events and the end of the stream arrive, and the server logs no error."""
    response = server.client.get("/events")
    assert response.content == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
    assert response.headers["connection"] == "close"
    assert "Traceback" not in server.output()


def test_a_client_of_http_1_0_reads_to_the_close(server: Server) -> None:
    """A client of HTTP/1.0 gets no chunks, and reads until the connection closes."""
    with server.connect() as connection:
        connection.sendall(b"GET /events HTTP/1.0\r\nHost: example.org\r\n\r\n")
        received = b""
        while part := connection.recv(65536):
            received += part
    head, _, body = received.partition(b"\r\n\r\n")
    assert body == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
    assert b"transfer-encoding" not in head.lower()


def test_an_error_is_a_500(server: Server) -> None:
    """If a detached app raises, the client gets a whole 500, and the log has the app's error."""
    assert server.client.get("/error").status_code == 500
    assert "the app's error" in server.output()


def test_a_server_goes_on_when_clients_have_left(server: Server) -> None:
    """After clients have reset the connections of detached responses, the next request is served."""
    for _ in range(10):
        with server.connect() as connection:
            connection.sendall(b"GET /events HTTP/1.1\r\nHost: example.org\r\n\r\n")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert server.client.get("/").content == b"met"


@pytest.mark.parametrize("server", ["gunicorn-gthread"], indirect=True)
def test_each_request_has_one_call_and_one_answer(server: Server) -> None:
    """However many sleep at once, the app is called once for each, and each client gets its own answer alone."""
    paths = [f"/sleep/{number}" for number in range(200)]
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in paths]
        for connection, path in zip(connections, paths, strict=True):
            connection.settimeout(30)
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n".encode())
        answers = [read_all(connection) for connection in connections]
    assert [answer.partition(b"\r\n\r\n")[2].decode() for answer in answers] == paths
    assert [answer.count(b"HTTP/1.1 ") for answer in answers] == [1] * 200
    assert server.client.get("/calls").text == "200 paths, 200 calls"


def test_a_pipelined_request_is_answered_or_not_run(server: Server, request: pytest.FixtureRequest) -> None:
    """If the server has read it and keeps the connection, it answers. Else the app never sees it (RFC 9112 9.6)."""
    lasts = ("", "", "Connection: close\r\n")
    requests = [f"GET /sleep/{number} HTTP/1.1\r\nHost: a\r\n{last}\r\n" for number, last in enumerate(lasts)]
    with server.connect() as connection:
        connection.sendall("".join(requests).encode())
        answers = read_all(connection)
    bodies = re.findall(rb"/sleep/(\d)", answers)
    answers_all = request.node.callspec.params["server"] in ("gunicorn-gthread", "waitress", "cheroot")
    assert bodies == ([b"0", b"1", b"2"] if answers_all else [b"0"])
    assert server.client.get("/calls").text == f"{len(bodies)} paths, {len(bodies)} calls"
