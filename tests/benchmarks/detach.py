"""Requests that wait, many more than the server has threads: detached responses beside their floors and uvicorn.

The floor of a server is the time in which it answers as many requests at once from a plain WSGI app that does not wait.
"By hand" is an app of a few lines that takes each connection and answers on a loop, without an adapter.
Linux only. Raise net.core.somaxconn to 16,384 for it, or the system drops connections that come at once, and their
clients try again a second later; the number of those is printed.
"""

import contextlib
import functools
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bridge import ASGIToWSGI
from tests.benchmarks import bursts, waiting_apps
from tests.benchmarks.over_http import requests_a_second
from tests.benchmarks.rounds import Row, measure, print_row
from tests.fakes import http_environ
from tests.processes import Server, serving

APPS = "tests.benchmarks.waiting_apps"
COUNTS = (1000, 5000, 10_000)
_GUNICORN = ("{python}", "-m", "gunicorn", "-b", "127.0.0.1:{port}", "--backlog", "16384", "--log-level", "warning")
_GTHREAD = (*_GUNICORN, "-k", "gthread", "--threads", "4", "--worker-connections", "20000")
SERVERS = {
    "gthread, 4 threads": (*_GTHREAD, f"{APPS}:{{app}}"),
    "sync, 1 worker": (*_GUNICORN, f"{APPS}:{{app}}"),
    "uWSGI, 2 threads": (
        *(str(Path(sys.executable).parent / "uwsgi"), "--http-socket", "127.0.0.1:{port}", "--home", sys.prefix),
        *("--threads", "2", "--listen", "16384", "--need-app", "--die-on-term", "--disable-logging"),
        *("--module", f"{APPS}:{{app}}"),
    ),
    "waitress, 4 threads": (
        *("{python}", "-m", "waitress", "--listen", "127.0.0.1:{port}", "--threads", "4", "--backlog", "16384"),
        *("--connection-limit", "20000", "--asyncore-use-poll", f"{APPS}:{{app}}"),
    ),
}
UVICORN = (
    *("{python}", "-m", "uvicorn", "--port", "{port}", "--log-level", "warning", "--no-access-log"),
    *("--backlog", "16384", f"{APPS}:app"),
)
NATIVE = "uvicorn, natively"
_HELLO_CALLS = 2000


def megabytes(server: Server) -> float:
    """Return the greatest size so far of the server's largest process."""
    pids = [server.process.pid]
    for pid in pids:
        pids.extend(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    statuses = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    return max(int(status.split("VmHWM:")[1].split()[0]) for status in statuses) / 1024


class Sleepers:
    """The servers, and what they have answered so far."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.servers: dict[str, Server] = {}
        self.lost = self.wrong = self.asked = 0
        for name, command in SERVERS.items():
            for kind, app in (("bridge on {}", "auto"), ("{}, by hand", "bare"), ("{}, the floor", "floor")):
                argv = [part.replace("{app}", app) for part in command]
                self.servers[kind.format(name)] = stack.enter_context(serving(argv))
        self.servers[NATIVE] = stack.enter_context(serving(UVICORN))

    def milliseconds(self, name: str, count: int) -> float:
        result = bursts.burst(self.servers[name].port, "/wait", count)
        self.asked += count
        self.lost += result.lost
        self.wrong += result.wrong
        return 1000 * result.seconds

    def rows(self, rounds: int) -> Iterator[Row]:
        ours = next(iter(self.servers))
        for count in COUNTS:
            dropped = bursts.dropped_connections()
            contenders = {name: functools.partial(self.milliseconds, name, count) for name in self.servers}
            yield measure(f"{count:,} requests at once that wait a second", "ms", ours, contenders, rounds)
            print(
                f"  of {self.asked:,} requests so far {self.lost} were lost, {self.wrong} had a wrong response;", end=""
            )
            print(f" {bursts.dropped_connections() - dropped} connections were dropped by a full listen queue")
        yield self.memory("after 10,000 requests that wait")

    def memory(self, when: str) -> Row:
        sizes = {name: [megabytes(server)] for name, server in self.servers.items() if "floor" not in name}
        row = Row(f"Greatest memory of the process {when}", "MB", next(iter(sizes)), sizes)
        print_row(row)
        return row


def stream_rows() -> Iterator[Row]:
    for count in (1000, 5000):
        times: dict[str, list[float]] = {}
        sizes: dict[str, list[float]] = {}
        for name, command in {**SERVERS, NATIVE: UVICORN}.items():
            argv = [part.replace("{app}", "auto") for part in command]
            label = name if name == NATIVE else f"bridge on {name}"
            with serving(argv) as server:
                sizes[label] = []
                result = bursts.streams(server.port, count, 10, lambda: sizes[label].append(megabytes(server)))  # noqa: B023
            times[label] = [1000 * result.seconds]
            print(f"  {label}: {result.silent} silent, {result.cut} cut, at least {result.ticks} ticks in ten seconds")
        row = Row(f"{count:,} event streams opened at once, until all tick", "ms", next(iter(times)), times)
        print_row(row)
        yield row
        row = Row(f"{count:,} event streams, memory of the process", "MB", next(iter(sizes)), sizes)
        print_row(row)
        yield row


def slow_reader_row() -> Row:
    """Measure the memory of the worker before and while it sends 100 MB to a client that reads slowly."""
    samples: dict[str, list[float]] = {}
    for name, command in SERVERS.items():
        with serving([part.replace("{app}", "auto") for part in command]) as server:
            bursts.burst(server.port, "/", 10)
            before = megabytes(server)
            sizes: list[float] = []
            received = bursts.read_slowly(server.port, lambda: sizes.append(megabytes(server)))  # noqa: B023
            assert received > 100_000_000, received
            samples[f"bridge on {name}"] = [max(sizes) - before]
    row = Row("100 MB to a slow reader, memory of the process", "MB more", next(iter(samples)), samples)
    print_row(row)
    return row


def processor_time_of_a_call(adapter: ASGIToWSGI) -> float:
    """Return microseconds of both threads for a small response."""
    start = time.process_time()
    for _ in range(_HELLO_CALLS):
        for _ in adapter(http_environ(), _start_response):
            pass
    return (time.process_time() - start) / _HELLO_CALLS * 1e6


def _start_response(status: str, headers: object, exc_info: object = None, /) -> Callable[[bytes], object]:
    return len


def hello_rows(rounds: int) -> Iterator[Row]:
    names = {'bridge, detach="auto"': "hello_auto", 'bridge, detach="off"': "hello_off", "the same again": "hello_off"}
    ours = next(iter(names))
    adapters: dict[str, ASGIToWSGI] = {name: getattr(waiting_apps, attribute) for name, attribute in names.items()}
    contenders = {name: functools.partial(processor_time_of_a_call, adapter) for name, adapter in adapters.items()}
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})  # the loops' threads inherit it: on two cores, which of them matters more
    yield measure("A small response, processor time of a call", "µs", ours, contenders, 4 * rounds)
    os.sched_setaffinity(0, cores)
    if shutil.which("wrk") is not None:
        with contextlib.ExitStack() as stack:
            commands = {name: (*_GTHREAD, f"{APPS}:{attribute}") for name, attribute in names.items()}
            servers = {name: stack.enter_context(serving(command)) for name, command in commands.items()}
            contenders = {name: functools.partial(requests_a_second, server) for name, server in servers.items()}
            yield measure("A small response on gthread by wrk", "requests a second", ours, contenders, rounds)


def detach_rows(rounds: int) -> Iterator[Row]:
    bursts.raise_limit_of_descriptors()
    print(f"load {os.getloadavg()[0]:.1f}, somaxconn {Path('/proc/sys/net/core/somaxconn').read_text().strip()}")
    yield from hello_rows(rounds)
    with contextlib.ExitStack() as stack:
        yield from Sleepers(stack).rows(rounds)
    yield from stream_rows()
    yield slow_reader_row()
