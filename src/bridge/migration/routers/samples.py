"""Makes up paths that a rule matches."""

import inspect
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# What parameters of URLs usually look like: text, numbers, paths, identifiers, dates.
VALUES = (
    *("sample", "1", "2026", "12", "sample/path", "1.5", "a", "en", "abc", "2026-01-31", "sample.txt"),
    *("00000000-0000-4000-8000-000000000000", "0123456789abcdef0123456789abcdef", "a@example.org"),
)


def values_of(regex: str) -> list[str]:
    """Return the first two of our values that match a parameter."""
    return [value for value in VALUES if re.fullmatch(regex, value)][:2]


def is_async(view: Any) -> bool:
    """Return whether a view of Flask's or Django's is `async def`, or a class with a method that is."""
    methods = [getattr(getattr(view, "view_class", None), name, None) for name in ("get", "post", "dispatch_request")]
    return any(map(inspect.iscoroutinefunction, [view, *methods]))


def paths_of(parameters: Mapping[str, Sequence[str]], fill: Callable[[dict[str, str]], str | None]) -> tuple[str, ...]:
    """Return the paths that `fill` makes from the first values of the parameters, and from their second ones.

    Empty if there is a parameter without a value, or `fill` returns None.
    """
    if not all(parameters.values()):
        return ()
    chosen = itertools.islice(itertools.zip_longest(*parameters.values()), 2) if parameters else [()]
    paths = []
    for values in chosen:
        pairs = zip(parameters.items(), values, strict=True)
        paths.append(fill({name: known[0] if value is None else value for (name, known), value in pairs}))
    return tuple(dict.fromkeys(path for path in paths if path is not None))
