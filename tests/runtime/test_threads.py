import threading
from typing import Any

from bridge.runtime import PerProcess, Tally
from tests.fakes import in_thread


def test_threads_that_ask_at_once_get_the_same() -> None:
    """If another thread has created the object meanwhile, that object counts."""
    made: list[object] = []

    def factory() -> object:
        if not made:
            made.append(object())
            made.append(per_process.get())  # as a faster thread would
            return made[0]
        return object()

    per_process = PerProcess(factory)
    assert per_process.get() is made[1]
    assert per_process.get() is made[1]


def test_a_tally_misses_nothing() -> None:
    """Threads that add at the same time do not overwrite each other's numbers."""
    tally = Tally()

    class Interrupted(dict[int, int]):
        """Lets another thread add whenever a thread has read its number but has not written it yet."""

        def get(self, key: int, default: Any = None) -> Any:
            number = super().get(key, default)
            if threading.current_thread() is threading.main_thread():
                in_thread(tally.add)
            return number

    tally._by_thread = Interrupted()
    for _ in range(10):
        tally.add()
    assert tally.total() == 20
