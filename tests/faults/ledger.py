"""What both apps note of their runs, and what their process has open."""

import asyncio
import os
import threading
import zlib
from pathlib import Path
from typing import TypedDict

NUMBERS = 1 << 20
BLOCK_SIZE = 64 * 1024
# How long an app waits for what does not come, in seconds; whatever ends sooner was ended by somebody.
PATIENCE = 30.0


class Status(TypedDict):
    """What a process has open at a moment; `produced` counts the blocks of downloads, `running` the app's runs."""

    pid: int
    memory: int
    threads: int
    tasks: int
    descriptors: int
    running: int
    produced: int


class Ledger:
    """How often each number but 0 was run, and how many runs are under way. Any thread may call its methods."""

    def __init__(self) -> None:
        self.runs = bytearray(NUMBERS)  # of one size for ever, so that it is no leak itself
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
        """Return the next block of a download, which no other number's is like."""
        with self._lock:
            self.produced += 1
        return block_of(number)

    def packed_runs(self) -> bytes:
        """Return `runs`, one byte a number, compressed."""
        return zlib.compress(bytes(self.runs))

    def status(self) -> Status:
        """Look around; on the loop."""
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
    """Return the number of a request, 0 for one that has none."""
    return int(value) if value and value.isascii() and value.isdigit() and len(value) < 7 else 0
