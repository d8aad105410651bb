"""Requests by httpx, whose WSGITransport is a server that does not depend on the fakes."""

import json
import threading
from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

import anyio
import fastapi
import httpx
import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import asgi_response, http_app
from wsgi_asgi_conformance.asgi_to_wsgi.recording import END, START, block, until_set
from wsgi_asgi_conformance.exchange import in_thread
from wsgi_asgi_conformance.types import Message, Receive, Scope, Send, WSGIApp
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIServer

LONG = bytes(range(256)) * 1000

Fetch: TypeAlias = Callable[..., httpx.Response]


@pytest.fixture
def fetch(serve: WSGIServer) -> Fetch:
    """Called with an adapter and what makes a request of `httpx.Client`, returns the response.

    `transport` holds the options of the transport; `look` is called with the response before it is read. The client
    runs in a thread of its own, within the deadline.
    """

    def fetch(
        app: WSGIApp,
        method: str = "GET",
        path: str = "/",
        *,
        transport: dict[str, Any] | None = None,
        look: Callable[[httpx.Response], object] = httpx.Response.read,
        **options: Any,
    ) -> httpx.Response:
        responses: list[httpx.Response] = []

        def send_request() -> None:
            server = httpx.WSGITransport(app, **(transport or {}))
            with (
                httpx.Client(transport=server, base_url="http://example.org:8080") as client,
                client.stream(method, path, **options) as response,
            ):
                look(response)
                responses.append(response)

        in_thread(send_request, serve.deadline)
        return responses[0]

    return fetch


@http_app
async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the request's body, one message for each received."""
    await send(START)
    more_body = True
    while more_body:
        message = await receive()
        more_body = message.get("more_body", False)
        await send({**END, "body": message.get("body", b""), "more_body": more_body})


@http_app
async def describe(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the request's scope, as JSON."""
    known = ("method", "path", "root_path", "query_string", "headers", "server", "client", "scheme", "http_version")
    text = json.dumps({key: scope.get(key) for key in known}, default=lambda value: value.decode("latin-1"))
    await send(START)
    await send({**END, "body": text.encode()})


@clause("ASGI-HTTP-105", "ASGI-HTTP-006", "ASGI-HTTP-052", "RFC6265-002")
def test_status_and_headers_arrive(adapt: ToWSGI, fetch: Fetch) -> None:
    """The status and all headers arrive, in order, with repeats."""
    headers = [(b"set-cookie", b"a=1; Path=/"), (b"x-one", b"1"), (b"set-cookie", b"b=2"), (b"x-empty", b"")]
    response = fetch(adapt(asgi_response(b"one", status=418, headers=headers)))
    assert response.status_code == 418
    assert response.headers.raw == headers
    assert response.headers.get_list("set-cookie") == ["a=1; Path=/", "b=2"]


@clause("ASGI-HTTP-039", "ASGI-HTTP-067", "RFC3875-027")
@pytest.mark.parametrize("body", [b"", b"one\r\n\0", LONG], ids=["empty", "short", "long"])
def test_a_body_goes_up_and_down(adapt: ToWSGI, fetch: Fetch, body: bytes) -> None:
    """The app receives what the client sent, and the client receives what the app sends."""
    assert fetch(adapt(echo), "POST", content=body).content == body


@clause("P3333-131", "P3333-133", "ASGI-HTTP-064")
def test_a_body_is_streamed_down(adapt: ToWSGI, fetch: Fetch, serve: WSGIServer) -> None:
    """The client has the first block before the app sends the next."""
    first_is_there = threading.Event()

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(block(b"one"))
        await until_set(first_is_there, serve.deadline)
        await send({**END, "body": b"two"})

    blocks: list[bytes] = []

    def look(response: httpx.Response) -> None:
        for each in response.iter_raw():
            blocks.append(each)
            first_is_there.set()

    fetch(adapt(app), look=look)
    assert blocks[0] == b"one"
    assert b"".join(blocks) == b"onetwo"


@clause("P3333-037", "ASGI-HTTP-074", "ASGI-HTTP-080")
def test_a_client_that_closes_the_response_has_left(adapt: ToWSGI, fetch: Fetch, serve: WSGIServer) -> None:
    """An endless app receives http.disconnect."""
    heard: list[Message] = []
    ended = threading.Event()

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

        async def listen() -> None:
            heard.append(await receive())
            tasks.cancel_scope.cancel()

        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listen)
                await send(START)
                await send(block(b"one"))
                await anyio.sleep_forever()
        finally:
            ended.set()

    fetch(adapt(app), look=lambda response: next(response.iter_raw()))
    assert ended.wait(serve.deadline)
    assert heard == [{"type": "http.disconnect"}]


@clause("RFC9110-005", "ASGI-HTTP-063")
@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_a_response_may_have_no_body(adapt: ToWSGI, fetch: Fetch, method: str, status: int) -> None:
    """A response without a body ends like any other, with the app's headers."""
    response = fetch(adapt(asgi_response(status=status, headers=[(b"etag", b'"a"')])), method)
    assert (response.status_code, response.content) == (status, b"")
    assert response.headers["etag"] == '"a"'


@clause("P3333-153", "ASGI-CORE-034")
def test_an_error_reaches_the_client_or_the_server(adapt: ToWSGI, fetch: Fetch) -> None:
    """The adapter raises the error into the server, or answers with 500 and exc_info, which a server may raise."""

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("this app fails")

    with pytest.raises(ValueError, match="this app fails"):
        fetch(adapt(app))
    try:
        status = fetch(adapt(app), transport={"raise_app_exceptions": False}).status_code
    except ValueError:
        status = 500
    assert status == 500


@clause("ASGI-HTTP-013", "ASGI-HTTP-017", "ASGI-HTTP-018", "ASGI-HTTP-020", "ASGI-HTTP-028", "ASGI-HTTP-030")
def test_the_url_is_put_together_from_variables(adapt: ToWSGI, fetch: Fetch) -> None:
    """Mount prefix, path, query, host and port are where ASGI puts them, and path includes the prefix."""
    # The path is ASCII, because this server passes others as text, not as bytes in latin-1.
    path = "/a%20b/%2525?q=%20+%C3%A9&q=&=x"
    scope = fetch(adapt(describe), path=path, transport={"script_name": "/base", "remote_addr": "192.0.2.1"}).json()
    assert (scope["root_path"], scope["path"]) == ("/base", "/base/a b/%25")
    assert scope["query_string"] == "q=%20+%C3%A9&q=&=x"
    assert ["host", "example.org:8080"] in scope["headers"]
    assert scope["server"] == ["example.org", 8080]
    assert scope["client"] is None or scope["client"][0] == "192.0.2.1"
    assert (scope["method"], scope["scheme"], scope["http_version"]) == ("GET", "http", "1.1")


@clause("RFC3875-026", "ASGI-HTTP-024", "ASGI-HTTP-095")
def test_variables_are_request_headers(adapt: ToWSGI, fetch: Fetch) -> None:
    """Header names are in lower case with hyphens, content-type and content-length among them."""
    sent = {"X-One-Two": "1", "Cookie": "a=1; b=2", "Content-Type": "text/x-a"}
    headers = fetch(adapt(describe), "PUT", headers=sent, content=b"one").json()["headers"]
    expected = [["x-one-two", "1"], ["cookie", "a=1; b=2"], ["content-type", "text/x-a"], ["content-length", "3"]]
    assert [header for header in expected if header not in headers] == []


site = fastapi.FastAPI()


@site.post("/json/{name}")
async def take_json(name: str, a: str, posted: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "query": a, "posted": posted}


@site.post("/upload")
async def take_upload(
    one: Annotated[str, fastapi.Form()], file: Annotated[fastapi.UploadFile, fastapi.File()]
) -> dict[str, Any]:
    return {"one": one, "file": [file.filename, (await file.read()).hex()]}


@site.post("/sync")
def take_sync(posted: dict[str, Any], tasks: fastapi.BackgroundTasks) -> dict[str, Any]:
    """Run in a thread of anyio's, like all endpoints that are not coroutines."""
    tasks.add_task(len, posted)
    return posted


@clause("ASGI-HTTP-095", "ASGI-HTTP-039")
def test_fastapi_takes_json(adapt: ToWSGI, fetch: Fetch) -> None:
    """FastAPI reads JSON in coroutines and in threads; content-type and content-length are those of the body."""
    adapter, posted = adapt(site), {"one": ["caf\xe9", 1]}
    response = fetch(adapter, "POST", "/json/name?a=b", json=posted)
    assert response.json() == {"name": "name", "query": "b", "posted": posted}
    assert fetch(adapter, "POST", "/sync", json=posted).json() == posted
    assert fetch(adapter, "POST", "/sync", json=[]).status_code == 422
    assert fetch(adapter, "POST", "/elsewhere").status_code == 404


@clause("ASGI-HTTP-039", "ASGI-HTTP-047")
def test_fastapi_takes_an_upload(adapt: ToWSGI, fetch: Fetch) -> None:
    """FastAPI reads a form with a file that needs more than one message."""
    response = fetch(adapt(site), "POST", "/upload", data={"one": "caf\xe9"}, files={"file": ("a.bin", LONG)})
    assert response.json() == {"one": "caf\xe9", "file": ["a.bin", LONG.hex()]}
