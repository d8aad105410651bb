import anyio
import anyio.lowlevel

from bridge.runtime import Change, running_loop
from tests.fakes import eventually


async def test_a_change_wakes_every_task_that_waits_for_it() -> None:
    """Each task wakes, and a task that waits again waits for the next change."""
    change = Change(running_loop().event)
    woken: list[int] = []

    async def wait(number: int) -> None:
        await change.wait()
        woken.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(wait, number)
        await anyio.wait_all_tasks_blocked()
        change.notify_all()
        await eventually(lambda: len(woken) == 3)
        tasks.start_soon(wait, 3)
        await anyio.wait_all_tasks_blocked()
        assert sorted(woken) == [0, 1, 2]
        change.notify_all()


async def test_a_cancelled_wait_for_a_change_leaves_nothing_behind() -> None:
    """Nothing piles up when an app cancels its wait for a message again and again."""
    change = Change(running_loop().event)
    for _ in range(3):
        with anyio.move_on_after(0):
            await change.wait()
    assert change._waiting == []
