"""Random input for property tests: bodies in blocks, requests, responses, and bytes that may be a request."""

from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote_from_bytes

import h11
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from wsgi_asgi_conformance.types import RawHeaders

# Every run tries the same examples, up to the first that fails. Examples are not shrunk, because an adapter that hangs
# would hang again at each step.
PROPERTY = settings(
    derandomize=True,
    deadline=None,
    max_examples=60,
    phases=[Phase.explicit, Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

# The blocks of a body, and how often each is repeated, so that some blocks are longer than a buffer.
Parts: TypeAlias = list[tuple[bytes, int]]
PARTS: st.SearchStrategy[Parts] = st.lists(
    st.tuples(st.binary(max_size=20) | st.sampled_from([b"\n", b"a\r\nb"]), st.sampled_from([1, 1, 1, 9000])),
    max_size=6,
)


def blocks_of(parts: Parts) -> list[bytes]:
    """Return the blocks. They are generated as parts, because whole blocks would be too long to show in a failure."""
    return [block * times for block, times in parts]


# The characters of a token (RFC 9110 5.6.2) except "_", and too few letters to form a name with a meaning.
_NAMES = st.text("!#$%&'*+.^`|~-abcdxyz019", min_size=1, max_size=8)
_VALUES = st.binary(max_size=8).map(
    lambda value: bytes(byte for byte in value if byte >= 0x20 and byte != 0x7F).strip()
)
# wsgiref.validate rejects header names with the other characters of a token.
_PLAIN_NAMES = st.text("abc019", max_size=4).map(lambda text: f"x-{text}z")


def _headers(names: st.SearchStrategy[str]) -> st.SearchStrategy[RawHeaders]:
    """Return lists of headers: some named so that repeats are likely, and some not."""
    any_name = st.sampled_from(["accept", "cookie", "x-a"]) | names
    return st.lists(st.tuples(any_name.map(str.encode), _VALUES), max_size=5)


_METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PURGE", "M-SEARCH"])
_PATHS = st.binary(max_size=8).map(lambda path: b"/" + path)
_QUERIES = st.text("abc=&+%20/?;", max_size=10)


class Request(NamedTuple):
    """A request as a client sees it; `path` is decoded, and follows `mount`."""

    method: str
    mount: str
    path: bytes
    query: str
    headers: RawHeaders
    parts: Parts

    @property
    def blocks(self) -> list[bytes]:
        return blocks_of(self.parts)

    @property
    def raw_path(self) -> bytes:
        return quote_from_bytes(self.mount.encode() + self.path).encode()


REQUESTS = st.builds(
    Request, _METHODS, st.sampled_from(["", "/base", "/b\xe9"]), _PATHS, _QUERIES, _headers(_NAMES), PARTS
)


class Response(NamedTuple):
    """A response as an app sees it."""

    status: int
    headers: RawHeaders
    parts: Parts

    @property
    def blocks(self) -> list[bytes]:
        return blocks_of(self.parts)


_STATUSES = st.sampled_from([200, 201, 204, 205, 299, 304, 404, 500, 599])
_SET_COOKIES = st.lists(st.tuples(st.just(b"set-cookie"), _VALUES), max_size=2)
_RESPONSE_HEADERS = st.tuples(_headers(_PLAIN_NAMES), _SET_COOKIES).map(lambda both: both[0] + both[1])
RESPONSES = st.builds(Response, _STATUSES, _RESPONSE_HEADERS, PARTS)


def joined_headers(headers: RawHeaders) -> RawHeaders:
    """Join request headers of the same name at the place of the first, as CGI does (RFC 3875 4.1.18)."""
    values: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        values.setdefault(name, []).append(value)
    return [(name, (b"; " if name == b"cookie" else b",").join(parts)) for name, parts in values.items()]


# Bytes that h11 may or may not accept as a request: servers pass on what it accepts.
_ODD_HEADERS = st.sampled_from(
    [
        *("content-length: 0", "content-length: 3", "Content-Length: 03", "content-length: 3, 3", "content-length: x"),
        *(
            "content-length: " + "9" * 19,
            "content-type:",
            "CONTENT-TYPE: a/b",
            "content_length: 5",
            "content-type: a/c",
        ),
        *("transfer-encoding: chunked", "Transfer-Encoding: Chunked", "expect: 100-continue", "Expect: 200-ok"),
        *("connection: upgrade, close", "upgrade: websocket", "sec-websocket-version: 13", "sec-websocket-version: 7"),
        *("sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", "te: trailers", "proxy: http://evil", "x_a: 1", "x-a: 2"),
        *("host: [::1]:80", "host:", "Host: a:b:c", "cookie: a", "cookie: ", "authorization: Basic x", "!: 1"),
    ]
)
_HEADER_LINES = st.tuples(_NAMES, st.binary(max_size=6)).map(lambda header: header[0].encode() + b": " + header[1])
_TARGETS = st.sampled_from(["/", "*", "/a?b", "//a", "http://a/b", "a:1", "/%", "/%ff%zz", "/a%00", "/?", "/#a"])
_BODIES = st.sampled_from([b"", b"abc", b"0\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n", b"x"])


def _request_bytes(method: str, target: bytes, version: bytes, lines: list[bytes], body: bytes) -> bytes:
    return b"\r\n".join([b"%s %s HTTP/%s" % (method.encode(), target, version), *lines, b"", body])


REQUEST_BYTES = st.builds(
    _request_bytes,
    _METHODS | st.sampled_from(["get", "CONNECT", "!", "TRACE"]),
    _TARGETS.map(str.encode) | st.binary(max_size=8).map(lambda path: b"/" + path),
    st.sampled_from([b"1.1", b"1.1", b"1.0"]),
    st.lists(_ODD_HEADERS.map(str.encode) | _HEADER_LINES, max_size=6).map(lambda lines: [b"host: a", *lines]),
    _BODIES,
)
# Lengths that h11 refuses, but other servers may accept; most requests have none of these.
ODD_LENGTHS = st.sampled_from([None, None, None, None, b"", b"x", b"-1", b"+3", b"3 3", b"0x3", b"\xb2", b"1_0"])


class Parsed(NamedTuple):
    """A request that h11 has parsed, with the blocks of its body; `whole` says whether the body has ended."""

    method: str
    target: bytes
    http_version: str
    headers: RawHeaders
    blocks: list[bytes]
    whole: bool


def maybe_parsed(sent: bytes) -> Parsed | None:
    """Return the request in `sent`, or None if h11 refuses it, as a server would."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(sent)
    request: Any = None
    blocks: list[bytes] = []
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                blocks.append(bytes(event.data))
            else:
                break
    except h11.RemoteProtocolError:
        return None
    if request is None:
        return None
    return Parsed(
        request.method.decode("ascii"),
        request.target,
        request.http_version.decode("ascii"),
        list(request.headers),
        blocks,
        isinstance(event, h11.EndOfMessage),
    )
