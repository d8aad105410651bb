"""What the benchmarks say and draw; the figures themselves are no test's business."""

from pathlib import Path

import pytest

import bridge
from tests.benchmarks import machine
from tests.benchmarks.rounds import Row, number, print_row

SERVED = Row(
    "Flask, wrk",
    "requests a second",
    "bridge on uvicorn",
    {"a2wsgi on uvicorn": [20, 30, 40], "bridge on uvicorn": [100, 110, 120], "native on granian": [200, 210, 220]},
)
TIMED = Row("A small response", "µs a request", "bridge", {"a2wsgi": [20, 30], "bridge": [10, 20]})
AT_REST = Row("At rest", "wake-ups a second", "bridge", {"bridge": [0.2]})


def test_the_best_comes_first_whichever_way_is_better() -> None:
    """More requests a second are better, and less time."""
    assert (SERVED.better, TIMED.better, AT_REST.better) == ("more", "less", "less")
    assert SERVED.best_first() == ["native on granian", "bridge on uvicorn", "a2wsgi on uvicorn"]
    assert TIMED.best_first() == ["bridge", "a2wsgi"]


def test_the_spread_is_between_the_quartiles() -> None:
    """One sample has none."""
    assert SERVED.quartiles("bridge on uvicorn") == (105, 115)
    assert AT_REST.quartiles("bridge") == (0.2, 0.2)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.2, "0.20"), (0, "0"), (3.14159, "3.14"), (21.04, "21.0"), (99.96, "100.0"), (9075.4, "9,075")],
)
def test_a_small_number_does_not_look_like_zero(value: float, text: str) -> None:
    """Each number has about three digits."""
    assert number(value) == text


def test_a_printed_row_says_which_way_is_better(capsys: pytest.CaptureFixture[str]) -> None:
    """The table has unit, direction, spread and what the ratio is to."""
    print_row(TIMED)
    text = capsys.readouterr().out
    assert "A small response [µs a request, less is better]" in text
    assert "22.5 to 27.5" in text
    assert "1.75 x bridge" in text


def test_a_run_tells_its_machine_and_versions() -> None:
    """How fast plain Python and a thread's wake-up are there, so that runs of two machines can be compared."""
    assert machine.python_step() > 0
    assert machine.wake_up() > 0
    assert "a step of a loop of plain Python takes" in machine.machine()
    assert f"bridge {bridge.__version__}" in machine.versions()


def test_a_plot_is_legible_on_any_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no background, the bars of bridge have one colour, and its caption says what the ratios are to."""
    pytest.importorskip("matplotlib", reason="needs matplotlib, of the dependency group `benchmarks`")
    from tests.benchmarks import plots

    monkeypatch.setattr(plots, "FOLDER", tmp_path)
    picture = plots.draw(SERVED, machine.versions(), "a machine").read_text()
    assert picture.count(f"fill: {plots.OURS}") == 1
    assert picture.count(f"fill: {plots.OTHERS}") == 2
    assert "fill: #ffffff" not in picture
    assert plots.is_ours("ASGIToWSGI on gunicorn gthread, 1000 threads")
    assert plots.label(SERVED, "native on granian") == "210  (1.9 x)"
    assert plots.caption(SERVED) == "Medians of 3 rounds, with quartiles; x: how many times bridge on uvicorn."
    assert plots.draw(AT_REST).exists()
