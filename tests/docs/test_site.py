"""What the site adds to the pages' tables."""

import pytest
from site_tools.tables import with_marked_cells


@pytest.mark.parametrize(
    ("cell", "marked"),
    [
        ("<td>P3333-028</td>", '<td class="clause"><a href="../clauses/#p3333-028">P3333-028</a></td>'),
        ("<td>see P3333-028</td>", "<td>see P3333-028</td>"),
        ('<td style="x">' + "a" * 31 + "</td>", '<td style="x" class="prose">' + "a" * 31 + "</td>"),
        ("<td><code>" + "&amp;" * 30 + "</code></td>", "<td><code>" + "&amp;" * 30 + "</code></td>"),
    ],
)
def test_cells_are_marked(cell: str, marked: str) -> None:
    """A clause leads to its text, and a long text, as it is read, has room."""
    assert with_marked_cells(cell, "../clauses/") == marked
