"""`python -m tests.conformance.server_report [NAME ...]` judges every server that is installed.

It writes `docs/server-conformance.md`, from what it measured and, for servers that are not named, from
`tests/conformance/servers.json`.
"""

import importlib.metadata
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.processes import ROOT
from wsgi_asgi_conformance.catalogue import SERVERS, read_catalogue, read_reasons
from wsgi_asgi_conformance.outputs import escaped
from wsgi_asgi_conformance.processes import child_environ

PAGE = ROOT / "docs" / "server-conformance.md"
RESULTS = Path(__file__).parent / "servers.json"
COLUMNS = ("kept", "broken", "hung", "not offered", "untested")


@dataclass(frozen=True)
class Server:
    """A server in one way to run it."""

    name: str
    package: str | None  # of PyPI, or of Debian if its name begins with "lib"; None for the standard library
    kind: str
    command: str

    @property
    def maybe_version(self) -> str | None:
        """The version that is installed."""
        if self.package is None:
            return ".".join(map(str, sys.version_info[:3]))
        if self.package.startswith("lib"):
            return _maybe_debian_version(self.package)
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return None


def _maybe_debian_version(package: str) -> str | None:
    if not shutil.which("dpkg-query"):
        return None
    query = ["dpkg-query", "-W", "-f", "${Version}", package]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout or None


def _script(code: str) -> str:
    return f'{{python}} -c "from {{module}} import {{attribute}} as app; {code}"'


_UVICORN = "{python} -m uvicorn {app} --port {port} --log-level warning"
_HYPERCORN = "{python} -m hypercorn {app} -b 127.0.0.1:{port}"
_GUNICORN = "{python} -m gunicorn {app} -b 127.0.0.1:{port}"
_GRANIAN = "{python} -m granian {app} --port {port} --log-level warning"
ALL = (
    Server("uvicorn (h11, wsproto)", "uvicorn", "asgi-server", f"{_UVICORN} --http h11 --loop asyncio --ws wsproto"),
    Server(
        "uvicorn (httptools, websockets)",
        "uvicorn",
        "asgi-server",
        f"{_UVICORN} --http httptools --loop uvloop --ws websockets-sansio",
    ),
    Server("uvicorn (zttp)", "zttp", "asgi-server", f"{_UVICORN} --http zttp"),
    Server("hypercorn (asyncio)", "hypercorn", "asgi-server", f"{_HYPERCORN} -k asyncio"),
    Server("hypercorn (trio)", "hypercorn", "asgi-server", f"{_HYPERCORN} -k trio"),
    Server("daphne", "daphne", "asgi-server", "{python} -m daphne -p {port} {app}"),
    Server("granian", "granian", "asgi-server", f"{_GRANIAN} --interface asgi"),
    Server("gunicorn (asgi)", "gunicorn", "asgi-server", f"{_GUNICORN} -k asgi"),
    Server("gunicorn (sync)", "gunicorn", "wsgi-server", _GUNICORN),
    Server("gunicorn (gthread)", "gunicorn", "wsgi-server", f"{_GUNICORN} -k gthread --threads 8"),
    Server(
        "uWSGI",
        "uwsgi",
        "wsgi-server",
        f"{Path(sys.executable).parent / 'uwsgi'} --http-socket 127.0.0.1:{{port}} --home {sys.prefix} --master "
        "--need-app --die-on-term --enable-threads --threads 8 --module {app}",
    ),
    Server(
        "waitress",
        "waitress",
        "wsgi-server",
        _script("import waitress; waitress.serve(app, host='127.0.0.1', port={port})"),
    ),
    Server(
        "cheroot",
        "cheroot",
        "wsgi-server",
        _script("from cheroot.wsgi import Server; Server(('127.0.0.1', {port}), app).safe_start()"),
    ),
    Server(
        "Werkzeug",
        "werkzeug",
        "wsgi-server",
        _script("from werkzeug.serving import run_simple; run_simple('127.0.0.1', {port}, app, threaded=True)"),
    ),
    Server(
        "wsgiref",
        None,
        "wsgi-server",
        _script("from wsgiref.simple_server import make_server; make_server('127.0.0.1', {port}, app).serve_forever()"),
    ),
    Server("granian (WSGI)", "granian", "wsgi-server", f"{_GRANIAN} --interface wsgi --blocking-threads 8"),
    Server(
        "mod_wsgi",
        "libapache2-mod-wsgi-py3",
        "wsgi-server",
        "{python} -m tests.conformance.apache {app} {port} {folder}",
    ),
)

INTRODUCTION = """\
# Conformance of servers

This page says which rules of PEP 3333, ASGI and the RFCs that they build on each server keeps.
`python -m tests.conformance.server_report` ran [the suite](../conformance/README.md) on each of them and wrote this
page. The suite starts the server with the command below, serves apps of its own, and plays the client on raw sockets.
A clause is kept if all its tests pass. It is broken if a test fails, and hangs if a test waits in vain for {deadline}
seconds. The suite also judges clauses that a spec only advises (SHOULD) or allows (MAY). An implied clause follows from
others, or is a convention.

A broken clause need not matter to you, and servers break many on purpose. If you maintain one of these servers and a
verdict looks wrong, run `wsgi-asgi-conformance KIND --command COMMAND --clauses ID --advised --tb=short`: it shows why
the test failed.

Each server ran once, with its default settings. Verdicts that depend on how threads are scheduled may differ between
runs. Two of Apache's defaults decide verdicts on mod_wsgi: the port comes from the client's Host header unless
`UseCanonicalPhysicalPort` is on (P3333-049, ASGI-HTTP-096, RFC3875-015), and slashes are merged unless `MergeSlashes`
is off (RFC3875-006).
"""
DEADLINE = 5


def judge(server: Server) -> dict[str, Any]:
    """Run all tests on a server, and return what the page needs of the report."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "out.json"
        command = [sys.executable, "-m", "wsgi_asgi_conformance.command", server.kind, "--command", server.command]
        command += ["--advised", "--deadline", str(DEADLINE), "--conformance-json", str(results), "-n", "3"]
        done = subprocess.run(command, env=child_environ(), capture_output=True, text=True, check=False)
        if not results.exists():
            sys.exit(f"{server.name}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        report = json.loads(results.read_text(encoding="utf-8"))
    faults = [
        {key: clause[key] for key in ("id", "verdict", "seen", "wire")}
        for clause in report["clauses"]
        if clause["verdict"] in ("broken", "hung")
    ]
    (totals,) = report["totals"].values()
    return {"version": server.maybe_version, "totals": totals, "faults": faults}


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return `docs/server-conformance.md`."""
    return "\n".join(
        [INTRODUCTION.format(deadline=DEADLINE, kind="KIND"), *_totals(results), *_faults(results), *_reasons(), ""]
    )


def _totals(results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for kind, title in (("asgi-server", "ASGI servers"), ("wsgi-server", "WSGI servers")):
        yield f"\n## {title}\n"
        yield f"| server | version | {' | '.join(COLUMNS)} |"
        yield f"|---|---|{'--:|' * len(COLUMNS)}"
        for server in ALL:
            if server.kind == kind and server.name in results:
                found = results[server.name]
                cells = " | ".join(str(found["totals"][column]) for column in COLUMNS)
                yield f"| {server.name} | {found['version']} | {cells} |"
        yield "\n| clause | strength | | broken or hung by |"
        yield "|---|---|---|---|"
        for clause in read_catalogue().values():
            names = [
                f"{server.name}{' (hangs)' if fault['verdict'] == 'hung' else ''}"
                for server in ALL
                if server.kind == kind and server.name in results
                for fault in results[server.name]["faults"]
                if fault["id"] == clause.id
            ]
            if names:
                yield f"| {clause.id} | {clause.strength} | {escaped(clause.clause)} | {', '.join(names)} |"


def _faults(results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield "\n## What was seen\n"
    yield "`>` is what the client sent, and `<` what the server answered; headers that name the app are left out."
    clauses = read_catalogue()
    for server in ALL:
        if server.name not in results or not results[server.name]["faults"]:
            continue
        yield f"\n### {server.name} {results[server.name]['version']}\n"
        yield f"```text\nwsgi-asgi-conformance {server.kind} --command '{_shown(server.command)}'\n```\n"
        for fault in results[server.name]["faults"]:
            clause = clauses[fault["id"]]
            yield f"- **{clause.id}** ({clause.strength}, {fault['verdict']}): {escaped(clause.clause)}"
            yield from _block([*fault["seen"][:1], *fault["wire"][:1]])


def _shown(command: str) -> str:
    """Return a command without the folders of this machine."""
    return command.replace(f"{Path(sys.executable).parent}/", "").replace(sys.prefix, "$VIRTUAL_ENV")


def _block(texts: Sequence[str]) -> Iterator[str]:
    yield "  ```text"
    for text in texts:
        yield from (f"  {line}"[:220] for line in text.replace(str(ROOT), "...").splitlines())
    yield "  ```"


def _reasons() -> Iterator[str]:
    yield "\n## Clauses without a test"
    for kind, subject in (("ASGI", SERVERS["B-srv"]), ("WSGI", SERVERS["A-gw"])):
        yield f"\n### {kind} servers\n"
        yield "| clause | why no test checks it |"
        yield "|---|---|"
        yield from (f"| {key} | {reason} |" for key, reason in sorted(read_reasons(subject).items()))


def main(names: Sequence[str]) -> int:
    """Judge all servers, or those whose name begins with one of `names`; return the exit status."""
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for server in ALL:
        if names and not any(server.name.startswith(name) for name in names):
            continue
        if server.maybe_version is None:
            print(f"{server.name}: {server.package} is not installed")
            continue
        results[server.name] = judge(server)
        print(server.name, results[server.name]["totals"], flush=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(results), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
