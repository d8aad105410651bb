"""Requests through httpx's ASGITransport, an ASGI server that shares no code with the fakes."""

import json
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, TypeAlias

import flask
import httpx
import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import wsgi_response
from wsgi_asgi_conformance.asgi_server import ASGIServer, ToASGI
from wsgi_asgi_conformance.types import ASGIApp, Environ, Receive, Scope, Send, StartResponse

LONG = bytes(range(256)) * 1000

Fetch: TypeAlias = Callable[..., httpx.Response]


class Stream(httpx.AsyncByteStream):
    """A request's body, block by block; httpx's own streams are generators, which its transport leaves unfinished."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for block in self._blocks:
            return block
        raise StopAsyncIteration


@pytest.fixture
def fetch(serve: ASGIServer) -> Fetch:
    """A function that sends a request to an adapter, and returns the response.

    Its options are those of `httpx.AsyncClient.build_request`; a `Stream` as `content` has no length. `transport`
    holds the options of the transport. The client runs as an app of the fake server, within the deadline.
    """

    def fetch(
        app: ASGIApp, method: str = "GET", path: str = "/", *, transport: dict[str, Any] | None = None, **options: Any
    ) -> httpx.Response:
        responses: list[httpx.Response] = []

        async def send_request(scope: Scope, receive: Receive, send: Send) -> None:
            server = httpx.ASGITransport(app, **(transport or {}))
            async with httpx.AsyncClient(transport=server, base_url="http://example.org:8080") as client:
                request = client.build_request(method, path, **options)
                content = options.get("content")
                request.stream = content if isinstance(content, Stream) else Stream([request.read()])
                responses.append(await client.send(request))

        serve(send_request).finish()
        return responses[0]

    return fetch


def echo(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the request's body, block by block."""
    start_response("200 OK", [])
    yield from iter(lambda: environ["wsgi.input"].read(1000), b"")


def describe(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the request's variables, as JSON."""
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({key: value for key, value in environ.items() if key.isupper()}).encode()]


@clause("ASGI-HTTP-049", "ASGI-HTTP-102", "ASGI-HTTP-103", "ASGI-HTTP-005", "ASGI-HTTP-052")
def test_status_and_headers_arrive(adapt: ToASGI, fetch: Fetch) -> None:
    """The status code and all headers arrive, in order and with repeats, whatever the reason phrase is."""
    headers = [("Set-Cookie", "a=1; Path=/"), ("X-One", "caf\xe9"), ("Set-Cookie", "b=2"), ("X-Empty", "")]
    response = fetch(adapt(wsgi_response([b"one"], "418 Whatever", headers)))
    assert response.status_code == 418
    assert response.headers.raw == [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    assert response.headers.get_list("set-cookie") == ["a=1; Path=/", "b=2"]


@clause("ASGI-HTTP-100", "ASGI-HTTP-104", "P3333-048")
@pytest.mark.parametrize("body", [b"", b"one\r\n\0", LONG], ids=["empty", "short", "long"])
def test_a_body_goes_up_and_down(adapt: ToASGI, fetch: Fetch, body: bytes) -> None:
    """The app reads the body that the client sent, and the client gets the body that the app yields."""
    assert fetch(adapt(echo), "POST", content=body).content == body


@clause("ASGI-HTTP-043", "ASGI-HTTP-100", "CONV-001")
def test_a_body_may_be_streamed_up(adapt: ToASGI, fetch: Fetch) -> None:
    """A body of unknown length arrives in many messages, and an empty one ends it."""
    blocks = [b"%d\n" % number for number in range(20)] + [LONG]
    assert fetch(adapt(echo), "POST", content=Stream(blocks)).content == b"".join(blocks)


@clause("ASGI-HTTP-069", "RFC9110-004", "RFC3875-029")
@pytest.mark.parametrize(
    ("method", "status", "body"), [("HEAD", "200 OK", b"one"), ("GET", "204 No Content", b""), ("GET", "304 -", b"")]
)
def test_a_response_may_have_no_body(adapt: ToASGI, fetch: Fetch, method: str, status: str, body: bytes) -> None:
    """A response without a body is complete, and has the app's headers."""
    response = fetch(adapt(wsgi_response([body], status, [("ETag", '"a"')])), method)
    assert (response.status_code, response.content) == (int(status[:3]), b"")
    assert response.headers["etag"] == '"a"'


@clause("ASGI-CORE-035", "P3333-150")
def test_an_error_reaches_the_client_or_the_server(adapt: ToASGI, fetch: Fetch) -> None:
    """If the server catches exceptions, the client gets a 500; otherwise, the app's exception propagates."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        raise ValueError("this app fails")

    assert fetch(adapt(app), transport={"raise_app_exceptions": False}).status_code == 500
    with pytest.raises(ValueError, match="this app fails"):
        fetch(adapt(app))


@clause("ASGI-HTTP-091", "ASGI-HTTP-092", "ASGI-HTTP-093", "ASGI-HTTP-106", "P3333-169")
def test_the_url_is_split_as_cgi_has_it(adapt: ToASGI, fetch: Fetch) -> None:
    """The mount prefix, path, query, host and port are in CGI's variables, and the path is unquoted."""
    path = "/base/a%20b/caf%C3%A9/%2525?q=%20+%C3%A9&q=&=x"
    environ = fetch(adapt(describe), path=path, transport={"root_path": "/base"}).json()
    expected = {
        "SCRIPT_NAME": "/base",
        "PATH_INFO": "/a b/caf\xc3\xa9/%25",
        "QUERY_STRING": "q=%20+%C3%A9&q=&=x",
        "HTTP_HOST": "example.org:8080",
        "SERVER_NAME": "example.org",
        "SERVER_PORT": "8080",
        "REQUEST_METHOD": "GET",
    }
    assert {key: environ.get(key) for key in expected} == expected


@clause("ASGI-HTTP-109", "P3333-051", "RFC3875-020", "RFC3875-021")
def test_request_headers_are_variables(adapt: ToASGI, fetch: Fetch) -> None:
    """Headers are HTTP_ variables: their bytes are read as Latin-1, and repeated headers are joined."""
    headers = [(b"X-One", b"caf\xe9"), (b"x-two", b"1"), (b"X-Two", b"2"), (b"Cookie", b"a=1"), (b"Cookie", b"b=2")]
    environ = fetch(adapt(describe), headers=headers).json()
    assert (environ["HTTP_X_ONE"], environ["HTTP_COOKIE"]) == ("caf\xe9", "a=1; b=2")
    assert environ["HTTP_X_TWO"].replace(" ", "") == "1,2"


site = flask.Flask(__name__)


@site.post("/<name>")
def upload(name: str) -> Any:
    """Answer with everything that Flask parses from the request."""
    files = {key: [file.filename, file.read().hex()] for key, file in flask.request.files.items()}
    posted = flask.request.get_json() if flask.request.is_json else flask.request.form
    return flask.jsonify(name=name, query=flask.request.args, posted=posted, files=files)


@clause("P3333-047", "P3333-048", "ASGI-HTTP-094")
def test_flask_takes_json(adapt: ToASGI, fetch: Fetch) -> None:
    """Flask parses a JSON body by the request's Content-Type and Content-Length."""
    response = fetch(adapt(site), "POST", "/caf\xe9?a=b", json={"one": ["caf\xe9", 1]})
    assert response.json() == {"name": "caf\xe9", "query": {"a": "b"}, "posted": {"one": ["caf\xe9", 1]}, "files": {}}
    assert fetch(adapt(site), "POST", "/a/b").status_code == 404


@clause("P3333-047", "P3333-073", "P3333-079")
@pytest.mark.parametrize("streamed", [False, True])
def test_flask_takes_an_upload(adapt: ToASGI, fetch: Fetch, streamed: bool) -> None:
    """Flask parses a form with a file, sent in one body with its length or in many blocks without."""
    request = httpx.Request("POST", "http://example.org", data={"one": "caf\xe9"}, files={"file": ("a.bin", LONG)})
    body = request.read()
    blocks = [body[start : start + 10_007] for start in range(0, len(body), 10_007)]
    content = Stream(blocks) if streamed else body
    headers = {"content-type": request.headers["content-type"]}
    response = fetch(adapt(site), "POST", "/upload", content=content, headers=headers)
    assert response.json()["posted"] == {"one": "caf\xe9"}
    assert response.json()["files"] == {"file": ["a.bin", LONG.hex()]}
