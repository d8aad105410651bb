import asyncio
import contextlib
import functools
import gc
import select
import socket

import anyio
import anyio.lowlevel
import pytest

from bridge.runtime import running_loop
from bridge.runtime.beside import Readers
from tests.fakes import eventually


async def test_what_runs_beside_a_block_is_over_with_it() -> None:
    """The task is cancelled at the end of the block, which waits until the task has ended."""
    events: list[str] = []

    async def watch() -> None:
        events.append("started")
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            events.append("ended")

    async with running_loop().beside(watch):
        await eventually(lambda: events)
    assert events == ["started", "ended"]


async def test_what_beside_a_block_ends_by_itself_is_no_matter() -> None:
    """If the task ends by itself, the block goes on."""
    ended: list[None] = []

    async def watch() -> None:
        ended.append(None)

    async with running_loop().beside(watch):
        await eventually(lambda: ended)
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("exit_error", [SystemExit, KeyboardInterrupt])
def test_what_ends_the_process_beside_a_block_does_so(exit_error: type[BaseException]) -> None:
    """SystemExit and KeyboardInterrupt from the task reach whoever runs the loop."""

    async def watch() -> None:
        raise exit_error

    async def main() -> None:
        async with running_loop().beside(watch):
            await asyncio.sleep(5)

    with pytest.raises(exit_error):
        asyncio.run(main())


def test_a_block_that_is_dropped_with_its_loop_waits_for_nothing() -> None:
    """A coroutine that is being closed must not await anything, nor cancel tasks of a closed loop."""

    async def main() -> None:
        async with running_loop().beside(anyio.sleep_forever):
            await anyio.sleep_forever()

    loop = asyncio.new_event_loop()
    coroutine = main()
    task = loop.create_task(coroutine)
    loop.call_soon(loop.call_soon, loop.stop)
    loop.run_forever()
    loop.set_exception_handler(lambda loop, context: None)  # two tasks are dropped while they wait
    loop.close()
    coroutine.close()
    del task
    gc.collect()


@pytest.mark.parametrize("has_epoll", [True, False])
def test_a_function_reads_until_it_has_had_enough(has_epoll: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each socket calls its own function, and none once that has returned False or was removed."""
    if not has_epoll:
        monkeypatch.delattr(select, "epoll", raising=False)
    got: list[bytes] = []

    async def main() -> None:
        readers, ended = Readers(asyncio.get_running_loop()), asyncio.Event()
        with contextlib.ExitStack() as stack:
            pairs = [[stack.enter_context(end) for end in socket.socketpair()] for _ in range(3)]

            def read(ours: socket.socket, limit: int) -> bool:
                got.append(ours.recv(1))
                if got.count(b"c") == 2:
                    ended.set()
                return len(got) < limit

            for (ours, _), limit in zip(pairs, (1, 0, 99), strict=True):
                readers.add(ours.fileno(), functools.partial(read, ours, limit))
            readers.remove(pairs[1][0].fileno())
            readers.remove(pairs[1][0].fileno())
            for (_, theirs), data in zip(pairs, (b"aa", b"bb", b"cc"), strict=True):
                theirs.sendall(data)
            await asyncio.wait_for(ended.wait(), 5)
            readers.remove(pairs[2][0].fileno())

    asyncio.run(main())
    assert sorted(got) == [b"a", b"c", b"c"]
