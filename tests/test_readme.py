import hmac
import inspect
import re
import signal
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge import ASGIToWSGI, WSGIToASGI
from tests.processes import ROOT, serving, wait_until

UWSGI = Path(sys.executable).parent / "uwsgi"
README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = dict(re.findall(r"<!-- ([^>]+) -->\n```python\n(.*?)```\n", README, re.DOTALL))


def run(name: str) -> dict[str, Any]:
    """Run a block of the README as a module of its own, and return its names."""
    module = types.ModuleType("readme")
    sys.modules["readme"] = module
    try:
        exec(compile(BLOCKS[name], f"README.md: {name}", "exec"), module.__dict__)
    finally:
        del sys.modules["readme"]
    return module.__dict__


@pytest.fixture
def adapters() -> Iterator[list[ASGIToWSGI]]:
    """Take adapters that a block has made, to be closed after the test."""
    made: list[ASGIToWSGI] = []
    yield made
    for adapter in made:
        adapter.close()


async def get(app: Any, *paths: str) -> list[httpx.Response]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", follow_redirects=True) as client:
        return [await client.get(path) for path in paths]


def get_wsgi(app: Any, *paths: str) -> list[httpx.Response]:
    with httpx.Client(transport=httpx.WSGITransport(app), base_url="http://test") as client:
        return [client.get(path) for path in paths]


def test_frameworks_and_servers_are_counted_as_the_table_has_them() -> None:
    """A framework counts once, whatever it is mounted in, and a server once, however it is configured."""
    table = (Path(__file__).parent.parent / "docs" / "compatibility.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    frameworks = {name.removesuffix(" (ASGI)") for row in rows if row[0] in ("Flask", "FastAPI") for name in row}
    configurations = [row[0] for row in rows if "✓" in row[1]]
    servers = {name.partition("-")[0] for name in configurations}
    mounted = {name for name in frameworks if " mounted in " in name}
    text = " ".join(README.split())
    assert (
        f"{len(frameworks - mounted)} frameworks on {len(servers)} servers in {len(configurations)} configurations"
        in text
    )


def test_every_python_block_is_named() -> None:
    """A block without a name above it would be run by no test, and so would one that no test asks for."""
    assert len(BLOCKS) == README.count("```python")
    asked_for = set(re.findall(r'(?:run\(|BLOCKS\[)"([^"]+)"', Path(__file__).read_text()))
    assert set(BLOCKS) == asked_for


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # httpx's ASGITransport and Flask's async views want it
async def test_flask_on_uvicorn() -> None:
    """Both views answer."""
    responses = await get(run("flask on uvicorn")["asgi_app"], "/", "/async")
    assert [response.text for response in responses] == ["Hello from a thread!", "Hello from a loop of its own!"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_disconnected() -> None:
    """The report is finished for a client that stays."""
    (response,) = await get(run("disconnected")["asgi_app"], "/report")
    assert response.text == str(sum(range(1000)))


def test_fastapi_on_gunicorn(adapters: list[ASGIToWSGI]) -> None:
    """The view sees the lifespan's state."""
    adapters.append(run("fastapi on gunicorn")["wsgi_app"])
    (response,) = get_wsgi(adapters[0], "/")
    assert response.json() == "Hello from a private loop!"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_flask_in_fastapi() -> None:
    """The mounted app's redirects stay inside its mount."""
    responses = await get(run("flask in fastapi")["app"], "/legacy/", "/new")
    assert (responses[0].text, responses[0].url.path) == ("the old page", "/legacy/page")
    assert responses[1].json() == "the new page"


def test_fastapi_in_flask(adapters: list[ASGIToWSGI]) -> None:
    """Both apps answer, and the docs page of the mounted one leads to its own schema."""
    app = run("fastapi in flask")["app"]
    adapters.append(app.wsgi_app.mounts["/api"])
    responses = get_wsgi(app, "/", "/api/items", "/api/docs", "/api/openapi.json")
    assert responses[0].text == "the old page"
    assert responses[1].json() == ["one", "two"]
    assert "/api/openapi.json" in responses[2].text
    assert responses[3].json()["servers"] == [{"url": "/api"}]


def test_body_read_before(adapters: list[ASGIToWSGI]) -> None:
    """The app gets the body that was checked, and none that fails the check."""
    module = run("body read before")
    adapters.append(module["bridged"])
    signature = hmac.new(b"key", b"some data", "sha256").hexdigest()
    transport = httpx.WSGITransport(module["wsgi_app"])
    with httpx.Client(transport=transport, base_url="http://test") as client:
        response = client.post("/hook", content=b"some data", headers={"X-Signature": signature})
        assert response.json() == "some data"
        assert client.post("/hook", content=b"other data", headers={"X-Signature": signature}).status_code == 403


# An address that the client made up, and behind it the one that the proxy saw.
FORWARDED = {
    "X-Forwarded-For": "192.0.2.66, 203.0.113.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "example.org",
}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_proxy_in_front_of_flask() -> None:
    """The client's address is the one that the proxy saw, and not one that the client made up."""
    transport = httpx.ASGITransport(run("proxy in front of flask")["asgi_app"], client=("127.0.0.1", 5))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.get("/client", headers=FORWARDED)
        assert response.json() == {"address": "203.0.113.9", "url": "https://example.org/client"}
        assert (await client.get("/client")).json() == {"address": "127.0.0.1", "url": "http://test/client"}


def test_proxy_in_front_of_fastapi(adapters: list[ASGIToWSGI]) -> None:
    """The client's address is the one that a trusted proxy saw; another's word counts for nothing."""
    adapters.append(run("proxy in front of fastapi")["wsgi_app"])
    for peer, expected in (
        ("127.0.0.1", {"address": "203.0.113.9", "url": "https://test/client"}),
        ("192.0.2.66", {"address": "192.0.2.66", "url": "http://test/client"}),
        ("", {"address": None, "url": "http://test/client"}),  # a Unix socket
    ):
        transport = httpx.WSGITransport(adapters[0], remote_addr=peer)
        with httpx.Client(transport=transport, base_url="http://test") as client:
            assert client.get("/client", headers=FORWARDED).json() == expected


def test_gunicorn_hooks(tmp_path: Path) -> None:
    """They start and close the adapter that is part of another app: the one inside Flask."""
    start_and_close = """
from contextlib import asynccontextmanager
@asynccontextmanager
async def lifespan(app):
    print("<started>", flush=True)
    yield
    print("<closed>", flush=True)
"""
    code = BLOCKS["fastapi in flask"].replace("FastAPI()", "FastAPI(lifespan=lifespan)")
    (tmp_path / "hello.py").write_text(start_and_close + code)
    (tmp_path / "gunicorn.conf.py").write_text(BLOCKS["gunicorn hooks"])
    command = ["{python}", "-m", "gunicorn", "--bind", "127.0.0.1:{port}", "hello:app"]
    with serving(command, cwd=tmp_path, env={"XDG_RUNTIME_DIR": str(tmp_path)}) as server:
        wait_until(lambda: "<started>" in server.output())
        server.stop()
        assert "<closed>" in server.output()


def test_uwsgi_hooks(monkeypatch: pytest.MonkeyPatch, adapters: list[ASGIToWSGI]) -> None:
    """The hooks are set where uWSGI looks for them; its modules exist inside of it only, so stand-ins take them."""
    uwsgi = types.ModuleType("uwsgi")
    decorators: Any = types.ModuleType("uwsgidecorators")
    decorators.postfork = lambda function: function()
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    monkeypatch.setitem(sys.modules, "uwsgidecorators", decorators)
    adapters.append(run("uwsgi hooks")["wsgi_app"])
    assert get_wsgi(adapters[0], "/docs")[0].status_code == 200
    assert vars(uwsgi)["atexit"] == adapters[0].close


@pytest.mark.skipif(not UWSGI.exists(), reason="uwsgi is not installed")
def test_uwsgi_hooks_in_uwsgi(tmp_path: Path) -> None:
    """uWSGI itself runs the hooks, and serves the app."""
    (tmp_path / "hello.py").write_text(BLOCKS["uwsgi hooks"])
    command = [str(UWSGI), "--http-socket", "127.0.0.1:{port}", "-w", "hello:wsgi_app", "--master", "--enable-threads"]
    with serving([*command, "--die-on-term"], cwd=tmp_path) as server:
        assert server.client.get("/docs").status_code == 200
        server.stop()
        assert "Traceback" not in server.output()


def test_context_manager() -> None:
    """The block has its own assertion."""
    run("context manager")


def test_sigterm() -> None:
    """The signal becomes an exit."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        run("sigterm")
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("module", "serve"),
    [
        ("waitress", "waitress.serve(wsgi_app, host='127.0.0.1', port={port})"),
        ("cheroot.wsgi", "cheroot.wsgi.Server(('127.0.0.1', {port}), wsgi_app).safe_start()"),
    ],
)
def test_sigterm_with_an_open_event_stream(tmp_path: Path, module: str, serve: str) -> None:
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
    script = app + BLOCKS["sigterm"].replace("FastAPI()", "Reports()") + serve.replace("{port}", "int(sys.argv[1])")
    (tmp_path / "script.py").write_text(script)
    command = ["{python}", str(tmp_path / "script.py"), "{port}"]
    with serving(command, env={"PYTHONPATH": str(ROOT)}) as server, server.connect() as connection:
        connection.sendall(b"GET /events HTTP/1.1\r\nHost: example\r\n\r\n")
        received = b""
        while b"begun" not in received:
            received += connection.recv(65536)
        assert server.stop() < 4
        assert "http.disconnect lifespan" in server.output()


def test_the_table_of_options_is_whole() -> None:
    """Each option of each adapter is in the README's table."""
    for adapter in (WSGIToASGI, ASGIToWSGI):
        for name in inspect.signature(adapter).parameters:
            assert name == "app" or re.search(rf"^\| `{adapter.__name__}\([^)]*\b{name}=", README, re.MULTILINE), name
