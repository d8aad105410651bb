"""The plugin of pytest, as it runs in somebody's own tests."""

import subprocess
import sys
from pathlib import Path

import pytest

from wsgi_asgi_conformance.processes import child_environ

TESTS = '''
import asyncio

import httpx
from starlette.testclient import TestClient


class App:
    """An app whose body is text, but for its lifespan."""

    name = "mine"

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        body = "text" if scope["path"] == "/wrong" else b"bytes"
        await send({"type": "http.response.body", "body": body})


async def ask(path):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(App()), base_url="http://example.org") as client:
        await client.get(path)


def test_httpx_right():
    asyncio.run(ask("/"))


def test_httpx_wrong():
    asyncio.run(ask("/wrong"))


def test_starlette_right():
    with TestClient(App()) as client:
        assert client.app.name == "mine"
        client.get("/")


def test_starlette_wrong():
    TestClient(App()).get("/wrong")
'''


@pytest.mark.parametrize("validate", [True, False])
def test_apps_of_test_clients_are_judged(tmp_path: Path, validate: bool) -> None:
    """With --asgi-validate, the tests of what is wrong fail by the validator; what is right passes in any case."""
    (tmp_path / "test_app.py").write_text(TESTS, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "bridge.validate.pytest_plugin", "-p", "no:cacheprovider", "-q"]
    command += ["--rootdir", str(tmp_path), *(["--asgi-validate"] if validate else []), str(tmp_path)]
    environ = child_environ(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=50, check=False)
    assert "FAILED test_app.py::test_httpx_right" not in done.stdout
    assert "FAILED test_app.py::test_starlette_right" not in done.stdout
    assert done.stdout.count("(ASGI HTTP spec, Response Body; ASGI-HTTP-069)") >= (2 if validate else 0)
    assert ("AppProtocolError" in done.stdout) is validate
