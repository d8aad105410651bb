"""Requests by httpx, whose ASGITransport is a server of its own making: it knows nothing of the fakes."""

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
    """A request's body, block by block; httpx's own are generators, which its transport leaves unfinished."""

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
    """Called with an adapter and what makes a request of `httpx.AsyncClient`, returns the response.

    A `Stream` as `content` has no length. `transport` holds the options of the transport. The client runs on the
    loop of a server that has nothing else to do, within the deadline.
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
    """In their order, repeats and all, whatever the reason phrase says."""
    headers = [("Set-Cookie", "a=1; Path=/"), ("X-One", "caf\xe9"), ("Set-Cookie", "b=2"), ("X-Empty", "")]
    response = fetch(adapt(wsgi_response([b"one"], "418 Whatever", headers)))
    assert response.status_code == 418
    assert response.headers.raw == [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    assert response.headers.get_list("set-cookie") == ["a=1; Path=/", "b=2"]


@clause("ASGI-HTTP-100", "ASGI-HTTP-104", "P3333-048")
@pytest.mark.parametrize("body", [b"", b"one\r\n\0", LONG], ids=["empty", "short", "long"])
def test_a_body_goes_up_and_down(adapt: ToASGI, fetch: Fetch, body: bytes) -> None:
    """What the app reads is what was sent, and what the app yields is what arrives."""
    assert fetch(adapt(echo), "POST", content=body).content == body


@clause("ASGI-HTTP-043", "ASGI-HTTP-100", "CONV-001")
def test_a_body_may_be_streamed_up(adapt: ToASGI, fetch: Fetch) -> None:
    """A body of unknown length comes in messages, each when the app is ready for it, and ends by an empty one."""
    blocks = [b"%d\n" % number for number in range(20)] + [LONG]
    assert fetch(adapt(echo), "POST", content=Stream(blocks)).content == b"".join(blocks)


@clause("ASGI-HTTP-069", "RFC9110-004", "RFC3875-029")
@pytest.mark.parametrize(
    ("method", "status", "body"), [("HEAD", "200 OK", b"one"), ("GET", "204 No Content", b""), ("GET", "304 -", b"")]
)
def test_a_response_may_have_no_body(adapt: ToASGI, fetch: Fetch, method: str, status: str, body: bytes) -> None:
    """It ends as any other does, and its headers are the app's."""
    response = fetch(adapt(wsgi_response([body], status, [("ETag", '"a"')])), method)
    assert (response.status_code, response.content) == (int(status[:3]), b"")
    assert response.headers["etag"] == '"a"'


@clause("ASGI-CORE-035", "P3333-150")
def test_an_error_reaches_the_client_or_the_server(adapt: ToASGI, fetch: Fetch) -> None:
    """A server that catches what its app raises answers 500; one that does not gets to see it."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        raise ValueError("this app fails")

    assert fetch(adapt(app), transport={"raise_app_exceptions": False}).status_code == 500
    with pytest.raises(ValueError, match="this app fails"):
        fetch(adapt(app))


@clause("ASGI-HTTP-091", "ASGI-HTTP-092", "ASGI-HTTP-093", "ASGI-HTTP-106", "P3333-169")
def test_the_url_is_split_as_cgi_has_it(adapt: ToASGI, fetch: Fetch) -> None:
    """Mount prefix, path, query, host and port each have their variables, and the path its bytes."""
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
    """Their bytes are kept as latin-1, and repeats are joined."""
    headers = [(b"X-One", b"caf\xe9"), (b"x-two", b"1"), (b"X-Two", b"2"), (b"Cookie", b"a=1"), (b"Cookie", b"b=2")]
    environ = fetch(adapt(describe), headers=headers).json()
    assert (environ["HTTP_X_ONE"], environ["HTTP_COOKIE"]) == ("caf\xe9", "a=1; b=2")
    assert environ["HTTP_X_TWO"].replace(" ", "") == "1,2"


site = flask.Flask(__name__)


@site.post("/<name>")
def upload(name: str) -> Any:
    """Answer with all that Flask makes of an upload."""
    files = {key: [file.filename, file.read().hex()] for key, file in flask.request.files.items()}
    posted = flask.request.get_json() if flask.request.is_json else flask.request.form
    return flask.jsonify(name=name, query=flask.request.args, posted=posted, files=files)


@clause("P3333-047", "P3333-048", "ASGI-HTTP-094")
def test_flask_takes_json(adapt: ToASGI, fetch: Fetch) -> None:
    """Content-Type and Content-Length say what the body is."""
    response = fetch(adapt(site), "POST", "/caf\xe9?a=b", json={"one": ["caf\xe9", 1]})
    assert response.json() == {"name": "caf\xe9", "query": {"a": "b"}, "posted": {"one": ["caf\xe9", 1]}, "files": {}}
    assert fetch(adapt(site), "POST", "/a/b").status_code == 404


@clause("P3333-047", "P3333-073", "P3333-079")
@pytest.mark.parametrize("streamed", [False, True])
def test_flask_takes_an_upload(adapt: ToASGI, fetch: Fetch, streamed: bool) -> None:
    """A form with a file, in one body with its length or in many blocks without."""
    request = httpx.Request("POST", "http://example.org", data={"one": "caf\xe9"}, files={"file": ("a.bin", LONG)})
    body = request.read()
    blocks = [body[start : start + 10_007] for start in range(0, len(body), 10_007)]
    content = Stream(blocks) if streamed else body
    headers = {"content-type": request.headers["content-type"]}
    response = fetch(adapt(site), "POST", "/upload", content=content, headers=headers)
    assert response.json()["posted"] == {"one": "caf\xe9"}
    assert response.json()["files"] == {"file": ["a.bin", LONG.hex()]}
