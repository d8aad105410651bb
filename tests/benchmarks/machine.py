"""What machine a run has been on, and how fast that is: figures of two machines can only be compared beside these."""

import importlib.metadata
import os
import platform
import statistics
import threading
import time
from pathlib import Path

import bridge

_PACKAGES = ("anyio", "uvloop", "a2wsgi", "asgiref", "starlette", "flask", "fastapi", "uvicorn", "gunicorn", "granian")
_STEPS = 200_000
_HOPS = 2_000


def machine() -> str:
    """Return the processor, the system, and what a step of Python and a thread's wake-up take, in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{_processor()}, {cores} cores, {platform.system()}; a step of a loop of plain Python takes "
        f"{python_step():.0f} ns, waking a thread {wake_up():.0f} µs"
    )


def versions() -> str:
    """Return the versions of Python, of `bridge`, and of the packages that it is compared with."""
    names = [f"{platform.python_implementation()} {platform.python_version()}", f"bridge {bridge.__version__}"]
    for package in _PACKAGES:
        try:
            names.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            pass
    return ", ".join(names)


def python_step() -> float:
    """Return the nanoseconds that one step of a loop of plain Python takes: the median of five loops."""

    def loop() -> float:
        total = 0
        start = time.perf_counter()
        for number in range(_STEPS):
            total += number & 7
        return (time.perf_counter() - start) / _STEPS * 1e9

    return statistics.median(loop() for _ in range(5))


def wake_up() -> float:
    """Return the microseconds until a thread that slept on a lock runs: half of a way there and back."""
    there, back = threading.Lock(), threading.Lock()
    there.acquire()
    back.acquire()

    def answer() -> None:
        for _ in range(_HOPS):
            there.acquire()
            back.release()

    thread = threading.Thread(target=answer)
    thread.start()
    start = time.perf_counter()
    for _ in range(_HOPS):
        there.release()
        back.acquire()
    seconds = time.perf_counter() - start
    thread.join()
    return seconds / _HOPS / 2 * 1e6


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
