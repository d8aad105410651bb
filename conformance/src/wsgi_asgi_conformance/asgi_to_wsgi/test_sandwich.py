"""Valid apps and requests, with a validator on each side of the adapter; neither may report anything."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from wsgiref import validate as wsgiref_validate
from wsgiref.util import FileWrapper

import anyio
import anyio.lowlevel
import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.adapters import adapter_name, load_adapter
from wsgi_asgi_conformance.apps import asgi_response, http_app, wsgi_response
from wsgi_asgi_conformance.asgi_to_wsgi.recording import LifespanApp
from wsgi_asgi_conformance.exchange import in_thread
from wsgi_asgi_conformance.lint import REPORTS, validator
from wsgi_asgi_conformance.samples import http_environ
from wsgi_asgi_conformance.types import ASGIApp, Environ, Message, Receive, Scope, Send, WSGIApp
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIServer

TEXT = [(b"content-type", b"text/plain")]
LONG = bytes(range(256)) * 1000
FILE = Path(__file__).read_bytes()


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": [*TEXT, *headers]}


def body(block: bytes = b"", more_body: bool = False) -> Message:
    return {"type": "http.response.body", "body": block, "more_body": more_body}


async def whole_body(receive: Receive) -> bytes:
    """Return the body of a request."""
    blocks, more_body = b"", True
    while more_body:
        message = await receive()
        blocks += message["body"]
        more_body = message["more_body"]
    return blocks


@http_app
async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    block = await whole_body(receive)
    await send(start(200, (b"content-length", b"%d" % len(block))))
    await send(body(block))


@http_app
async def echo_as_it_comes(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start())
    more_body = True
    while more_body:
        message = await receive()
        more_body = message["more_body"]
        await send(body(message["body"], more_body))


@http_app
async def defaults(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204})
    await send({"type": "http.response.body"})


@http_app
async def listens_on(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer, while another task waits for http.disconnect, which also follows the end of the response."""
    await whole_body(receive)

    async def listen() -> None:
        assert (await receive())["type"] == "http.disconnect"
        assert (await receive())["type"] == "http.disconnect"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await send(start())
        await send(body(b"on", True))
        await send(body(b"e"))


@http_app
async def hints(scope: Scope, receive: Receive, send: Send) -> None:
    if "http.response.early_hint" in scope["extensions"]:
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload; as=style"]})
    await send(start())
    await send(body(b"hinted"))


@http_app
async def sends_a_file(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start())
    if "http.response.pathsend" in scope["extensions"]:
        await send({"type": "http.response.pathsend", "path": __file__})
    else:
        await send(body(FILE))


@http_app
async def goes_on(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start())
    await send(body(b"one"))
    for _ in range(3):
        await anyio.lowlevel.checkpoint()


class Case(NamedTuple):
    """A request, and the expected response."""

    app: ASGIApp
    environ: Callable[[], Environ] = http_environ
    blocks: tuple[bytes, ...] = ()
    status: int = 200
    body: bytes = b"one"


def post(length: int | None, **keys: Any) -> Callable[[], Environ]:
    """Return a function that makes the environ of a POST; with None, its input ends by itself."""
    terminated = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"} if length is None else {}
    return lambda: http_environ(
        "POST", CONTENT_LENGTH=None if length is None else str(length), CONTENT_TYPE="text/plain", **terminated, **keys
    )


def plain(method: str = "GET", path: str = "/", /, **keys: Any) -> Callable[[], Environ]:
    return lambda: http_environ(method, path, **keys)


ONE = asgi_response(b"one", headers=TEXT)
CASES = {
    "one block": Case(ONE),
    "two blocks": Case(asgi_response(b"on", b"e", headers=TEXT)),
    "no block": Case(asgi_response(headers=TEXT), body=b""),
    "empty blocks": Case(asgi_response(b"", b"one", b"", headers=TEXT)),
    "a length": Case(asgi_response(b"on", b"e", headers=[*TEXT, (b"content-length", b"3")])),
    "headers": Case(asgi_response(b"one", headers=[*TEXT, (b"set-cookie", b"a"), (b"set-cookie", b"b\xe9")])),
    "created": Case(asgi_response(b"one", status=201, headers=TEXT), plain("PUT"), status=201),
    "not found": Case(asgi_response(b"one", status=404, headers=TEXT), status=404),
    "no content": Case(asgi_response(status=204), plain("DELETE"), status=204, body=b""),
    "not modified": Case(asgi_response(status=304, headers=[(b"etag", b'"a"')]), status=304, body=b""),
    "defaults": Case(defaults, status=204, body=b""),
    "head": Case(asgi_response(headers=[*TEXT, (b"content-length", b"3")]), plain("HEAD"), body=b""),
    "head, body and all": Case(ONE, plain("HEAD"), body=b""),
    "no request body": Case(echo, body=b""),
    "a short body": Case(echo, post(3), (b"one",)),
    "a long body": Case(echo, post(len(LONG)), (LONG,), body=LONG),
    "no length": Case(echo, post(None), (b"on", b"e")),
    "expect": Case(echo, post(3, HTTP_EXPECT="100-continue"), (b"one",)),
    "not read": Case(ONE, post(6), (b"unread",)),
    "up and down": Case(echo_as_it_comes, post(len(LONG)), (LONG,), body=LONG),
    "down": Case(asgi_response(*[LONG] * 3, headers=TEXT), body=LONG * 3),
    "a second task": Case(listens_on, post(3), (b"one",)),
    "early hints": Case(hints, plain(**{"wsgi.early_hints": lambda headers: None}), body=b"hinted"),
    "no early hints": Case(hints, body=b"hinted"),
    "a file": Case(sends_a_file, body=FILE),
    "a file for the server": Case(sends_a_file, plain(**{"wsgi.file_wrapper": FileWrapper}), body=FILE),
    "background work": Case(goes_on),
    "mounted": Case(ONE, plain("GET", "/a", SCRIPT_NAME="/base", QUERY_STRING="q=%20")),
    "no path": Case(ONE, plain("GET", "", SCRIPT_NAME="/base")),
    "any path": Case(ONE, plain("GET", "/\xff\xc3\xa9")),
    "tls": Case(
        ONE, plain(HTTPS="on", SSL_PROTOCOL="TLSv1.3", SERVER_PROTOCOL="HTTP/2.0", **{"wsgi.url_scheme": "https"})
    ),
    "little known": Case(ONE, plain(QUERY_STRING="", **dict.fromkeys(("REMOTE_ADDR", "REMOTE_PORT", "HTTP_HOST")))),
}


class Sandwich:
    """The adapter, with a validator on each of its sides."""

    def __init__(self, adapt: ToWSGI) -> None:
        self._adapt = adapt
        self._raised: list[Exception] = []

    def __call__(self, app: ASGIApp) -> WSGIApp:
        validated = validator(app)

        async def kept(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await validated(scope, receive, send)
            except REPORTS as report:
                self._raised.append(report)
                raise

        self._adapter = self._adapt(kept)
        return wsgiref_validate.validator(self._adapter)

    def reports(self, deadline: float) -> list[Exception]:
        """Return what the inner validator reports until the app's shutdown, in a lifespan or after a response."""
        if hasattr(self._adapter, "close"):
            in_thread(self._adapter.close, deadline)
        return [error for error in self._raised if not isinstance(error, OSError)]  # which send() raises


@pytest.fixture
def sandwich(adapt_for_files: ToWSGI) -> Sandwich:
    """A function that makes a sandwich of an app."""
    return Sandwich(adapt_for_files)


@clause("P3333-010", "ASGI-CORE-011", "ASGI-CORE-012", "CONV-009")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_neither_validator_has_anything_to_report(sandwich: Sandwich, serve: WSGIServer, case: Case) -> None:
    """A valid app is also valid on the adapter's other side, and its answer arrives."""
    request = serve(sandwich(case.app), case.environ(), *case.blocks).finish()
    assert (int(request.status.split()[0]), request.body) == (case.status, case.body)
    assert sandwich.reports(serve.deadline) == []


@clause("P3333-010", "ASGI-LS-010", "ASGI-LS-013", "ASGI-LS-023")
def test_a_lifespan_may_go_around_requests(sandwich: Sandwich, serve: WSGIServer) -> None:
    """The adapter runs the startup, two requests that have the lifespan's state, and the shutdown."""

    async def fill(scope: Scope, send: Send) -> None:
        scope.get("state", {})["a"] = 1
        await send({"type": "lifespan.startup.complete"})

    async def answer(scope: Scope, send: Send) -> None:
        await send(start())
        await send(body(b"%d" % scope.get("state", {}).get("a", 0)))

    app = LifespanApp(fill)
    app.answer = answer
    validated = sandwich(app)
    bodies = [serve(validated).finish().body for _ in range(2)]
    app.skip_without_lifespan()
    assert sandwich.reports(serve.deadline) == []
    assert bodies in ([b"1", b"1"], [b"0", b"0"])
    assert app.events == ["lifespan", "lifespan.startup", "http", "http", "lifespan.shutdown"]


@clause("P3333-010", "ASGI-HTTP-074", "ASGI-HTTP-080", "P3333-037")
def test_a_client_may_leave_a_response(sandwich: Sandwich, serve: WSGIServer) -> None:
    """The app hears of it by an OSError of `send` and by http.disconnect, and no validator reports either."""
    heard: list[Any] = []
    ended = threading.Event()

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(start())
        try:
            for _ in range(1000):
                await send(body(LONG, True))
        except OSError:
            heard.append(await receive())
            raise
        finally:
            ended.set()

    request = serve(sandwich(app), hold_after=1).until_logged("block")
    request.disconnect()
    request.finish()
    request.until(ended.is_set, "the end of the app")
    assert heard == [{"type": "http.disconnect"}]
    assert sandwich.reports(serve.deadline) == []


@clause("P3333-010", "RFC3875-028")
def test_a_client_may_leave_its_request(sandwich: Sandwich, serve: WSGIServer) -> None:
    """An app that receives the body gets http.disconnect, and may return without an answer."""
    received: list[Message] = []
    ended = threading.Event()

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while not received or received[-1].get("more_body"):
            received.append(await receive())
        ended.set()

    request = serve(sandwich(app), http_environ("POST", CONTENT_LENGTH="6"), b"one", more_body=True)
    request.until_logged("read").disconnect()
    request.until_ended()
    request.until(ended.is_set, "the end of the app")
    assert received[-1] == {"type": "http.disconnect"}
    assert sandwich.reports(serve.deadline) == []


@clause("P3333-010")
def test_an_adapter_of_the_other_direction_may_be_the_app(
    sandwich: Sandwich, serve: WSGIServer, pytestconfig: pytest.Config
) -> None:
    """With a WSGI app behind both adapters and a third validator between them, none has anything to report."""
    if adapter_name(pytestconfig, "wsgi_to_asgi") == "none":
        pytest.skip("no adapter of the other direction was given")
    app = wsgiref_validate.validator(wsgi_response([b"one", b"two"], headers=[("Content-Type", "text/plain")]))
    inner: ASGIApp = load_adapter(pytestconfig, "wsgi_to_asgi")(app)
    assert serve(sandwich(inner), post(3)(), b"one").finish().body == b"onetwo"
    assert sandwich.reports(serve.deadline) == []
