"""Servers on which `detach="auto"` changes nothing, and servers that answer through a proxy that speaks uwsgi."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from bridge import ASGIToWSGI
from bridge.types import Environ, ExcInfo, Headers, Receive, Scope, Send, StartResponse, Write
from tests.processes import Server, free_port, serving
from tests.servers.wsgi_servers import KINDS, Kind, gunicorn, running, uwsgi
from tests.servers.wsgi_websocket_hosts import make_certificate


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Depending on the path, answer late with the numbers of responses that were detached and kept, stream, or fail."""
    path = scope["path"]
    headers = [(b"content-type", b"text/event-stream" if path == "/events" else b"text/plain")]
    if path == "/events":
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number in range(3):
            await anyio.sleep(0.05)
            await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
        await send({"type": "http.response.body"})
        return
    await anyio.sleep(0.05)
    if path == "/error":
        raise ZeroDivisionError("the app's error")
    if path == "/broken":
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"part", "more_body": True})
        await anyio.sleep(0.05)
        raise ZeroDivisionError("the app's error")
    if path == "/empty":
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})
        return
    numbers = wsgi_app.statistics()
    body = b"%d detached, %d kept" % (numbers.detached_total, numbers.kept_total)
    if path == "/length":
        headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


wsgi_app = ASGIToWSGI(app, lifespan="off", detach="auto", detach_after=0)


def with_middleware(environ: Environ, start_response: StartResponse) -> Any:
    """Add a header, as WSGI middleware does."""

    def start(status: str, headers: Headers, exc_info: ExcInfo | None = None) -> Write:
        return start_response(status, [*headers, ("X-Middleware", "1")], exc_info)

    return wsgi_app(environ, start)


APP = f"{__name__}:wsgi_app"
NO_WARNING = "import warnings\nwarnings.simplefilter('ignore')\n"
EVENTLET = (
    f"{NO_WARNING}import eventlet, eventlet.wsgi\neventlet.monkey_patch()\n"
    "from {module} import {attribute} as app\neventlet.wsgi.server(eventlet.listen(('127.0.0.1', {port})), app)"
)
HELD = [
    KINDS["gunicorn-gevent"],
    KINDS["gevent-pywsgi"],
    KINDS["waitress-lookahead"],
    KINDS["uwsgi-one-thread"],
    KINDS["mod_wsgi"],
    KINDS["passenger"],
    KINDS["granian-wsgi"],
    Kind("eventlet", ("{python}", "-c", EVENTLET), optional="eventlet"),
    gunicorn("http2", "-k", "gthread", "--http-protocols", "h2,h1", "--http2-cleartext", "prior-knowledge"),
    gunicorn("tls", "-k", "gthread", "--certfile", "{folder}/cert.pem", "--keyfile", "{folder}/key.pem"),
]
DEFAULT = ("gunicorn-http2", "gunicorn-tls")  # the others are slow


@contextlib.contextmanager
def serving_kind(kind: Kind, app: str = APP) -> Iterator[tuple[Server, httpx.Client]]:
    """Run the server, and yield a client that speaks its protocol."""
    with tempfile.TemporaryDirectory() as folder:
        tls = kind.name == "gunicorn-tls"
        if tls:
            make_certificate(folder)
            kind = kind._replace(command=tuple(part.replace("{folder}", folder) for part in kind.command))
        http2 = kind.name == "gunicorn-http2"
        with (
            running(kind, app) as server,
            httpx.Client(
                base_url=f"{'https' if tls else 'http'}://127.0.0.1:{server.port}",
                verify=False,
                http1=not http2,
                http2=http2,
                timeout=20,
                trust_env=False,
                limits=httpx.Limits(max_keepalive_connections=0),  # uWSGI closes without saying so
            ) as client,
        ):
            yield server, client


@pytest.mark.parametrize(
    "held",
    [pytest.param(kind, id=kind.name, marks=() if kind.name in DEFAULT else pytest.mark.slow) for kind in HELD],
)
def test_a_response_keeps_its_thread_where_its_connection_cannot_be_taken(held: Kind) -> None:
    """The server answers as it does without the option, whether the response is late, a stream, empty, or an error."""
    with serving_kind(held) as (server, client):
        for path in ("/", "/length", "/"):
            response = client.get(path)
            assert response.status_code == 200
            assert response.text.startswith("0 detached, ")
        assert client.get("/events").content == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
        assert client.get("/empty").status_code == 204
        assert client.head("/length").headers["content-length"] != "0"
        with contextlib.suppress(httpx.RemoteProtocolError):  # some servers hang up in place of an answer
            assert client.get("/error").status_code in (500, 502)
        assert client.get("/").text.startswith("0 detached, ")
        assert server.output().count("the app's error") >= 1


def test_a_response_behind_middleware_keeps_its_thread() -> None:
    """The headers that the middleware adds reach the client."""
    with serving_kind(KINDS["gunicorn-gthread"], f"{__name__}:with_middleware") as (_, client):
        for path in ("/", "/events"):
            assert client.get(path).headers["x-middleware"] == "1"
        assert client.get("/").text.startswith("0 detached, ")


# --- Behind nginx, by the uwsgi protocol ----------------------------------------------------------

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
CONF = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
worker_processes 1;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            include /etc/nginx/uwsgi_params;
            uwsgi_pass 127.0.0.1:{upstream};
        }}
    }}
}}
"""


def _by_socket(kind: Kind) -> Kind:
    return kind._replace(command=tuple("--socket" if part == "--http-socket" else part for part in kind.command))


BY_UWSGI = [
    _by_socket(uwsgi("socket", "--processes", "1", "--threads", "2")),
    gunicorn("uwsgi", "-k", "gthread", "--threads", "2", "--protocol", "uwsgi"),
    gunicorn("uwsgi-sync", "--protocol", "uwsgi"),
]


@pytest.fixture(scope="module", params=BY_UWSGI, ids=[kind.name for kind in BY_UWSGI])
def proxy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if NGINX is None or not Path("/etc/nginx/uwsgi_params").exists():
        pytest.skip("nginx is not installed")
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    folder.chmod(0o755)
    with running(request.param, APP) as upstream:
        (folder / "nginx.conf").write_text(CONF.format(folder=folder, port=port, upstream=upstream.port))
        command = [NGINX, "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]
        with serving(command, cwd=folder, port=port) as server:
            yield server


def test_a_detached_response_passes_through_nginx(proxy: Server) -> None:
    """nginx frames it for its client, with a length and without, and adds no body to a response that has none."""
    first = proxy.client.get("/")
    assert first.text.partition(" ")[0] != "0"
    assert first.headers["date"]
    length = proxy.client.get("/length")
    assert int(length.headers["content-length"]) == len(length.content)
    assert proxy.client.get("/events").content == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
    empty = proxy.client.get("/empty")
    assert (empty.status_code, empty.content) == (204, b"")
    head = proxy.client.head("/length")
    assert (head.status_code, head.content) == (200, b"")
    assert proxy.client.get("/error").status_code == 500


def test_nginx_passes_on_that_a_detached_response_was_cut(proxy: Server) -> None:
    """The connection is reset. This does not end a body without a length, so nginx does not end its own, either."""
    with pytest.raises(httpx.RemoteProtocolError):
        proxy.client.get("/broken")
