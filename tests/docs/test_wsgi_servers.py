"""The pages about WSGI servers and proxies: each server runs with the configuration as it stands there."""

import re
import signal
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge import ASGIToWSGI
from tests.docs.commands import check_dialogue, check_environment, check_install, served
from tests.docs.pages import BIN, Page
from tests.processes import ROOT, serving, wait_until

FASTAPI = Page("docs/quickstarts/fastapi.md")
RECIPES = Page("docs/recipes.md")
GUNICORN = Page("docs/deployment/gunicorn.md")
UWSGI = Page("docs/deployment/uwsgi.md")
PROXIES = Page("docs/deployment/proxies.md")
SCRIPTS = Page("docs/deployment/scripts.md")

needs_uwsgi = pytest.mark.skipif(not (BIN / "uwsgi").exists(), reason="uwsgi is not installed")


@pytest.fixture
def adapters() -> Iterator[list[ASGIToWSGI]]:
    """Take adapters that a block has made, to be closed after the test."""
    made: list[ASGIToWSGI] = []
    yield made
    for adapter in made:
        adapter.close()


def get_wsgi(app: Any, path: str) -> httpx.Response:
    with httpx.Client(transport=httpx.WSGITransport(app), base_url="http://test") as client:
        return client.get(path)


# An address that the client made up, and behind it the one that the proxy saw.
FORWARDED = {
    "X-Forwarded-For": "192.0.2.66, 203.0.113.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "example.org",
}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_proxy_in_front_of_flask() -> None:
    """The client's address is the one that the proxy saw, and not one that the client made up."""
    transport = httpx.ASGITransport(PROXIES.run("proxy in front of flask")["asgi_app"], client=("127.0.0.1", 5))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.get("/client", headers=FORWARDED)
        assert response.json() == {"address": "203.0.113.9", "url": "https://example.org/client"}
        assert (await client.get("/client")).json() == {"address": "127.0.0.1", "url": "http://test/client"}


def test_proxy_in_front_of_fastapi(adapters: list[ASGIToWSGI]) -> None:
    """The client's address is the one that a trusted proxy saw; another's word counts for nothing."""
    adapters.append(PROXIES.run("proxy in front of fastapi")["wsgi_app"])
    for peer, expected in (
        ("127.0.0.1", {"address": "203.0.113.9", "url": "https://test/client"}),
        ("192.0.2.66", {"address": "192.0.2.66", "url": "http://test/client"}),
        ("", {"address": None, "url": "http://test/client"}),  # a Unix socket
    ):
        transport = httpx.WSGITransport(adapters[0], remote_addr=peer)
        with httpx.Client(transport=transport, base_url="http://test") as client:
            assert client.get("/client", headers=FORWARDED).json() == expected


STARTS_AND_CLOSES = """
from contextlib import asynccontextmanager
@asynccontextmanager
async def lifespan(app):
    print("<started>", flush=True)
    yield
    print("<closed>", flush=True)
"""


@pytest.mark.parametrize("own_hooks", [False, True], ids=["ours", "own"])
def test_gunicorn(own_hooks: bool, tmp_path: Path) -> None:
    """The configuration serves; its hooks start and close an adapter, also one that is part of another app."""
    code = RECIPES["fastapi in flask"].replace("FastAPI()", "FastAPI(lifespan=lifespan)") + "\nwsgi_app = app\n"
    (tmp_path / "hello.py").write_text(STARTS_AND_CLOSES + code)
    config = GUNICORN["gunicorn.conf.py"]
    if own_hooks:
        config = config.partition("\n")[2] + GUNICORN["own hooks"]
    (tmp_path / "gunicorn.conf.py").write_text(config)
    with served(GUNICORN, "serve", tmp_path) as server:
        wait_until(lambda: server.output().count("<started>") == 2, timeout=30)  # one in each worker
        assert server.client.get("/api/items").json() == ["one", "two"]
        server.stop()
        assert server.output().count("<closed>") == 2
        assert ("the app has shut down" in server.output()) is own_hooks


@needs_uwsgi
def test_uwsgi(tmp_path: Path) -> None:
    """The configuration serves the app of the quickstart."""
    environment, install = UWSGI.commands("install")
    check_environment(environment)
    check_install(install)
    (tmp_path / "hello.py").write_text(FASTAPI["hello"])
    (tmp_path / ".venv").symlink_to(sys.prefix)
    with served(UWSGI, "serve", tmp_path, config={"uwsgi.ini": UWSGI["uwsgi.ini"]}) as server:
        check_dialogue(UWSGI, "ask", server)
        server.stop()
        assert "Traceback" not in server.output()


def test_uwsgi_hooks(monkeypatch: pytest.MonkeyPatch, adapters: list[ASGIToWSGI]) -> None:
    """The hooks are set where uWSGI looks for them; its modules exist inside of it only, so stand-ins take them."""
    uwsgi = types.ModuleType("uwsgi")
    decorators: Any = types.ModuleType("uwsgidecorators")
    decorators.postfork = lambda function: function()
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    monkeypatch.setitem(sys.modules, "uwsgidecorators", decorators)
    names = FASTAPI.run("hello")
    adapters.append(names["wsgi_app"])
    exec(UWSGI["uwsgi hooks"], names)
    assert get_wsgi(adapters[0], "/").json() == "Hello from a private loop!"
    assert vars(uwsgi)["atexit"] == adapters[0].close


@needs_uwsgi
def test_uwsgi_hooks_in_uwsgi(tmp_path: Path) -> None:
    """uWSGI itself runs the hooks, and serves the app."""
    (tmp_path / "hello.py").write_text(FASTAPI["hello"] + UWSGI["uwsgi hooks"])
    command = [str(BIN / "uwsgi"), "--http-socket", "127.0.0.1:{port}", "--module", "hello:wsgi_app"]
    command += ["--master", "--enable-threads", "--die-on-term"]
    with serving(command, cwd=tmp_path) as server:
        assert server.client.get("/").json() == "Hello from a private loop!"
        server.stop()
        assert "Traceback" not in server.output()


def test_waitress(tmp_path: Path) -> None:
    """The command serves the app of the quickstart."""
    environment, install = SCRIPTS.commands("install")
    check_environment(environment)
    check_install(install)
    (tmp_path / "hello.py").write_text(FASTAPI["hello"])
    with served(SCRIPTS, "serve", tmp_path) as server:
        assert server.client.get("/").json() == "Hello from a private loop!"


def test_sigterm() -> None:
    """The signal becomes an exit."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        SCRIPTS.run("sigterm")
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


# By module, the line that starts its server.
LINES = dict(re.findall(r"^\|.*\| `import ([\w.]+)` \| `(.*)` \|$", SCRIPTS.text, re.MULTILINE))


def test_servers_of_scripts() -> None:
    """The page has a line for each of them."""
    assert set(LINES) == {"waitress", "cheroot.wsgi", "werkzeug.serving"}


@pytest.mark.parametrize("module", LINES)
def test_sigterm_with_an_open_event_stream(tmp_path: Path, module: str) -> None:
    """A server that waits for its threads does not have to wait: the stream ends, and the app shuts down."""
    pytest.importorskip(module)
    app = """
import {module}
from tests.asgi_to_wsgi.apps import Streams

class Reports(Streams):
    async def __call__(self, scope, receive, send):
        await super().__call__(scope, receive, send)
        print(*self.ended, flush=True)
""".replace("{module}", module)
    script = (
        app + SCRIPTS["sigterm"].replace("FastAPI()", "Reports()") + LINES[module].replace("8000", "int(sys.argv[1])")
    )
    (tmp_path / "script.py").write_text(script)
    command = ["{python}", str(tmp_path / "script.py"), "{port}"]
    with serving(command, env={"PYTHONPATH": str(ROOT)}) as server, server.connect() as connection:
        connection.sendall(b"GET /events HTTP/1.1\r\nHost: example\r\n\r\n")
        received = b""
        while b"begun" not in received:
            received += connection.recv(65536)
        assert server.stop() < 9  # well below the default shutdown_timeout
        assert "http.disconnect lifespan" in server.output()
