"""What an app's watchdog throws into a thread (PyThreadState_SetAsyncExc) may land at any bytecode."""

from collections.abc import Callable, Iterable
from typing import cast

import anyio
import pytest

from bridge import WSGIToASGI
from bridge.runtime import PerProcess
from bridge.types import Environ, StartResponse
from bridge.wsgi_to_asgi.runner import WorkerThreads
from tests.fakes import ASGIServer
from tests.interruptions import Interruption

ERRORS = [TimeoutError, RuntimeError, SystemExit]


class InterruptedWorkers:
    """Runs each job in a thread of its own, in which an exception lands."""

    limit = 1

    def __init__(self, interruption: Interruption) -> None:
        self._interruption = interruption

    def submit(self, job: Callable[[], None]) -> bool:
        self._thread = self._interruption.start(job)
        return True

    def as_worker_threads(self) -> WorkerThreads:
        return cast("WorkerThreads", self)

    def join(self) -> bool:
        self._thread.join(5)
        return not self._thread.is_alive()


def hello(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    yield b"hello"


@pytest.mark.parametrize("error_class", ERRORS)
async def test_an_exception_from_without_ends_no_request_in_silence(error_class: type[BaseException]) -> None:
    """Wherever it lands in the thread of a request, the loop hears that the thread is done."""
    step = 0
    while True:
        interruption = Interruption(step, error_class("from without"), "wsgi_to_asgi/http.py", "runtime.py")
        workers = InterruptedWorkers(interruption)
        adapter = WSGIToASGI(hello)
        adapter._workers = PerProcess(workers.as_worker_threads)
        server = ASGIServer(adapter)
        outcome: Exception | None = None
        with anyio.fail_after(5):
            try:
                await server.run()
            except Exception as error:
                outcome = error
        assert server.body == b"hello" if outcome is None else "from without" in f"{outcome!r} {outcome.__cause__!r}"
        assert workers.join()
        if not interruption.landed:
            return
        step += 1
