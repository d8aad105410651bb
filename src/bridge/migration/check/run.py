"""The passes of `bridge check`: natively, through the adapter, and eight at once."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from bridge.asgi_to_wsgi.adapter import ASGIToWSGI
from bridge.errors import StartupFailed
from bridge.migration.check.about import About
from bridge.migration.check.process import Natively, NativeProcess
from bridge.migration.check.together import AT_ONCE, Together, enough
from bridge.migration.check.watch import Fault, Seen, Watch
from bridge.migration.diff.accepted import Accepted
from bridge.migration.diff.compare import Options, Pass, Progress, Tape
from bridge.migration.diff.exchange import Player
from bridge.migration.diff.in_process import ASGIPlayer, WSGIPlayer
from bridge.migration.diff.redact import Redactor
from bridge.migration.diff.report import Report
from bridge.migration.diff.requests import Request
from bridge.migration.loading import CannotRun
from bridge.wsgi_to_asgi.adapter import WSGIToASGI


class Result(NamedTuple):
    """What the passes have shown."""

    natively: Natively
    faults: dict[Fault, Seen]  # of threads, wherever they were seen first
    adapted: Report  # natively / through the adapter
    together: Report  # one at a time / eight at once
    swapped: int  # answers that were those to another request
    not_found: int  # requests whose answer is a 404


def check_app(
    app: Any,
    about: About,
    requests: Sequence[Request],
    timeout: float,
    redactor: Redactor,
    options: Options,
    progress: Progress,
) -> Result:
    """Play the requests natively in a new process, and through the adapter in this one.

    Raises CannotRun if an answer is late, if the app does not start, or if it answers each request by an error.
    """
    names = [f"{request.method} {redactor.target(request.target)}" for request in requests]
    watch = Watch()
    with Tape(redactor, options, progress) as tape:
        with contextlib.closing(NativeProcess(about.name, timeout)) as native:
            tape.progress = _telling(progress, names, native)
            first = tape.record("natively", native, requests)
            natively = native.result()
        _check_answers(tape, first, natively)
        tape.rest(first)
        # In another process, so that what belongs to a process, such as its number, counts as noise.
        with contextlib.closing(NativeProcess(about.name, timeout)) as native:
            tape.progress = _telling(progress, names, native)
            again = tape.record("natively again", native, requests)
            native.result()
        tape.progress = _telling(progress, names, watch)
        many = enough(requests)
        with (
            watch,
            _adapted(app, about, timeout, watch) as player,
            contextlib.closing(Together(player, many)) as together,
        ):
            alone = tape.record(f"through {about.adapter}", player, many)
            at_once = tape.record(f"{AT_ONCE} at once", together, many)
            tape.rest(alone)
            alone_again = tape.record(f"through {about.adapter} again", player, many)
        progress("", 0, 0)
        adapted, mixed = (Report(about.name, about.name, {}, Accepted()) for _ in range(2))
        for compared in tape.compared(requests, first, alone, again):
            adapted.add(compared)
        for compared in tape.compared(many, alone, at_once, alone_again):
            mixed.add(compared)
        not_found = sum(tape.answer(first, number).status == 404 for number in range(len(requests)))
        swapped = _swapped(tape, alone, at_once)
    return Result(natively, {**natively.faults, **watch.faults}, adapted, mixed, swapped, not_found)


def _telling(progress: Progress, names: Sequence[str], player: NativeProcess | Watch) -> Progress:
    """Return a `progress` that also tells `player` which request is played."""

    def telling(which: str, done: int, total: int) -> None:
        player.request = names[done % len(names)]
        progress(which, done, total)

    return telling


@contextlib.contextmanager
def _adapted(app: Any, about: About, timeout: float, watch: Watch) -> Iterator[Player]:
    name = f"{about.name} in {about.adapter}"
    if about.is_asgi:
        with _starting(ASGIToWSGI(watch.asgi(app)), about.name) as adapter:
            yield WSGIPlayer(adapter, name, timeout)
    else:
        player = ASGIPlayer(WSGIToASGI(watch.wsgi(app), buffer_body=about.is_django_wsgi), name, timeout)
        with contextlib.closing(player):
            yield player


@contextlib.contextmanager
def _starting(adapter: ASGIToWSGI, name: str) -> Iterator[ASGIToWSGI]:
    try:
        adapter.start()
    except StartupFailed:
        raise CannotRun(f"the startup of {name} failed in ASGIToWSGI, and not natively") from None
    with contextlib.closing(adapter):
        yield adapter


def _check_answers(tape: Tape, first: Pass, natively: Natively) -> None:
    """Raise CannotRun if each answer is an error that tells nothing, because it would be the same in all passes."""
    statuses = [tape.answer(first, number).status for number in range(len(first.answers))]
    if min(statuses) < 500 or natively.breaches or natively.faults:
        return
    causes = [f"{request} raises {kind}{seen.in_brackets()}" for (request, kind), seen in natively.raised.items()]
    raise CannotRun(
        "the app answers each request with an error, even without an adapter, so there is nothing to compare. "
        f"{causes[0] if causes else f'The first status is {statuses[0]}'}. Does the app have its settings and data?"
    )


def _swapped(tape: Tape, alone: Pass, at_once: Pass) -> int:
    """Return how many answers, of those played at once, are the answer to another request instead of the own."""
    own = [tape.answer(alone, number) for number in range(len(alone.answers))]
    known = {(answer.status, answer.body) for answer in own}
    count = 0
    for number, answer in enumerate(own):
        mixed = tape.answer(at_once, number)
        count += mixed.body != answer.body and (mixed.status, mixed.body) in known
    return count
