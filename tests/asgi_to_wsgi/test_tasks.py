import asyncio
import contextvars

from bridge.asgi_to_wsgi.tasks import AsyncioTasks
from bridge.errors import AdapterClosed


class Waiting:
    """A job that waits for ever, and notes what fails it."""

    begin = None

    def __init__(self) -> None:
        self.context = contextvars.Context()
        self.errors: list[BaseException] = []

    async def run(self) -> None:
        await asyncio.Event().wait()

    def stop(self) -> None: ...

    def fail(self, error: BaseException) -> None:
        self.errors.append(error)


async def fail_of_a_job_that_is_cancelled_at_once() -> list[BaseException]:
    job = Waiting()
    async with AsyncioTasks("asyncio") as tasks:
        tasks.waiting.append(job)
        tasks.spawn_waiting()
        tasks.running[job].cancel()  # its coroutine never runs
        await asyncio.wait_for(tasks.drain(), 5)
        assert not tasks.running
    return job.errors


def test_a_job_that_is_cancelled_before_its_first_step_ends() -> None:
    """An app may cancel any task of its loop; the WSGI thread's wait ends at the latest with the loop."""
    errors = asyncio.run(fail_of_a_job_that_is_cancelled_at_once())
    assert [type(error) for error in errors] == [AdapterClosed]
