"""The access log of detached responses, on the logger `bridge.access`."""

import http.client
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.asgi_to_wsgi.http import access
from bridge.types import Message, Receive, Scope, Send
from tests.asgi_to_wsgi.apps import Adapt
from tests.asgi_to_wsgi.http.detachable import Gate, body_of, connected, start, started, waiting
from tests.fakes import WSGIServer, in_thread
from tests.processes import wait_until

DETACH: dict[str, Any] = {"detach": "always", "detach_after": 0.001}


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Iterator[list[logging.LogRecord]]:
    """The records of the access log so far."""
    caplog.set_level(logging.INFO, "bridge.access")
    lines: list[logging.LogRecord] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record)

    handler = Lines()
    logging.getLogger("bridge.access").addHandler(handler)
    yield lines
    logging.getLogger("bridge.access").removeHandler(handler)


def fields(record: logging.LogRecord) -> dict[str, Any]:
    names = ("client", "method", "target", "protocol", "status", "size", "whole", "referer", "user_agent")
    return {name: getattr(record, name) for name in names}


def test_a_detached_response_has_a_line(adapt: Adapt, records: list[logging.LogRecord]) -> None:
    """The line is gunicorn's default one plus the seconds, and each part is an attribute of the record."""
    gate = Gate()
    adapter = adapt(waiting(gate, started(status=201), body_of(b"one", True), body_of(b"two")), **DETACH)
    keys = {"HTTP_REFERER": "http://example.org/", "HTTP_USER_AGENT": "curl/8", "RAW_URI": "/a%20b?c=d"}
    with connected(adapter, "POST", b"", **keys) as server:
        in_thread(server.run)
        assert not records
        gate.open()
        assert server.read() == (201, b"onetwo")
        wait_until(lambda: records)  # although the client has not hung up
    (record,) = records
    assert record.levelno == logging.INFO
    assert re.fullmatch(
        r'192\.0\.2\.1 - - \[\d\d/\w+/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "POST /a%20b\?c=d HTTP/1\.1" 201 6 '
        r'"http://example\.org/" "curl/8" \d+\.\d{6}',
        record.getMessage(),
    )
    assert fields(record) == {
        "client": "192.0.2.1",
        "method": "POST",
        "target": "/a%20b?c=d",
        "protocol": "HTTP/1.1",
        "status": 201,
        "size": 6,
        "whole": True,
        "referer": "http://example.org/",
        "user_agent": "curl/8",
    }


def test_a_response_that_keeps_its_thread_has_no_line(adapt: Adapt, records: list[logging.LogRecord]) -> None:
    """Only the server logs it."""
    gate = Gate()
    gate.open()
    in_thread(WSGIServer(adapt(waiting(gate, started(), body_of()), **DETACH)).run)
    assert not records


def test_the_seconds_begin_with_the_servers_call(adapt: Adapt, records: list[logging.LogRecord]) -> None:
    """The seconds include the time that the app waited before its response left."""
    gate = Gate()
    adapter = adapt(waiting(gate, started(), body_of()), detach="always", detach_after=0.2)
    with connected(adapter) as server:
        in_thread(server.run)
        gate.open()
        server.read()
        wait_until(lambda: records)
    assert vars(records[0])["seconds"] > 0.19


@pytest.mark.parametrize(
    ("method", "messages", "error", "expected"),
    [
        ("HEAD", (started(), body_of(b"unseen")), None, (200, 0, True)),
        ("GET", (), ZeroDivisionError(), (500, 22, True)),
        ("HEAD", (), ZeroDivisionError(), (500, 0, True)),
        ("GET", (started(), body_of(b"part", True)), ZeroDivisionError(), (200, 4, False)),
    ],
)
def test_the_line_has_what_was_sent(
    adapt: Adapt,
    records: list[logging.LogRecord],
    method: str,
    messages: tuple[Message, ...],
    error: Exception | None,
    expected: tuple[int, int, bool],
) -> None:
    """The status and the bytes are those that the client got, and a response that was cut is not `whole`."""
    gate = Gate()
    with connected(adapt(waiting(gate, *messages, error=error), **DETACH), method) as server:
        in_thread(server.run)
        gate.open()
        if expected[2]:
            server.read()
        else:
            with pytest.raises(http.client.IncompleteRead):
                server.read()
        wait_until(lambda: records)
    record = vars(records[0])
    assert (record["status"], record["size"], record["whole"]) == expected


def test_a_file_counts_its_bytes(adapt: Adapt, records: list[logging.LogRecord], tmp_path: Path) -> None:
    """The bytes that `http.response.pathsend` sends are counted, too."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789" * 100_000)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        await send({"type": "http.response.pathsend", "path": str(path)})

    with connected(adapt(app, pathsend=True, **DETACH)) as server:
        in_thread(server.run)
        server.read()
        wait_until(lambda: records)
    assert vars(records[0])["size"] == 1_000_000


def test_a_client_that_leaves_before_the_response_is_499(adapt: Adapt, records: list[logging.LogRecord]) -> None:
    """There is no status yet, so the line has 499, as nginx writes."""
    gate = Gate()
    with connected(adapt(waiting(gate, started(), body_of()), **DETACH)) as server:
        in_thread(server.run)
        server.client.close()
        wait_until(lambda: records)
        gate.open()
    record = vars(records[0])
    assert (record["status"], record["size"], record["whole"]) == (499, 0, False)


def test_a_response_that_the_loop_cuts_has_a_line(adapt: Adapt, records: list[logging.LogRecord]) -> None:
    """A response that outlasts `close()` is a 500, also in the log."""
    adapter = adapt(waiting(Gate()), shutdown_timeout=0.05, **DETACH)
    with connected(adapter) as server:
        in_thread(server.run)
        in_thread(adapter.close)
    record = vars(records[0])
    assert (record["status"], record["whole"]) == (500, False)


def test_a_client_cannot_write_lines(adapt: Adapt, records: list[logging.LogRecord]) -> None:
    """Quotes and control characters of a request are escaped in the line, but not in the attributes."""
    gate = Gate()
    keys = {"HTTP_USER_AGENT": 'a" 200 \x1b[2J\r\n\xff\\', "QUERY_STRING": 'q="'}
    with connected(adapt(waiting(gate, started(), body_of()), **DETACH), **keys) as server:
        in_thread(server.run)
        gate.open()
        server.read()
        wait_until(lambda: records)
    text = records[0].getMessage()
    assert '"GET /?q=\\x22 HTTP/1.1"' in text
    assert r'"a\x22 200 \x1b[2J\x0d\x0a\xff\x5c"' in text
    assert vars(records[0])["user_agent"] == keys["HTTP_USER_AGENT"]


def test_a_listener_that_raises_harms_no_response(
    adapt: Adapt, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The client has its response, the place is free again, and the log has the error."""

    def fail(answered: access.Answered) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(access, "listeners", [fail])
    gates = [Gate(), Gate()]
    left = iter(gates)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await waiting(next(left), started(), body_of(b"late"))(scope, receive, send)

    adapter = adapt(app, max_detached=1, **DETACH)
    for gate in gates:
        with connected(adapter) as server:
            in_thread(server.run)
            assert server.has_left
            gate.open()
            assert server.read() == (200, b"late")
            server.client.close()
            wait_until(lambda: not adapter.statistics().detached)
    assert caplog.text.count("could not be written to the access log") == 2
