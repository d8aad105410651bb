"""The rows as plots, one file each, legible on a light page and on a dark one."""

import re
import textwrap
from pathlib import Path

import matplotlib
from matplotlib import pyplot

from tests.benchmarks.rounds import Row, number

FOLDER = Path(__file__).parent.parent.parent / "docs" / "benchmarks"
OURS, OTHERS = "#2f81c7", "#98a4af"
TEXT = "#717b86"  # has enough contrast to white and to black; there is no background
_NAMES_OF_OURS = ("bridge", "WSGIToASGI", "ASGIToWSGI")


def draw(row: Row, versions: str = "", machine: str = "") -> Path:
    """Draw the medians as bars, the best on top, with the quartiles as lines and beside each its ratio to ours."""
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "bridge"  # the same file for the same figures
    names = row.best_first()
    height = 1.3 + 0.42 * len(names)
    figure, axes = pyplot.subplots(figsize=(7.5, height))
    medians = [row.median(name) for name in names]
    axes.barh(names, medians, color=[OURS if is_ours(name) else OTHERS for name in names])
    rounds = len(row.samples[row.ours])
    if rounds > 1:
        low, high = zip(*(row.quartiles(name) for name in names), strict=True)
        spread = [
            [median - value for median, value in zip(medians, low, strict=True)],
            [value - median for median, value in zip(medians, high, strict=True)],
        ]
        axes.errorbar(medians, names, xerr=spread, fmt="none", ecolor=TEXT, elinewidth=1, capsize=2)
    for place, name in enumerate(names):  # beyond the spread
        at = (row.quartiles(name)[1], place)
        axes.annotate(label(row, name), at, (7, 0), textcoords="offset points", va="center", color=TEXT)
    axes.margins(x=0.2)
    axes.set_xlim(left=0)
    axes.invert_yaxis()
    axes.set_xlabel(f"{row.unit}: {row.better} is better", color=TEXT)
    axes.set_title(row.what, loc="left", fontsize=10, color=TEXT)
    axes.tick_params(colors=TEXT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(TEXT)
    notes = [caption(row), versions, machine]
    text = "\n".join(line for note in notes if note for line in textwrap.wrap(note, 115))
    figure.text(0.0, -0.25 / height, text, fontsize=6.5, color=TEXT, verticalalignment="top")
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / (re.sub("[^a-z0-9]+", "-", row.what.lower()).strip("-") + ".svg")
    figure.savefig(path, bbox_inches="tight", transparent=True, metadata={"Date": None})
    pyplot.close(figure)
    return path


def is_ours(name: str) -> bool:
    return name.startswith(_NAMES_OF_OURS)


def label(row: Row, name: str) -> str:
    """Return the median, and how many times that of ours it is; the caption says which one that is."""
    return number(row.median(name)) + ("" if name == row.ours else f"  ({row.ratio(name):.2g} x)")


def caption(row: Row) -> str:
    """Return how often was measured, and what the ratios are to."""
    rounds = len(row.samples[row.ours])
    text = f"Medians of {rounds} rounds, with quartiles" if rounds > 1 else "One measurement"
    return f"{text}; x: how many times {row.ours}." if len(row.samples) > 1 else f"{text}."
