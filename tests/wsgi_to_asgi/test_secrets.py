"""Error reports reveal no more of a request than behind a WSGI server."""

import json
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import anyio
import pytest

from bridge import ServerProtocolError, WSGIToASGI
from bridge.types import Environ, Message, StartResponse
from tests.fakes import ASGIServer, ASGIWebSocket, http_scope, websocket_scope
from tests.processes import ROOT

SECRETS = {name: f"s3cret-{name}" for name in ("cookie", "authorization", "api-key", "query", "body", "tls")}
TLS = {
    "server_cert": None,
    "client_cert_chain": [SECRETS["tls"]],
    "client_cert_name": f"CN={SECRETS['tls']}",
    "client_cert_error": None,
    "tls_version": None,
    "cipher_suite": None,
}
KEYS: dict[str, Any] = {
    "headers": [
        (b"host", b"h"),
        (b"cookie", f"sessionid={SECRETS['cookie']}".encode()),
        (b"authorization", f"Bearer {SECRETS['authorization']}".encode()),
        (b"x-api-key", SECRETS["api-key"].encode()),
        (b"content-type", b"application/json"),
    ],
    "query_string": f"token={SECRETS['query']}".encode(),
    "extensions": {"tls": TLS},
}

# A real Django, in a process of its own because its settings can be made only once. It prints how often each report
# shows each secret, for a request through the adapter and for the same one on a WSGI server.
DJANGO = """
import io, json, sys
import anyio, django
from django.conf import settings
from django.core import mail
from django.core.wsgi import get_wsgi_application
from django.urls import path
from bridge import WSGIToASGI
from tests.fakes import http_scope, request
from tests.wsgi_to_asgi.test_secrets import KEYS, SECRETS

def view(request):
    scope, disconnected = (request.environ.get(name) for name in ("asgi.scope", "bridge.disconnected"))
    stream = request.environ["wsgi.input"]
    raise ValueError("oops")

urlpatterns = [path("", view)]
settings.configure(
    DEBUG=True, ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="of a test", ADMINS=[("admin", "a@example.org")],
    EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend", MIDDLEWARE=[],
    LOGGING={
        "version": 1,
        "handlers": {"mail": {"class": "django.utils.log.AdminEmailHandler", "include_html": True}},
        "loggers": {"django.request": {"handlers": ["mail"], "propagate": False}},
    },
)
django.setup()
django_app = get_wsgi_application()
environs, reports = [], {}

def app(environ, start_response):
    environs.append({**environ})
    return django_app(environ, start_response)

async def through_the_adapter():
    scope = http_scope("POST", scheme="https", **KEYS)
    return (await request(WSGIToASGI(app), scope, SECRETS["body"].encode())).body.decode()

def on_a_server():
    environ = {**environs[-1], "wsgi.input": io.BytesIO(SECRETS["body"].encode())}
    del environ["asgi.scope"], environ["bridge.disconnected"]
    return b"".join(django_app(environ, lambda *arguments: None)).decode()

for settings.DEBUG in (True, False):
    for way in (lambda: anyio.run(through_the_adapter), on_a_server):
        page = way()
        (message,) = mail.outbox
        mail.outbox.clear()
        (html, _), = message.alternatives
        for name, text in {"page": page, "mail": message.body, "mail in HTML": html}.items():
            counts = {secret: text.count(value) for secret, value in SECRETS.items()}
            reports.setdefault(f"{name} {settings.DEBUG}", []).append(counts)
        assert "oops" in message.body and "HTTP_COOKIE" in message.body
assert "asgi.scope" in environs[0]
print(json.dumps(reports))
"""


def test_djangos_reports_tell_no_more_than_on_a_wsgi_server() -> None:
    """Django's debug page and mails mask values by names such as HTTP_COOKIE, so no other name may show them."""
    result = subprocess.run(
        [sys.executable, "-c", DJANGO], capture_output=True, timeout=40, cwd=ROOT, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    reports = json.loads(result.stdout)
    assert len(reports) == 6
    for through_the_adapter, on_a_server in reports.values():
        assert through_the_adapter == on_a_server
        masked = ("cookie", "authorization", "api-key", "body")
        assert [through_the_adapter[name] for name in masked] == [0, 0, 0, 0]
    assert reports["page True"][0]["query"]  # proof that it is the debug page


def told_by_reprs(environ: Environ) -> str:
    """Return the reprs of all values in an environ that are not str. The str ones have the names of any WSGI server."""
    return " ".join(repr(value) for value in environ.values() if not isinstance(value, str))


@pytest.mark.parametrize("buffer_body", [False, True])
@pytest.mark.parametrize("split", [False, True])
async def test_nothing_in_an_environ_tells_of_the_request_by_its_repr(buffer_body: bool, split: bool) -> None:
    """No repr shows the scope or the body, whether or not the body was read."""
    told: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        told.append(told_by_reprs(environ))
        environ["wsgi.input"].read(8)
        told.append(told_by_reprs(environ))
        told.append(repr([start_response, environ["wsgi.file_wrapper"](environ["wsgi.input"]), environ["asgi.scope"]]))
        start_response("200 OK", [])
        return []

    extensions = {**KEYS["extensions"], "http.response.early_hint": {}}
    body = SECRETS["body"].encode()
    server = ASGIServer(
        WSGIToASGI(app, buffer_body=buffer_body),
        http_scope("POST", scheme="https", **{**KEYS, "extensions": extensions}),
        [body[:5], body[5:]] if split else [body],
    )
    with anyio.fail_after(5):
        await server.run()
    assert len(told) == 3
    assert not [secret for secret in SECRETS.values() if secret in " ".join(told)]


async def test_nothing_in_the_environ_of_a_websocket_tells_of_it_by_its_repr() -> None:
    """No repr shows it, neither the socket's nor those of gevent-websocket's and simple-websocket's objects."""
    import simple_websocket

    told: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        told.append(told_by_reprs(environ))
        ws = simple_websocket.Server(environ)
        assert ws.receive(5) == SECRETS["body"]
        told.append(f"{ws!r} {told_by_reprs(environ)}")
        ws.close()
        return []

    server = ASGIWebSocket(WSGIToASGI(app), websocket_scope(scheme="wss", **KEYS))
    with anyio.fail_after(5):
        async with server.running():
            server.feed_content(SECRETS["body"])
    assert len(told) == 2
    assert not [secret for secret in SECRETS.values() if secret in " ".join(told)]


WRONG: list[Message] = [
    {"type": "http.response.body", "body": SECRETS["body"].encode(), "headers": KEYS["headers"]},
    {"type": "http.request", "body": SECRETS["body"]},
    {"type": "http.request", "body": [SECRETS["body"].encode()]},
    {"body": SECRETS["body"].encode()},
]


@pytest.mark.parametrize("message", WRONG, ids=repr)
async def test_error_for_a_servers_message_tells_nothing_of_it(message: Message) -> None:
    """The error for a message that breaks the spec names its type and its keys, but no values."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.input"].read()
        start_response("200 OK", [])
        return []

    server = ASGIServer(WSGIToASGI(app), http_scope("POST"), [])
    server.feed_message(message)
    with pytest.raises(ServerProtocolError) as caught:
        await server.run()
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "websocket.receive", "text": None, "bytes": [SECRETS["body"]]},
        {"type": "http.request", "body": SECRETS["body"].encode()},
    ],
    ids=repr,
)
async def test_error_for_a_servers_websocket_message_tells_nothing_of_it(message: Message) -> None:
    """The same holds for a WebSocket, whose messages may hold passwords."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.websocket"].receive()
        return []

    server = ASGIWebSocket(WSGIToASGI(app))
    server.feed_message(message)
    with anyio.fail_after(5), pytest.raises(ServerProtocolError) as caught:
        await server.run()
    assert "s3cret" not in str(caught.value)
