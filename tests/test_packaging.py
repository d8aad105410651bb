import importlib.util
import json
import re
import subprocess
import sys
import venv
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import assert_type
from zipfile import ZipFile

import pytest

import bridge
from bridge.asgi_to_wsgi.adapter import ASGIToWSGI
from bridge.wsgi_to_asgi.adapter import WSGIToASGI
from tests.processes import ROOT, run_script

# Prints the modules that a statement has loaded, of those outside the standard library their roots alone.
LOADED = """
import json, sys
before = set(sys.modules)
{statement}
new = set(sys.modules) - before
print(json.dumps(sorted(name for name in new if name.split(".")[0] in {{"bridge", "anyio", "asyncio", "typing",
    "trio", "wsproto", "h11", "uvloop"}})))
"""
# Runs both adapters inside each other, in an environment that has nothing but the wheel.
ROUND_TRIP = """
import bridge, importlib.metadata
from wsgiref.util import setup_testing_defaults

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})

environ = {"PATH_INFO": "/inside"}
setup_testing_defaults(environ)
statuses = []
with bridge.ASGIToWSGI(bridge.WSGIToASGI(bridge.ASGIToWSGI(app)), lifespan="off") as wsgi_app:
    body = b"".join(wsgi_app(environ, lambda status, headers, exc_info=None: statuses.append(status)))
print(bridge.__file__, *statuses, body.decode(), importlib.metadata.version("wsgi-asgi-bridge"), sep="|")
"""


def loaded_by(statement: str) -> set[str]:
    return set(json.loads(run_script(LOADED.format(statement=statement))))


def test_the_package_imports_nothing_until_it_is_used() -> None:
    """`import bridge` loads no other module of ours, nor of what the adapters need."""
    assert loaded_by("import bridge; bridge.__version__; dir(bridge)") == {"bridge"}


def test_the_errors_import_no_adapter() -> None:
    """Code that only catches errors does not load an event loop."""
    assert loaded_by("from bridge import ClientDisconnected") == {"bridge", "bridge.errors"}


@pytest.mark.parametrize(
    ("name", "other"), [("WSGIToASGI", "bridge.asgi_to_wsgi"), ("ASGIToWSGI", "bridge.wsgi_to_asgi")]
)
def test_a_direction_imports_only_what_it_needs(name: str, other: str) -> None:
    """The other direction, WebSocket frames and trio are loaded by those who use them."""
    loaded = loaded_by(f"from bridge import {name}")
    assert f"bridge.{name.replace('To', '_to_').lower()}.adapter" in loaded
    assert {name for name in loaded if name.startswith((other, "trio", "wsproto", "h11", "uvloop"))} == set()


def test_names_are_those_of_their_modules() -> None:
    """`bridge.X` and the X of the module that defines it are one, and `dir` shows X before its first use."""
    assert set(bridge.__all__) <= set(dir(bridge))
    for name in bridge.__all__:
        value = getattr(bridge, name)
        assert value is getattr(sys.modules[value.__module__], name)
        assert value.__module__.startswith("bridge.")


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A typo is reported as for any module, by Python and by type checkers."""
    with pytest.raises(AttributeError, match="module 'bridge' has no attribute 'WSGIToASGY'"):
        _ = bridge.WSGIToASGY  # type: ignore[attr-defined]


def test_type_checkers_see_through_the_lazy_names() -> None:
    """mypy knows the classes, not just that there is something."""
    assert_type(bridge.WSGIToASGI, type[WSGIToASGI])
    assert_type(bridge.ASGIToWSGI, type[ASGIToWSGI])


def test_the_version_is_the_same_everywhere() -> None:
    """The package, the newest entry of the changelog and the citation agree."""
    released = re.findall(r"^## (\d\S*) - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[0] == bridge.__version__
    assert f"\nversion: {bridge.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_links_of_the_readme_lead_somewhere() -> None:
    """Each relative link names a file, so that the absolute one that a package index shows leads somewhere, too."""
    readme = (ROOT / "README.md").read_text()
    prose = re.sub(r"```.*?```", "", readme, flags=re.DOTALL)
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", prose)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
    assert readme.count("](") == prose.count("](")  # the substitutions of pyproject.toml would change such code


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("build") is None:
        pytest.skip("needs build, of the dependency group `build`")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.iterdir()
    return path


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_wheel_tells_what_an_index_shows(wheel: Path) -> None:
    """It has the package alone, its types, no relative link or picture, and extras for users only."""
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        message: Message = Parser().parsestr(archive.read(metadata).decode())
    assert {name.split("/")[0] for name in names} == {"bridge", metadata.split("/")[0]}
    assert "bridge/py.typed" in names
    assert message["Name"] == "wsgi-asgi-bridge"
    assert message["Version"] == bridge.__version__
    assert sorted(message.get_all("Provides-Extra", [])) == ["examples", "websocket"]
    text = message.get_payload()
    assert isinstance(text, str)
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    assert [link for link in links if not link.startswith(("https://", "#"))] == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_wheel_works_in_a_fresh_environment(wheel: Path, tmp_path: Path) -> None:
    """With nothing but the wheel and its dependencies, both adapters serve a request and the command runs."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    scripts = environment / "bin"

    def run(program: str, *arguments: str) -> str:
        command = [str(scripts / program), *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("python", "-m", "pip", "install", "-q", str(wheel))
    path, status, body, version = run("python", "-c", ROUND_TRIP).strip().split("|")
    assert Path(path).is_relative_to(environment)
    assert (status.split()[0], body, version) == ("200", "/inside", bridge.__version__)
    assert "routes" in run("bridge", "--help")
