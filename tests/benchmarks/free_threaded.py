"""Requests a second over worker threads, with Python's lock and without, drawn to docs/benchmarks/free_threaded.svg.

    python -m tests.benchmarks.free_threaded [--python INTERPRETER] [--rounds N] [--seconds N] [--no-plot]

INTERPRETER is a free-threaded Python with `bridge` and Flask, by default the one that runs this. Each round measures a
Flask view that computes, for each number of workers, in a process with the lock and in one without. The best round
counts, as what else the machine does only takes from the cores.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from flask import Flask

from bridge import WSGIToASGI

LOCKS = {"without the lock": "0", "with the lock": "1"}  # values of PYTHON_GIL
NUMBERS = 20_000

flask_app = Flask(__name__)


@flask_app.get("/")
def compute() -> str:
    return str(sum(number * number for number in range(NUMBERS)))


# --- In the process that is measured --------------------------------------------------------------


async def request(app: WSGIToASGI) -> bytes:
    messages = [{"type": "http.request", "body": b"", "more_body": False}]
    body = b""

    async def receive() -> Any:
        return messages.pop() if messages else await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        nonlocal body
        body += message.get("body", b"")

    await app(
        {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/",
            "query_string": b"",
            "headers": [(b"host", b"localhost"), (b"accept", b"*/*")],
        },
        receive,
        send,
    )
    return body


async def serve(workers: int, seconds: float) -> float:
    """Return requests a second, with two requests in flight for each worker."""
    app = WSGIToASGI(flask_app, workers=workers)
    expected = compute().encode()
    answered = 0
    start = time.perf_counter()

    async def client() -> None:
        nonlocal answered
        while time.perf_counter() - start < seconds:
            assert await request(app) == expected
            answered += 1

    await asyncio.gather(*(client() for _ in range(2 * workers)))
    return answered / (time.perf_counter() - start)


def measure(workers: list[int], seconds: float) -> None:
    """Print requests a second for each number of workers, as JSON."""
    locked = getattr(sys, "_is_gil_enabled", lambda: True)()
    if locked != (os.environ["PYTHON_GIL"] == "1"):
        sys.exit("this Python cannot do without its lock")
    asyncio.run(serve(max(workers), seconds / 4))  # warm up
    print(json.dumps([asyncio.run(serve(number, seconds)) for number in workers]))


# --- In the process that compares -----------------------------------------------------------------


def compare(python: str, workers: list[int], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Return the best figures, for each state of the lock and number of workers; rounds are interleaved."""
    samples: dict[str, list[list[float]]] = {name: [] for name in LOCKS}
    arguments = [python, "-m", __spec__.name, "--seconds", str(seconds), "--measure", *map(str, workers)]
    for _ in range(rounds):
        for name, value in LOCKS.items():
            environment = os.environ | {"PYTHON_GIL": value}
            output = subprocess.run(arguments, env=environment, check=True, stdout=subprocess.PIPE).stdout
            samples[name].append(json.loads(output))
    return {name: [max(column) for column in zip(*rows, strict=True)] for name, rows in samples.items()}


def draw(workers: list[int], best: dict[str, list[float]], what: str) -> Path:
    import matplotlib
    from matplotlib import pyplot

    from tests.benchmarks import plots

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "bridge"  # the same file for the same figures
    figure, axes = pyplot.subplots(figsize=(7, 3.5))
    for (name, figures), colour, above in zip(best.items(), (plots.OURS, plots.OTHERS), (6, -30), strict=True):
        axes.plot(workers, figures, "o-", label=name, color=colour)
        for number, figure_of in zip(workers, figures, strict=True):
            label = f"{figure_of:,.0f}" + (f"\n({figure_of / figures[0]:.2g} x)" if number > workers[0] else "")
            axes.annotate(label, (number, figure_of), (0, above), textcoords="offset points", ha="center")
    axes.set_xticks(workers)
    axes.set_ylim(0, 1.25 * max(map(max, best.values())))
    axes.set_xlabel("workers")
    axes.set_ylabel("requests a second")
    axes.set_title(what, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    plots.FOLDER.mkdir(parents=True, exist_ok=True)
    path = plots.FOLDER / "free_threaded.svg"
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
    return path


def main() -> None:
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.free_threaded")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=0.6)
    parser.add_argument("--no-plot", action="store_true")
    parser.add_argument("--measure", nargs="+", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.seconds)
        return
    workers = list(range(1, cores + 1)) + [2 * cores]
    best = compare(options.python, workers, options.rounds, options.seconds)
    version = subprocess.run([options.python, "-V"], check=True, capture_output=True, text=True).stdout.strip()
    what = f"WSGIToASGI, a Flask view that computes, free-threaded {version}, {cores} cores"
    print(f"{what} [requests a second, by workers]")
    for name, figures in best.items():
        print(
            f"  {name:<18}",
            *(f"{number} workers: {figure:7.1f}/s" for number, figure in zip(workers, figures, strict=True)),
        )
    if not options.no_plot:
        print(draw(workers, best, what))


if __name__ == "__main__":
    main()
