import http.client
import io
from typing import Any

import h11
import pytest

from bridge.sansio.http1 import ResponseWriter, date_from_time
from bridge.types import Headers

DATE = "Tue, 01 Dec 2026 02:00:00 GMT"
TEXT = ("Content-Type", "text/plain")


def written(writer: ResponseWriter, status: str, headers: Headers, blocks: list[bytes]) -> bytes:
    """Return all bytes of a whole response."""
    parts = [writer.head(status, headers, DATE)]
    for block in blocks:
        parts += writer.block(block)
    return b"".join([*parts, writer.end()])


def read_by_h11(method: str, response: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes, bool]:
    """Return status, headers and body as h11 reads them, and whether it knows the end without the close."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "example.org")]))
    client.send(h11.EndOfMessage())
    client.receive_data(response)
    events: list[Any] = []
    while not events or not isinstance(events[-1], h11.EndOfMessage):
        events.append(client.next_event())
        if events[-1] is h11.NEED_DATA:
            client.receive_data(b"")  # the close
    final = next(event for event in events if isinstance(event, h11.Response))
    body = b"".join(bytes(event.data) for event in events if isinstance(event, h11.Data))
    return final.status_code, list(final.headers), body, h11.NEED_DATA not in events


def read_by_http_client(method: str, response: bytes) -> tuple[int, bytes]:
    """Return status and body as http.client reads them."""

    class Connection:
        def makefile(self, mode: str) -> io.BytesIO:
            return io.BytesIO(response)

    parsed = http.client.HTTPResponse(Connection(), method=method)  # type: ignore[arg-type]  # all that it asks for
    parsed.begin()
    return parsed.status, parsed.read()


# The request's method and version, whether chunks may be used, the app's status, headers and blocks; what the client
# must read; and how it knows the end.
CASES: list[tuple[str, str, bool, str, Headers, list[bytes], bytes, str]] = [
    ("GET", "1.1", True, "200 OK", [TEXT], [b"one", b"two"], b"onetwo", "chunked"),
    ("GET", "1.1", True, "200 OK", [TEXT], [b"x" * 70_000], b"x" * 70_000, "chunked"),
    ("GET", "1.1", True, "200 OK", [TEXT], [b"one", b"", b"two"], b"onetwo", "chunked"),
    ("GET", "1.1", True, "200 OK", [], [], b"", "chunked"),
    ("GET", "2", True, "200 OK", [], [b"one"], b"one", "chunked"),
    ("GET", "1.1", True, "200 OK", [("content-length", "6")], [b"one", b"two"], b"onetwo", "length"),
    ("GET", "1.1", True, "200 OK", [("Content-Length", "0")], [], b"", "length"),
    ("GET", "1.0", True, "200 OK", [TEXT], [b"one", b"two"], b"onetwo", "close"),
    ("GET", "1.0", True, "200 OK", [("Content-Length", "6")], [b"one", b"two"], b"onetwo", "length"),
    ("GET", "1.1", False, "200 OK", [TEXT], [b"one", b"two"], b"onetwo", "close"),
    ("POST", "1.1", True, "201 Created", [("X-Name", "caf\xe9"), ("X-Name", "twice")], [b"one"], b"one", "chunked"),
    ("HEAD", "1.1", True, "200 OK", [("Content-Length", "6")], [], b"", "none"),
    ("HEAD", "1.1", True, "200 OK", [TEXT], [], b"", "none"),
    ("HEAD", "1.0", True, "200 OK", [TEXT], [], b"", "none"),
    ("GET", "1.1", True, "204 No Content", [], [], b"", "none"),
    ("GET", "1.1", True, "304 Not Modified", [("Content-Length", "6")], [], b"", "none"),
    ("GET", "1.0", True, "304 Not Modified", [("ETag", '"x"')], [], b"", "none"),
    ("GET", "1.1", True, "599 Unknown", [TEXT], [b"one"], b"one", "chunked"),
]


@pytest.mark.parametrize(("method", "version", "chunks", "status", "headers", "blocks", "body", "end"), CASES)
def test_a_response_is_read_as_it_was_written(
    method: str, version: str, chunks: bool, status: str, headers: Headers, blocks: list[bytes], body: bytes, end: str
) -> None:
    """Two clients read the same status, headers and body, and know the end in the right way (RFC 9112 6.3)."""
    writer = ResponseWriter(method, version, chunks)
    response = written(writer, status, headers, blocks)
    code, read_headers, read_body, knew_the_end = read_by_h11(method, response)
    assert (code, read_body) == (int(status[:3]), body)
    assert read_by_http_client(method, response) == (int(status[:3]), body)
    framing = [(b"transfer-encoding", b"chunked")] if end == "chunked" else []
    ours = [(b"date", DATE.encode()), *framing, (b"connection", b"close")]
    assert read_headers == [(name.lower().encode(), value.encode("latin-1")) for name, value in headers] + ours
    assert knew_the_end == (end != "close")
    assert writer.ends_by_close == (end == "close")


@pytest.mark.parametrize(("version", "chunks"), [("1.1", True), ("1.1", False), ("1.0", True)])
def test_the_apps_own_date_is_the_only_one(version: str, chunks: bool) -> None:
    """An app that sets Date keeps it, however it spells the name (RFC 9110 6.6.1)."""
    response = written(ResponseWriter("GET", version, chunks), "200 OK", [("date", "today")], [])
    assert response.lower().count(b"\r\ndate:") == 1
    assert b"\r\ndate: today\r\n" in response


def test_early_hints_come_before_the_response() -> None:
    """A client of HTTP/1.1 reads the 103 response first (RFC 8297 2)."""
    writer = ResponseWriter("GET", "1.1")
    hints = writer.early_hints([("Link", "</a.css>; rel=preload")])
    assert hints == b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
    code, _, body, _ = read_by_h11("GET", hints + written(writer, "200 OK", [], [b"one"]))
    assert (code, body) == (200, b"one")


def test_a_client_of_http_1_0_gets_no_early_hints() -> None:
    """A 1xx response would be taken for the final one (RFC 9110 15.2)."""
    assert ResponseWriter("GET", "1.0").early_hints([("Link", "</a.css>; rel=preload")]) == b""


def test_a_chunked_response_without_its_end_is_incomplete() -> None:
    """A response that is cut lacks the last chunk, and the client notices (RFC 9112 8)."""
    writer = ResponseWriter("GET", "1.1")
    cut = writer.head("200 OK", [], DATE) + b"".join(writer.block(b"one"))
    with pytest.raises(h11.RemoteProtocolError):
        read_by_h11("GET", cut)


def test_a_time_becomes_the_date_of_a_header() -> None:
    """It is in the one form that is sent (RFC 9110 5.6.7)."""
    assert date_from_time(784111777) == "Sun, 06 Nov 1994 08:49:37 GMT"
