from collections.abc import Sequence

import pytest

from bridge.migration.diff.lines import Noise

Lines = Sequence[str]


@pytest.mark.parametrize(
    ("first", "second", "new", "expected"),
    [
        # Nothing is noise: what differs is told line by line.
        (["a", "b"], ["a", "b"], ["a", "b"], []),
        (["a", "b", "c"], ["a", "b", "c"], ["a", "x", "c"], [("b", "x")]),
        (["a", "b", "c"], ["a", "b", "c"], ["a", "c"], [("b", None)]),
        (["a", "c"], ["a", "c"], ["a", "b", "c"], [(None, "b")]),
        (["a", "b", "c", "d"], ["a", "b", "c", "d"], ["a", "x", "d"], [("b", "x"), ("c", None)]),
        (["a"] * 300 + ["b"], ["a"] * 300 + ["b"], ["a"] * 300 + ["c"], [("b", "c")]),
        # A word that differs between the passes may be another one, but only one word and no tag.
        (["<p>1 visitor</p>"], ["<p>2 visitor</p>"], ["<p>3 visitor</p>"], []),
        (["<p>1 visitor</p>"], ["<p>2 visitor</p>"], ["<p>3 guest</p>"], [("<p>1 visitor</p>", "<p>3 guest</p>")]),
        (["<p>1 of x</p>"], ["<p>2 of x</p>"], ["<p>3 4 of x</p>"], [("<p>1 of x</p>", "<p>3 4 of x</p>")]),
        (["<p>1</p>"], ["<p>2</p>"], ["<p><b>3</b></p>"], [("<p>1</p>", "<p><b>3</b></p>")]),
        # Several words that differ may be any text.
        (["<p>a b</p>"], ["<p>c</p>"], ["<p>d e f</p>"], []),
        (["<p>a b</p>"], ["<p>c</p>"], ["<p>d<br></p>"], [("<p>a b</p>", "<p>d<br></p>")]),
        # Where the passes have different numbers of lines, whatever stands there is noise, and nothing else.
        (["a", "1", "b", "c"], ["a", "1", "2", "b", "c"], ["a", "1", "3", "4", "b", "c"], []),
        (["a", "1", "b", "c"], ["a", "1", "2", "b", "c"], ["a", "1", "b", "x"], [("c", "x")]),
        (["x", "a", "1", "b"], ["x", "a", "b"], ["y", "a", "b"], [("x", "y")]),
    ],
)
def test_what_differs_beside_noise(first: Lines, second: Lines, new: Lines, expected: list[object]) -> None:
    """The two passes of the old app tell which parts of a line, and which lines, may be anything."""
    assert list(Noise(first, second).differences(first, new)) == expected


def test_noise_is_counted() -> None:
    """Each line once."""
    assert Noise(["a", "b"], ["a", "b"]).count == 0
    assert Noise(["a 1", "b 1", "c"], ["a 2", "b 2", "c"]).count == 2


def test_a_page_on_one_line_has_its_noise_between_what_begins_and_ends_it() -> None:
    """To compare thousands of words with each other would take minutes."""
    long = "word " * 3_000

    def differences(new: str) -> int:
        return len(list(Noise([f"{long}1 b{long}"], [f"{long}2 b{long}"]).differences([f"{long}1 b{long}"], [new])))

    assert differences(f"{long}3 b{long}") == 0
    assert differences(f"{long}1 c{long}") == 1
    assert differences(f"{long}1 b{long}x") == 1
    assert differences(f"x{long}1 b{long}") == 1
    assert len(list(Noise([long], [f"{long}x"]).differences([long], [f"{long}y"]))) == 0
