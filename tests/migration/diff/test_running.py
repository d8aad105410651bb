import http.server
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request

from bridge.migration.diff.exchange import remote_host
from tests.migration.diff.conftest import Diff
from tests.migration.diff.test_differences import answering

# Of a key that no other server has, for localhost, until 2126.
CERTIFICATE = Path(__file__).parent / "localhost.pem"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the path says, and remembers the requests."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path} {self.headers['Host']}")
        self.send_response(302 if self.path.endswith("/moved") else 200)
        self.send_header("Location", f"http://{self.headers['Host']}/moved")
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", "9" if self.path.endswith("/short") else "1")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"x")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append(f"{body!r} {self.headers['X-Who']} {self.headers['Accept-Encoding']}")
        self.do_GET()

    do_HEAD = do_GET  # noqa: N815
    do_PUT = do_POST  # noqa: N815

    def log_message(self, *values: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A server on this machine, and the requests that it got."""
    asked: list[str] = []
    handler = type("Remembering", (Handler,), {"asked": asked})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()
        thread.join()


def test_a_url_is_asked(server: tuple[str, list[str]], diff: Diff) -> None:
    """Under its own host and path, with safe methods only, and redirects are not followed."""
    url, asked = server
    outcome = diff(f"{url}/shop/", answering("x", Location="/moved"), "--path", "/a", "--path", "/moved")
    assert asked == [f"GET /shop{path} {url[7:]}" for path in ("/a", "/moved", "/a", "/moved")]
    assert "status: 200 → 404" in outcome.out
    assert "status: 302 → 404" in outcome.out


def test_a_url_gets_bodies_and_headers(server: tuple[str, list[str]], diff: Diff) -> None:
    """A POST without a body has a Content-Length, too; what would have the answer compressed is not added."""
    url, asked = server
    headers = [{"name": "X-Who", "value": "ädä"}]
    entries = [
        {"request": {"method": "PUT", "url": "http://x/a", "headers": headers, "postData": {"text": "body"}}},
        {"request": {"method": "POST", "url": "http://x/b", "headers": []}},
    ]
    Path("site.har").write_text(json.dumps({"log": {"entries": entries}}))
    assert diff(url, url, "--requests", "site.har", "--unsafe").code == 0
    assert asked[0::2][:2] == ["b'body' ädä None", "b'' None None"]


def test_a_url_is_alike_to_itself(server: tuple[str, list[str]], diff: Diff) -> None:
    """If both bodies are cut off, that is a fault of both; if only one is, that is a difference."""
    url, _ = server
    assert diff(url, url, "--path", "/a", "--path", "/short").code == 0
    assert "answer: the body is shorter" in diff(url, answering_at("/short"), "--path", "/short").out


def answering_at(path: str) -> Flask:
    app = Flask("at")
    app.add_url_rule(path, "x", lambda: "x")
    return app


def test_only_safe_methods_are_sent(server: tuple[str, list[str]], diff: Diff, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only --unsafe allows other methods; on other machines, the host has to be named, too."""
    url, asked = server
    Path("paths").write_text("GET /a\nPOST /a\n")
    assert diff(url, url, "--requests", "paths").code == 0
    assert not [line for line in asked if line.startswith("POST")]
    assert diff(url, url, "--requests", "paths", "--unsafe").code == 0
    assert len([line for line in asked if line.startswith("POST")]) == 3
    outcome = diff("http://shop.example", url, "--requests", "paths", "--unsafe")
    assert outcome.code == 2
    assert "add --may-change shop.example" in outcome.err
    assert len([line for line in asked if line.startswith(("GET", "POST"))]) == 9


def test_a_remote_host_may_be_changed_if_it_is_named(monkeypatch: pytest.MonkeyPatch, diff: Diff) -> None:
    """By --may-change with its name; another name does not do."""
    Path("paths").write_text("POST /a\n")
    arguments = ["--requests", "paths", "--unsafe", "--may-change"]
    url = "http://shop.invalid"
    assert "if that is intended, add --may-change shop.invalid" in diff(url, url, *arguments, "other.invalid").err
    outcome = diff(url, url, *arguments, "shop.invalid")
    assert outcome.code == 2
    assert "POST /a: http://shop.invalid cannot be reached" in outcome.err


@pytest.mark.parametrize(("form", "start"), [("--json", "{\n  "), ("--markdown", "## ")])
def test_a_form_may_go_to_standard_output(form: str, start: str, diff: Diff) -> None:
    """The form replaces the text, and the apps' own output goes to stderr."""
    app = answering("x")
    app.before_request(lambda: print("printed by the app"))
    outcome = diff(app, app, "--path", "/", form, "-")
    assert outcome.out.startswith(start)
    assert "alike: 1 request" in outcome.out or '"alike": 1' in outcome.out
    assert outcome.out.count("alike") == 1
    assert "printed by the app" not in outcome.out
    assert outcome.err.count("printed by the app") == 3


def test_credentials_are_sent_if_that_is_asked_for(diff: Diff) -> None:
    """Those of a recording."""
    app = Flask("who")
    app.add_url_rule("/", "who", lambda: {"who": request.headers.get("Authorization", "nobody")})
    har = {"log": {"entries": [{"request": {"method": "GET", "url": "http://x/"}}]}}
    har["log"]["entries"][0]["request"]["headers"] = [{"name": "Authorization", "value": "Basic ada"}]  # type: ignore[assignment]
    Path("site.har").write_text(json.dumps(har))
    expected = answering({"who": "Basic ada"})
    assert diff(expected, app, "--requests", "site.har", "--send-credentials").code == 0
    assert diff(expected, app, "--requests", "site.har").code == 1


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://127.0.0.1:80", None),
        ("http://[::1]/", None),
        ("http://localhost", None),
        ("http://127.0.0.1.example", "127.0.0.1.example"),
        ("https://10.0.0.1", "10.0.0.1"),
        ("shop:app", None),
    ],
)
def test_hosts_beyond_this_machine_are_known(url: str, host: str | None) -> None:
    """By the address, and not by how it begins."""
    assert remote_host(url) == host


def test_a_host_that_is_silent_or_absent_ends_in_a_sentence(diff: Diff) -> None:
    """With the name of the request."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        outcome = diff(url, url, "--path", "/a", "--timeout", "0.2")
        assert outcome.code == 2
        assert outcome.err == f"bridge diff: GET /a: {url} did not answer within 0.2 s\n"
    outcome = diff(url, url, "--path", "/a")
    assert outcome.code == 2
    assert "cannot be reached: Connection refused" in outcome.err


@pytest.fixture
def https(server: tuple[str, list[str]]) -> Iterator[str]:
    """The server of `server`, with TLS and a certificate that signs itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    handler = type("Remembering", (Handler,), {"asked": server[1]})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as running:
        running.socket = context.wrap_socket(running.socket, server_side=True)
        running.handle_error = lambda *values: None  # type: ignore[method-assign]  # a client that does not trust it
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"https://localhost:{running.server_port}"
        running.shutdown()
        thread.join()


def test_an_https_host_is_asked_if_its_certificate_is_trusted(
    https: str, server: tuple[str, list[str]], diff: Diff, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the sentence says so; where it redirects to itself, the scheme and the host do not count."""
    outcome = diff(https, https, "--path", "/a")
    assert outcome.code == 2
    assert f"GET /a: the certificate of {https} is not trusted: self" in outcome.err
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    url, asked = server
    assert diff(https, url, "--path", "/moved").code == 0
    assert {line.split()[0] for line in asked} == {"GET"}
    assert len(asked) == 3


def test_a_server_that_hangs_up_ends_in_a_sentence(diff: Diff) -> None:
    """It was reached, and has said nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=lambda: listening.accept()[0].close())
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        outcome = diff(url, url, "--path", "/a", "--timeout", "20")
        thread.join()
    assert outcome.code == 2
    assert re.search("closed the connection without an answer|cannot be reached: Connection reset", outcome.err)


def test_a_hung_app_ends_in_a_sentence(diff: Diff) -> None:
    """A WSGI app in its thread, an ASGI app that waits or blocks its loop."""
    over = threading.Event()

    def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
        over.wait(20)
        return []

    async def blocking(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        over.wait(20)

    async def waiting(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await receive()
        await receive()

    try:
        for app in (wsgi_app, waiting):
            outcome = diff(app, app, "--path", "/", "--timeout", "0.2")
            assert outcome.code == 2
            assert "GET /: apps_of_a_test:old did not answer within 0.2 s" in outcome.err
        threading.Timer(1, over.set).start()
        assert diff(blocking, answering("x"), "--path", "/", "--timeout", "0.2").code == 2
    finally:
        over.set()


def test_a_startup_that_fails_ends_in_a_sentence(diff: Diff) -> None:
    """Nothing is played."""

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    outcome = diff(answering("x"), failing, "--path", "/")
    assert outcome.code == 2
    assert "the startup of apps_of_a_test:new failed" in outcome.err


@pytest.mark.parametrize(
    ("body", "sentence"), [('{"a": NaN}', "NaN is not a JSON number"), ('{"a": 1, "a": 2}', "a duplicate key")]
)
def test_json_that_is_none_cannot_be_compared(body: str, sentence: str, diff: Diff) -> None:
    """The rest is compared nevertheless."""
    broken = answering(body, Content_Type="application/json")
    outcome = diff(answering({"a": 1}), broken, "--path", "/")
    assert outcome.code == 2
    assert sentence in outcome.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "there are no requests to play"),
        (["--path", "a"], "must begin with a slash"),
        (["--path", "/", "--ignore", "$.a[x"], "expected a header, or a JSON path"),
        (["--path", "/", "--accept", "nowhere"], "cannot be read"),
        (["--path", "/", "--rate", "0"], "expected a number above 0"),
        (["--path", "/", "--write-accept", "no/folder"], "cannot be written"),
    ],
)
def test_bad_arguments_end_in_a_sentence(arguments: list[str], sentence: str, diff: Diff) -> None:
    """The exit code is 2."""
    outcome = diff(answering("x"), answering("x"), *arguments)
    assert outcome.code == 2
    assert sentence in outcome.err


@pytest.mark.parametrize("url", ["http://", "http://user:pass@host/", "http://host:port/", "http://host/?a=b"])
def test_a_bad_url_ends_in_a_sentence(url: str, diff: Diff) -> None:
    """Without its password."""
    outcome = diff(url, url, "--path", "/")
    assert outcome.code == 2
    assert "a URL" in outcome.err
    assert "pass@" not in outcome.err


def test_a_rate_is_kept(diff: Diff) -> None:
    """At most that many requests a second."""
    started = time.monotonic()
    diff(answering("x"), answering("x"), "--path", "/", "--rate", "20")
    assert time.monotonic() - started >= 0.15
