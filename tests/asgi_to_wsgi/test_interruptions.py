"""What an app's watchdog throws into a thread (PyThreadState_SetAsyncExc) may land at any bytecode."""

import threading
import weakref

import pytest

from bridge.sansio.native_text import native_from_text
from bridge.types import Receive, Scope, Send
from tests.asgi_to_wsgi.apps import Adapt
from tests.fakes import WSGIServer, http_environ
from tests.interruptions import Interruption, warm_up
from tests.processes import wait_until
from tests.references import is_freed

FILES = [f"asgi_to_wsgi/{name}.py" for name in ("adapter", "loop")]
FILES += [f"asgi_to_wsgi/http/{name}.py" for name in ("body", "call", "exchange", "serve", "streams")]
FILES += ["runtime/loop.py", "runtime/threads.py"]


@pytest.mark.filterwarnings("ignore:.*Blocks.close:pytest.PytestUnraisableExceptionWarning")  # it lands there, too
@pytest.mark.parametrize("error_class", [TimeoutError, RuntimeError, SystemExit])
def test_an_exception_from_without_leaves_no_app_behind(adapt: Adapt, error_class: type[BaseException]) -> None:
    """Wherever it lands in the request's thread, the app is told that its client has left."""
    running: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        running.append(scope["path"])
        try:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"hello", "more_body": True})
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            running.remove(scope["path"])

    def serve(step: int) -> None:
        server = WSGIServer(adapter, http_environ("POST", f"/{step}", b"body"))
        try:
            next(server.call())
        finally:
            server.close()

    adapter = adapt(app)
    adapter.start()
    step = 0
    landed = True
    while landed:
        interruption = Interruption(step, error_class("from without"), *FILES)

        def run(step: int = step) -> None:
            serve(step)

        interruption.run(run)
        landed = interruption.landed
        step += 1
        if step % 50 == 0 or not landed:
            wait_until(lambda: not running, 5, f"{running} to end, of {step}")


def test_what_an_exception_from_without_ended_is_freed_at_once() -> None:
    """Its frames may hold sockets, whose warnings would otherwise fail whichever test collects the garbage."""
    references: list[weakref.ref[threading.Event]] = []

    def run() -> None:
        opened = threading.Event()
        references.append(weakref.ref(opened))
        native_from_text("text")

    warm_up(lambda: native_from_text("text"), "sansio/native_text.py")
    interruption = Interruption(0, TimeoutError("from without"), "sansio/native_text.py")
    interruption.run(run)
    assert interruption.ended
    assert is_freed(references[0])
