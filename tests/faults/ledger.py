"""What both apps record of their runs, and what their process has open."""

import asyncio
import os
import threading
import zlib
from pathlib import Path
from typing import TypedDict

NUMBERS = 1 << 20
BLOCK_SIZE = 64 * 1024
# How many seconds an app waits for what never comes; a run that ends sooner was ended from outside.
PATIENCE = 30.0


class Status(TypedDict):
    """What a process has open now; `produced` counts the blocks of downloads, `running` the app's runs."""

    pid: int
    memory: int
    threads: int
    tasks: int
    descriptors: int
    running: int
    produced: int


class Ledger:
    """How often each request number, except 0, was run, and how many runs are under way. Safe in any thread."""

    def __init__(self) -> None:
        self.runs = bytearray(NUMBERS)  # of a fixed size, so that it does not look like a leak
        self.produced = 0
        self._running = 0
        self._lock = threading.Lock()

    def begin(self, number: int) -> None:
        with self._lock:
            if number:
                self.runs[number] = min(255, self.runs[number] + 1)
            self._running += 1

    def end(self) -> None:
        with self._lock:
            self._running -= 1

    def block(self, number: int) -> bytes:
        """Return the next block of a download, which differs from those of all other numbers."""
        with self._lock:
            self.produced += 1
        return block_of(number)

    def packed_runs(self) -> bytes:
        """Return `runs`, one byte per number, compressed."""
        return zlib.compress(bytes(self.runs))

    def status(self) -> Status:
        """Return the status of the process. Runs on the loop."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return {
            "pid": os.getpid(),
            "memory": pages * os.sysconf("SC_PAGE_SIZE"),
            "threads": len(os.listdir("/proc/self/task")),
            "tasks": len(asyncio.all_tasks()),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "running": self._running,
            "produced": self.produced,
        }


def block_of(number: int) -> bytes:
    return b"%08d" % number * (BLOCK_SIZE // 8)


def number_from_header(value: str | None) -> int:
    """Return the number of a request, or 0 if it has none."""
    return int(value) if value and value.isascii() and value.isdigit() and len(value) < 7 else 0
