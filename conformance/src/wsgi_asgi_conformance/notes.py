"""How an app inside a server reports to the test outside: through files, which work across processes.

Each exchange has a name. Its notes are lines of Python literals in the file of that name. A gate is a file that the
test creates, and that the app waits for.
"""

import ast
import os
import time
from pathlib import Path
from typing import Any

import anyio

# The environment variable that names the folder to the server's processes.
FOLDER = "WSGI_ASGI_CONFORMANCE_FOLDER"
# How often an app checks for a gate, and how long it waits for one at most, in seconds.
_TICK = 0.01
_PATIENCE = 30.0


class Notes:
    """The notes of one exchange, used by the app and by the test."""

    def __init__(self, name: str, folder: Path | None = None) -> None:
        folder = Path(os.environ[FOLDER]) if folder is None else folder
        self._path = folder / f"{name}.notes"
        self._gates = folder / name

    # What the app does

    def __call__(self, key: str, value: object = None) -> None:
        """Add a note."""
        line = f"{(key, literal(value), os.getpid())!r}\n".encode()
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(file, line)  # in one write, so that the notes of several threads do not mix
        finally:
            os.close(file)

    def is_open(self, gate: str) -> bool:
        """Return whether the test has opened a gate."""
        return self._gates.with_suffix(f".{gate}").exists()

    def wait(self, gate: str) -> None:
        """Wait for a gate in a thread, without a loop."""
        end = time.monotonic() + _PATIENCE
        while not self.is_open(gate) and time.monotonic() < end:
            time.sleep(_TICK)

    async def wait_async(self, gate: str) -> None:
        """Wait for a gate on a loop of asyncio or trio."""
        with anyio.move_on_after(_PATIENCE):
            while not self.is_open(gate):
                await anyio.sleep(_TICK)

    # What the test does

    def open(self, gate: str) -> None:
        """Let an app that waits for a gate continue."""
        self._gates.with_suffix(f".{gate}").touch()

    def read(self) -> list[tuple[str, Any, int]]:
        """Return the key, value and process of each note so far; skip a last line that is incomplete."""
        if not self._path.exists():
            return []
        lines = self._path.read_text(encoding="utf-8").split("\n")[:-1]
        return [ast.literal_eval(line) for line in lines]


def literal(value: object) -> Any:
    """Return a value whose `repr` is a Python literal: an instance of any other type becomes the type's name."""
    if value is None or type(value) in (bool, int, float, bytes):
        return value if value == value and value not in (float("inf"), float("-inf")) else repr(value)
    if isinstance(value, int):
        return int(value)  # such as a member of an IntEnum
    if type(value) is str:
        return value.encode("ascii", "backslashreplace").decode() if not _is_encodable(value) else value
    if type(value) in (list, tuple):
        items = [literal(item) for item in value]  # type: ignore[attr-defined]  # it is one of the two
        return items if type(value) is list else tuple(items)
    if isinstance(value, dict):
        return {literal(key): literal(item) for key, item in value.items()}
    return f"<{type(value).__name__}>"


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
