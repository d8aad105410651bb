"""`Loop`: the event loop as threads see it."""

import asyncio
import contextvars
import gc
import os
import select
import threading
import weakref
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import uvloop

from bridge.runtime import Loop, LoopClosed, running_loop
from tests.fakes import eventually


def test_a_call_that_a_signal_interrupts_does_not_silence_the_next() -> None:
    """If a signal handler raises while a thread is about to wake the loop, the next call wakes it."""
    interrupts: list[Exception] = [ZeroDivisionError()]
    woken: list[Callable[[], None]] = []
    calls: list[int] = []

    def call_soon(function: Callable[[], None]) -> None:
        if interrupts:
            raise interrupts.pop()
        woken.append(function)

    loop = Loop(object(), anyio.Event, call_soon, lambda: False)
    with pytest.raises(ZeroDivisionError):
        loop.call_soon(calls.append, 1)
    loop.call_soon(calls.append, 2)
    woken.pop()()
    assert calls == [1, 2]


def test_a_wake_up_that_is_interrupted_reaches_the_loop() -> None:
    """A wake-up that an exception interrupts still happens, because another thread may rely on it."""
    woken: list[Callable[[], None]] = []
    calls: list[int] = []

    def call_soon(function: Callable[[], None]) -> None:
        woken.append(function)
        if len(woken) == 1:
            woken.clear()  # interrupted before it does anything
            loop.call_soon(calls.append, 2)  # as from another thread
            woken.append(lambda: None)
            raise ZeroDivisionError

    loop = Loop(object(), anyio.Event, call_soon, lambda: False)
    with pytest.raises(ZeroDivisionError):
        loop.call_soon(calls.append, 1)
    for wake in woken:
        wake()
    assert calls == [1, 2]


def test_an_error_from_without_does_not_pass_for_the_end_of_the_loop() -> None:
    """A RuntimeError that a watchdog throws into the thread that wakes the loop does not mean that it is closed."""

    def call_soon(function: Callable[[], None]) -> None:
        raise RuntimeError("from without")

    loop = Loop(object(), anyio.Event, call_soon, lambda: False)
    with pytest.raises(RuntimeError, match="from without") as caught:
        loop.call_soon(print)
    assert not isinstance(caught.value, LoopClosed)


def test_a_call_that_raises_does_not_hold_up_those_behind_it() -> None:
    """The calls after it are made without another wake-up, and the loop's exception handler gets the error."""
    native = asyncio.SelectorEventLoop()
    errors: list[BaseException] = []
    native.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    loop = Loop(native, anyio.Event, native.call_soon_threadsafe, native.is_closed)
    made: asyncio.Future[int] = native.create_future()
    loop.call_soon(int, "no number")
    loop.call_soon(made.set_result, 1)
    assert native.run_until_complete(asyncio.wait_for(made, 5)) == 1
    assert [type(error) for error in errors] == [ValueError]
    native.close()


def test_a_finalizer_that_runs_late_finds_the_loop_ended() -> None:
    """In a cycle, the loop may be finalized before a response, which then calls the loop to report its end."""
    native = asyncio.SelectorEventLoop()
    loop = Loop(native, anyio.Event, native.call_soon_threadsafe, native.is_closed)
    native.close()
    loop.__del__()
    with pytest.raises(RuntimeError):
        loop.call_soon(print)


@pytest.mark.skipif(not hasattr(os, "eventfd"), reason="the loop wakes itself on this system")
def test_a_loop_that_has_made_its_calls_sleeps() -> None:
    """Nothing is left on the eventfd that would wake the loop again and again."""

    async def main() -> list[Any]:
        loop = running_loop()
        called = asyncio.Event()
        loop.call_soon(called.set)
        await called.wait()
        return select.select([loop._fd], [], [], 0)[0]

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        assert runner.run(main()) == []


@pytest.mark.parametrize("use_uvloop", [False, True])
def test_a_loop_is_the_same_one_each_time(use_uvloop: bool) -> None:
    """Each asyncio loop has one `Loop`, so that calls from many threads share one wake-up."""

    async def main() -> Loop:
        assert running_loop() is running_loop()
        return running_loop()

    native = uvloop.new_event_loop() if use_uvloop else asyncio.SelectorEventLoop()
    loops: list[Loop] = []
    for _ in range(3):
        thread = threading.Thread(target=lambda: loops.append(native.run_until_complete(main())))
        thread.start()
        thread.join()
    native.close()
    assert len(loops) == 3
    assert len(set(map(id, loops))) == 1


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
def test_a_loop_goes_with_its_own(closed: bool) -> None:
    """Only the asyncio loop refers to its `Loop`, which closes the eventfd when it is freed."""

    async def main() -> weakref.ref[Loop]:
        return weakref.ref(running_loop())

    native = asyncio.SelectorEventLoop()
    reference = native.run_until_complete(main())
    if closed:
        native.close()
    del native
    gc.collect()
    assert reference() is None


def test_a_call_to_a_closed_loop_is_not_kept() -> None:
    """The call is dropped, because it refers to a request."""

    class Token:
        def call(self) -> None: ...

    async def main() -> Loop:
        return running_loop()

    native = asyncio.SelectorEventLoop()
    loop = native.run_until_complete(main())
    native.close()
    token = Token()
    reference = weakref.ref(token)
    with pytest.raises(RuntimeError):
        loop.call_soon(token.call)
    del token
    gc.collect()
    assert reference() is None


def test_a_wake_up_that_came_to_nothing_is_no_error() -> None:
    """A nested run of the loop may already have made the calls."""
    native = asyncio.SelectorEventLoop()
    errors: list[dict[str, Any]] = []
    native.set_exception_handler(lambda _, context: errors.append(context))

    async def main() -> None:
        loop = running_loop()
        calls: list[int] = []
        loop.call_soon(calls.append, 1)
        native.call_soon(loop._run)
        await eventually(lambda: calls == [1])
        loop.call_soon(calls.append, 2)
        await eventually(lambda: calls == [1, 2])

    native.run_until_complete(main())
    native.close()
    assert errors == []


async def test_calls_that_wait_together_are_made_in_order() -> None:
    """Calls that arrive while the loop is busy are made together, in their order."""
    loop = running_loop()
    calls: list[int] = []

    def call() -> None:
        for number in range(100):
            loop.call_soon(calls.append, number)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert calls == []
    await eventually(lambda: len(calls) == 100)
    assert calls == list(range(100))


@pytest.mark.parametrize("backend", ["asyncio", "uvloop", "trio"])
@pytest.mark.parametrize("pending", [False, True])
def test_a_call_to_a_loop_that_is_closed_is_an_error(backend: str, pending: bool) -> None:
    """The call raises LoopClosed, even if an earlier call was accepted but never made."""

    async def main() -> Loop:
        loop = running_loop()
        if pending:
            await anyio.lowlevel.checkpoint()
            loop.call_soon(print)
        return loop

    options = {"use_uvloop": True} if backend == "uvloop" else {}
    loop = anyio.run(main, backend=backend.replace("uvloop", "asyncio"), backend_options=options)
    with pytest.raises(LoopClosed):
        loop.call_soon(print)


async def test_the_first_request_s_context_is_not_kept() -> None:
    """The callback that wakes the loop lives as long as the loop, so it must not hold a request's context."""

    class Token:
        pass

    variable: contextvars.ContextVar[Token] = contextvars.ContextVar("token")
    seen: list[bool] = []
    context = contextvars.copy_context()
    context.run(variable.set, Token())
    loop = context.run(running_loop)
    loop.call_soon(lambda: seen.append(variable in contextvars.copy_context()))
    await eventually(lambda: seen != [])
    assert seen == [False]
