"""Rounds of measurements in turn, and what to say of them."""

import statistics
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Row(NamedTuple):
    """One thing measured for several contenders in the same minutes; `ours` is the name that they are compared with."""

    what: str
    unit: str
    ours: str
    samples: dict[str, list[float]]

    @property
    def better(self) -> str:
        """Return whether "more" or "less" is better: more of what is done in a second, and less time and memory."""
        return "more" if self.unit in ("requests a second", "messages a second") else "less"

    def median(self, name: str) -> float:
        return statistics.median(self.samples[name])

    def quartiles(self, name: str) -> tuple[float, float]:
        """Return what a quarter of the samples are below, and what a quarter are above."""
        samples = self.samples[name]
        if len(samples) == 1:
            return samples[0], samples[0]
        low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
        return low, high

    def best_first(self) -> list[str]:
        return sorted(self.samples, key=self.median, reverse=self.better == "more")

    def ratio(self, name: str) -> float:
        """Return the median of the rounds' ratios, theirs to ours: times vary from minute to minute, and these less."""
        pairs = zip(self.samples[name], self.samples[self.ours], strict=True)
        return statistics.median(theirs / ours for theirs, ours in pairs)


def measure(what: str, unit: str, ours: str, contenders: Mapping[str, Callable[[], float]], rounds: int) -> Row:
    """Measure each contender once a round, after one round that does not count."""
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, contender in contenders.items():
            sample = contender()
            if number:
                samples[name].append(sample)
    row = Row(what, unit, ours, samples)
    print_row(row)
    return row


def print_row(row: Row) -> None:
    print(f"\n{row.what} [{row.unit}, {row.better} is better]", flush=True)
    for name in row.samples:
        ratio = "" if name == row.ours else f"{row.ratio(name):8.2f} x {row.ours}"
        low, high = row.quartiles(name)
        spread = "" if low == high else f"{number(low)} to {number(high)}"
        print(f"  {name:<34} {number(row.median(name)):>10}  {spread:<20} {ratio}", flush=True)


def number(value: float) -> str:
    """Return a number with three digits at least, so that no small one looks like 0."""
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
