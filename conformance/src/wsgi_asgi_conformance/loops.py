"""Event loops in threads of their own for the fake ASGI server, because the code under test may block or hang."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

import trio


class Loop(Protocol):
    """A loop in a daemon thread that runs until the process exits. Any thread may call its methods; none blocks."""

    def call_soon(self, function: Callable[[], object]) -> None:
        """Schedule `function` on the loop."""

    def start(self, run: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        """Start `run` as a task, and return a function that cancels the task as servers do."""


class AsyncioLoop:
    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="conformance asyncio", daemon=True).start()

    def call_soon(self, function: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(function)

    def start(self, run: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        tasks: list[asyncio.Task[None]] = []
        self.call_soon(lambda: tasks.append(self._loop.create_task(run())))
        return lambda: self.call_soon(lambda: tasks[0].cancel())


class TrioLoop:
    def __init__(self) -> None:
        started = threading.Event()
        threading.Thread(target=trio.run, args=(self._main, started), name="conformance trio", daemon=True).start()
        assert started.wait(5), "trio does not start"

    async def _main(self, started: threading.Event) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as self._nursery:
            started.set()
            await trio.sleep_forever()

    def call_soon(self, function: Callable[[], object]) -> None:
        self._token.run_sync_soon(function)

    def start(self, run: Callable[[], Awaitable[None]]) -> Callable[[], None]:
        scope = trio.CancelScope()

        async def scoped() -> None:
            with scope:
                await run()

        self.call_soon(lambda: self._nursery.start_soon(scoped))
        return lambda: self.call_soon(scope.cancel)


class Loops:
    """One loop per backend, created on first use, and again after a connection has hung on it."""

    def __init__(self) -> None:
        self._factories: dict[str, Callable[[], Loop]] = {"asyncio": AsyncioLoop, "trio": TrioLoop}
        self._loops: dict[str, Loop] = {}

    def get(self, backend: str) -> Loop:
        if backend not in self._loops:
            self._loops[backend] = self._factories[backend]()
        return self._loops[backend]

    def abandon(self, loop: Loop) -> None:
        """Abandon `loop`, because a call hangs on it."""
        self._loops = {backend: other for backend, other in self._loops.items() if other is not loop}
