"""Well-behaved apps and requests, with a validator on each side of the adapter; neither may report anything."""

import io
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from wsgiref import validate as wsgiref_validate

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.adapters import adapter_name, load_adapter
from wsgi_asgi_conformance.apps import Blocks, asgi_response, wsgi_response
from wsgi_asgi_conformance.asgi_server import ASGIServer, ToASGI
from wsgi_asgi_conformance.exchange import in_thread
from wsgi_asgi_conformance.lint import validator
from wsgi_asgi_conformance.samples import http_scope
from wsgi_asgi_conformance.types import ASGIApp, Environ, StartResponse, WSGIApp

TEXT = [("Content-Type", "text/plain")]
LONG = bytes(range(256)) * 1000


def post(length: int | None, **keys: Any) -> dict[str, Any]:
    """Return the scope of a POST with a Content-Length, or with Transfer-Encoding for None."""
    framing = (b"transfer-encoding", b"chunked") if length is None else (b"content-length", b"%d" % length)
    headers = [(b"host", b"example.org"), (b"content-type", b"text/plain"), framing]
    return http_scope("POST", headers=headers, **keys)


def reading(read: Callable[[Any], Iterable[bytes]]) -> WSGIApp:
    """Return an app that answers with its request's body, read by `read`."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        body = b"".join(read(environ["wsgi.input"]))
        start_response("200 OK", [*TEXT, ("Content-Length", str(len(body)))])
        return [body]

    return app


def in_blocks(stream: Any) -> Iterator[bytes]:
    return iter(lambda: stream.read(1000), b"")


echo = reading(in_blocks)


def echo_as_it_comes(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    yield from in_blocks(environ["wsgi.input"])


def writes(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    write = start_response("200 OK", TEXT)
    write(b"one ")
    write(b"two ")
    return [b"three"]


def starts_late(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    yield b""
    yield b"late"


def changes_its_mind(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    try:
        raise ValueError("what the app catches")
    except ValueError:
        start_response("500 Internal Server Error", TEXT, sys.exc_info())
    return [b"sorry"]


def wraps_a_file(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    wrapper: Callable[[Any], Iterable[bytes]] = environ.get("wsgi.file_wrapper", in_blocks)
    return wrapper(io.BytesIO(LONG))


def hints(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    if "wsgi.early_hints" in environ:
        environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload; as=style")])
    start_response("200 OK", TEXT)
    return [b"hinted"]


def logs(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    environ["wsgi.errors"].write("")
    environ["wsgi.errors"].writelines([])
    environ["wsgi.errors"].flush()
    start_response("200 OK", TEXT)
    return [b"logged"]


class Case(NamedTuple):
    """An app, a request to it, and the expected response."""

    app: WSGIApp
    scope: dict[str, Any]
    blocks: tuple[bytes, ...] = ()
    status: int = 200
    body: bytes = b"one"


ONE = wsgi_response([b"one"], headers=TEXT)
OFFERS: dict[str, Any] = {
    f"http.response.{name}": {} for name in ("early_hint", "pathsend", "zerocopysend", "push", "trailers", "debug")
}
CASES = {
    "one block": Case(ONE, http_scope()),
    "two blocks": Case(wsgi_response([b"on", b"e"], headers=TEXT), http_scope()),
    "no block": Case(wsgi_response([], headers=TEXT), http_scope(), body=b""),
    "a tuple": Case(wsgi_response((b"one",), headers=TEXT), http_scope()),
    "a length": Case(wsgi_response([b"on", b"e"], headers=[*TEXT, ("Content-Length", "3")]), http_scope()),
    "headers": Case(
        wsgi_response([b"one"], headers=[*TEXT, ("Set-Cookie", "a"), ("set-cookie", "b\xe9")]), http_scope()
    ),
    "created": Case(wsgi_response([b"one"], "201 Made it", TEXT), http_scope("PUT"), status=201),
    "not found": Case(wsgi_response([b"one"], "404 Not Found", TEXT), http_scope(), status=404),
    "no content": Case(wsgi_response([], "204 No Content"), http_scope("DELETE"), status=204, body=b""),
    "not modified": Case(wsgi_response([], "304 Not Modified", [("ETag", '"a"')]), http_scope(), status=304, body=b""),
    "head": Case(wsgi_response([], headers=[*TEXT, ("Content-Length", "3")]), http_scope("HEAD"), body=b""),
    "head, body and all": Case(ONE, http_scope("HEAD"), body=b""),
    "a short body": Case(echo, post(3), (b"one",)),
    "a long body": Case(echo, post(len(LONG)), (LONG[:100_000], LONG[100_000:]), body=LONG),
    "an empty body": Case(echo, post(0), body=b""),
    "empty messages": Case(echo, post(3), (b"", b"o", b"", b"ne", b"")),
    "no length": Case(echo, post(None), (b"on", b"e")),
    "expect": Case(echo, post(3) | {"headers": [(b"content-length", b"3"), (b"expect", b"100-continue")]}, (b"one",)),
    "lines": Case(reading(iter), post(None), (b"a\nb", b"\nc"), body=b"a\nb\nc"),
    "readline": Case(reading(lambda stream: iter(stream.readline, b"")), post(None), (b"a\nb",), body=b"a\nb"),
    "readlines": Case(reading(lambda stream: stream.readlines()), post(None), (b"a\nb",), body=b"a\nb"),
    "not read": Case(ONE, post(6), (b"unread",)),
    "up and down": Case(echo_as_it_comes, post(None), (LONG, LONG), body=LONG * 2),
    "write": Case(writes, http_scope(), body=b"one two three"),
    "an empty block first": Case(starts_late, http_scope(), body=b"late"),
    "exc_info": Case(changes_its_mind, http_scope(), status=500, body=b"sorry"),
    "a file": Case(wraps_a_file, http_scope(), body=LONG),
    "early hints": Case(hints, http_scope(extensions=OFFERS), body=b"hinted"),
    "errors": Case(logs, http_scope(), body=b"logged"),
    "mounted": Case(ONE, http_scope(path="/base/a", root_path="/base", query_string=b"q=%20")),
    "any path": Case(ONE, http_scope(path="/\ufffd\xe9", raw_path=b"/%ff%C3%A9")),
    "tls": Case(
        ONE,
        http_scope(
            scheme="https",
            http_version="2",
            extensions={"tls": {"server_cert": None, "tls_version": 0x0304, "cipher_suite": None}},
        ),
    ),
    "state": Case(ONE, http_scope(state={"a": 1})),
    "little known": Case(ONE, http_scope(client=None, server=("/run/app.sock", None), headers=[])),
}


@pytest.fixture
def sandwich(adapt: ToASGI) -> ToASGI:
    """The adapter, with a validator on each side."""
    return lambda app: validator(adapt(wsgiref_validate.validator(app)))


@clause("P3333-010", "ASGI-CORE-011", "ASGI-CORE-012", "CONV-008")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_neither_validator_has_anything_to_report(sandwich: ToASGI, serve: ASGIServer, case: Case) -> None:
    """For a well-behaved app, neither validator reports anything, and the response arrives."""
    connection = serve(sandwich(case.app), case.scope, *case.blocks).finish()
    assert (connection.status, connection.body) == (case.status, case.body)
    assert connection.complete


@clause("P3333-010", "ASGI-EXT-016")
def test_a_file_on_disk_may_be_sent_by_its_path(adapt: ToASGI, serve: ASGIServer, tmp_path: Path) -> None:
    """The file is sent by its path or as body.

    Only the outer validator is used, because wsgiref's would hide the file wrapper.
    """
    path = tmp_path / "file"
    path.write_bytes(LONG)

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [*TEXT, ("Content-Length", str(len(LONG)))])
        wrapper: Callable[[Any], Iterable[bytes]] = environ.get("wsgi.file_wrapper", in_blocks)
        return wrapper(path.open("rb"))

    connection = serve(validator(adapt(app)), http_scope(extensions=OFFERS)).finish()
    paths = [message["path"] for message in connection.sent if message["type"] == "http.response.pathsend"]
    assert paths == [str(path)] or connection.body == LONG


@clause("P3333-010", "ASGI-LS-018", "ASGI-LS-026")
def test_a_lifespan_may_go_around_requests(sandwich: ToASGI, serve: ASGIServer) -> None:
    """The validators report nothing about a startup, a request with the lifespan's state, and a shutdown."""
    app, state = sandwich(ONE), {"a": 1}
    lifespan = serve(app, {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}})
    lifespan.feed_message({"type": "lifespan.startup"})
    lifespan.until(lambda: lifespan.sent or lifespan.ended, "an answer to lifespan.startup")
    if not lifespan.sent:
        pytest.skip("the adapter has no lifespan")
    assert serve(app, http_scope(state=state)).finish().body == b"one"
    lifespan.feed_message({"type": "lifespan.shutdown"})
    lifespan.finish()
    assert lifespan.sent == [{"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}]


@clause("P3333-010", "ASGI-HTTP-075", "ASGI-HTTP-078", "P3333-030")
@pytest.mark.parametrize("send_error", [None, OSError("the client left")], ids=["silent", "error"])
def test_a_client_may_leave_a_response(sandwich: ToASGI, serve: ASGIServer, send_error: OSError | None) -> None:
    """If the client leaves, the iterable is closed, and the validators report nothing."""
    left = threading.Event()

    def until_left() -> Iterator[bytes]:
        yield b"one"
        left.wait(serve.deadline)
        for _ in range(1000):
            yield LONG

    blocks = Blocks(until_left())
    connection = serve(sandwich(wsgi_response(blocks, headers=TEXT))).until_logged("send", 2)
    connection.disconnect(send_error)
    left.set()
    connection.until_ended()
    assert connection.error in (None, send_error)
    assert blocks.closed == 1


@clause("P3333-010", "ASGI-HTTP-044", "CONV-014")
def test_a_client_may_leave_its_request(sandwich: ToASGI, serve: ASGIServer) -> None:
    """If the client leaves before its body ends, the app's read raises OSError, and the validators report nothing."""
    errors: list[Exception] = []
    reading_on = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        assert environ["wsgi.input"].read(3) == b"one"
        reading_on.set()
        try:
            environ["wsgi.input"].read(3)
        except OSError as error:
            errors.append(error)
            raise
        raise AssertionError("the app read a truncated body without an error")

    connection = serve(sandwich(app), post(6), b"one", more_body=True).until(reading_on.is_set, "the app")
    connection.disconnect()
    connection.until_ended()
    assert connection.error is None or isinstance(connection.error, OSError)
    assert len(errors) == 1


@clause("P3333-010")
def test_an_adapter_of_the_other_direction_may_be_the_app(
    sandwich: ToASGI, serve: ASGIServer, pytestconfig: pytest.Config
) -> None:
    """With an adapter of each direction around an ASGI app, the validators on all sides report nothing."""
    if adapter_name(pytestconfig, "asgi_to_wsgi") == "none":
        pytest.skip("no adapter of the other direction was given")
    app: ASGIApp = asgi_response(b"one", b"two", headers=[(b"content-type", b"text/plain")])
    inner = load_adapter(pytestconfig, "asgi_to_wsgi")(validator(app))
    try:
        assert serve(sandwich(inner), post(3), b"one").finish().body == b"onetwo"
    finally:
        if hasattr(inner, "close"):
            in_thread(inner.close, serve.deadline)
