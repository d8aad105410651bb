"""Exceptions from outside that land in a thread at a chosen bytecode.

An app's watchdog throws such exceptions by PyThreadState_SetAsyncExc, but cannot choose where they land.
"""

import contextlib
import dis
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import bridge

SOURCE = Path(bridge.__file__).parent


class Interruption:
    """Throws `error` once, at bytecode number `step` of those that run in `files` of `bridge`.

    `landed` tells whether it was thrown, `place` in which function and at which bytecode of it, and `ended` whether it
    left the function that `run` called.
    """

    def __init__(self, step: int, error: BaseException, *files: str) -> None:
        self.landed = False
        self.place = ("", 0)
        self.ended = False
        self._left = step
        self.error = error
        assert all((SOURCE / file).is_file() for file in files)
        self._files = {str(SOURCE / file) for file in files}

    def run(self, function: Callable[[], object]) -> None:
        """Call `function` in the current thread, and throw the error into it; it may raise or catch the error."""
        before = sys.gettrace()
        gc.disable()  # Python 3.11's collector could free an object that traces a frame, and crash
        sys.settrace(self._trace)
        try:
            function()
        except type(self.error) as error:
            if error is not self.error:
                raise
            self.ended = True
            # A server drops the traceback, too, once it has logged it. Otherwise its frames, and the sockets in them,
            # would be garbage in a cycle, whose warnings would fail a later test.
            error.__traceback__ = None
        finally:
            sys.settrace(before)
            gc.enable()

    def _trace(self, frame: FrameType, _: str, __: object) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        return self._trace_opcode

    def _trace_opcode(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "opcode" and not self.landed and _can_land(dis.opname[frame.f_code.co_code[frame.f_lasti]]):
            self._left -= 1
            if self._left < 0:
                self.landed = True
                self.place = (frame.f_code.co_qualname, frame.f_lasti)
                raise self.error
        return self._trace_opcode


def warm_up(function: Callable[[], object], *files: str) -> None:
    """Call `function` without an interruption, because Python 3.13.0 does not trace the first call after an error."""
    with contextlib.suppress(Exception):
        Interruption(sys.maxsize, RuntimeError(), *files).run(function)


def _can_land(opcode: str) -> bool:
    """Return whether an exception may land at that bytecode.

    At the NOP where a `try` begins, its handler does not apply yet. On the way into a call, Python 3.11 would leave the
    names of the arguments behind. Real exceptions land at neither.
    """
    return opcode != "NOP" and "CALL" not in opcode
