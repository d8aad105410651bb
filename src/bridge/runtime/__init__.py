"""What both directions need of event loops, threads and the process."""

from bridge.runtime.beside import Readers, task_group_reading
from bridge.runtime.events import Change, Event
from bridge.runtime.lifetime import Lifetime
from bridge.runtime.loop import Loop, LoopClosed, running_loop, set_async_library
from bridge.runtime.threads import BackgroundThread, PerProcess, Tally, binary_semaphore, call_at_exit

__all__ = [
    "BackgroundThread",
    "Change",
    "Event",
    "Lifetime",
    "Loop",
    "LoopClosed",
    "PerProcess",
    "Readers",
    "Tally",
    "binary_semaphore",
    "call_at_exit",
    "running_loop",
    "set_async_library",
    "task_group_reading",
]
