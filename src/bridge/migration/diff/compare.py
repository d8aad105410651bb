"""Plays the same requests to an old app, to a new one, and to the old one again."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple

from bridge.migration.diff.exchange import Answer, Player
from bridge.migration.diff.facts import Facts, facts_of
from bridge.migration.diff.judge import Compared, judged
from bridge.migration.diff.redact import Redactor
from bridge.migration.diff.requests import Request
from bridge.migration.loading import CannotRun

# Dates in headers have a unit of one second, so two passes of one app that are this far apart show them as noise.
BETWEEN_PASSES = 1.1
_SPOOLED = 64 * 1024 * 1024


class Options(NamedTuple):
    """What counts as a difference, and how fast requests are sent."""

    ignored: frozenset[str] = frozenset()  # names of headers in lower case, and paths such as `$.items[].id`
    strict: bool = False
    rate: float | None = None  # requests a second
    between_passes: float = BETWEEN_PASSES


_DEFAULT = Options()
Progress = Callable[[str, int, int], None]


def _silent(which: str, done: int, total: int) -> None:
    """Show no progress."""


def compare(
    old: Player,
    new: Player,
    requests: Sequence[Request],
    redactor: Redactor,
    options: Options = _DEFAULT,
    progress: Progress = _silent,
) -> Iterator[Compared]:
    """Play all requests to `old`, to `new` and to `old` again; yield what differs, one request at a time.

    Raises CannotRun, with the name of the request, if there is no answer.
    """
    with Tape(redactor, options, progress) as tape:
        first = tape.record("old", old, requests)
        other = tape.record("new", new, requests)
        tape.rest(first)
        again = tape.record("old again", old, requests)
        progress("", 0, 0)
        yield from tape.compared(requests, first, other, again)


class _Kept:
    """An answer whose body is on the tape, so that 10,000 of them fit into memory."""

    def __init__(self, answer: Answer, bodies: Any) -> None:
        self._start = bodies.seek(0, 2)
        self._length = len(answer.body)
        bodies.write(answer.body)
        self._answer = answer._replace(body=b"")

    def answer(self, bodies: Any) -> Answer:
        """Return the answer with its body."""
        bodies.seek(self._start)
        return self._answer._replace(body=bodies.read(self._length))


class Pass(NamedTuple):
    """The answers of one player to all requests."""

    host: str
    answers: list[_Kept]
    ended: float  # time.monotonic()


class Tape:
    """Records the answers of several passes, and compares them. Use it in a `with` block, which drops the bodies."""

    def __init__(self, redactor: Redactor, options: Options = _DEFAULT, progress: Progress = _silent) -> None:
        self._redactor, self._options, self.progress = redactor, options, progress
        self._bodies = tempfile.SpooledTemporaryFile(max_size=_SPOOLED)  # noqa: SIM115  # __exit__ closes it

    def __enter__(self) -> "Tape":
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bodies.close()

    def record(self, which: str, player: Player, requests: Sequence[Request]) -> Pass:
        """Play the requests, one after the other. Raises CannotRun, with the name of the request."""
        answers: list[_Kept] = []
        for number, request in enumerate(requests):
            self.progress(which, number, len(requests))
            started = time.monotonic()
            try:
                answer = player.play(request)
            except CannotRun as error:
                raise CannotRun(f"{request.method} {self._redactor.target(request.target)}: {error}") from None
            answers.append(_Kept(answer, self._bodies))
            if self._options.rate:
                time.sleep(max(0.0, started + 1 / self._options.rate - time.monotonic()))
        return Pass(player.host, answers, time.monotonic())

    def rest(self, after: Pass) -> None:
        """Wait until a second pass of the same app may follow, so that dates differ in it."""
        time.sleep(max(0.0, after.ended + self._options.between_passes - time.monotonic()))

    def answer(self, of: Pass, number: int) -> Answer:
        """Return one answer of a pass."""
        return of.answers[number].answer(self._bodies)

    def compared(self, requests: Sequence[Request], old: Pass, new: Pass, again: Pass) -> Iterator[Compared]:
        """Yield what differs between `old` and `new`, but not between `old` and `again`, one request at a time."""

        def facts(number: int) -> list[Facts]:
            return [
                facts_of(requests[number], self.answer(of, number), of.host, self._options.strict, self._redactor)
                for of in (old, new, again)
            ]

        for number in range(len(requests)):
            facts(number)  # the redactor learns all secrets before anything is shown
        for number, request in enumerate(requests):
            yield judged(request, facts(number), self._redactor, self._options.ignored)
