"""The shapes of ASGI scopes and messages, as tables: which keys they have, and what each may hold.

`bridge.sansio.messages` has the order of messages. Clauses are named as in
conformance/src/wsgi_asgi_conformance/clauses.
"""

import os
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any, Final, NamedTuple, TypeAlias

from bridge.sansio.rules import NAMES, Rule, has_descriptor, header_rules, is_pair, iterable_of, of_type, rather

Keys: TypeAlias = Mapping[str, Sequence[Rule]]


class Shape(NamedTuple):
    """The keys of a scope or a message, and the section of the spec that describes it."""

    section: str
    clause: str  # of the message's place in the order
    keys: Mapping[str, Sequence[Rule]] = {}
    required: tuple[str, ...] = ()
    whole: Sequence[Rule] = ()


# --- Scopes -------------------------------------------------------------------------------------


def _address(clause: str, *ports: type) -> Sequence[Rule]:
    text = f"be None or [str, {' or '.join(NAMES[each] for each in ports)}]"
    return [Rule(text, lambda value: value is None or is_pair(value, str, *ports), clause)]


def _asgi(clause: str) -> Sequence[Rule]:
    return [
        *of_type(clause, dict),
        Rule("have a str 'version'", lambda value: isinstance(value.get("version"), str), clause),
        Rule("have a str 'spec_version' or none", lambda value: isinstance(value.get("spec_version", ""), str), clause),
    ]


_CONNECTION: dict[str, Sequence[Rule]] = {
    "asgi": _asgi("ASGI-CORE-015"),
    "http_version": [Rule("be '1.0', '1.1', '2' or '3'", ("1.0", "1.1", "2", "3").__contains__, "ASGI-HTTP-009")],
    "scheme": [*of_type("ASGI-HTTP-011", str), Rule("not be empty", bool, "ASGI-HTTP-011")],
    "path": of_type("ASGI-HTTP-013", str),
    "raw_path": [
        *of_type("ASGI-HTTP-015", bytes, NoneType),
        Rule("not hold the query", lambda value: b"?" not in (value or b""), "ASGI-HTTP-015"),
    ],
    "query_string": of_type("ASGI-HTTP-017", bytes),
    "root_path": of_type("ASGI-HTTP-018", str),
    "headers": header_rules("ASGI-HTTP-021", "ASGI-HTTP-024", "ASGI-HTTP-026", any_case=True),
    "client": _address("ASGI-HTTP-028", int),
    "server": _address("ASGI-HTTP-030", int, NoneType),
    "state": of_type("ASGI-HTTP-033", dict),
    "extensions": [
        *of_type("ASGI-CORE-038", dict),
        Rule(
            "map str to dicts", lambda value: all(is_pair(item, str, dict) for item in value.items()), "ASGI-CORE-038"
        ),
    ],
}
# A server should do so, but need not.
_PATH_HAS_ROOT = Rule(
    "have a 'path' that begins with its 'root_path'",
    lambda scope: scope["path"].startswith(scope.get("root_path", "")),
    "ASGI-HTTP-020",
    tolerated=True,
)

SCOPES: Final[Mapping[str, Shape]] = {
    "http": Shape(
        "ASGI HTTP spec, HTTP Connection Scope",
        "ASGI-HTTP-008",
        _CONNECTION
        | {"method": [*of_type("ASGI-HTTP-010", str), Rule("be in upper case", str.isupper, "ASGI-HTTP-010")]},
        ("asgi", "http_version", "method", "path", "query_string", "headers"),
        [_PATH_HAS_ROOT],
    ),
    "websocket": Shape(
        "ASGI WebSocket spec, Websocket Connection Scope",
        "ASGI-WS-005",
        _CONNECTION
        | {"query_string": of_type("ASGI-WS-007", bytes, NoneType), "subprotocols": [iterable_of(str, "ASGI-WS-007")]},
        ("asgi", "path", "headers"),
        [_PATH_HAS_ROOT],
    ),
    "lifespan": Shape(
        "ASGI lifespan spec, Scope",
        "ASGI-LS-004",
        {"asgi": _asgi("ASGI-LS-004"), "state": [Rule("be an empty dict", lambda value: value == {}, "ASGI-LS-010")]},
        ("asgi",),
    ),
}

TLS: Final = Shape(
    "ASGI TLS extension, TLS Connection Scope",
    "ASGI-TLS-004",
    {
        "server_cert": of_type("ASGI-TLS-005", str, NoneType),
        "client_cert_chain": [iterable_of(str, "ASGI-TLS-006")],
        "client_cert_name": of_type("ASGI-TLS-007", str, NoneType),
        "client_cert_error": [
            *of_type("ASGI-TLS-008", str, NoneType),
            Rule("not be ''", lambda v: v != "", "ASGI-TLS-008"),
        ],
        "tls_version": of_type("ASGI-TLS-009", int, NoneType),
        "cipher_suite": of_type("ASGI-TLS-010", int, NoneType),
    },
    ("server_cert", "tls_version", "cipher_suite"),
)

# --- Messages -----------------------------------------------------------------------------------

_RESPONSE_START: Keys = {
    "status": [
        *of_type("ASGI-HTTP-049", int),
        Rule("be from 100 to 999", range(100, 1000).__contains__, "ASGI-HTTP-063"),
    ],
    "headers": header_rules("ASGI-HTTP-049", "ASGI-HTTP-051", "ASGI-HTTP-053", any_case=True),
}
_RESPONSE_BODY: Keys = {
    "body": [
        Rule("be bytes", lambda value: isinstance(value, (bytes, bytearray, memoryview)), "ASGI-HTTP-069"),
        *rather(of_type("ASGI-HTTP-069", bytes)),  # Starlette's responses may be made of the others
    ],
    "more_body": of_type("ASGI-HTTP-069", bool),
}
_FAILED: Keys = {"message": of_type("ASGI-LS-021", str)}


def _has_one_payload(message: Mapping[str, Any]) -> bool:
    return (message.get("bytes") is None) != (message.get("text") is None)


def _payload(section: str, place: str, clause: str) -> Shape:
    return Shape(
        f"ASGI WebSocket spec, {section}",
        place,
        {"bytes": of_type(clause, bytes, NoneType), "text": of_type(clause, str, NoneType)},
        whole=[Rule("have exactly one of 'bytes' and 'text'", _has_one_payload, clause)],
    )


def _close_code(clause: str, *local: int) -> Sequence[Rule]:
    """Return the rules for a close code; an endpoint never sends the `local` ones to its peer (RFC 6455 7.4)."""
    text = "be from 1000 to 4999" + "".join(f", not {code}" for code in local)
    return [*of_type(clause, int), Rule(text, lambda code: 1000 <= code <= 4999 and code not in local, clause)]


MESSAGES: Final[Mapping[str, Shape]] = {
    "http.request": Shape(
        "ASGI HTTP spec, Request",
        "ASGI-HTTP-040",
        {"body": of_type("ASGI-HTTP-039", bytes), "more_body": of_type("ASGI-HTTP-040", bool)},
    ),
    "http.disconnect": Shape("ASGI HTTP spec, Disconnect", "ASGI-HTTP-080"),
    "http.response.start": Shape(
        "ASGI HTTP spec, Response Start",
        "ASGI-HTTP-049",
        {**_RESPONSE_START, "trailers": of_type("ASGI-HTTP-060", bool)},
        ("status",),
    ),
    "http.response.body": Shape("ASGI HTTP spec, Response Body", "ASGI-HTTP-069", _RESPONSE_BODY),
    "websocket.connect": Shape("ASGI WebSocket spec, Connect", "ASGI-WS-010"),
    "websocket.accept": Shape(
        "ASGI WebSocket spec, Accept",
        "ASGI-WS-016",
        {
            "subprotocol": of_type("ASGI-WS-014", str, NoneType),
            "headers": [
                *header_rules("ASGI-WS-014", "ASGI-WS-014", "ASGI-WS-015", any_case=True),
                Rule(
                    "have no sec-websocket-protocol, which 'subprotocol' is for",
                    lambda headers: all(name != b"sec-websocket-protocol" for name, _ in headers),
                    "ASGI-WS-015",
                ),
            ],
        },
    ),
    "websocket.receive": _payload("Receive", "ASGI-WS-012", "ASGI-WS-017"),
    "websocket.send": _payload("Send", "ASGI-WS-018", "ASGI-WS-018"),
    "websocket.disconnect": Shape(
        "ASGI WebSocket spec, Disconnect",
        "ASGI-WS-020",
        {"code": _close_code("ASGI-WS-019"), "reason": of_type("ASGI-WS-019", str, NoneType)},
        ("code",),
    ),
    "websocket.close": Shape(
        "ASGI WebSocket spec, Close",
        "ASGI-WS-023",
        {
            "code": _close_code("ASGI-WS-024", 1005, 1006, 1015),
            "reason": [
                Rule("be str or None", lambda value: isinstance(value, (str, list, NoneType)), "ASGI-WS-024"),
                *rather(of_type("ASGI-WS-024", str, NoneType)),  # FastAPI's is a list, of validation errors
            ],
        },
    ),
    "lifespan.startup": Shape("ASGI lifespan spec, Startup", "ASGI-LS-016"),
    "lifespan.startup.complete": Shape("ASGI lifespan spec, Startup Complete", "ASGI-LS-018"),
    "lifespan.startup.failed": Shape("ASGI lifespan spec, Startup Failed", "ASGI-LS-018", _FAILED),
    "lifespan.shutdown": Shape("ASGI lifespan spec, Shutdown", "ASGI-LS-023"),
    "lifespan.shutdown.complete": Shape("ASGI lifespan spec, Shutdown Complete", "ASGI-LS-026"),
    "lifespan.shutdown.failed": Shape("ASGI lifespan spec, Shutdown Failed", "ASGI-LS-026", _FAILED),
}

# The scope's extensions must offer each of these, by its full name or by the name that it begins with.
EXTENSION_MESSAGES: Final[Mapping[str, Shape]] = {
    "http.response.pathsend": Shape(
        "docs/extensions, Path Send",
        "ASGI-EXT-012",
        {"path": [*of_type("ASGI-EXT-013", str), Rule("be absolute", os.path.isabs, "ASGI-EXT-013")]},
        ("path",),
    ),
    "http.response.zerocopysend": Shape(
        "docs/extensions, Zero Copy Send",
        "ASGI-EXT-010",
        {
            "file": [Rule("be a file with a descriptor", has_descriptor, "ASGI-EXT-005")],
            "offset": of_type("ASGI-EXT-005", int),
            "count": of_type("ASGI-EXT-005", int),
            "more_body": of_type("ASGI-EXT-005", bool),
        },
        ("file",),
    ),
    "http.response.push": Shape(
        "docs/extensions, HTTP/2 Server Push",
        "ASGI-EXT-002",
        {"path": of_type("ASGI-EXT-002", str), "headers": header_rules("ASGI-EXT-002", "ASGI-EXT-002", "ASGI-EXT-002")},
        ("path", "headers"),
    ),
    "http.response.early_hint": Shape(
        "docs/extensions, Early Hints", "ASGI-EXT-019", {"links": [iterable_of(bytes, "ASGI-EXT-019")]}, ("links",)
    ),
    "http.response.trailers": Shape(
        "docs/extensions, HTTP Trailers",
        "ASGI-EXT-025",
        {
            "headers": header_rules("ASGI-EXT-024", "ASGI-EXT-024", "ASGI-EXT-024"),
            "more_trailers": of_type("ASGI-EXT-024", bool),
        },
        ("headers",),
    ),
    "http.response.debug": Shape(
        "docs/extensions, Debug", "ASGI-EXT-029", {"info": of_type("ASGI-EXT-029", dict)}, ("info",)
    ),
    "websocket.http.response.start": Shape(
        "docs/extensions, Websocket Denial Response", "ASGI-WS-026", _RESPONSE_START, ("status",)
    ),
    "websocket.http.response.body": Shape("docs/extensions, Websocket Denial Response", "ASGI-WS-026", _RESPONSE_BODY),
}
