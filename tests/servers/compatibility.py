"""Run every framework's app on every server that is installed, and write `docs/compatibility.md`.

    python -m tests.servers.compatibility
    python -m tests.servers.compatibility --frameworks flask django --servers daphne  # a part, merged with the rest

If a check fails behind an adapter, it is repeated without one: the same app on a server of its own kind, and an
app of the server's own kind on the same server. The exit code is 1 if a check fails only behind an adapter, or
if `shortcomings.py` lists one that passes natively.
"""

import argparse
import json
import platform
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from threading import Lock

from tests.processes import ROOT
from tests.servers.checks import ALL, NATIVE_FRAMEWORK, checks_of, maybe_failure
from tests.servers.frameworks import FRAMEWORKS, maybe_version
from tests.servers.pairs import ASGI_SERVERS, WSGI_SERVERS, maybe_missing, servers_of, serving_pair
from tests.servers.shortcomings import Shortcoming, maybe_known

DOCUMENT = ROOT / "docs" / "compatibility.md"
RESULTS = Path(__file__).parent / "compatibility.json"

Failures = dict[str, str]  # check -> what went wrong; natively also "", if nothing did
ByPair = dict[str, dict[str, Failures]]  # framework -> server -> failures

# The servers on which an app is measured natively: WSGI's, and ASGI's.
NATIVE_SERVER = {False: "gunicorn-gthread", True: "uvicorn-h11-asyncio"}

# The packages of servers that have another name, and Debian's packages.
DISTRIBUTIONS = {
    "gevent-pywsgi": "gevent",
    "mod_wsgi-own-gil": "mod_wsgi",
    "mod_wsgi-package": "mod_wsgi",
    "peregrine": "peregrine-server",
    "peregrine-wsgi": "peregrine-server",
}
PACKAGES = {"mod_wsgi": "libapache2-mod-wsgi-py3", "passenger": "libapache2-mod-passenger"}


# --- Measuring ------------------------------------------------------------------------------------


def measure(name: str, server: str, native: bool, only: set[str] | None = None) -> Failures:
    """Run all checks, or the named ones, for an app on a server. If the server does not start, all of them fail."""
    checks = [check for check in checks_of(name, native) if only is None or check.__name__ in only]
    try:
        with serving_pair(name, server, native) as served:
            return {check.__name__: maybe_failure(check, served) or "" for check in checks}
    except AssertionError as error:
        return dict.fromkeys((check.__name__ for check in checks), f"it does not start: {str(error)[-200:]}")


def natives_of(framework: str, server: str) -> list[tuple[str, str]]:
    """Return the pairs to measure natively for a failure behind an adapter: one for the app, one for the server."""
    asgi = FRAMEWORKS[framework].asgi
    return [(framework, NATIVE_SERVER[asgi]), (NATIVE_FRAMEWORK[not asgi], server)]


def run(pairs: list[tuple[str, str]], jobs: int, results: "Results") -> None:
    """Run the checks on the pairs, and repeat failed ones natively."""
    with ThreadPoolExecutor(jobs) as pool:

        def adapted(pair: tuple[str, str]) -> None:
            failures = {check: failure for check, failure in measure(*pair, native=False).items() if failure}
            results.add(results.adapted, pair, failures)
            print(*pair, *(failures or ["ok"]), flush=True)

        def native(pair: tuple[str, str]) -> None:
            results.add(results.native, pair, measure(*pair, native=True, only=wanted[pair]))

        list(pool.map(adapted, pairs))
        wanted: dict[tuple[str, str], set[str]] = defaultdict(set)
        for framework, server in pairs:
            for pair in natives_of(framework, server):
                taken = {check.__name__ for check in checks_of(pair[0], native=True)}
                wanted[pair] |= taken & set(results.adapted[framework][server])
        list(pool.map(native, [pair for pair, checks in wanted.items() if checks]))


class Results:
    """The results, in a file. A run of some pairs leaves the results of the others as they were."""

    def __init__(self) -> None:
        stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"adapted": {}, "native": {}}
        self.adapted: ByPair = stored["adapted"]
        self.native: ByPair = stored["native"]
        self._lock = Lock()

    def add(self, to: ByPair, pair: tuple[str, str], failures: Failures) -> None:
        framework, server = pair
        with self._lock:
            kept = to.setdefault(framework, {})
            kept[server] = {**kept.get(server, {}), **failures} if to is self.native else failures
            stored = {"adapted": self.adapted, "native": self.native}
            RESULTS.write_text(json.dumps(stored, indent=1, sort_keys=True, ensure_ascii=False) + "\n")

    def natively(self, framework: str, server: str, check: str) -> list[tuple[str, str, str]]:
        """Return the results of the check without an adapter, as far as it was run."""
        return [
            (app, host, self.native[app][host][check])
            for app, host in natives_of(framework, server)
            if check in self.native.get(app, {}).get(host, {})
        ]


# --- Writing --------------------------------------------------------------------------------------


class Notes:
    """The numbered notes below the tables: one for each listed shortcoming, and for each other failure."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self._failures: dict[Shortcoming | tuple[str, str], list[tuple[str, str, str]]] = {}
        self.wrong: list[str] = []

    def number(self, framework: str, server: str, check: str) -> int:
        """Return the number of the note for a failure."""
        failure = (framework, server, check)
        message = self._results.adapted[framework][server][check]
        known = maybe_known(*failure)
        key = known or (check, message)
        self._failures.setdefault(key, []).append(failure)
        if known is None or (known.native and not self.native(*failure)):
            told = "fails natively, but is not listed" if self.native(*failure) else "does not fail natively"
            self.wrong.append(f"{framework} on {server}: {check} {told}: {message}")
        return list(self._failures).index(key) + 1

    def native(self, framework: str, server: str, check: str) -> bool:
        """Return whether the check fails without an adapter, too, at least sometimes."""
        known = maybe_known(framework, server, check)
        measured = any(message for _, _, message in self._results.natively(framework, server, check))
        return measured or (known is not None and known.native and known.sometimes)

    def lines(self) -> Iterator[str]:
        """Return the reason of a failure and its results: behind the adapter, and natively if it fails there, too."""
        for number, (key, failures) in enumerate(self._failures.items(), 1):
            framework, server, check = failures[0]
            known = "This fails natively, too." if self.native(*failures[0]) else "This does not fail natively."
            why = key.why if isinstance(key, Shortcoming) else known
            message = self._results.adapted[framework][server][check]
            native = [found for failure in failures for found in self._results.natively(*failure)]
            native.sort(key=lambda found: not found[2])
            evidence = [f"{FRAMEWORKS[framework].title} behind the adapter on {server}: {_quoted(message)}"]
            evidence += [
                f"{FRAMEWORKS[app].title} natively on {host}: {_quoted(text)}" for app, host, text in native[:1]
            ]
            yield f"{number}. `{check}`: {why} {'; '.join(evidence)}."


def _quoted(failure: str) -> str:
    return f"“{' '.join(failure.split())[:160]}”" if failure else "no failure"


def table(servers: tuple[str, ...], frameworks: list[str], results: Results, notes: Notes) -> list[str]:
    """Return a table of the pairs, with a dash for those that were not run."""

    def cell(framework: str, server: str) -> str:
        failures = results.adapted.get(framework, {}).get(server)
        if failures is None:
            return "-"
        numbers = sorted({notes.number(framework, server, check) for check in failures})
        sign = "✓" if all(notes.native(framework, server, check) for check in failures) else "✗"
        return f"{sign} <sup>{', '.join(map(str, numbers))}</sup>" if numbers else sign

    lines = [f"| | {' | '.join(FRAMEWORKS[name].title for name in frameworks)} |", "|---" * (len(frameworks) + 1) + "|"]
    run = [server for server in servers if any(server in results.adapted.get(name, {}) for name in frameworks)]
    return lines + [f"| {server} | {' | '.join(cell(name, server) for name in frameworks)} |" for server in run]


def versions() -> str:
    """Return the installed versions, in one line."""
    names = {framework.distribution: maybe_version(framework.distribution) for framework in FRAMEWORKS.values()}
    for server in (*ASGI_SERVERS, *WSGI_SERVERS):
        if server in PACKAGES:
            query = ["dpkg-query", "-W", "-f", "${Version}", PACKAGES[server]]
            if maybe_missing(server) is None:
                names[PACKAGES[server]] = subprocess.run(query, capture_output=True, text=True, check=False).stdout
        else:
            distribution = DISTRIBUTIONS.get(server, server.partition("-")[0])
            names[distribution] = maybe_version(distribution)
    return ", ".join(f"{name} {version}" for name, version in sorted(names.items()) if version)


def document(results: Results) -> tuple[str, list[str]]:
    """Return the document, and what is wrong with the results."""
    notes = Notes(results)
    wsgi = [name for name, framework in FRAMEWORKS.items() if not framework.asgi]
    asgi = [name for name, framework in FRAMEWORKS.items() if framework.asgi]
    tables = [
        "## WSGI apps behind ASGI servers, by `WSGIToASGI`",
        "",
        *table(ASGI_SERVERS, wsgi, results, notes),
        "",
        "## ASGI apps behind WSGI servers, by `ASGIToWSGI`",
        "",
        *table(WSGI_SERVERS, asgi, results, notes),
    ]
    lines = [
        "# Compatibility",
        "",
        "`python -m tests.servers.compatibility` measured and wrote this page: it starts each framework's app on each",
        "server, as a process, and sends requests over the loopback interface. ✓ means that every check that passes",
        "without the adapter also passes with it; ✗ means that some check passes only without it. The small numbers",
        "refer to the notes on checks that do not pass. A pair with a - was not run.",
        "",
        *tables,
        "",
        "## Notes",
        "",
        *(list(notes.lines()) or ["None: all checks pass."]),
        "",
        "## The checks",
        "",
        *(f"- `{check.__name__}`: {(check.__doc__ or '').strip()}" for check in ALL),
        "",
        f"Last run on {date.today().isoformat()} with Python {platform.python_version()}: {versions()}.",
    ]
    return "\n".join(lines) + "\n", [*notes.wrong, *passed_though_listed(results)]


def passed_though_listed(results: Results) -> Iterator[str]:
    """Return the listed shortcomings whose checks now pass."""
    for framework, by_server in results.adapted.items():
        for server, failures in by_server.items():
            for check in checks_of(framework):
                known = maybe_known(framework, server, check.__name__)
                if known is not None and not known.sometimes and check.__name__ not in failures:
                    yield f"{framework} on {server}: {check.__name__} passes, though it is listed"


def main() -> int:
    parser = argparse.ArgumentParser(description="measure frameworks on servers, and write docs/compatibility.md")
    parser.add_argument("--frameworks", nargs="*", default=list(FRAMEWORKS), choices=list(FRAMEWORKS))
    servers = [*ASGI_SERVERS, *WSGI_SERVERS]
    parser.add_argument("--servers", nargs="*", default=servers, choices=servers)
    parser.add_argument("--jobs", type=int, default=2, help="how many servers run at once")
    arguments = parser.parse_args()
    pairs = []
    for name in arguments.frameworks:
        framework = FRAMEWORKS[name]
        if maybe_version(framework.distribution) is None:
            print(f"{framework.title} is not installed")
            continue
        pairs += [(name, server) for server in servers_of(name) if server in arguments.servers]
    for server in arguments.servers:
        if (missing := maybe_missing(server)) is not None:
            print(f"{server}: {missing} is not installed")
            pairs = [pair for pair in pairs if pair[1] != server]
    results = Results()
    run(pairs, arguments.jobs, results)
    text, wrong = document(results)
    DOCUMENT.write_text(text)
    print(*wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
