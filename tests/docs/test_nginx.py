"""The page about nginx, with an nginx that listens on a free port."""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.docs.pages import BIN, Page
from tests.processes import Server, free_port, serving

FASTAPI = Page("docs/quickstarts/fastapi.md")
NGINX = Page("docs/deployment/nginx.md")
PROXIES = Page("docs/deployment/proxies.md")
WEBSOCKETS = Page("docs/websockets.md")

PROGRAM = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="nginx is not installed")

BEFORE = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
user root;
worker_processes 1;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {text}
}}
"""
GUNICORN = ["{python}", "-m", "gunicorn", "--bind", "127.0.0.1:{port}", "-k", "gthread", "--threads", "4"]


@contextlib.contextmanager
def nginx(text: str, folder: Path) -> Iterator[Server]:
    """Run nginx with what a page puts into `conf.d`."""
    port = free_port()
    (folder / "nginx.conf").write_text(BEFORE.format(folder=folder, text=text.replace("listen 80;", f"listen {port};")))
    command = [str(PROGRAM), "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]
    with serving(command, cwd=folder, port=port) as server:
        yield server


@contextlib.contextmanager
def behind_nginx(code: str, folder: Path) -> Iterator[Server]:
    """Run an app on gunicorn behind nginx, and yield nginx."""
    (folder / "hello.py").write_text(code)
    with (
        serving([*GUNICORN, "hello:wsgi_app"], cwd=folder) as server,
        nginx(NGINX["hello.conf"].replace("127.0.0.1:8000", f"127.0.0.1:{server.port}"), folder) as proxy,
    ):
        yield proxy


def test_event_stream(tmp_path: Path) -> None:
    """The first event arrives although the second one waits."""
    code = NGINX["event stream"]
    event = '        yield f"data: {number}\\n\\n"\n'
    assert event in code
    code = code.replace(event, event + "        await released.wait()\n")
    code = "import asyncio\nreleased = asyncio.Event()\n" + code
    code += '\n\n@app.get("/release")\nasync def release() -> None:\n    released.set()\n'
    with behind_nginx(code, tmp_path) as proxy, proxy.client.stream("GET", "/events") as response:
        blocks = response.iter_text()
        assert next(blocks) == "data: 0\n\n"
        proxy.client.get("/release")
        assert "".join(blocks) == "data: 1\n\ndata: 2\n\n"


def test_websocket(tmp_path: Path) -> None:
    """nginx passes the handshake and the messages on."""
    with (
        behind_nginx(WEBSOCKETS["fastapi"], tmp_path) as proxy,
        connect(f"ws://127.0.0.1:{proxy.port}/echo") as websocket,
    ):
        websocket.send("hello")
        assert websocket.recv(timeout=20) == "hello"


def test_headers_and_limits(tmp_path: Path) -> None:
    """The app learns the scheme and the address from nginx, and nginx refuses what is too large."""
    with behind_nginx(PROXIES["proxy in front of fastapi"], tmp_path) as proxy:
        answer = proxy.client.get("/client").json()
        assert answer == {"address": "127.0.0.1", "url": f"http://127.0.0.1:{proxy.port}/client"}
        assert proxy.client.post("/client", content=bytes(21 << 20)).status_code == 413


def test_bad_gateway(tmp_path: Path) -> None:
    """nginx answers 502 for the reasons that the FAQ gives, and its log has the words."""
    code = FASTAPI["hello"].replace("return greeting", "raise fastapi.HTTPException(404, headers={'X': 'x' * 20_000})")
    with behind_nginx("import fastapi\n" + code, tmp_path) as proxy:
        assert proxy.client.get("/").status_code == 502
        assert "upstream sent too big header" in proxy.output()
    with nginx(NGINX["hello.conf"].replace("127.0.0.1:8000", f"127.0.0.1:{free_port()}"), tmp_path) as proxy:
        assert proxy.client.get("/").status_code == 502
        assert "connect() failed" in proxy.output()


@pytest.mark.skipif(not (BIN / "uwsgi").exists(), reason="uwsgi is not installed")
def test_uwsgi(tmp_path: Path) -> None:
    """A chunked upload arrives whole behind uWSGI's own protocol, because nginx gives it a length."""
    code = (
        FASTAPI["hello"]
        + '\n\n@app.post("/")\nasync def upload(request: Request) -> int:\n    return len(await request.body())\n'
    )
    (tmp_path / "hello.py").write_text(code)
    location = NGINX["uwsgi"].replace("/run/hello", str(tmp_path))
    if not Path("/etc/nginx/uwsgi_params").exists():
        pytest.skip("/etc/nginx/uwsgi_params is not installed")
    command = [str(BIN / "uwsgi"), "--socket", str(tmp_path / "uwsgi.sock"), "--http-socket", "127.0.0.1:{port}"]
    command += ["--virtualenv", sys.prefix, "--module", "hello:wsgi_app", "--master", "--threads", "4", "--die-on-term"]
    text = f"server {{\nlisten 80;\n{location}\n}}"
    with serving(command, cwd=tmp_path), nginx(text, tmp_path) as proxy:
        assert proxy.client.get("/").json() == "Hello from a private loop!"
        assert proxy.client.post("/", content=iter([b"in", b"chunks"])).json() == 8


def test_configuration(tmp_path: Path) -> None:
    """nginx finds nothing to complain about."""
    path = tmp_path / "nginx.conf"
    path.write_text(BEFORE.format(folder=tmp_path, text=NGINX["hello.conf"]))
    command = [str(PROGRAM), "-t", "-p", str(tmp_path), "-e", "stderr", "-c", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert "syntax is ok" in done.stderr
