"""JSON as in RFC 8259: without NaN, and without duplicate keys."""

import json
from typing import Any


def loads(data: bytes | str) -> Any:
    """Return the value. Raises JSONDecodeError, RecursionError, and ValueError for what only Python would read."""
    if isinstance(data, bytes):
        data = data.decode("utf-8-sig")
    return json.loads(data, object_pairs_hook=_without_doubles, parse_constant=_refuse)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("an object has a duplicate key")
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number")
