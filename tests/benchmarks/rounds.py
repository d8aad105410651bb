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

    def median(self, name: str) -> float:
        return statistics.median(self.samples[name])

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
    print(f"\n{row.what} [{row.unit}]", flush=True)
    for name in row.samples:
        ratio = "" if name == row.ours else f"{row.ratio(name):8.2f} x {row.ours}"
        print(f"  {name:<34} {row.median(name):10.1f} {ratio}", flush=True)
