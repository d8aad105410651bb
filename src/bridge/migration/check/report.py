"""What `bridge check` tells, for people and for machines."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from bridge.migration.check.about import About
from bridge.migration.check.run import Result
from bridge.migration.check.together import AT_ONCE
from bridge.migration.diff.report import Kind, Report
from bridge.migration.output import coloured, markdown_table

# Findings of one kind that are printed; --json has all of them.
_SHOWN = 10


class Finding(NamedTuple):
    """One thing that is wrong."""

    kind: str  # threads, spec, adapter or together
    title: str
    detail: str
    times: int
    request: str  # the first one that showed it


class CheckReport:
    """The result of a check, in sentences."""

    def __init__(self, about: About, result: Result, requests: int, left_out: dict[str, int]) -> None:
        self._about, self._result = about, result
        self._requests, self._left_out = requests, left_out
        self.findings = list(_findings(about, result))
        self.problems = sorted({*result.adapted.problems, *result.together.problems})

    def exit_code(self) -> int:
        """Return 0 if nothing was found, 1 if something was, 2 if an answer could not be compared."""
        return 1 if self.findings else 2 if self.problems else 0

    def as_text(self) -> Iterator[str]:
        """Yield the lines for a person."""
        yield self._description()
        yield ""
        yield "Its own kind of server:"
        yield f"    {self._about.own_command()}"
        yield "The other kind, with these lines in serve.py:"
        yield from (f"    {line}".rstrip() for line in self._about.other_module())
        yield f"    # {self._about.other_command()}"
        yield ""
        for finding in self.findings[:_SHOWN]:
            yield coloured(f"{finding.kind}: {finding.title}", "red")
            yield f"    {finding.detail}"
        if len(self.findings) > _SHOWN:
            yield f"… and {len(self.findings) - _SHOWN} more: --json and --markdown have them"
        if self.findings:
            yield ""
        yield from self.notes()
        yield "Not tried:"
        yield from (f"    {each}" for each in self.not_tried())
        yield ""
        yield coloured(self.verdict(), {0: "green", 1: "red", 2: "yellow"}[self.exit_code()])

    def as_markdown(self) -> Iterator[str]:
        """Yield the lines of a page."""
        yield f"## {self.verdict()}"
        yield ""
        yield self._description()
        yield ""
        if self.findings:
            rows = [["kind", "finding", "times", "first request", "detail"]]
            rows += [[each.kind, each.title, str(each.times), each.request, each.detail] for each in self.findings]
            yield from markdown_table(rows)
            yield ""
        for note in self.notes():
            yield f"- {note}"
        yield from (f"- not tried: {each}" for each in self.not_tried())
        yield ""
        yield "```python"
        yield from self._about.other_module()
        yield "```"
        yield ""
        yield "```sh"
        yield f"{self._about.own_command()}  # on its own kind of server"
        yield f"{self._about.other_command()}  # on the other kind, if serve.py has the lines above"
        yield "```"

    def as_json(self) -> dict[str, Any]:
        """Return all of it for a machine."""
        about = self._about
        return {
            "app": about.name,
            "interface": "ASGI" if about.is_asgi else "WSGI",
            "framework": about.framework,
            "version": about.version,
            "routes": None if about.rules is None else len(about.rules),
            "websocket_routes": about.websocket_routes(),
            "async_views": about.async_views(),
            "lifespan": self._result.natively.has_lifespan,
            "own_server": about.own_command(),
            "other_server": about.other_command(),
            "serve.py": about.other_module(),
            "requests": self._requests,
            "findings": [finding._asdict() for finding in self.findings],
            "notes": list(self.notes()),
            "not_tried": self.not_tried(),
            "problems": self.problems,
        }

    def verdict(self) -> str:
        """Return the result in one sentence."""
        requests = _counted(self._requests, "request")
        if self.findings:
            return f"{_counted(len(self.findings), 'finding')} in {requests}"
        if self.problems:
            return f"could not compare all of {requests}"
        return f"nothing found in {requests}, played natively, through {self._about.adapter}, and {AT_ONCE} at once"

    def notes(self) -> Iterator[str]:
        """Yield what is worth knowing, and is no finding."""
        about, result = self._about, self._result
        for problem in self.problems:
            yield f"could not compare {problem}"
        for (request, kind), seen in result.natively.raised.items():
            yield f"{request} raises {kind}{seen.in_brackets()}, without an adapter, too"
        if about.is_django_wsgi:
            yield "Django reads no request body without a Content-Length, so the adapter needs buffer_body=True"
            yield "Django's persistent connections (CONN_MAX_AGE) work in WSGIToASGI's threads, unlike under plain ASGI"
        elif about.async_views():
            yield "each call of an async def view gets an event loop of its own, unless you pass lend_loop=True"
        if result.not_found == self._requests:
            yield "every answer was a 404: name paths of the app by --path"
        noise = {name: count for report in (result.adapted, result.together) for name, count in report.noise.items()}
        if noise:
            yield f"noise, which differs between two passes of the app itself: {', '.join(list(noise)[:_SHOWN])}"
        for reason, count in self._left_out.items():
            yield f"{count:,} left out: {reason}"

    def not_tried(self) -> list[str]:
        """Return what the check cannot tell anything about."""
        tried: list[str] = []
        if self._about.rules is not None and len(self._about.rules) > self._requests:
            tried.append(f"the rest of its {len(self._about.rules)} routes: name them by --path or --requests")
        if self._requests == 1:
            tried.append("different requests at once, which show whether users get each other's data")
        tried.append("POST and other methods that may change something")
        if self._about.websocket_routes() != 0:
            tried.append("WebSockets")
        return [*tried, f"more than {AT_ONCE} requests at once", "several processes"]

    def _description(self) -> str:
        about = self._about
        made = f", {about.framework}{f' {about.version}' if about.version else ''}" if about.framework else ""
        parts = []
        if about.rules is not None:
            parts.append(_counted(len(about.rules), "route"))
        if websockets := about.websocket_routes():
            parts.append(f"{_counted(websockets, 'WebSocket route')} among them")
        if async_views := about.async_views():
            parts.append(_counted(async_views, "async def view"))
        if self._result.natively.has_lifespan is not None:
            parts.append("a lifespan" if self._result.natively.has_lifespan else "no lifespan")
        has = f", with {', '.join(parts)}" if parts else ""
        return f"{about.name} is {'an ASGI' if about.is_asgi else 'a WSGI'} app{made}{has}."


def _findings(about: About, result: Result) -> Iterator[Finding]:
    for fault, seen in result.faults.items():
        detail = "; ".join(part for part in (f"first {seen.request}", seen.where, fault.advice) if part)
        yield Finding("threads", fault.title, detail, 1, seen.request)
    spec = "ASGI" if about.is_asgi else "PEP 3333"
    for sentence, request in result.natively.breaches.items():
        yield Finding("spec", f"the app breaks {spec}", f"first {request}; {sentence}", 1, request)
    for kind in result.adapted.kinds():
        yield _finding("adapter", f"through {about.adapter}, {kind.title()}", kind, result.adapted)
    for kind in result.together.kinds():
        yield _finding("together", f"{AT_ONCE} at once, {kind.title()}", kind, result.together)
    if result.together.kinds() and result.swapped:
        title = f"{result.swapped} of {result.together.total} answers were those to another request"
        yield Finding("together", title, "data of one request gets into another, as by a global variable", 1, "")


def _finding(name: str, title: str, kind: Kind, report: Report) -> Finding:
    times = f"{kind.count:,} of {_counted(report.total, 'request')}"
    detail = f"{times}, first {kind.first}: {kind.old} → {kind.new}"
    return Finding(name, title, detail, kind.count, kind.first)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
