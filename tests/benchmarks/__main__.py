"""Everything side by side in one run: tables on the screen, plots in docs/benchmarks/.

    python -m tests.benchmarks [part of a row's section ...] [--rounds N] [--no-plots]

Sections: wsgi_to_asgi, asgi_to_wsgi, over_http, streams, detach. Rounds are interleaved and medians compared:
times vary from minute to minute on a shared machine, and ratios from one run less so.
"""

import argparse
from collections.abc import Callable, Iterator

from tests.benchmarks import machine
from tests.benchmarks.detach import detach_rows
from tests.benchmarks.in_process import asgi_to_wsgi_rows, wsgi_to_asgi_rows
from tests.benchmarks.over_http import over_http_rows
from tests.benchmarks.rounds import Row
from tests.benchmarks.streams import stream_rows

SECTIONS: dict[str, Callable[[int], Iterator[Row]]] = {
    "wsgi_to_asgi": wsgi_to_asgi_rows,
    "asgi_to_wsgi": asgi_to_wsgi_rows,
    "over_http": over_http_rows,
    "streams": stream_rows,
    "detach": detach_rows,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("sections", nargs="*", metavar="section")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--no-plots", action="store_true")
    options = parser.parse_args()
    print(versions := machine.versions())
    print(here := machine.machine())
    rows = [row for name in options.sections or SECTIONS for row in SECTIONS[name](options.rounds)]
    if not options.no_plots:
        from tests.benchmarks import plots

        for row in rows:
            plots.draw(row, versions, here)


if __name__ == "__main__":
    main()
