"""A site half moved, on real servers of both kinds."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from websockets.sync.client import connect

from tests.migration.conftest import HEADER
from tests.processes import Server, wait_until
from tests.processes import serving as serving_command
from tests.servers import asgi_servers, wsgi_servers
from tests.servers.frameworks import parts

ASGI = ("uvicorn-h11-asyncio", "hypercorn-asyncio", "granian")
WSGI = ("gunicorn-gthread", "uwsgi-lazy-apps", "waitress")
MIB = 1024 * 1024


class Site(NamedTuple):
    """A server with the site, and what it can do."""

    kind: Any
    server: Server

    def send(
        self, method: str, path: str, headers: dict[str, str] | None = None, **options: Any
    ) -> tuple[str, httpx.Response]:
        """Return who answered, and the response."""
        # uWSGI closes each connection, and does not say so.
        headers = {**(headers or {}), "Connection": "close"}
        response = self.server.client.request(method, path, headers=headers, **options)
        return response.headers[HEADER], response


@contextlib.contextmanager
def serving(name: str, new: str, old: str) -> Iterator[Site]:
    """Run the site on a server."""
    env = {"NEW": new, "OLD": old}
    if name in ASGI:
        kind: Any = asgi_servers.KINDS[name]
        with asgi_servers.running(kind, "tests.migration.site:asgi_app", env) as server:
            yield Site(kind, server)
    else:
        kind = wsgi_servers.KINDS[name]
        with wsgi_servers.running(kind, "tests.migration.site:wsgi_app", env) as server:
            yield Site(kind, server)


@pytest.fixture(scope="module", params=[*ASGI, *WSGI])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """FastAPI before Flask, for all tests of the module."""
    with serving(request.param, "fastapi", "flask") as site:
        yield site


def check_rows(site: Site, new: str = "fastapi", old: str = "flask") -> None:
    """Each row of the tables in docs/migration.md that real servers can be asked."""

    def preflight(method: str) -> dict[str, str]:
        return {"Origin": "http://a.example", "Access-Control-Request-Method": method}

    expected = {
        ("GET", "/both"): ("new", 200),
        ("POST", "/both"): ("old", 200),
        ("DELETE", "/both"): ("old", 405),
        ("DELETE", "/sub/both"): ("old", 405),
        ("GET", "/fresh/"): ("new", 200),
        ("GET", "/gone"): ("new", 404),
        ("POST", "/gone"): ("new", 405),
        ("GET", "/in/both"): ("new", 200),
        ("GET", "/in/old"): ("old", 200),
        ("GET", "/ws/new"): ("old", 404),
        ("GET", "/nowhere"): ("old", 404),
        ("GET", "/both?size=1"): ("new", 200),
        ("GET", "/slash"): ("old", 200),
        ("GET", "/slash/"): ("new", 200),
        ("GET", "/refuses"): ("new", 401),
        ("GET", "/sub/both"): ("old", 200),
        ("PUT", "/sub/both"): ("new", 200),
        ("HEAD", "/both"): ("new", 200),
    }
    if new != "quart":
        expected |= {("GET", "/closed/old"): ("new", 404), ("OPTIONS", "/both"): ("old", 200)}
    if new == "fastapi":
        expected |= {
            ("GET", "/docs"): ("new", 200),
            ("GET", "/item/1"): ("new", 200),
            ("GET", "/item/one"): ("new", 422),
            ("HEAD", "/item/1"): ("old", 200),
        }
    for _ in range(2):
        for (method, path), (who, status) in expected.items():
            answered, response = site.send(method, path)
            assert (answered, response.status_code) == (who, status), (method, path)
            if (path, status) == ("/both", 200) and method in ("GET", "POST"):
                assert response.text == f"{who} {method}"
    _, response = site.send("DELETE", "/sub/both")
    assert set(response.headers["allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"} | (
        {"POST"} if old == "django" else set()
    )
    if new != "quart":
        hosts = {"other.example": "new", "another.example": "old"}
        assert {host: site.send("GET", "/hosted", {"Host": host})[0] for host in hosts} == hosts
    response = site.server.client.get("/fails", headers={"Connection": "close"})
    assert response.status_code == 500
    who, response = site.send("GET", "/fresh")
    assert (who, response.status_code in (307, 308)) == ("new", True)
    assert response.headers["location"].endswith("/fresh/")
    assert [site.send("OPTIONS", "/both", headers=preflight(method))[0] for method in ("POST", "GET")] == ["old", "new"]
    assert site.send("GET", "/state")[1].json() == {"started": 1}
    body = b"x" * 100_000
    for side in ("new", "old"):
        who, response = site.send("POST", f"/upload/{side}", content=body)
        assert (who, response.json()) == (side, parts.digest(body))
        who, response = site.send("GET", f"/download/{side}?size=100000")
        assert (who, response.content) == (side, body)


def test_each_row_has_its_answer(site: Site) -> None:
    """The new app, the old app, and their statuses."""
    check_rows(site)


@pytest.mark.slow
@pytest.mark.parametrize("old", ["flask", "django"])
@pytest.mark.parametrize("new", ["fastapi", "starlette", "quart"])
@pytest.mark.parametrize("name", [*ASGI, *WSGI])
def test_each_pair_of_frameworks_has_its_answers(name: str, new: str, old: str) -> None:
    """The same by all pairs, on all servers."""
    with serving(name, new, old) as site:
        check_rows(site, new, old)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ASGI, *WSGI])
def test_both_apps_make_urls_with_the_root_path(name: str) -> None:
    """The choice is the same below a prefix, which both apps see as the server tells it."""
    target = "/base"
    env: dict[str, str] = {}
    if name in ASGI:
        asgi = asgi_servers.KINDS[name]
        if missing := asgi_servers.maybe_missing(asgi):
            pytest.skip(f"{name}: {missing} is not installed")
        command = [*asgi.command, asgi.root_path, "/base", "tests.migration.site:asgi_app"]
        target = "" if name.startswith("uvicorn") else target  # it adds the prefix to the path
    else:
        if missing := wsgi_servers.maybe_missing(wsgi_servers.KINDS[name]):
            pytest.skip(f"{name}: {missing} is not installed")
        command, env = _below_a_prefix(name)
    with serving_command(command, env=env) as server:
        site = Site(None, server)
        for who in ("new", "old"):
            answered, response = site.send("GET", f"{target}/where/{who}")
            assert (answered, response.text) == (who, f"/base/where/{who}")
        assert [site.send(method, f"{target}/both")[0] for method in ("GET", "POST")] == ["new", "old"]


def _below_a_prefix(name: str) -> tuple[list[str], dict[str, str]]:
    """Return the command that serves the site below /base, and what its environment needs."""
    app = "tests.migration.site:wsgi_app"
    if name == "waitress":
        code = "import waitress\nfrom tests.migration.site import wsgi_app\n"
        code += "waitress.serve(wsgi_app, host='127.0.0.1', port={port}, url_prefix='/base')"
        return ["{python}", "-c", code], {}
    command = [part.replace("{app}", app).replace("{grace}", "5") for part in wsgi_servers.KINDS[name].command]
    if name.startswith("uwsgi"):
        return [*command[: command.index("--module")], "--manage-script-name", "--mount", f"/base={app}"], {}
    return command, {"SCRIPT_NAME": "/base"}


def test_websockets_reach_the_new_app(site: Site) -> None:
    """Under a WSGI server, too."""
    with connect(f"ws://127.0.0.1:{site.server.port}/ws/new", open_timeout=10) as websocket:
        websocket.send("hello")
        assert websocket.recv(10) == "new hello"


@pytest.mark.parametrize("side", ["new", "old"])
def test_100_continue_is_answered_for_either(site: Site, side: str) -> None:
    """The choice reads nothing, so the body is asked for by the app that reads it."""
    if not getattr(site.kind, "continues", True):
        pytest.skip(f"{site.kind.name} does not answer Expect: 100-continue")
    with site.server.connect() as sock:
        head = f"POST /upload/{side} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n"
        sock.sendall(f"{head}Connection: close\r\n\r\n".encode())
        assert _until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"hello")
        assert b'"size":5' in _until(sock, b"}").replace(b" ", b"")


def _until(sock: socket.socket, end: bytes) -> bytes:
    received = b""
    while end not in received:
        block = sock.recv(1)
        assert block, received
        received += block
    return received


@pytest.mark.parametrize("side", ["new", "old"])
def test_a_client_that_leaves_reaches_the_app_that_serves_it(site: Site, side: str) -> None:
    """Events come as they are sent, and the stream ends soon after its client."""
    before = int(site.send("GET", f"/left/{side}")[1].text)
    with site.server.client.stream("GET", f"/events/{side}", headers={"Connection": "close"}) as response:
        lines = response.iter_lines()
        assert [next(lines) for _ in range(3)] == ["data: 0", "", "data: 1"]
    wait_until(lambda: int(site.send("GET", f"/left/{side}")[1].text) == before + 1, what="the end of the stream")


@pytest.mark.slow
@pytest.mark.parametrize("side", ["new", "old"])
def test_memory_is_constant_both_ways(site: Site, side: str) -> None:
    """100 MiB to either app and back."""
    size = 100 * MIB

    def blocks() -> Iterator[bytes]:
        for _ in range(size // MIB):
            yield b"x" * MIB

    check_rows(site)
    before = _peak(site.server)
    _, response = site.send("POST", f"/upload/{side}", {"Content-Length": str(size)}, content=blocks())
    assert response.json()["size"] == size
    closing = {"Connection": "close"}
    with site.server.client.stream("GET", f"/download/{side}?size={size}", headers=closing) as download:
        assert sum(map(len, download.iter_raw())) == size
    assert _peak(site.server) - before < 50 * MIB  # waitress has up to 16 MiB of a response in its buffers, and more


def _peak(server: Server) -> int:
    """Return the most memory that any process of the server has had, in bytes."""
    peaks = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError, IndexError):  # it has ended
            text = status.read_text()
            if Path(status.parent, "stat").read_text().rpartition(")")[2].split()[2] == str(server.process.pid):
                peaks.append(int(text.partition("VmHWM:")[2].split()[0]) * 1024)
    return max(peaks)


@pytest.mark.parametrize("name", [*ASGI, "gunicorn-hooks"])
def test_the_lifespan_lives_as_long_as_the_server(name: str, tmp_path: Path) -> None:
    """It starts once, and is shut down at the end: by gunicorn's hooks as well."""
    log = tmp_path / "log"
    env = {"BRIDGE_SHUTDOWN_LOG": str(log)}
    if name == "gunicorn-hooks":
        kind = wsgi_servers.gunicorn("hooks", "-k", "gthread", "--threads", "4", "-c", "python:bridge.gunicorn")
        running = wsgi_servers.running(kind, "tests.migration.site:wsgi_app", env)
    else:
        running = asgi_servers.running(asgi_servers.KINDS[name], "tests.migration.site:asgi_app", env)
    with running as server:
        wait_until(lambda: server.client.get("/state").status_code == 200)
        assert server.client.get("/state", headers={"Connection": "close"}).json() == {"started": 1}
        server.stop()
        assert log.read_text().count("shutdown") == 1
        assert "Traceback" not in server.output()
