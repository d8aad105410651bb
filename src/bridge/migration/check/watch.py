"""What an app raises or logs while it is checked: faults of threads are told by their exceptions."""

import io
import logging
import re
import site
import sysconfig
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from wsgiref import validate

from bridge.errors import AppProtocolError
from bridge.types import ASGIApp, Environ, Receive, Scope, Send, StartResponse, WSGIApp


class Fault(NamedTuple):
    """One kind of fault: what is wrong, and what to do about it."""

    title: str
    advice: str


class Seen(NamedTuple):
    """Where something was raised first."""

    request: str  # as it may be shown
    where: str  # file and line in the app's own code, or nothing

    def in_brackets(self) -> str:
        """Return the file and the line as an addition to a sentence."""
        return f" ({self.where})" if self.where else ""


# The texts are those of CPython and asyncio; frameworks pass them on.
_FAULTS = {
    re.compile(r"SQLite objects created in a thread can only be used in that same thread"): Fault(
        "a SQLite connection is used outside of the thread that opened it",
        "open one in each thread, or in each request",
    ),
    re.compile(r"signal only works in main thread|set_wakeup_fd only works in main thread"): Fault(
        "a signal handler is installed outside of the main thread",
        "install it where the process starts, or leave signals to the server",
    ),
    re.compile(r"There is no current event loop"): Fault(
        "asyncio.get_event_loop() is called in a thread that has no event loop",
        "use asyncio.run(), or write the view as async def",
    ),
    re.compile(r"attached to a different (event )?loop|bound to a different event loop"): Fault(
        "an object of one event loop is used on another",
        "create it in the lifespan or in the request, not when the module is imported",
    ),
}
_FOREIGN = (*site.getsitepackages(), sysconfig.get_path("stdlib"), str(Path(__file__).parents[2]), "<frozen")


class Watch(logging.Handler):
    """Collects what the app raises, logs and writes to `wsgi.errors`. Any thread may use it.

    While it is installed, apps that configure no logging print nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.request = ""  # the one that is being played, as it may be shown
        self.faults: dict[Fault, Seen] = {}
        self.raised: dict[tuple[str, str], Seen] = {}  # by request and type
        self._changes = threading.Lock()

    def __enter__(self) -> "Watch":
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        logging.getLogger().removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Look at a log record: frameworks log what a view raises, and answer 500."""
        if record.exc_info and record.exc_info[1] is not None:
            self.see(record.exc_info[1])
        else:
            self._look_at(record.getMessage(), "")

    def see(self, error: BaseException, counts: bool = True) -> None:
        """Look at an exception, and at those that it was raised from; a validator's are not the app's.

        `counts` is False where apps may raise, so that only faults of threads are told.
        """
        if isinstance(error, AppProtocolError) or is_of_validator(error):
            return
        if counts:
            with self._changes:
                self.raised.setdefault((self.request, type(error).__name__), Seen(self.request, _where(error)))
        chain: BaseException | None = error
        for _ in range(20):
            if chain is None:
                break
            self._look_at(str(chain), _where(chain))
            chain = chain.__cause__ or chain.__context__

    def _look_at(self, text: str, where: str) -> None:
        for pattern, fault in _FAULTS.items():
            if pattern.search(text):
                with self._changes:
                    self.faults.setdefault(fault, Seen(self.request, where))

    def wsgi(self, app: WSGIApp) -> WSGIApp:
        """Return `app` with its exceptions and its `wsgi.errors` watched."""

        def watched(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            errors = environ["wsgi.errors"] = io.StringIO()
            try:
                blocks: Any = app(environ, start_response)
            except Exception as error:
                self.see(error)
                raise
            if isinstance(blocks, (str, bytes)):
                return blocks  # type: ignore[return-value]  # the validator tells of it
            return _Blocks(blocks, self.see, lambda: self._look_at(errors.getvalue(), ""))

        return watched

    def asgi(self, app: ASGIApp) -> ASGIApp:
        """Return `app` with its exceptions watched."""

        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await app(scope, receive, send)
            except Exception as error:
                self.see(error, counts=scope["type"] != "lifespan")
                raise

        return watched


class _Blocks:
    """The app's iterable, whose exceptions are seen."""

    def __init__(
        self, blocks: Iterable[bytes], see: Callable[[BaseException], None], at_end: Callable[[], None]
    ) -> None:
        self._blocks, self._see, self._at_end = blocks, see, at_end

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._blocks
        except Exception as error:
            self._see(error)
            raise

    def close(self) -> None:
        try:
            if hasattr(self._blocks, "close"):
                self._blocks.close()
        finally:
            self._at_end()


def is_of_validator(error: BaseException) -> bool:
    """Return whether `wsgiref.validate` has raised the error, and not the app."""
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, AssertionError) and bool(frames) and frames[-1].filename == validate.__file__


def _where(error: BaseException) -> str:
    """Return the last line of the app's own code that an exception has passed."""
    frames: list[Any] = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_FOREIGN)
    ]
    if not frames:
        return ""
    path = Path(frames[-1].filename)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{shown}, line {frames[-1].lineno}"
