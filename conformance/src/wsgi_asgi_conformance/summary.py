"""The findings of a run, as text for a terminal."""

from collections.abc import Iterator

from wsgi_asgi_conformance.catalogue import TITLES, Clause
from wsgi_asgi_conformance.outputs import Run
from wsgi_asgi_conformance.verdicts import MARKS, counts

# Without -v, show only this many broken clauses, so that the summary fits on a screen.
_SHOWN = 10
_WIDTH = 118


def summary_lines(run: Run, verbosity: int = 0) -> Iterator[str]:
    """Yield each broken clause once, with its sentence and what the tests observed, then a table per direction."""
    faults = run.broken()
    shown = faults if verbosity > 0 else faults[:_SHOWN]
    for fault in shown:
        yield _cut(f"{fault.clause.id} {fault.verdict}: {fault.clause.clause}")
        for seen in fault.seen[:1]:
            yield _cut(f"    {seen}")
    if len(shown) < len(faults):
        yield f"... and {len(faults) - len(shown)} more: -v lists them all, --conformance-json FILE keeps them"
    for deviation in run.mended():
        yield f"{deviation.clause} is kept now: delete it from the file of deviations ({deviation.reason})"
    for direction in run.directions:
        yield ""
        yield f"{TITLES[direction]}: {run.adapters[direction]}"
        yield from _table(run, direction)


def _table(run: Run, direction: str) -> Iterator[str]:
    verdicts = run.verdicts()
    documents: dict[str, list[Clause]] = {}
    for clause in run.clauses:
        if direction in clause.subjects:
            documents.setdefault(clause.document, []).append(clause)
    rows = [(short(document), counts(clauses, direction, verdicts)) for document, clauses in documents.items()]
    rows.append(("all", counts(run.clauses, direction, verdicts)))
    columns = [mark for mark in MARKS if mark != "deviates" or rows[-1][1][mark]]
    yield "  ".join([f"{'':24}", *(f"{column:>11}" for column in columns)])
    for name, found in rows:
        yield "  ".join([f"{name:24}", *(f"{found[column] or '':>11}" for column in columns)])


def short(document: str) -> str:
    """Return a short name for a document."""
    name = document.partition(", to which")[0].replace("specification", "").replace("ASGI HTTP and WebSocket", "ASGI")
    name = name.partition(" (")[0] + (name.rpartition(")")[2] if "(specs/www)" in name else "")
    return " ".join(name.replace("2.5,", "").split())[:24]


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."
