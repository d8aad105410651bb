"""The pages about hosts and containers: what can run here runs, and the rest is checked for what it names."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs.commands import check_install
from tests.docs.pages import BIN, Page
from tests.processes import free_port, serving

FASTAPI = Page("docs/quickstarts/fastapi.md")
FLASK = Page("docs/quickstarts/flask.md")
GUNICORN = Page("docs/deployment/gunicorn.md")
DOCKER = Page("docs/deployment/docker.md")
HEROKU = Page("docs/deployment/heroku.md")
KUBERNETES = Page("docs/deployment/kubernetes.md")
PYTHONANYWHERE = Page("docs/deployment/pythonanywhere.md")
SYSTEMD = Page("docs/deployment/systemd.md")

FASTAPI_ANSWER = '"Hello from a private loop!"'
FLASK_ANSWER = "Hello from a thread!"
# Programs of these pages are those of the environment that runs the tests.
ENVIRONMENT = {"PATH": f"{BIN}:{os.environ['PATH']}"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the app and the configuration that these pages are about."""
    (tmp_path / "hello.py").write_text(FASTAPI["hello"])
    (tmp_path / "gunicorn.conf.py").write_text(GUNICORN["gunicorn.conf.py"])
    return tmp_path


@pytest.mark.parametrize("kind", ["ASGI", "WSGI"])
def test_heroku(kind: str, folder: Path) -> None:
    """The line of the Procfile serves on the port that a variable names."""
    page, answer = (FASTAPI, FASTAPI_ANSWER) if kind == "ASGI" else (FLASK, FLASK_ANSWER)
    (folder / "hello.py").write_text(page["hello"])
    (folder / "gunicorn.conf.py").unlink()  # nothing but the Procfile configures gunicorn there
    procfile = HEROKU["Procfile for an ASGI app" if kind == "ASGI" else "Procfile for a WSGI app"]
    process, _, command = procfile.partition(": ")
    assert process == "web"
    port = free_port()
    environment = {**ENVIRONMENT, "PORT": str(port)}
    with serving(["/bin/sh", "-c", "exec " + command], cwd=folder, env=environment, port=port) as server:
        assert server.client.get("/").text == answer
        server.stop()
        assert "Traceback" not in server.output()


def test_docker(folder: Path) -> None:
    """The command of the image serves, and the files that the image copies are those of the page."""
    instructions = [line.split(" ", 1) for line in DOCKER["Dockerfile"].splitlines() if line]
    assert instructions[0][0] == "FROM"
    copied = " ".join(rest for instruction, rest in instructions if instruction == "COPY").split()
    assert set(copied) - {"./"} == {"requirements.txt", "hello.py", "gunicorn.conf.py"}
    check_install(["pip", "install", *DOCKER["requirements.txt"].split()])
    assert [command[:2] for command in DOCKER.commands("serve")] == [["docker", "build"], ["docker", "run"]]
    (command,) = [json.loads(rest) for instruction, rest in instructions if instruction == "CMD"]
    command = [word.replace("0.0.0.0:8000", "127.0.0.1:{port}") for word in command]
    with serving(command, cwd=folder, env=ENVIRONMENT) as server:
        assert server.client.get("/").text == FASTAPI_ANSWER


def test_systemd(folder: Path) -> None:
    """The unit's command serves, and tells systemd that it is ready."""
    assert all(command[:2] == ["sudo", "systemctl"] for command in SYSTEMD.commands("serve"))
    (start,) = re.findall(r"^ExecStart=/srv/hello/\.venv/bin/(.*)$", SYSTEMD["hello.service"], re.MULTILINE)
    notified = folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(notified))
        sock.settimeout(20)
        command = [*shlex.split(start), "--bind", "127.0.0.1:{port}"]
        with serving(command, cwd=folder, env={**ENVIRONMENT, "NOTIFY_SOCKET": str(notified)}) as server:
            assert b"READY=1" in sock.recv(4096)
            assert server.client.get("/").text == FASTAPI_ANSWER


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", ["hello.service", "uvicorn"])
def test_systemd_knows_the_unit(name: str, tmp_path: Path) -> None:
    """systemd finds nothing to complain about."""
    unit = SYSTEMD["hello.service"]
    for line in SYSTEMD["uvicorn"].splitlines() if name == "uvicorn" else ():
        key = line.partition("=")[0]
        unit = re.sub(rf"^{re.escape(key)}(=.*)?$", line, unit, flags=re.MULTILINE)
    path = tmp_path / "hello.service"
    path.write_text(unit.replace("/srv/hello/.venv/bin", str(BIN)).replace("/srv/hello", str(tmp_path)))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(path)], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "hello.service" not in done.stderr, done.stderr


def test_kubernetes() -> None:
    """Labels and ports fit, and a pod's end gives gunicorn its time."""
    yaml: Any = pytest.importorskip("yaml")
    deployment, service = yaml.safe_load_all(KUBERNETES["hello.yaml"])
    (command,) = KUBERNETES.commands("apply")
    assert command == ["kubectl", "apply", "-f", "hello.yaml"]
    pod = deployment["spec"]["template"]
    assert deployment["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"] == service["spec"]["selector"]
    (container,) = pod["spec"]["containers"]
    port = container["ports"][0]["containerPort"]
    assert service["spec"]["ports"][0]["targetPort"] == port
    probes = [container[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")]
    assert all((probe.get("httpGet") or probe["tcpSocket"])["port"] == port for probe in probes)
    (graceful,) = re.findall(r"graceful_timeout = (\d+)", GUNICORN["gunicorn.conf.py"])
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["spec"]["terminationGracePeriodSeconds"] > before + int(graceful)


@pytest.mark.skipif(not (BIN / "uwsgi").exists(), reason="uwsgi is not installed")
def test_pythonanywhere(tmp_path: Path) -> None:
    """The file serves under uWSGI as it is run there: one request at a time, without threads."""
    environment, install = PYTHONANYWHERE.commands("install")
    assert environment[1:3] == ["-m", "venv"]
    check_install(install)
    (tmp_path / "hello.py").write_text(FASTAPI["hello"])
    (tmp_path / "wsgi.py").write_text(PYTHONANYWHERE["wsgi"].replace("/home/you/hello", str(tmp_path)))
    command = [str(BIN / "uwsgi"), "--http-socket", "127.0.0.1:{port}", "--virtualenv", sys.prefix, "--die-on-term"]
    with serving([*command, "--master", "--need-app", "--wsgi-file", str(tmp_path / "wsgi.py")]) as server:
        assert server.client.get("/").text == FASTAPI_ANSWER
