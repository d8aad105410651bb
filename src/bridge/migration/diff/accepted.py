"""The file of expected differences, with which a run in CI passes."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bridge.migration.diff.strict_json import loads
from bridge.migration.loading import CannotRun

_VERSION = 1


class Accepted:
    """The kinds of differences that a file accepts, each for some requests or, with `"*"`, for all."""

    def __init__(self, requests: dict[tuple[str, str], Any] | None = None) -> None:
        self._requests = requests or {}

    def has(self, where: str, what: str, request: str) -> bool:
        """Return whether a difference is accepted."""
        requests = self._requests.get((where, what), ())
        return requests == "*" or request in requests


def read_accepted(name: str) -> Accepted:
    """Return what a file accepts. Raises CannotRun."""
    try:
        document = loads(Path(name).read_bytes())
        if document["version"] != _VERSION:
            raise CannotRun(f"{name} comes from another version of bridge: write it again with --write-accept")
        requests = {}
        for entry in document["accept"]:
            named = entry["requests"]
            if named != "*" and not isinstance(named, list):
                raise TypeError
            requests[entry["where"], entry["what"]] = named if named == "*" else frozenset(named)
    except OSError as error:
        raise CannotRun(f"{name} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CannotRun(f"{name} is not a file that --write-accept has written") from None
    return Accepted(requests)


def accepted_as_text(kinds: Iterable[Any]) -> str:
    """Return the text of a file that accepts these kinds of differences."""
    entries = [
        {"where": kind.where, "what": kind.what, "requests": list(kind.requests)}
        for kind in sorted(kinds, key=lambda kind: (kind.where, kind.what))
    ]
    return json.dumps({"version": _VERSION, "accept": entries}, indent=2, ensure_ascii=False) + "\n"
