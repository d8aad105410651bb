import importlib.util
import io
import os
import socket
import subprocess
import sys
import types
from typing import Any

import pytest

from bridge.asgi_to_wsgi import servers
from bridge.asgi_to_wsgi.servers import (
    decode_path,
    end_connection,
    has_next_request,
    maybe_client_check,
    maybe_green_loop_factory,
)
from tests.fakes import http_environ
from tests.processes import ROOT

needs_gevent = pytest.mark.skipif(importlib.util.find_spec("gevent") is None, reason="gevent is not installed")


@pytest.mark.parametrize("key", ["gunicorn.socket", "werkzeug.socket", "uwsgi.version"])
def test_a_socket_tells_whether_its_client_has_left(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's socket, or uWSGI's descriptor, is looked at without reading from it."""
    server, client = socket.socketpair()
    with server, client:
        monkeypatch.setitem(sys.modules, "uwsgi", types.SimpleNamespace(connection_fd=server.fileno))
        check = maybe_client_check(http_environ(**{key: server if key.endswith("socket") else b"2.0"}))
        assert check is not None
        assert not check()
        client.sendall(b"GET / HTTP/1.1")  # the next request, pipelined
        assert not check()
        client.shutdown(socket.SHUT_WR)
        assert check()
        assert server.recv(100) == b"GET / HTTP/1.1"


def test_waitress_is_taken_at_its_word() -> None:
    """waitress offers a callable that tells whether the client has left, and the adapter uses it."""
    check = maybe_client_check(http_environ(**{"waitress.client_disconnected": lambda: True}))
    assert check is not None
    assert check()


def test_without_a_socket_there_is_no_check() -> None:
    """There is no check if the server does not show its socket, or has closed it."""
    assert maybe_client_check(http_environ()) is None
    closed = socket.socket()
    closed.close()
    assert maybe_client_check(http_environ(**{"gunicorn.socket": closed})) is None
    assert maybe_client_check(http_environ(**{"werkzeug.socket": object()})) is None


def test_a_process_that_nobody_patched_needs_no_green_loop() -> None:
    """With real threads, each backend can run."""
    assert maybe_green_loop_factory("trio", {"anything": 1}) is None


def run_patched(script: str, **environment: str) -> Any:
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=20,
        cwd=ROOT,
        check=False,
        env={**os.environ, **environment},
    )


APP = """
import sys, threading, time
from bridge import ASGIToWSGI
from tests.fakes import WSGIServer, respond
import anyio, asyncio, socket
from bridge.asgi_to_wsgi.servers import maybe_client_check

async def app(scope, receive, send):
    await anyio.sleep(0.2)
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hello"})
"""


@needs_gevent
def test_greenlets_share_the_loop_under_gevent() -> None:
    """Under gevent, twenty requests of 0.2 s take little more, and two adapters and asyncio.run can coexist."""
    result = run_patched(
        "from gevent import monkey; monkey.patch_all(); import gevent"
        + APP
        + """
def serve(adapter):
    assert WSGIServer(adapter).run() is None
adapters = [ASGIToWSGI(app), ASGIToWSGI(app, lifespan="off")]
for adapter in adapters:
    adapter.start()
start = time.monotonic()
jobs = [gevent.spawn(serve, adapter) for adapter in adapters * 10]
gevent.sleep(0.1)
assert asyncio.run(asyncio.sleep(0, 42)) == 42
gevent.joinall(jobs, raise_error=True)
assert time.monotonic() - start < 1.5
server, client = socket.socketpair()
check = maybe_client_check({"gunicorn.socket": server})
assert not check()
client.close()
assert check()
"""
    )
    assert result.returncode == 0, result.stderr


@needs_gevent
@pytest.mark.parametrize("options", ["backend='trio'", "backend_options={'use_uvloop': True}"])
def test_a_loop_that_would_stop_gevent_is_refused(options: str) -> None:
    """trio and uvloop under gevent raise a clear error instead of hanging."""
    result = run_patched(
        "from gevent import monkey; monkey.patch_all(); import gevent" + APP + f"respond(ASGIToWSGI(app, {options}))"
    )
    assert "gevent has patched this process" in result.stderr


@needs_gevent
def test_half_a_patch_is_refused() -> None:
    """If gevent has patched threading but not select, an error says what to call."""
    result = run_patched("from gevent import monkey; monkey.patch_thread()" + APP + "respond(ASGIToWSGI(app))")
    assert "patch_all" in result.stderr


@pytest.mark.parametrize(
    ("keys", "path_info"),
    [
        ({"passenger.hijack": print, "PATH_INFO": "/a%20%c3%a9", "REQUEST_URI": "/a%20%c3%a9?q"}, "/a \xc3\xa9"),
        ({"passenger.hijack": print, "SCRIPT_NAME": "/m", "PATH_INFO": "/%61", "REQUEST_URI": "/m/%61"}, "/a"),
        ({"passenger.hijack": print, "PATH_INFO": "/50%", "REQUEST_URI": "/50%25"}, "/50%"),
        ({"passenger.hijack": print, "PATH_INFO": "/%61"}, "/%61"),
        ({"PATH_INFO": "/%61", "REQUEST_URI": "/%61"}, "/%61"),
    ],
    ids=["passenger", "mounted", "decoded by now", "no target", "another server"],
)
def test_a_path_that_passenger_left_encoded_is_decoded(keys: dict[str, Any], path_info: str) -> None:
    """PATH_INFO must be decoded (RFC 3875 4.1.5), but not again if middleware has decoded it."""
    environ = http_environ(**keys)
    decode_path(environ)
    assert environ["PATH_INFO"] == path_info


class Owner:
    """What a server's start_response is a method of."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)

    def start_response(self, status: str, headers: Any) -> None: ...


def test_cheroot_writes_nothing_more_to_a_connection_that_was_taken_and_closes_it() -> None:
    """What cheroot still writes is discarded. Another server's start_response has no such file, and is left alone."""
    written: list[bytes] = []
    connection = types.SimpleNamespace(wfile=types.SimpleNamespace(write=written.append))
    request = types.SimpleNamespace(conn=connection, close_connection=False)
    end_connection(Owner(req=request).start_response)
    connection.wfile.write(b"HTTP/1.1 202 Accepted")
    assert written == []
    assert request.close_connection
    other = types.SimpleNamespace(conn=types.SimpleNamespace(socket=None))
    end_connection(Owner(req=other).start_response)
    end_connection(lambda status, headers: None)
    assert vars(other).keys() == {"conn"}
    assert vars(other.conn) == {"socket": None}


@pytest.mark.parametrize(
    ("buffered", "must_close", "expected"), [(b"", False, False), (b"GET", False, True), (b"GET", True, False)]
)
def test_gunicorn_is_asked_for_the_next_request(buffered: bytes, must_close: bool, expected: bool) -> None:
    """What gunicorn has read beyond a request counts, unless gunicorn will close the connection, as `sync` does."""
    request = types.SimpleNamespace(unreader=types.SimpleNamespace(buf=io.BytesIO(buffered)))
    owner = Owner(req=request, must_close=must_close)
    assert has_next_request({}, owner.start_response) is expected


@pytest.mark.parametrize("expected", [False, True])
def test_cheroot_is_asked_for_the_next_request(expected: bool) -> None:
    """cheroot's stream tells whether there is anything in its buffer, also if middleware hides start_response."""
    stream = types.SimpleNamespace(has_data=lambda: expected)
    environ = {"wsgi.input": types.SimpleNamespace(rfile=types.SimpleNamespace(rfile=stream))}
    cheroots = {"SERVER_SOFTWARE": "Cheroot/11.1.2 Server", **environ}
    assert has_next_request(cheroots, lambda status, headers: None) is expected
    assert not has_next_request(environ, lambda status, headers: None)  # an unknown stream is not looked at
    assert not has_next_request({**cheroots, "wsgi.input": None}, lambda status, headers: None)


@pytest.mark.parametrize(
    ("requests", "partial", "expected"), [([1], None, False), ([1, 2], None, True), ([1], "half", True)]
)
def test_waitress_is_asked_for_the_next_request_once_it_has_added_all(
    requests: list[int], partial: Any, expected: bool
) -> None:
    """A request that has arrived in part counts, too. waitress's main thread adds them under a lock."""

    class Channel:
        def __init__(self) -> None:
            self.requests, self.request, self.requests_lock = [1], None, self

        def __enter__(self) -> None:
            self.requests, self.request = requests, partial

        def __exit__(self, *exc_info: object) -> None: ...

        def client_disconnected(self) -> bool:
            return False

    environ = {"waitress.client_disconnected": Channel().client_disconnected}
    assert has_next_request(environ, lambda status, headers: None) is expected


def test_other_servers_drop_the_next_request() -> None:
    """They need not be asked, because they close the connection."""
    assert not has_next_request({}, lambda status, headers: None)
    assert not has_next_request({"waitress.client_disconnected": lambda: False}, Owner().start_response)


class Bare:
    """A callable that raises if an attribute of it is read."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"looked at {name}")

    def __call__(self, *args: object) -> None: ...


def test_a_start_response_of_another_class_is_only_called() -> None:
    """It may be any callable (PEP 3333, Specification Details), so none of its attributes are read."""
    start_response = Bare()
    environ = {"wsgi.multithread": True}
    assert not servers.is_start_response_of_server(start_response)
    assert servers.maybe_number_of_threads(environ, start_response) is None
    assert servers.may_answer_by_itself(environ, start_response)
    assert servers.may_send_chunks(environ, start_response)
    assert not has_next_request(environ, start_response)
    end_connection(start_response)
