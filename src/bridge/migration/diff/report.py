"""The result of `bridge diff`, one line per kind of difference."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bridge.migration.diff.accepted import Accepted
from bridge.migration.diff.judge import Compared, Difference
from bridge.migration.output import coloured, markdown_table

_SHOWN = 20
# A page with more rows than this is not shown by GitHub in a comment or a job's summary; --json has all of them.
_ROWS = 100
_HINTS = {
    ("status", "302 → 307"): "FastAPI and Starlette redirect with 307, which repeats the method",
    ("status", "308 → 307"): "Flask redirects for a slash with 308, Starlette with 307",
    ("status", "301 → 307"): "Django redirects for a slash with 301, Starlette with 307",
    ("status", "400 → 422"): "FastAPI answers 422 to a request that does not validate",
    ("status", "200 → 405"): "a GET route of FastAPI answers neither HEAD nor OPTIONS",
    ("status", "302 → 401"): "an API answers 401 where a page redirects to its login",
    ("charset", "set → absent"): "Starlette's JSON has no charset and needs none",
    ("charset", "absent → set"): "Starlette adds a charset to every text",
}
_HINTS_BY_TYPES = {
    "number → string": "pydantic writes Decimal as a string",
    "string → number": "str(Decimal) was a string",
    "absent → null": "response_model_exclude_none=True leaves out what is None",
    "null → absent": "exclude_none leaves out what is None",
}


class Kind:
    """All differences of one kind."""

    def __init__(self, request: str, first: Difference) -> None:
        self.where, self.what = first.where, first.what
        self.first, self.old, self.new = request, first.old, first.new
        self.count = 0
        self.requests: dict[str, None] = {}  # in order

    def title(self) -> str:
        """Return what differs, without values unless they define the kind."""
        return f"{self.where}: {f'another {self.what}' if self.what in ('value', 'length') else self.what}"

    def hint(self) -> str:
        """Return what is known to be the reason of such a difference, if anything."""
        known = _HINTS.get((self.where, self.what), "")
        return known or (_HINTS_BY_TYPES.get(self.what, "") if self.where.startswith("$") else "")

    def as_json(self) -> dict[str, Any]:
        """Return what a machine is told."""
        return {
            "where": self.where,
            "what": self.what,
            "count": self.count,
            "requests": list(self.requests),
            "first": self.first,
            "old": self.old,
            "new": self.new,
            "hint": self.hint(),
        }


class Report:
    """The result of a run."""

    def __init__(self, old: str, new: str, left_out: Mapping[str, int], accepted: Accepted) -> None:
        self.old, self.new = old, new
        self.left_out = dict(left_out)
        self.total = self.alike = self.expected = self.cut = 0
        self.noise: dict[str, int] = {}
        self.problems: list[str] = []
        self._accepted = accepted
        self._kinds: dict[tuple[str, str], Kind] = {}
        self._all: dict[tuple[str, str], Kind] = {}

    def add(self, compared: Compared) -> None:
        """Add what was found for one request."""
        self.total += 1
        self.cut += compared.cut
        self.alike += not compared.differences and not compared.problems
        self.problems += [f"{compared.request}: {problem}" for problem in compared.problems]
        for name in compared.noise:
            self.noise[name] = self.noise.get(name, 0) + 1
        for difference in compared.differences:
            _count(self._all, compared.request, difference)
            if self._accepted.has(difference.where, difference.what, compared.request):
                self.expected += 1
            else:
                _count(self._kinds, compared.request, difference)

    def kinds(self) -> list[Kind]:
        """Return the kinds that were not accepted, the most frequent first."""
        return sorted(self._kinds.values(), key=lambda kind: -kind.count)

    def all_kinds(self) -> list[Kind]:
        """Return all kinds, the accepted ones too."""
        return list(self._all.values())

    def exit_code(self) -> int:
        """Return 0 if the apps are alike, 1 if they differ, 2 if an answer could not be compared."""
        return 2 if self.problems else 1 if self._kinds else 0

    def as_json(self) -> dict[str, Any]:
        """Return the whole result for a machine."""
        return {
            "old": self.old,
            "new": self.new,
            "requests": self.total,
            "alike": self.alike,
            "expected": self.expected,
            "cut": self.cut,
            "differences": [kind.as_json() for kind in self.kinds()],
            "noise": self.noise,
            "left_out": self.left_out,
            "problems": self.problems,
        }

    def as_text(self) -> Iterator[str]:
        """Yield the lines for a person, about a screen at most."""
        kinds = self.kinds()
        for kind in kinds[:_SHOWN]:
            yield coloured(f"{kind.title()}, {_times(kind.count)}, first {kind.first}", "red")
            if kind.what in ("value", "length") or kind.where.startswith("$") or (kind.where == "text" and kind.old):
                yield f"    {kind.old} → {kind.new}"
            if kind.hint():
                yield f"    hint: {kind.hint()}"
        if len(kinds) > _SHOWN:
            yield f"… and {len(kinds) - _SHOWN:,} more kinds: --json has all of them"
        if kinds:
            yield ""
        yield from self._summary()
        yield coloured(self._verdict(), {0: "green", 1: "red", 2: "yellow"}[self.exit_code()])

    def as_markdown(self) -> Iterator[str]:
        """Yield the lines of a Markdown page."""
        yield f"## {self._verdict()}"
        yield ""
        if self._kinds:
            rows = [["where", "what", "count", "first", "old", "new", "hint"]]
            for kind in self.kinds()[:_ROWS]:
                values = [kind.where, kind.what, f"{kind.count:,}", kind.first, kind.old, kind.new]
                rows.append([*map(_code, values), kind.hint()])
            yield from markdown_table(rows)
            yield ""
        if len(self._kinds) > _ROWS:
            yield f"- {len(self._kinds) - _ROWS:,} more kinds: --json has all of them"
        for line in self._summary():
            yield f"- {line}"

    def _verdict(self) -> str:
        requests = f"{self.total:,} request{'s' * (self.total != 1)}"
        if self.problems:
            return f"could not compare all of {requests}"
        if self._kinds:
            return f"{len(self._kinds):,} kinds of differences in {requests}; {self.alike:,} alike"
        return f"alike: {requests}"

    def _summary(self) -> Iterator[str]:
        for problem in self.problems[:_SHOWN]:
            yield f"could not compare {problem}"
        if len(self.problems) > _SHOWN:
            yield f"could not compare {len(self.problems) - _SHOWN} more"
        if self.expected:
            yield f"{self.expected:,} expected differences, by --accept"
        if self.noise:
            most = sorted(self.noise.items(), key=lambda item: -item[1])
            names = ", ".join(f"{name} ({_times(count)})" for name, count in most[:_SHOWN])
            more = f", and {len(most) - _SHOWN} more" if len(most) > _SHOWN else ""
            yield f"noise, which differs between two passes of the old app: {names}{more}"
        if self.cut:
            yield f"{self.cut:,} longer than 1 MiB: only the first mebibyte was compared"
        for reason, count in self.left_out.items():
            yield f"{count:,} left out: {reason}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _count(kinds: dict[tuple[str, str], Kind], request: str, difference: Difference) -> None:
    key = (difference.where, difference.what)
    kind = kinds.setdefault(key, Kind(request, difference))
    kind.count += 1
    kind.requests.setdefault(request)


def _code(text: str) -> str:
    """Return a text as Markdown code, so that markup in it is not rendered."""
    return "`` " + text.replace("`", "'") + " ``" if text else ""


def lines_of(lines: Iterable[str]) -> str:
    """Return the lines as one text."""
    return "\n".join(lines) + "\n"
