"""The rows as plots, one file each."""

import re
from pathlib import Path

import matplotlib
from matplotlib import pyplot

from tests.benchmarks.rounds import Row

FOLDER = Path(__file__).parent.parent.parent / "docs" / "benchmarks"
OURS, OTHERS = "#1b6ca8", "#b8c4cf"


def draw(row: Row) -> Path:
    """Draw the medians as bars, and beside each what it is to ours."""
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "bridge"  # the same file for the same figures
    names = list(row.samples)
    figure, axes = pyplot.subplots(figsize=(7, 0.9 + 0.42 * len(names)))
    medians = [row.median(name) for name in names]
    bars = axes.barh(names, medians, color=[OURS if "bridge" in name else OTHERS for name in names])
    labels = [
        f" {median:,.0f}" + ("" if name == row.ours else f"  ({row.ratio(name):.2g} x)")
        for name, median in zip(names, medians, strict=True)
    ]
    axes.bar_label(bars, labels)
    axes.margins(x=0.25)
    axes.invert_yaxis()
    axes.set_xlabel(row.unit)
    axes.set_title(row.what, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / (re.sub("[^a-z0-9]+", "-", row.what.lower()).strip("-") + ".svg")
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
    return path
