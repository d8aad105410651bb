import copy
import pprint
from collections.abc import Callable, MutableMapping
from typing import Any

import pytest

from bridge import BridgeError
from bridge.sansio.messages import event_from_message
from bridge.sansio.redacted import RedactedMapping, shown
from bridge.sansio.response import check_chunk, check_iterable
from bridge.sansio.response_headers import native_from_raw_headers, raw_headers_from_native
from bridge.sansio.websocket import code_and_reason_from_close, payload_from_send, response_from_accept
from bridge.wsgi_to_asgi.http.body import block_from_message

SECRET = "s3cret"


def test_redacted_mapping_is_the_mapping_that_it_is_made_of() -> None:
    """Changes and lookups act on the wrapped mapping, and a copy is a new dict."""
    mapping: dict[str, Any] = {"type": "http", "state": {}}
    redacted = RedactedMapping(mapping, "ASGI scope")
    assert isinstance(redacted, MutableMapping)
    assert redacted == mapping == {**redacted} == dict(redacted)
    assert (redacted["state"] is mapping["state"], redacted.get("x"), "type" in redacted, len(redacted)) == (
        (True, None, True, 2)
    )
    redacted["x"] = 1
    assert mapping.pop("x") == 1
    del redacted["type"]
    assert (mapping, list(redacted)) == ({"state": {}}, ["state"])
    copied = redacted.copy()
    copied["x"] = 1
    assert type(copied) is dict
    assert mapping == {"state": {}}
    assert copy.deepcopy(redacted) == mapping


def test_redacted_mapping_shows_no_values() -> None:
    """No repr shows a value: its own, a dict's that holds it, or its views'; str, format and pprint use the repr."""
    redacted = RedactedMapping({"headers": [(b"cookie", SECRET.encode())], SECRET: 1}, "ASGI scope")
    assert repr(redacted) == "<ASGI scope: 2 keys, values not shown>"
    around = {"asgi.scope": redacted, "views": [redacted.items(), redacted.values(), redacted.keys()]}
    for text in (str(redacted), f"{redacted}", f"{around!r:.500}", pprint.pformat(around)):
        assert SECRET not in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        (True, "True"),
        (200, "200"),
        (0.5, "0.5"),
        (2**64, "int"),
        (SECRET, "str of length 6"),
        (SECRET.encode(), "bytes of length 6"),
        (bytearray(3), "bytearray of length 3"),
        ({}, "dict with no keys"),
        ({"type": "http.request", "body": SECRET}, "dict of type 'http.request' with 'type': str, 'body': str"),
        ({"type": 5, b"x": None}, "dict with 'type': int, b'x': NoneType"),
        ([], "list of length 0"),
        ([(SECRET, 1), (SECRET, 2), [b"x"], None], "list of length 4 of (str, int), (bytes), NoneType"),
        ((SECRET,) * 9, "tuple of length 9 of str"),
        (object(), "object"),
        (memoryview(b"x"), "memoryview"),
        (ValueError(SECRET), "ValueError"),
    ],
)
def test_value_is_shown_by_its_type_and_size(value: object, text: str) -> None:
    """Numbers are shown, because they help to find the error; values that may be secret are not."""
    assert shown(value) == text


def test_large_value_is_shown_in_bounds() -> None:
    """An error's length is limited, although a message may have any number of keys of any length."""
    assert len(shown({f"{number} {'x' * 1000}": None for number in range(1000)})) < 2000
    assert len(shown([object()] * 1_000_000)) < 100
    assert len(shown({"type": "x" * 1000})) < 200


KEY = "dGhlIHNhbXBsZSBub25jZQ=="
FAULTS: dict[str, Callable[[], Any]] = {
    "message without a type": lambda: event_from_message({"body": SECRET.encode(), "headers": [(SECRET, SECRET)]}),
    "message that is a str": lambda: event_from_message(SECRET),  # type: ignore[arg-type]
    "WSGI headers that are a str": lambda: raw_headers_from_native(SECRET),  # type: ignore[arg-type]
    "WSGI header of bytes": lambda: raw_headers_from_native([("Set-Cookie", SECRET.encode())]),  # type: ignore[list-item]
    "WSGI header with a line end": lambda: raw_headers_from_native([("Set-Cookie", f"{SECRET}\n{SECRET}")]),
    "WSGI header in one": lambda: raw_headers_from_native([(f"Set-Cookie: {SECRET}", "")]),
    "ASGI header of str": lambda: native_from_raw_headers([(b"set-cookie", SECRET)]),  # type: ignore[list-item]
    "ASGI header with a line end": lambda: native_from_raw_headers([(b"set-cookie", f"{SECRET}\n".encode())]),
    "ASGI header in one": lambda: native_from_raw_headers([(f"set-cookie: {SECRET}".encode(), b"")]),
    "WSGI body that is a str": lambda: check_iterable(SECRET),
    "WSGI block that is a str": lambda: check_chunk(SECRET),
    "ASGI body that is a str": lambda: block_from_message({"type": "http.request", "body": SECRET}),
    "subprotocol that was not offered": lambda: response_from_accept({"subprotocol": SECRET}, KEY, [SECRET * 2], None),
    "WebSocket message with both": lambda: payload_from_send({"text": SECRET, "bytes": SECRET.encode()}),
    "reason of bytes": lambda: code_and_reason_from_close({"reason": SECRET.encode()}),
    "code that is a str": lambda: code_and_reason_from_close({"code": SECRET}),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_error_tells_nothing_of_a_header_or_body(fault: Callable[[], Any]) -> None:
    """Even the error for a malformed header or body shows no value, because errors go to logs."""
    with pytest.raises((BridgeError, TypeError)) as caught:
        fault()
    assert SECRET not in f"{caught.value!r} {caught.value}"
