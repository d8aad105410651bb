"""The package as others install it: a wheel in a virtual environment outside the checkout."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT

# An adapter of few lines.
ADAPTER = """
import io
import sys

import anyio.to_thread


class Adapter:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            raise ValueError("HTTP alone")
        body, more_body = b"", True
        while more_body:
            message = await receive()
            body, more_body = body + message.get("body", b""), message.get("more_body", False)
        environ = self.environ_from_scope(scope, body)
        start, blocks = await anyio.to_thread.run_sync(self.run, environ)
        status, headers = start
        pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        await send({"type": "http.response.start", "status": int(status[:3]), "headers": pairs})
        await send({"type": "http.response.body", "body": b"".join(blocks)})

    def environ_from_scope(self, scope, body):
        host, port = scope["server"]
        environ = {"REQUEST_METHOD": scope["method"], "SCRIPT_NAME": scope["root_path"], "PATH_INFO": scope["path"]}
        environ |= {"QUERY_STRING": scope["query_string"].decode(), "SERVER_NAME": host, "SERVER_PORT": str(port)}
        environ |= {"SERVER_PROTOCOL": "HTTP/" + scope["http_version"], "wsgi.version": (1, 0), "wsgi.run_once": False}
        environ |= {"wsgi.input": io.BytesIO(body), "wsgi.errors": sys.stderr, "wsgi.url_scheme": scope["scheme"]}
        environ |= {"wsgi.multithread": True, "wsgi.multiprocess": True}
        for name, value in scope["headers"]:
            environ["HTTP_" + name.decode().upper().replace("-", "_")] = value.decode("latin-1")
        return environ

    def run(self, environ):
        start = []
        iterable = self.app(environ, lambda status, headers, exc_info=None: start.append((status, headers)))
        try:
            return [start[-1], list(iterable)] if start else [None, list(iterable)]
        finally:
            getattr(iterable, "close", bool)()
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_adapter_is_judged_by_the_wheel_alone(tmp_path: Path) -> None:
    """The wheel needs nothing from this checkout, and reports what is broken and what is kept."""
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path / "dist")]
    subprocess.run([*pip, str(ROOT / "conformance")], check=True, timeout=120)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True, timeout=60)
    binaries = tmp_path / "venv" / "bin"
    subprocess.run([str(binaries / "pip"), "install", "-q", str(wheel)], check=True, timeout=120)
    (tmp_path / "mine.py").write_text(ADAPTER, encoding="utf-8")
    command = [str(binaries / "wsgi-asgi-conformance"), "adapter", "--wsgi-to-asgi", "mine:Adapter", "-n", "2"]
    command += ["--clauses", "P3333-02*, P3333-06*, RFC3875", "--deadline", "2", "--conformance-json", "out.json"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) < 60
    assert "warning" not in done.stdout
    report = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    verdicts = {clause["id"]: clause["verdict"] for clause in report["clauses"]}
    assert verdicts["P3333-028"] == "kept"
    assert verdicts["P3333-021"] in ("broken", "hung")  # it collects all blocks
    assert report["suite"]["version"]
