"""What a value in an ASGI scope or message must be: rules, and the predicates that they are made of."""

import math
from collections.abc import Callable, Iterable, Sequence
from types import NoneType
from typing import Any, Final, NamedTuple


class Rule(NamedTuple):
    """What a value must be, in words and as a predicate, and the clause that says so."""

    text: str
    allows: Callable[[Any], object]
    clause: str


NAMES: Final = {bytes: "bytes", str: "str", int: "int", bool: "bool", dict: "a dict", NoneType: "None"}


def _is_a(value: object, types: Iterable[type]) -> bool:
    """Return whether `value` is of one of `types`; a bool is no int here."""
    return any(isinstance(value, each) and not (each is int and isinstance(value, bool)) for each in types)


def of_type(clause: str, *types: type) -> Sequence[Rule]:
    return [Rule(" or ".join(NAMES[each] for each in types), lambda value: _is_a(value, types), clause)]


def _items(value: object) -> list[Any] | None:
    """Return what is in an iterable; None for what is none, or is a string."""
    return [*value] if isinstance(value, Iterable) and not isinstance(value, (str, bytes)) else None


def is_pair(value: object, first: type, *second: type) -> bool:
    items = _items(value)
    return items is not None and len(items) == 2 and isinstance(items[0], first) and _is_a(items[1], second)


def _is_header(value: object) -> bool:
    return is_pair(value, bytes, bytes)


def _are(value: object, allows: Callable[[Any], object]) -> bool:
    items = _items(value)
    return items is not None and all(map(allows, items))


def is_plain(value: object) -> bool:
    """ASGI spec, Events: messages could be sent over a network, so they hold only what can be."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(each) for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return -(2**63) <= value < 2**63 if isinstance(value, int) else isinstance(value, (bytes, str, NoneType))


def iterable_of(item: type, clause: str) -> Rule:
    text = f"an iterable of {NAMES[item]}"
    return Rule(text, lambda value: _are(value, lambda each: isinstance(each, item)), clause)


def _ends_line(header: Iterable[bytes]) -> bool:
    """Return whether what follows in it could pass for another header, or another response."""
    return any(byte in part for part in header for byte in b"\r\n\0")


def header_rules(clause: str, lower: str, pseudo: str) -> Sequence[Rule]:
    return [
        Rule("an iterable of [bytes, bytes]", lambda value: _are(value, _is_header), clause),
        Rule("without pseudo headers", lambda value: not any(name.startswith(b":") for name, _ in value), pseudo),
        Rule("without CR, LF and NUL", lambda value: not any(map(_ends_line, value)), "RFC9110-003"),
        Rule("in lower case", lambda value: all(name == name.lower() for name, _ in value), lower),
    ]


def has_descriptor(file: Any) -> bool:
    try:
        return isinstance(file, int) or isinstance(file.fileno(), int)
    except (AttributeError, OSError):
        return False
