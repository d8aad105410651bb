"""What the frameworks' apps share: bodies to stream, counters, and a lifespan."""

import hashlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TypedDict

import anyio

from bridge.types import Receive, Scope, Send

BLOCK = 64 * 1024

value: ContextVar[str] = ContextVar("value", default="nothing")


class Counts:
    """What this process has counted so far."""

    left = 0  # event streams that were closed before their end
    started = 0  # startups
    ticks = 0  # one every 20 ms while a lifespan runs


counts = Counts()


class State(TypedDict):
    """What a startup passes on to requests."""

    started: int
    pid: int


class Digest:
    """The length and the SHA-256 of an upload."""

    def __init__(self) -> None:
        self._size = 0
        self._sha256 = hashlib.sha256()

    def add(self, block: bytes) -> None:
        self._size += len(block)
        self._sha256.update(block)

    def result(self) -> dict[str, object]:
        return {"size": self._size, "sha256": self._sha256.hexdigest()}


def digest(content: bytes) -> dict[str, object]:
    """Return the same for an upload that has arrived whole."""
    whole = Digest()
    whole.add(content)
    return whole.result()


# --- For WSGI -------------------------------------------------------------------------------------


def download(size: int) -> Iterator[bytes]:
    for start in range(0, size, BLOCK):
        yield b"x" * min(BLOCK, size - start)


def events(count: int, pause: float) -> Iterator[bytes]:
    at_end = False
    try:
        for number in range(count):
            yield f"data: {number}\n\n".encode()
            time.sleep(pause)
        at_end = True
    finally:
        counts.left += not at_end


def fails() -> Iterator[bytes]:
    yield b"first"
    raise RuntimeError("mid")


def values() -> Iterator[bytes]:
    """Yield the context variable's value in the view, and its value when the body is iterated."""
    in_view = value.get()

    def body() -> Iterator[bytes]:
        yield in_view.encode()
        yield f" {value.get()}".encode()

    return body()


# --- For ASGI -------------------------------------------------------------------------------------


async def async_download(size: int) -> AsyncIterator[bytes]:
    for block in download(size):
        yield block


async def async_events(count: int, pause: float) -> AsyncIterator[bytes]:
    at_end = False
    try:
        for number in range(count):
            yield f"data: {number}\n\n".encode()
            await anyio.sleep(pause)
        at_end = True
    finally:
        counts.left += not at_end


async def async_fails() -> AsyncIterator[bytes]:
    yield b"first"
    raise RuntimeError("mid")


def async_values() -> AsyncIterator[bytes]:
    """Yield the context variable's value in the view, and its value when the body is iterated."""
    in_view = value.get()

    async def body() -> AsyncIterator[bytes]:
        yield in_view.encode()
        yield f" {value.get()}".encode()

    return body()


async def tick() -> None:
    while True:
        await anyio.sleep(0.02)
        counts.ticks += 1


def started() -> State:
    """Count a startup."""
    counts.started += 1
    return {"started": counts.started, "pid": os.getpid()}


def shut_down() -> None:
    """Record a shutdown in the file that the test has named."""
    if path := os.environ.get("BRIDGE_SHUTDOWN_LOG"):
        with open(path, "a") as log:
            log.write(f"shutdown {os.getpid()}\n")


@asynccontextmanager
async def lifespan() -> AsyncIterator[State]:
    """Start up, tick, and shut down."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        yield started()
        tasks.cancel_scope.cancel()
    shut_down()


async def serve_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer the lifespan protocol for a framework that leaves that to its apps."""
    await receive()
    async with lifespan() as state:
        scope["state"].update(state)
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})
