import asyncio
import gc

import anyio
import anyio.lowlevel
import pytest

from bridge.runtime import running_loop
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
