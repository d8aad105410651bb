"""Rules for the values in ASGI scopes and messages, and the predicates that the rules are made of."""

import math
from collections.abc import Callable, Iterable, Sequence
from types import NoneType
from typing import Any, Final, NamedTuple


class Rule(NamedTuple):
    """What a value must be, and the clause that says so.

    `text` goes on after "must" in an error, and `allows` returns something true for a legal value. Breaking a
    `tolerated` rule is only a warning, because today's servers accept it.
    """

    text: str
    allows: Callable[[Any], object]
    clause: str
    tolerated: bool = False


NAMES: Final = {bytes: "bytes", str: "str", int: "int", bool: "bool", dict: "a dict", NoneType: "None"}


def _is_a(value: object, types: Iterable[type]) -> bool:
    """Return whether `value` is an instance of one of `types`. A bool does not count as an int."""
    return any(isinstance(value, each) and not (each is int and isinstance(value, bool)) for each in types)


def of_type(clause: str, *types: type) -> Sequence[Rule]:
    """Return the rule that a value is an instance of one of `types`."""
    return [Rule(f"be {' or '.join(NAMES[each] for each in types)}", lambda value: _is_a(value, types), clause)]


def rather(rules: Sequence[Rule]) -> Sequence[Rule]:
    """Return the rules as tolerated ones."""
    return [rule._replace(tolerated=True) for rule in rules]


def _items(value: object) -> list[Any] | None:
    """Return the items of an iterable, or None if `value` is not iterable or is a string."""
    return [*value] if isinstance(value, Iterable) and not isinstance(value, (str, bytes)) else None


def is_pair(value: object, first: type, *second: type) -> bool:
    """Return whether `value` holds two items, a `first` and one of the types `second`."""
    items = _items(value)
    return items is not None and len(items) == 2 and isinstance(items[0], first) and _is_a(items[1], second)


def _is_header(value: object) -> bool:
    return is_pair(value, bytes, bytes)


def _are(value: object, allows: Callable[[Any], object]) -> bool:
    items = _items(value)
    return items is not None and all(map(allows, items))


def is_plain(value: object) -> bool:
    """Return whether a message may hold `value`, which must be serialisable (ASGI spec, Events)."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(each) for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return -(2**63) <= value < 2**63 if isinstance(value, int) else isinstance(value, (bytes, str, NoneType))


def iterable_of(item: type, clause: str) -> Rule:
    """Return the rule that a value is an iterable of instances of `item`, and not a string."""
    text = f"be an iterable of {NAMES[item]}"
    return Rule(text, lambda value: _are(value, lambda each: isinstance(each, item)), clause)


def _ends_line(header: Iterable[bytes]) -> bool:
    """Return whether the header holds a byte that may end its line, so that the rest could pass for another header."""
    return any(byte in part for part in header for byte in b"\r\n\0")


def header_rules(clause: str, lower: str, pseudo: str, any_case: bool = False) -> Sequence[Rule]:
    """Return the rules for headers; `lower` and `pseudo` are the clauses for lower case and for pseudo-headers.

    With `any_case`, names not in lower case are tolerated, because Django leaves that to servers.
    """
    return [
        Rule("be an iterable of [bytes, bytes]", lambda value: _are(value, _is_header), clause),
        Rule("have no pseudo-headers", lambda value: not any(name.startswith(b":") for name, _ in value), pseudo),
        Rule("have no CR, LF or NUL", lambda value: not any(map(_ends_line, value)), "RFC9110-003"),
        Rule("have names in lower case", lambda value: all(name == name.lower() for name, _ in value), lower, any_case),
    ]


def has_descriptor(file: Any) -> bool:
    """Return whether `file` is a file descriptor, or a file object with one."""
    try:
        return isinstance(file, int) or isinstance(file.fileno(), int)
    except (AttributeError, OSError):
        return False
