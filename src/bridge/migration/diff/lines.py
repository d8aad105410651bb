"""Compares texts line by line; what differs between two answers of the same app may be anything in a third."""

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Sequence

# Longer texts are compared without difflib, because its time grows with the square of the lines.
MOST_LINES = 5_000
_MOST_WORDS = 2_000
# Words, which end at a quote, a tag or a space, and what separates them.
_PARTS = re.compile(r'[^<>"\s]+|[<>"\s]')


class Noise:
    """Knows what differs between the texts of the old app's two passes."""

    def __init__(self, first: Sequence[str], second: Sequence[str]) -> None:
        self._patterns: dict[str, re.Pattern[str]] = {}
        self._unstable: set[int] = set()
        for tag, start, end, other_start, other_end in _blocks(first, second):
            if tag == "replace" and end - start == other_end - other_start:
                for line, other in zip(first[start:end], second[other_start:other_end], strict=True):
                    self._patterns[line] = _pattern(line, other)
            else:
                self._unstable.update(range(start, end + 1))
        self.count = len(self._patterns) + len(self._unstable)

    def differences(self, old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[str | None, str | None]]:
        """Yield the lines of `old` and `new` that differ; None if one of them has no such line."""
        same = [self._as_old(line) for line in new]
        for _, start, end, other_start, other_end in _blocks(old, same):
            if self._unstable & set(range(start, end + 1)):
                continue
            ours, theirs = old[start:end], new[other_start:other_end]
            for number in range(max(len(ours), len(theirs))):
                yield (
                    ours[number] if number < len(ours) else None,
                    theirs[number] if number < len(theirs) else None,
                )

    def _as_old(self, line: str) -> str:
        for old, pattern in self._patterns.items():
            if pattern.fullmatch(line):
                return old
        return line


class Steady:
    """Knows which lines are the same in the old app's two passes. Takes time in proportion to the lines."""

    def __init__(self, first: Sequence[str], second: Sequence[str]) -> None:
        self._lines = Counter(first) & Counter(second)
        self._in_order = self._of(first) if self._of(first) == self._of(second) else None
        self._length = len(first) if len(first) == len(second) else None
        self.count = self._lines.total()

    def differs(self, new: Sequence[str]) -> tuple[str, str] | None:
        """Return what the old app has and what `new` has instead, or None if `new` has the same steady lines.

        Their order and the number of all lines count only if both passes agree on them.
        """
        for line in self._lines - Counter(new):
            return line, "absent"
        if self._in_order is not None:
            ours, theirs = self._in_order, self._of(new)
            if ours != theirs:
                at = next(
                    (number for number, pair in enumerate(zip(ours, theirs, strict=False)) if len({*pair}) > 1), -1
                )
                return (ours[at], theirs[at]) if at >= 0 else ("absent", theirs[len(ours)])
        if self._length not in (None, len(new)):
            return f"{self._length} lines", f"{len(new)} lines"
        return None

    def _of(self, lines: Sequence[str]) -> list[str]:
        return [line for line in lines if line in self._lines]


def _blocks(first: Sequence[str], second: Sequence[str]) -> Iterator[tuple[str, int, int, int, int]]:
    """Yield the blocks that differ, as opcodes of difflib."""
    skipped = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        skipped += 1
    matcher = difflib.SequenceMatcher(None, first[skipped:], second[skipped:], autojunk=False)
    for tag, *numbers in matcher.get_opcodes():
        if tag != "equal":
            start, end, other_start, other_end = (number + skipped for number in numbers)
            yield tag, start, end, other_start, other_end


def _pattern(line: str, other: str) -> re.Pattern[str]:
    """Return a pattern for what both lines have in common; where they differ, it matches anything but tags."""
    ours, theirs = _PARTS.findall(line), _PARTS.findall(other)
    if max(len(ours), len(theirs)) > _MOST_WORDS:  # a page without line breaks, for example
        start = _same_until(line, other)
        end = _same_until(line[:start:-1], other[:start:-1])
        return re.compile(f"{re.escape(line[:start])}.*{re.escape(line[len(line) - end :])}")
    text = ""
    matcher = difflib.SequenceMatcher(None, ours, theirs, autojunk=False)
    for tag, start, end, other_start, other_end in matcher.get_opcodes():
        if tag == "equal":
            text += re.escape("".join(ours[start:end]))
        else:
            words = max(end - start, other_end - other_start) == 1
            text += r'[^<>"\s]*+' if words else "[^<>]*"
    return re.compile(text)


def _same_until(one: str, other: str) -> int:
    """Return how many characters two texts have in common at their start."""
    for number, (ours, theirs) in enumerate(zip(one, other, strict=False)):
        if ours != theirs:
            return number
    return min(len(one), len(other))
