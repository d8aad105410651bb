"""JSON as RFC 8259 has it: no NaN, no key twice."""

import json
from typing import Any


def loads(data: bytes | str) -> Any:
    """Return the value. Raises JSONDecodeError; ValueError for what Python reads and others do not; RecursionError."""
    if isinstance(data, bytes):
        data = data.decode("utf-8-sig")
    return json.loads(data, object_pairs_hook=_without_doubles, parse_constant=_refuse)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("an object has a key twice")
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON number")
