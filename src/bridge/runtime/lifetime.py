"""Objects that are started and closed."""

from types import TracebackType
from typing import Self


class Lifetime:
    """A context manager that calls `start()` and `close()`, which its subclasses define."""

    def start(self) -> None:
        """Start, unless already started."""
        raise NotImplementedError

    def close(self, *, wait: bool = True) -> None:
        """End what runs; with `wait`, return once that is done."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
