import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bridge import WSGIToASGI
from tests.processes import ROOT
from wsgi_asgi_conformance.adapters import check_command, load_adapter


def load(name: str) -> Any:
    config: Any = SimpleNamespace(getoption={"wsgi_to_asgi": name}.__getitem__)
    return load_adapter(config, "wsgi_to_asgi")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a2wsgi.WSGIMiddleware", "expected MODULE:CLASS, with a colon, or none"),
        ("bridge", "expected MODULE:CLASS, with a colon, or none"),
        ("bridge:", "expected MODULE:CLASS, with a colon, or none"),
        (":WSGIToASGI", "expected MODULE:CLASS, with a colon, or none"),
        ("no_such_package:WSGIToASGI", "No module named 'no_such_package'"),
        ("bridge:WSGIToASCII", "module 'bridge' has no attribute 'WSGIToASCII'"),
        ("bridge:WSGIToASGI.no", "type object 'WSGIToASGI' has no attribute 'no'"),
        ("bridge:__all__", "expected a class or function, got list"),
    ],
)
def test_a_name_that_leads_to_no_adapter_is_a_usage_error(name: str, why: str) -> None:
    """The error has the option as it was given, and says what is wrong with it."""
    with pytest.raises(pytest.UsageError) as caught:
        load(name)
    assert str(caught.value) == f"--wsgi-to-asgi {name}: {why}"


def test_a_name_that_leads_to_an_adapter_gives_that() -> None:
    """The name consists of a module, a colon, and an attribute of the module."""
    assert load("bridge:WSGIToASGI") is WSGIToASGI
    assert load("bridge.wsgi_to_asgi.adapter:WSGIToASGI.__init__") is WSGIToASGI.__init__


def test_an_adapter_may_warn_when_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The warning is shown, and is no error, although this project's pytest makes errors of warnings."""
    (tmp_path / "deprecated_adapter.py").write_text("import warnings\nwarnings.warn('use another')\nAdapter = object\n")
    monkeypatch.syspath_prepend(tmp_path)

    def load_where_warnings_are_errors() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return load("deprecated_adapter:Adapter")

    with pytest.warns(UserWarning, match="use another"):
        assert load_where_warnings_are_errors() is object


@pytest.mark.parametrize("name", ["a2wsgi.WSGIMiddleware", "no_such_package:Adapter"])
def test_a_run_with_a_misspelt_adapter_says_so(name: str) -> None:
    """pytest ends with that error, and its exit status for one, before any test has run."""
    tests = "conformance/src/wsgi_asgi_conformance/wsgi_to_asgi/test_close.py"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", tests, "--wsgi-to-asgi", name]
    result = subprocess.run(command, capture_output=True, timeout=40, cwd=ROOT, text=True, check=False)
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"ERROR: --wsgi-to-asgi {name}: " in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("uvicorn app:app", "expected a command with {app} and {port} in it"),
        ("uvicorn {app} --port {Port}", "KeyError('Port')"),
        ("no-such-server {app} {port}", "there is no command 'no-such-server' on the PATH"),
    ],
)
def test_a_command_that_cannot_start_a_server_is_a_usage_error(command: str, why: str) -> None:
    """The run ends before any test has started a server."""
    config: Any = SimpleNamespace(getoption={"asgi_servers": command}.__getitem__)
    with pytest.raises(pytest.UsageError) as caught:
        check_command(config, "asgi_servers")
    assert str(caught.value) == f"--asgi-server {command}: {why}"


def test_a_command_may_start_with_the_python_of_the_tests() -> None:
    """{python} need not be on the PATH."""
    config: Any = SimpleNamespace(getoption={"asgi_servers": "{python} -m uvicorn {app} --port {port}"}.__getitem__)
    check_command(config, "asgi_servers")
