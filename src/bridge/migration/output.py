"""How commands print: in aligned columns, in colour, in Markdown, and a progress line."""

import os
import sys
import time
from collections.abc import Sequence

# A run that is shorter than this, in seconds, needs no progress line.
_LONG = 2.0
_COLOURS = {"green": "32", "yellow": "33", "red": "31"}


def coloured(text: str, colour: str) -> str:
    """Return `text` in a colour if stdout is a terminal and NO_COLOR (no-color.org) is not set."""
    if os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows as lines of a Markdown table, whose header is the first row."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in escaped]
    return [lines[0], f"|{'---|' * len(rows[0])}", *lines[1:]]


class ProgressLine:
    """A line on stderr that says how far a long run is, if that is a terminal; it shows numbers only."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._width = 0

    def __call__(self, which: str, done: int, total: int) -> None:
        """Show how far the run is."""
        if not which or not sys.stderr.isatty() or time.monotonic() - self._started < _LONG:
            return
        line = f"{which}: {done:,} of {total:,}"
        print(f"\r{line.ljust(self._width)}", end="", file=sys.stderr, flush=True)
        self._width = max(self._width, len(line))

    def clear(self) -> None:
        """Remove the line."""
        if self._width:
            print(f"\r{' ' * self._width}\r", end="", file=sys.stderr, flush=True)
            self._width = 0
