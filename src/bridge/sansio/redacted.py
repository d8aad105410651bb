"""What error reports and logs may show of requests and responses: names and types, but no values.

Headers, bodies and TLS data hold passwords, tokens and cookies. Frameworks mask values only under names
that they know, and servers mask messages only by the keys of ASGI.
"""

from collections.abc import Iterator, MutableMapping
from typing import Any

# How many keys of a dict, or items of a list, a report shows.
_MOST = 20


class RedactedMapping(MutableMapping[str, Any]):
    """A view of a mapping whose repr shows no values.

    It is not a dict, because Django's error reports look into dicts, lists and tuples and mask only names
    that they know, such as HTTP_COOKIE in an environ; a cookie in a scope's headers has no such name.
    """

    __slots__ = ("_mapping", "_name")

    def __init__(self, mapping: MutableMapping[str, Any], name: str) -> None:
        """Wrap `mapping`; the repr calls it `name`."""
        self._mapping = mapping
        self._name = name

    def __getitem__(self, key: str) -> Any:
        return self._mapping[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._mapping[key] = value

    def __delitem__(self, key: str) -> None:
        del self._mapping[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._mapping)

    def __len__(self) -> int:
        return len(self._mapping)

    def __contains__(self, key: object) -> bool:
        return key in self._mapping

    def copy(self) -> dict[str, Any]:
        """Return a plain dict, for code that requires one (PEP 3333: an environ is a builtin dict)."""
        return dict(self._mapping)

    def __repr__(self) -> str:
        return f"<{self._name}: {len(self._mapping)} keys, values not shown>"


def shown(value: object) -> str:
    """Describe a value for an error: numbers as they are, everything else by type and size.

    A message is described by its type, its keys and the types of their values.
    """
    if value is None or isinstance(value, float) or (isinstance(value, int) and value.bit_length() < 64):
        return repr(value)
    kind = type(value).__name__
    if isinstance(value, dict):
        if isinstance(value.get("type"), str):
            kind = f"{kind} of type {value['type']!r:.100}"
        keys = [f"{key!r:.40}: {type(each).__name__}" for key, each in list(value.items())[:_MOST]]
        return f"{kind} with {', '.join(keys) or 'no keys'}"
    if isinstance(value, (list, tuple)):
        kinds = dict.fromkeys(map(_kind, value[:_MOST]))
        return f"{kind} of length {len(value)}" + (f" of {', '.join(kinds)}" if kinds else "")
    if isinstance(value, (str, bytes, bytearray)):
        return f"{kind} of length {len(value)}"
    return kind


def _kind(item: object) -> str:
    """Return the name of an item's type; for a short tuple or list, the names of its items' types."""
    if isinstance(item, (list, tuple)) and len(item) < 4:
        return f"({', '.join(type(each).__name__ for each in item)})"
    return type(item).__name__
