import io
import sys
from collections.abc import Iterable
from typing import Any
from wsgiref.handlers import SimpleHandler
from wsgiref.validate import validator

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import asgi_response, http_app
from wsgi_asgi_conformance.asgi_to_wsgi.recording import END, START, Recording, block
from wsgi_asgi_conformance.exchange import in_thread, joined
from wsgi_asgi_conformance.samples import http_environ
from wsgi_asgi_conformance.types import Environ, Receive, Scope, Send, StartResponse
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIServer

# How the environs of real servers differ; None marks what a server leaves out.
SERVERS: dict[str, dict[str, Any]] = {
    "wsgiref": {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "HOME": "/root",
        "PATH": "/bin",
        "REMOTE_HOST": "",
        "REMOTE_PORT": None,
        "SERVER_NAME": "localhost",
        "SERVER_SOFTWARE": "WSGIServer/0.2",
        "wsgi.file_wrapper": type,
        "wsgi.multithread": False,
    },
    "waitress": {
        "REMOTE_HOST": "192.0.2.1",
        "REQUEST_URI": "/caf%C3%A9/a%20b?x=%20",
        "SERVER_NAME": "waitress.invalid",
        "waitress.client_disconnected": lambda: False,
        "wsgi.file_wrapper": type,
        "wsgi.input_terminated": True,
    },
    "gunicorn": {
        "RAW_URI": "/caf%C3%A9/a%20b?x=%20",
        "SERVER_SOFTWARE": "gunicorn/23.0.0",
        "gunicorn.socket": object(),
        "wsgi.early_hints": lambda headers: None,
        "wsgi.file_wrapper": type,
        "wsgi.input_terminated": True,
        "wsgi.multiprocess": True,
        "wsgi.multithread": False,
    },
    "cheroot": {
        "ACTUAL_SERVER_PROTOCOL": "HTTP/1.1",
        "REQUEST_URI": "/caf%C3%A9/a%20b?x=%20",
        "SERVER_NAME": "Cheroot/11.1.2",
        "wsgi.input_terminated": False,
    },
    "werkzeug": {
        "RAW_URI": "/caf%C3%A9/a%20b?x=%20",
        "REMOTE_PORT": 54638,
        "REQUEST_URI": "/caf%C3%A9/a%20b?x=%20",
        "werkzeug.socket": object(),
    },
    "uwsgi": {
        "REMOTE_PORT": None,
        "REQUEST_URI": "/caf%C3%A9/a%20b?x=%20",
        "uwsgi.node": b"node",
        "uwsgi.version": b"2.0.28",
        "wsgi.file_wrapper": len,
    },
    "mod_wsgi": {
        "CONTEXT_DOCUMENT_ROOT": "/srv",
        "CONTEXT_PREFIX": "",
        "DOCUMENT_ROOT": "/srv",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REQUEST_SCHEME": "http",
        "REQUEST_URI": "/caf%C3%A9/a%20b?x=%20",
        "SCRIPT_FILENAME": "/srv/app.wsgi",
        "apache.version": (2, 4, 57),
        "mod_wsgi.input_chunked": "0",
        "mod_wsgi.version": (4, 9, 4),
        "wsgi.file_wrapper": type,
        "wsgi.input_terminated": True,
    },
    "CGI": {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "PATH": "/bin",
        "REMOTE_PORT": None,
        "SCRIPT_FILENAME": "/srv/cgi-bin/app",
        "SERVER_PROTOCOL": "INCLUDED",
        "wsgi.multiprocess": True,
        "wsgi.multithread": False,
        "wsgi.run_once": True,
    },
}


@clause("CONV-011", "CONV-012")
@pytest.mark.parametrize("server", SERVERS)
def test_requests_of_all_servers_are_served(adapt: ToWSGI, serve: WSGIServer, server: str) -> None:
    """The environs of all servers lead to the same scope, body and response."""
    variables = {"QUERY_STRING": "x=%20", "CONTENT_TYPE": "text/plain", "HTTP_CONNECTION": "keep-alive"}
    environ = http_environ("POST", "/caf\xc3\xa9/a b", b"one", **variables, **SERVERS[server])
    request = serve(adapt(app := Recording()), environ).finish()
    (scope,) = app.scopes
    assert (scope["path"], scope["query_string"], scope["root_path"]) == ("/café/a b", b"x=%20", "")
    assert dict(scope["headers"])[b"content-type"] == b"text/plain"
    assert joined(message["body"] for message in app.received) == b"one"
    assert (request.status, request.body) == ("200 OK", b"done")


@http_app
async def error(scope: Scope, receive: Receive, send: Send) -> None:
    raise ValueError("no answer")


@http_app
async def late_error(scope: Scope, receive: Receive, send: Send) -> None:
    await send({**START, "headers": [(b"content-type", b"text/plain")]})
    await send(block(b"one"))
    raise ValueError("no more")


@http_app
async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await send({**START, "headers": [(b"content-type", b"text/plain")]})
    more_body = True
    while more_body:
        message = await receive()
        more_body = message["more_body"]
        await send(block(message["body"]))
    await send(END)


TEXT = [(b"content-type", b"text/plain"), (b"x-one", b"a; b=c")]


@clause("CONV-009")
@pytest.mark.parametrize(
    ("method", "app", "fails"),
    [
        ("GET", asgi_response(b"one", headers=TEXT), False),
        ("GET", asgi_response(b"one", b"", b"two", headers=TEXT), False),
        ("GET", asgi_response(headers=TEXT), False),
        ("POST", echo, False),
        ("HEAD", asgi_response(headers=TEXT), False),
        ("HEAD", asgi_response(b"one", headers=TEXT), False),
        ("GET", asgi_response(status=204), False),
        ("GET", asgi_response(status=304), False),
        ("GET", asgi_response(b"no", status=404, headers=TEXT), False),
        ("GET", error, True),
        ("GET", late_error, True),
    ],
    ids=["one", "more", "empty", "echo", "head", "head, body", "204", "304", "404", "error", "late error"],
)
def test_wsgiref_validate_has_no_complaint(
    adapt: ToWSGI, serve: WSGIServer, method: str, app: Any, fails: bool
) -> None:
    """wsgiref.validate finds nothing wrong with any response."""
    request = serve(validator(adapt(app)), http_environ(method, "/", bytes(100_000))).until_ended()
    assert request.error is None or (fails and isinstance(request.error, ValueError))


class StrictServer(SimpleHandler):
    """The server in wsgiref, for one request. It asserts what PEP 3333 says about status and headers."""

    origin_server = True

    def log_exception(self, exc_info: Any) -> None:
        self.error = exc_info[1]


@clause("CONV-011", "P3333-104")
@pytest.mark.parametrize(
    "headers", [[], [(b"connection", b"close"), (b"transfer-encoding", b"chunked")]], ids=["plain", "hop-by-hop"]
)
def test_wsgiref_serves_the_adapter(adapt: ToWSGI, serve: WSGIServer, headers: list[tuple[bytes, bytes]]) -> None:
    """wsgiref's handlers assert that no header is hop-by-hop, and that each has the right type."""
    output, environ = io.BytesIO(), http_environ("POST", "/", b"one")
    server = StrictServer(environ["wsgi.input"], output, sys.stderr, environ, multithread=True)
    adapter = adapt(asgi_response(b"one", b"two", headers=headers))

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return adapter(environ, start_response)

    in_thread(lambda: server.run(app), serve.deadline)
    assert not hasattr(server, "error")
    assert output.getvalue().startswith(b"HTTP/1.0 200 OK\r\n")
    assert output.getvalue().endswith(b"\r\n\r\nonetwo")
