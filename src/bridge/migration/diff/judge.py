"""Finds what differs between two answers; a third one shows what is noise."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bridge.migration.diff.facts import Fact, Facts, Place, name_of
from bridge.migration.diff.lines import MOST_LINES, Noise, Steady
from bridge.migration.diff.redact import Redactor, stable
from bridge.migration.diff.requests import Request


class Difference(NamedTuple):
    """One difference, without secrets."""

    where: str
    what: str  # the two types if they differ; otherwise "value", "length" or the lines of a text
    old: str
    new: str


class Compared(NamedTuple):
    """The result for one request: its name, its differences, the noise of the old app, and what prevents a verdict."""

    request: str
    differences: list[Difference]
    noise: list[str]
    problems: list[str]
    cut: bool


class _Found(NamedTuple):
    """A difference that may still contain secrets."""

    where: str
    aspect: str
    parent: str
    old: Fact | None
    new: Fact | None


def judged(request: Request, facts: Sequence[Facts], redactor: Redactor, ignored: frozenset[str]) -> Compared:
    """Compare the facts of three answers: the old app's, the new app's, and the old app's second one.

    `ignored` has names of headers in lower case, and paths such as `$.items[].id`.
    """
    old, new, again = facts
    name = f"{request.method} {redactor.target(request.target)}"
    result = Compared(name, [], [], [], old.cut or new.cut)
    if old.status != again.status:
        result.noise.append("status")
        return result
    if old.status != new.status:
        result.differences.append(
            Difference("status", f"{old.status} → {new.status}", str(old.status), str(new.status))
        )
        return result
    own = [found for found in _differences(old, again) if not _is_ignored(found.where, ignored)]
    noise = {(found.where, found.aspect) for found in own} | _unstable_keys(own)
    result.noise.extend(sorted({redactor.name(found.where) for found in own}))
    for found in _differences(old, new):
        if _is_ignored(found.where, ignored) or (found.where, found.aspect) in noise:
            continue
        if found.aspect == "absent" and (found.parent, "keys") in noise:
            continue
        result.differences.append(_shown(found, redactor))
    if not _is_ignored("body", ignored):
        _compare_bodies(result, old, new, again, redactor)
    return result


def _compare_bodies(result: Compared, old: Facts, new: Facts, again: Facts, redactor: Redactor) -> None:
    if old.body == new.body:
        return
    for which, facts in (("old", old), ("new", new)):
        if facts.problem:
            result.problems.append(f"the body of the {which} app's answer cannot be compared: {facts.problem}")
    if old.lines is None or new.lines is None:
        return
    second = old.lines if again.lines is None else again.lines
    if max(len(old.lines), len(new.lines), len(second)) > MOST_LINES:
        if old.body == again.body:
            result.differences.append(Difference("text", f"more than {MOST_LINES:,} lines", "", ""))
        else:
            _compare_steady(result, Steady(old.lines, second), old.lines, new.lines, redactor)
        return
    noise = Noise(old.lines, second)
    if noise.count:
        result.noise.append(f"{noise.count} line{'s' * (noise.count != 1)} of text")
    for ours, theirs in noise.differences(old.lines, new.lines):
        shown = ["absent" if line is None else redactor.line(line.strip()) for line in (ours, theirs)]
        # The hash of a secret differs between runs, but a kind of difference must not.
        what = " → ".join("absent" if line is None else _stable(redactor, line) for line in (ours, theirs))
        result.differences.append(Difference("text line", what, *shown))


def _compare_steady(
    result: Compared, steady: Steady, old: Sequence[str], new: Sequence[str], redactor: Redactor
) -> None:
    """Compare long texts by the lines that the old app repeats, and report at most one difference."""
    if not steady.count:
        result.problems.append(
            f"no line of a text of more than {MOST_LINES:,} is the same in two passes of the old app"
        )
        return
    count = len(old) - steady.count
    result.noise.append(f"{count} line{'s' * (count != 1)} of text")
    found = steady.differs(new)
    if found is not None:
        shown = [redactor.line(line.strip()) for line in found]
        result.differences.append(Difference("text", f"more than {MOST_LINES:,} lines", *shown))


def _stable(redactor: Redactor, line: str) -> str:
    return repr(stable(redactor.line(line.strip()))[:80])


def _differences(old: Facts, new: Facts) -> Iterator[_Found]:
    """Yield what differs. If a container is missing or has another type on one side, skip what is inside it."""
    closed: set[Place] = set()
    for place in [*old.places, *(place for place in new.places if place not in old.places)]:
        ours, theirs = old.places.get(place), new.places.get(place)
        if ours == theirs:
            continue
        parent = place[:-1]
        if parent in closed:
            closed.add(place)
            continue
        if ours is None or theirs is None or ours.type != theirs.type:
            closed.add(place)
            parent_fact = old.places.get(parent)
            if (
                place[0] == "$"
                and (ours is None or theirs is None)
                and (parent_fact is None or parent_fact.type == "array")
            ):
                continue  # the body, or the length of the list, already differs
            aspect = "absent" if ours is None or theirs is None else "type"
        else:
            aspect = "length" if ours.type == "array" else "value"
        yield _Found(name_of(place), aspect, name_of(parent or place), ours, theirs)


def _unstable_keys(own: Sequence[_Found]) -> set[tuple[str, str]]:
    """Return the objects whose keys differ between the two passes."""
    absent = [found for found in own if found.aspect == "absent" and found.where.startswith("$")]
    gone = {found.parent for found in absent if found.new is None}
    come = {found.parent for found in absent if found.old is None}
    return {(parent, "keys") for parent in gone & come}


def _is_ignored(where: str, ignored: frozenset[str]) -> bool:
    if where.startswith("$"):
        return any(
            where == path or where.startswith((f"{path}.", f"{path}[")) for path in ignored if path.startswith("$")
        )
    if where == "body" and "$" in ignored:
        return True
    kind, _, name = where.partition(" ")
    header = {"header": name, "cookie": "set-cookie"}.get(kind, "content-type" if where != "status" else "")
    return header in ignored or where in ignored


def _shown(found: _Found, redactor: Redactor) -> Difference:
    where = redactor.name(found.where)
    old, new = (_text(fact, redactor) for fact in (found.old, found.new))
    if found.aspect in ("value", "length"):
        return Difference(where, found.aspect, old, new)
    in_json = found.where.startswith("$") or found.where in ("body", "answer")
    types = ("absent" if fact is None else fact.type if in_json else "set" for fact in (found.old, found.new))
    what = " → ".join(types)
    return Difference(where, what, old, new)


def _text(fact: Fact | None, redactor: Redactor) -> str:
    if fact is None:
        return "absent"
    if fact.value is None:
        return fact.type
    if fact.type == "bytes":
        size, _, digest = str(fact.value).rpartition(", ")
        return f"{size}, {redactor.digest(digest)}"
    text = redactor.shown(str(fact.value), secret=fact.secret)
    return f'"{text}"' if fact.type == "string" else text
