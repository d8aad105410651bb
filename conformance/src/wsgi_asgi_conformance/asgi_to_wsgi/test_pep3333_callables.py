import functools
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.validate import validator

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.adapters import adapter_name, load_adapter
from wsgi_asgi_conformance.apps import asgi_response, http_app
from wsgi_asgi_conformance.asgi_to_wsgi.recording import END, START, block, scope_of
from wsgi_asgi_conformance.samples import http_environ
from wsgi_asgi_conformance.types import Environ, Receive, Scope, Send, StartResponse
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIServer


@http_app
async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await send({**START, "headers": [(b"x-path", scope["path"].encode())]})
    more_body = True
    while more_body:
        message = await receive()
        more_body = message["more_body"]
        await send({"type": "http.response.body", "body": message["body"], "more_body": more_body})


class Bare:
    """A callable and nothing else: any access to one of its attributes raises."""

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "function", function)

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"looked at {name}")

    def __call__(self, *args: Any) -> Any:
        result = object.__getattribute__(self, "function")(*args)
        return Bare(result) if callable(result) else result


@clause("P3333-005")
@pytest.mark.parametrize("make", [functools.partial, Bare], ids=["partial", "bare"])
def test_start_response_is_any_callable(
    adapt: ToWSGI, serve: WSGIServer, make: Callable[[StartResponse], StartResponse]
) -> None:
    """A start_response without a name or a signature works like any other."""
    adapter = adapt(asgi_response(b"one", b"two"))
    request = serve(lambda environ, start_response: adapter(environ, make(start_response))).finish()
    assert (request.status, request.body) == ("200 OK", b"onetwo")


@clause("P3333-006")
def test_an_adapter_is_called_again_and_again(adapt: ToWSGI, serve: WSGIServer) -> None:
    """Nothing of one request shows in the next."""
    adapter = adapt(echo)
    for number in range(30):
        content = b"" if number % 3 == 2 else f"body {number}".encode()
        request = serve(adapter, http_environ("POST", f"/{number}", content)).finish()
        assert (request.headers, request.body) == ([("x-path", f"/{number}")], content)


@clause("P3333-006", "CONV-019")
def test_threads_share_an_adapter(adapt: ToWSGI, serve: WSGIServer) -> None:
    """Each of many concurrent requests, from as many threads, gets the response to its own path and body."""
    adapter = adapt(echo)
    contents = [f"{number}: ".encode() + bytes([number]) * number * 100 for number in range(60)]
    requests = [
        serve(adapter, http_environ("POST", f"/{number}", CONTENT_LENGTH=str(len(content))), more_body=True)
        for number, content in enumerate(contents)
    ]
    for request, content in zip(reversed(requests), reversed(contents), strict=True):
        request.feed(content)
    for number, (request, content) in enumerate(zip(requests, contents, strict=True)):
        request.finish()
        assert (request.headers, request.body) == ([("x-path", f"/{number}")], content)


@clause("P3333-010")
def test_both_adapters_in_a_row_change_nothing(adapt: ToWSGI, serve: WSGIServer, pytestconfig: pytest.Config) -> None:
    """A WSGI app behind both adapters gets the same request, and gives the same response, as without them."""
    if adapter_name(pytestconfig, "wsgi_to_asgi") == "none":
        pytest.skip("no adapter of the other direction was given")
    kept: list[Environ] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        variables = {key: value for key, value in environ.items() if key.isupper() and key != "RAW_URI"}
        kept.append(variables | {"wsgi.url_scheme": environ["wsgi.url_scheme"]})
        start_response("201 Created", [("content-type", "text/plain"), ("x-one", "1"), ("x-one", "2")])
        return [b"got ", environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))]

    environ = http_environ("POST", "/\xc3\xa9/x", b"a body", QUERY_STRING="q=%20", CONTENT_TYPE="text/plain")
    environ |= {"SCRIPT_NAME": "/app", "HTTP_X_THING": "a, b", "wsgi.url_scheme": "https", "SERVER_PORT": "8443"}
    chain = adapt(load_adapter(pytestconfig, "wsgi_to_asgi")(validator(app)))
    responses = []
    for each in (app, validator(chain)):
        request = serve(each, environ.copy(), b"a body").finish()
        responses.append((request.status, request.headers, request.body))
    assert responses[0] == responses[1]
    assert {key: kept[1].get(key) for key in kept[0]} == kept[0]


@clause("P3333-015")
def test_an_environ_may_hold_anything_more(adapt: ToWSGI, serve: WSGIServer) -> None:
    """The server's own keys, with values of any type, do not disturb the adapter, and do not become headers."""
    more: dict[str, Any] = {"server.socket": object(), "server.call": print, "server.number": 7, "PATH": "/bin"}
    scope = scope_of(adapt, serve, http_environ(**more, HTTPS="off", **{"x.http": [1]}))
    assert scope["headers"] == [(b"host", b"example.org")]


@http_app
async def late_error(scope: Scope, receive: Receive, send: Send) -> None:
    await send(START)
    await send(block(b"one"))
    raise ValueError("no more")


@clause("P3333-019")
@pytest.mark.parametrize(
    "app",
    [asgi_response(), asgi_response(b"one"), asgi_response(b"one", b"two"), asgi_response(status=204), late_error],
    ids=["empty", "one block", "two blocks", "no content", "error"],
)
def test_what_is_returned_is_an_iterable_of_bytes(adapt: ToWSGI, serve: WSGIServer, app: Any) -> None:
    """Whatever the app does, each item is bytes, and the iterable itself is neither str nor bytes."""
    request = serve(adapt(app)).until_ended()
    (returned,) = request.values("return")
    assert isinstance(returned, Iterable)
    assert not isinstance(returned, (str, bytes, bytearray))
    assert request.body in (b"", b"one", b"onetwo")


@clause("P3333-026")
@pytest.mark.parametrize("blocks", [(), (b"",), (b"one",), (b"one", b"two", b"three")], ids=repr)
def test_len_is_the_number_of_blocks(adapt: ToWSGI, serve: WSGIServer, blocks: tuple[bytes, ...]) -> None:
    """A len() of the iterable is its number of items, because servers derive a Content-Length from a single one."""
    adapter = adapt(asgi_response(*blocks))
    lengths: list[int] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        iterable: Any = adapter(environ, start_response)
        if hasattr(iterable, "__len__"):
            lengths.append(len(iterable))
        return iterable  # type: ignore[no-any-return]  # its type is what the test is about

    request = serve(app).finish()
    assert lengths in ([], [len(request.blocks)])
    assert request.body == b"".join(blocks)


@clause("P3333-096")
def test_the_server_may_change_the_headers(adapt: ToWSGI, serve: WSGIServer) -> None:
    """The headers are a list of tuples, which the server may keep and change."""
    constant = [(b"x-one", b"1"), (b"x-two", b"2")]

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "headers": constant})
        await send(END)

    adapter = adapt(app)
    seen: list[Any] = []

    def server(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        def clearing(status: str, headers: Any, *exc_info: Any) -> Callable[[bytes], object]:
            assert type(headers) is list
            seen.append(headers.copy())
            headers.clear()
            headers.append(("Server", "x"))
            return start_response(status, headers, *exc_info)

        return adapter(environ, clearing)

    for _ in range(2):
        assert serve(server).finish().headers == [("Server", "x")]
    assert seen == [[("x-one", "1"), ("x-two", "2")]] * 2
    assert {type(header) for headers in seen for header in headers} == {tuple}
