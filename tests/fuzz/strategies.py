"""What servers, clients and apps may send: mostly legal values, with illegal ones among them."""

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# The profile sets the number of examples: `--hypothesis-profile=long` runs for minutes.
FUZZ = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


def mostly(usual: st.SearchStrategy[Any], odd: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return a strategy for mostly legal values, because one illegal value has a whole request refused."""
    return st.sampled_from([usual] * 9 + [odd]).flatmap(lambda chosen: chosen)


# Any text, even lone surrogates; and text that holds bytes (PEP 3333, A Note On String Types).
TEXT = st.text(st.characters(exclude_categories=()), max_size=12)
NATIVE = st.binary(max_size=12).map(lambda value: value.decode("latin-1"))
ANY_TEXT = NATIVE | TEXT
NUMBERS = st.sampled_from(
    ["0", "1", "5", "10", "007", "65536", "-1", "+1", "1_0", " 1", "1 ", "1e3", "0x1", "\xb2", "٣"]
)
PATHS = st.sampled_from(
    ["", "/", "//", "/a", "/a/b", "a", "/base/a", "/b\xc3\xa9", "/%ff", "/a%2fb", "*", "/a?b", "/\0"]
)

# Python objects of all common types.
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.binary(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)

# Stands for 70,000 bytes, which would be too long to show in a report.
LONG = b"<70000>"
BODIES = st.binary(max_size=8) | st.just(LONG)


def expanded(body: Any) -> Any:
    return b"x" * 70_000 if body == LONG else body


# --- Headers --------------------------------------------------------------------------------------

_NAMES = st.sampled_from(
    [
        *("content-length", "content-type", "host", "cookie", "x-a", "x_a", "X-A", "transfer-encoding", "connection"),
        *("upgrade", "expect", "proxy", ":path", "", "te", "sec-websocket-key", "sec-websocket-protocol", "a b"),
    ]
)
_VALUES = (
    st.sampled_from(["5", "12", "0"])
    | NUMBERS
    | st.sampled_from(["chunked", "close", "upgrade", "websocket", "a, b", "a\r\nb: c", "\t a \t", "[::1]:8"])
)
HEADER_NAMES = _NAMES.map(str.encode) | st.binary(max_size=8)
HEADER_VALUES = _VALUES.map(str.encode) | st.binary(max_size=12)
RAW_HEADERS = st.lists(st.tuples(HEADER_NAMES, HEADER_VALUES), max_size=6)
_TOKENS = st.sampled_from(["content-length", "content-type", "x-a", "X-A", "connection", "transfer-encoding", "link"])
NATIVE_HEADERS = mostly(
    st.lists(st.tuples(_TOKENS, mostly(_VALUES, ANY_TEXT)), max_size=3),
    st.lists(st.tuples(_NAMES | ANY_TEXT, ANY_TEXT), max_size=5) | ANYTHING,
)
RESPONSE_HEADERS = mostly(
    st.lists(st.tuples(_TOKENS.map(str.encode), mostly(_VALUES.map(str.encode), st.binary(max_size=12))), max_size=3),
    RAW_HEADERS | RAW_HEADERS.map(tuple) | ANYTHING,
)

# --- Requests -------------------------------------------------------------------------------------

_PORTS = st.integers(0, 65535)
_ADDRESSES = st.sampled_from(["127.0.0.1", "::1", "[::1]", "example.org", "b\xfccher.example", ""]) | TEXT
_PEM = st.text(st.characters(codec="ascii"), max_size=8)
_TLS = st.fixed_dictionaries(
    {},
    optional={
        "server_cert": st.none() | _PEM,
        "client_cert_chain": st.lists(_PEM, max_size=3),
        "client_cert_name": st.none() | TEXT,
        "client_cert_error": st.none() | TEXT,
        "tls_version": st.none() | st.sampled_from([0x0301, 0x0304, 0]) | st.integers(),
        "cipher_suite": st.none() | st.sampled_from([0x1301, 0]) | st.integers(),
    },
)
# Scopes with the spec's types and any values.
SCOPES = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["http", "http", "websocket"]),
        "asgi": st.just({"version": "3.0"}),
        "method": st.sampled_from(["GET", "HEAD", "POST", "OPTIONS", "DELETE"]),
        "path": PATHS | TEXT,
        "headers": RAW_HEADERS,
    },
    optional={
        "http_version": st.sampled_from(["1.0", "1.1", "2", "3"]),
        "scheme": st.sampled_from(["http", "https", "ws", "wss", ""]) | TEXT,
        "raw_path": st.none() | PATHS.map(str.encode) | st.binary(max_size=12),
        "query_string": st.binary(max_size=12),
        "root_path": PATHS | TEXT,
        "client": st.none() | st.tuples(_ADDRESSES, _PORTS) | st.tuples(_ADDRESSES, _PORTS).map(list),
        "server": st.none() | st.tuples(_ADDRESSES, st.none() | _PORTS),
        "subprotocols": st.lists(st.sampled_from(["chat", "a b", ""]) | TEXT, max_size=3),
        "extensions": st.none() | st.just({}) | st.fixed_dictionaries({"tls": st.none() | _TLS}),
    },
)


def _spoiled(given: dict[str, Any], key: Any, value: Any) -> dict[Any, Any]:
    return {**{each: given[each] for each in given if each != key}, **({} if value == "missing" else {key: value})}


# One key is missing, or holds any object.
_SCOPE_KEYS = ["asgi", "method", "path", "headers", "http_version", "scheme", "raw_path", "query_string", "root_path"]
SPOILED_SCOPES = st.builds(
    _spoiled,
    SCOPES,
    st.sampled_from([*_SCOPE_KEYS, "client", "server", "subprotocols", "extensions"]),
    ANYTHING
    | st.sampled_from(["missing", [5], [("a", "b")], [(b"a",)], ["127.0.0.1"], (b"127.0.0.1", 80), ("::1", b"80")])
    | st.fixed_dictionaries(
        {"tls": ANYTHING | st.dictionaries(st.sampled_from(["server_cert", "tls_version"]), ANYTHING)}
    ),
)
_VARIABLES = {
    "REQUEST_METHOD": st.sampled_from(["GET", "HEAD", "POST", "OPTIONS", "get"]),
    "SCRIPT_NAME": PATHS | ANY_TEXT,
    "PATH_INFO": PATHS | ANY_TEXT,
    "QUERY_STRING": ANY_TEXT,
    "CONTENT_TYPE": ANY_TEXT,
    "CONTENT_LENGTH": NUMBERS | st.just("") | ANY_TEXT,
    "SERVER_NAME": _ADDRESSES,
    "SERVER_PORT": NUMBERS | st.just("") | ANY_TEXT,
    "SERVER_PROTOCOL": st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/2", "HTTP/2.0", "HTTP/3", "INCLUDED"]) | ANY_TEXT,
    "REMOTE_ADDR": _ADDRESSES,
    "REMOTE_PORT": NUMBERS | ANY_TEXT,
    "REQUEST_URI": PATHS | ANY_TEXT,
    "RAW_URI": PATHS | ANY_TEXT,
    "HTTPS": st.sampled_from(["on", "off"]),
    "HTTP_HOST": _ADDRESSES,
    "HTTP_CONNECTION": _VALUES | ANY_TEXT,
    "HTTP_UPGRADE": _VALUES | ANY_TEXT,
    "HTTP_EXPECT": st.sampled_from(["100-continue", "200-ok"]),
    "HTTP_TRANSFER_ENCODING": _VALUES | ANY_TEXT,
    "HTTP_SEC_WEBSOCKET_VERSION": st.sampled_from(["13", " 13 ", "8", ""]),
    "HTTP_SEC_WEBSOCKET_KEY": st.just("AAAAAAAAAAAAAAAAAAAAAA==") | ANY_TEXT,
    "HTTP_SEC_WEBSOCKET_PROTOCOL": st.sampled_from(["chat", "a, b", ",", ""]) | ANY_TEXT,
    "HTTP_SEC_WEBSOCKET_EXTENSIONS": st.sampled_from(["permessage-deflate", ";", "permessage-deflate; a=b"]) | ANY_TEXT,
    "wsgi.url_scheme": st.sampled_from(["http", "https"]),
    "wsgi.input_terminated": st.booleans(),
    **{
        f"SSL_{name}": ANY_TEXT
        for name in ("PROTOCOL", "CIPHER", "SERVER_CERT", "CLIENT_CERT", "CLIENT_CERT_CHAIN_0", "CLIENT_S_DN")
    },
    "SSL_CLIENT_VERIFY": st.sampled_from(["NONE", "SUCCESS", "FAILED:", "FAILED:expired"]) | ANY_TEXT,
}
_OF_HEADERS = st.dictionaries(ANY_TEXT.map("HTTP_{}".format), ANY_TEXT, max_size=3)
ENVIRONS = st.builds(
    lambda known, headers: {**headers, **known}, st.fixed_dictionaries({}, optional=_VARIABLES), _OF_HEADERS
)
SPOILED_ENVIRONS = st.builds(
    _spoiled, ENVIRONS, st.sampled_from([*_VARIABLES, "HTTP_A", "wsgi.input"]) | st.integers() | st.binary(), ANYTHING
)
EXC_INFOS = st.none() | ANYTHING | st.tuples(ANYTHING, st.just(RuntimeError("the app's")), ANYTHING)

# --- What apps send -------------------------------------------------------------------------------

STATUS_CODES = mostly(st.sampled_from([200, 204, 304, 404, 500]), st.sampled_from([100, 999, 1000, 0, True]) | ANYTHING)
STATUSES = mostly(
    st.sampled_from(["200 OK", "204 No Content", "304 x", "404"]), st.sampled_from(["100 x", "200\r\nA: b"]) | ANYTHING
)
_MESSAGE_TYPES = [
    *("http.response.start", "http.response.body", "http.response.body", "http.response.pathsend"),
    *("http.response.trailers", "http.response.early_hint", "http.response.debug", "http.request"),
]
_WEBSOCKET_TYPES = [
    *("websocket.accept", "websocket.send", "websocket.send", "websocket.close"),
    *("websocket.http.response.start", "websocket.http.response.body", "websocket.receive"),
]
_KEYS: dict[str, st.SearchStrategy[Any]] = {
    "status": STATUS_CODES,
    "headers": RESPONSE_HEADERS,
    "body": mostly(BODIES, ANYTHING),
    "more_body": mostly(st.booleans(), ANYTHING),
    "trailers": st.booleans(),
    "more_trailers": st.booleans(),
    "path": st.sampled_from(["/dev/null", "/nowhere/at/all", "relative", "/dev"]) | ANYTHING,
    "links": st.lists(st.binary(max_size=8), max_size=2) | ANYTHING,
}
_WEBSOCKET_KEYS: dict[str, st.SearchStrategy[Any]] = {
    "subprotocol": st.none() | st.sampled_from(["chat", "other"]) | ANYTHING,
    "text": TEXT | st.none() | ANYTHING,
    "bytes": st.binary(max_size=12) | st.none() | ANYTHING,
    "code": st.sampled_from([1000, 1001, 1005, 1006, 1015, 3000, 4999, 5000, 0, -1, True]) | ANYTHING,
    "reason": TEXT | ANYTHING,
    **{key: _KEYS[key] for key in ("status", "headers", "body", "more_body")},
}


def _messages(types: list[str], keys: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    known: dict[str, st.SearchStrategy[Any]] = {"type": st.sampled_from(types)}
    return mostly(
        st.fixed_dictionaries(known, optional=keys), st.fixed_dictionaries({}, optional={"type": ANYTHING, **keys})
    )


RESPONSE_MESSAGES = _messages(_MESSAGE_TYPES, _KEYS)
RESPONSE_STARTS = st.fixed_dictionaries(
    {"type": st.just("http.response.start"), "status": STATUS_CODES}, optional={"headers": _KEYS["headers"]}
)
WEBSOCKET_MESSAGES = _messages(_WEBSOCKET_TYPES, _WEBSOCKET_KEYS)
