"""Exceptions that are thrown into a thread from without, at a bytecode of one's choice.

That is what an app's watchdog does by PyThreadState_SetAsyncExc, but for the choice.
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
    """Throws `error` once, at bytecode `step` of what runs in `files` of `bridge`.

    `landed` tells whether it has, `place` in which function and at which of its bytecodes, and `ended` whether that
    ended what ran.
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
        """Call `function` in the current thread, and throw on the way; it may let the exception through."""
        before = sys.gettrace()
        gc.disable()  # Python 3.11's would free what traces a frame, and crash
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
    """Call `function` without an interruption: Python 3.13.0 traces none of the first call after an error."""
    with contextlib.suppress(Exception):
        Interruption(sys.maxsize, RuntimeError(), *files).run(function)


def _can_land(opcode: str) -> bool:
    """Return whether the interpreter is ready for an exception at that point.

    It has no handler for one where a `try` begins, which is no operation, and on the way into a call Python 3.11 would
    keep the names of the arguments. Nothing lands there.
    """
    return opcode != "NOP" and "CALL" not in opcode
