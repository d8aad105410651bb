import sys

import pytest

from bridge.migration.output import aligned, coloured, markdown_table


@pytest.mark.parametrize(
    ("terminal", "no_color", "expected"), [(True, "", "\x1b[32mnew\x1b[0m"), (True, "1", "new"), (False, "", "new")]
)
def test_colours_are_for_terminals(
    terminal: bool, no_color: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NO_COLOR turns them off there."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setenv("NO_COLOR", no_color)
    assert coloured("new", "green") == expected


def test_columns_are_aligned() -> None:
    """There are no spaces at the end of a line."""
    assert aligned([["a", "bb", "c"], ["aaa", "b", ""]]) == ["a    bb  c", "aaa  b"]


def test_a_bar_does_not_end_a_cell() -> None:
    """It is escaped."""
    assert markdown_table([["a", "b"], ["x|y", "z"]]) == ["| a | b |", "|---|---|", "| x\\|y | z |"]
