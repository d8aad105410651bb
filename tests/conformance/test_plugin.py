"""The suite as the maintainer of another adapter runs it: in a folder of its own, with options."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import pytest

from wsgi_asgi_conformance.catalogue import FOLDER, read_catalogue
from wsgi_asgi_conformance.plugin import pytest_configure
from wsgi_asgi_conformance.selection import Selection

# Runs the suite in a folder, with some options.
Judge: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]

# A minimal adapter that hangs on one path.
ADAPTER = """
import threading

class Adapter:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        environ = {"REQUEST_METHOD": scope["method"], "wsgi.version": (1, 0)}
        start = []
        iterable = self.app(environ, lambda status, headers: start.append((status, headers)))
        body = b"".join(iterable)
        await send({"type": "http.response.start", "status": int(start[0][0][:3]), "headers": []})
        await send({"type": "http.response.body", "body": body})

class Hanging(Adapter):
    def __init__(self, app):
        threading.Event().wait()
"""


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    (tmp_path / "mine.py").write_text(ADAPTER, encoding="utf-8")

    def judge(*options: str, tests: str = "wsgi_to_asgi/test_close.py") -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(FOLDER.parent), str(tmp_path)])
        plugins = ["-p", "wsgi_asgi_conformance.plugin", "-p", "no:cacheprovider", "-p", "no:timeout"]
        command = [
            sys.executable,
            "-m",
            "pytest",
            *plugins,
            "--rootdir",
            str(tmp_path),
            "--confcutdir",
            str(FOLDER),
            "-c",
            os.devnull,
            *options,
        ]
        return subprocess.run(
            [*command, str(FOLDER / tests)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )

    return judge


def found(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_run_says_what_became_of_each_clause(judge: Judge, tmp_path: Path) -> None:
    """Each broken clause is listed once, with its sentence; the table and the files have the same numbers."""
    files = [tmp_path / name for name in ("out.json", "out.md", "badge.json")]
    options = [f"--conformance-{kind}={file}" for kind, file in zip(("json", "markdown", "badge"), files, strict=True)]
    result = judge("--wsgi-to-asgi", "mine:Adapter", "--clauses", "P3333-028, P3333-035", *options)
    assert result.returncode == pytest.ExitCode.TESTS_FAILED, result.stdout + result.stderr
    assert result.stdout.count("P3333-028 broken: ") == 1
    assert "A WSGI app behind an ASGI server: mine:Adapter" in result.stdout
    assert "= FAILURES =" not in result.stdout
    assert len(result.stdout.splitlines()) < 60

    report = found(files[0])
    assert (report["schema_version"], report["adapters"]) == (1, {"wsgi_to_asgi": "mine:Adapter"})
    assert report["specs"] == {"PEP 3333": 2}
    (clause,) = [each for each in report["clauses"] if each["id"] == "P3333-028"]
    assert (clause["verdict"], clause["direction"], clause["section"]) == (
        "broken",
        "wsgi_to_asgi",
        "Specification Details",
    )
    assert clause["seen"][0].startswith("AssertionError")
    assert "| P3333-028 | " in files[1].read_text(encoding="utf-8")
    badge = found(files[2])
    assert badge["schemaVersion"] == 1
    assert badge["message"].startswith(f"{report['totals']['wsgi_to_asgi']['kept']} of ")


def test_tracebacks_come_where_they_are_asked_for(judge: Judge) -> None:
    """With --tb, pytest shows failures as for any test."""
    result = judge("--wsgi-to-asgi", "mine:Adapter", "--tb", "short", "--clauses", "P3333-028")
    assert "= FAILURES =" in result.stdout


def test_a_hang_is_a_verdict(judge: Judge, tmp_path: Path) -> None:
    """An adapter that never returns in the test's own thread does not stop the run."""
    file = tmp_path / "out.json"
    options = ("--deadline", "0.05", "--conformance-json", str(file), "--clauses", "P3333-028")
    result = judge("--wsgi-to-asgi", "mine:Hanging", *options)
    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert {each["verdict"] for each in found(file)["clauses"]} == {"hung"}
    assert "P3333-028 hung: " in result.stdout


def test_a_deviation_is_an_expected_failure(judge: Judge, tmp_path: Path) -> None:
    """The clause deviates, with its reason, and the run passes."""
    file = tmp_path / "deviations.toml"
    file.write_text('["P3333-028"]\nreason = "We never close."\n', encoding="utf-8")
    options = ("--clauses", "P3333-028", "--deviations", str(file), "-rx")
    result = judge("--wsgi-to-asgi", "mine:Adapter", *options)
    assert result.returncode == pytest.ExitCode.OK, result.stdout
    assert "We never close." in result.stdout
    assert "deviates" in result.stdout


def test_a_deviation_that_is_mended_fails_the_run(judge: Judge, tmp_path: Path) -> None:
    """The run fails if all tests of a clause in the file pass."""
    file = tmp_path / "deviations.toml"
    file.write_text('["P3333-028"]\nreason = "We never close."\n', encoding="utf-8")
    options = ("--clauses", "P3333-028", "--deviations", str(file))
    result = judge("--wsgi-to-asgi", "bridge:WSGIToASGI", *options)
    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert "P3333-028 is kept now: delete it from the file of deviations (We never close.)" in result.stdout


def test_a_run_without_an_adapter_is_a_usage_error(judge: Judge) -> None:
    """The error names the options."""
    result = judge()
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert "add --wsgi-to-asgi MODULE:CLASS or --asgi-to-wsgi MODULE:CLASS" in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"wsgi_to_asgi": "bridge:No"}, "--wsgi-to-asgi bridge:No: module 'bridge' has no attribute 'No'"),
        ({"clauses": "P3334"}, "--clauses P3334: expected an id"),
        ({"clauses": "ASGI-HTTP-003"}, "--clauses ASGI-HTTP-003: all of them are only advised; add --advised"),
        ({"deviations": "no.toml"}, "No such file or directory: 'no.toml'"),
        ({"deviations": "bad.toml"}, "bad.toml: P3333-1: expected the id of a clause"),
        ({"deviations": "none.toml"}, "none.toml: P3333-028: expected a table with a reason"),
        ({"deviations": "other.toml"}, "other.toml: P3333-028: direction is one of"),
        ({"deviations": "half.toml"}, "half.toml: "),
    ],
)
def test_a_slip_in_an_option_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], why: str
) -> None:
    """The error comes before any test runs, and names the option or the file."""
    monkeypatch.chdir(tmp_path)
    Path("bad.toml").write_text('["P3333-1"]\nreason = "why"\n', encoding="utf-8")
    Path("none.toml").write_text('["P3333-028"]\nlink = "https://example.org"\n', encoding="utf-8")
    Path("other.toml").write_text('["P3333-028"]\nreason = "why"\ndirection = "up"\n', encoding="utf-8")
    Path("half.toml").write_text('["P3333-028"', encoding="utf-8")
    config: Any = SimpleNamespace(getoption=options.get, addinivalue_line=print, stash=pytest.Stash())
    with pytest.raises(pytest.UsageError) as caught:
        pytest_configure(config)
    assert why in str(caught.value)


def test_what_is_only_advised_is_judged_where_it_is_asked_for() -> None:
    """--advised adds the clauses with SHOULD and MAY, and conventions."""
    clauses = read_catalogue()
    strengths = [{clause.strength for clause in Selection(clauses, None, advised).clauses} for advised in (False, True)]
    assert strengths == [{"MUST", "implied"}, {"MUST", "implied", "SHOULD", "MAY"}]
    assert not any(clause.basis == "convention" for clause in Selection(clauses, None, False).clauses)


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        ("P3333-028", {"P3333-028"}),
        ("P3333-02*, RFC6455", {f"P3333-{number:03}" for number in range(20, 30)} | {"RFC6455"}),
        ("websocket connection scope", {"ASGI-WS"}),
    ],
)
def test_clauses_are_chosen_by_id_or_section(names: str, ids: set[str]) -> None:
    """--clauses takes ids, beginnings of ids, patterns, and parts of a section's title."""
    chosen = {clause.id for clause in Selection(read_catalogue(), names, advised=True).clauses}
    assert chosen
    assert {key if key in ids else key.rpartition("-")[0] for key in chosen} == ids
