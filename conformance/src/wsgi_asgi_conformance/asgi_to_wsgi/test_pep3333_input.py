from collections.abc import Iterable
from typing import Any

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import asgi_response, http_app
from wsgi_asgi_conformance.asgi_to_wsgi.recording import END, START, Recording, block
from wsgi_asgi_conformance.exchange import joined
from wsgi_asgi_conformance.samples import http_environ
from wsgi_asgi_conformance.types import Environ, Receive, Scope, Send, StartResponse, WSGIApp
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIRequest, WSGIServer

READERS = {"read", "readline", "readlines"}
WRITERS = {"write", "writelines", "flush"}


class Spied:
    """A stream of the server's that notes which of its attributes are read, and the arguments of each call."""

    def __init__(self, stream: Any, names: set[str]) -> None:
        self.looked_at: set[str] = set()
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self._stream = stream
        self._names = names

    def __getattr__(self, name: str) -> Any:
        self.looked_at.add(name)
        if name not in self._names:
            raise AttributeError(f"PEP 3333 has no {name}()")

        def call(*args: Any) -> Any:
            self.calls.append((name, args))
            return getattr(self._stream, name)(*args)

        return call

    def __iter__(self) -> Any:
        return iter(self._stream)


class Errors:
    """The methods of `wsgi.errors`, for a `Spied`."""

    def write(self, text: str) -> None:
        assert type(text) is str

    def writelines(self, lines: Iterable[str]) -> None:
        assert {type(line) for line in lines} <= {str}

    def flush(self) -> None:
        pass


@http_app
async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    raise ValueError("no answer")


@http_app
async def failing_late(scope: Scope, receive: Receive, send: Send) -> None:
    await send(START)
    await send(block(b"one"))
    raise ValueError("no more")


def spied(app: WSGIApp) -> tuple[WSGIApp, list[Spied]]:
    """Return `app`, called with spies in place of both streams, and the two spies."""
    spies: list[Spied] = []

    def server(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        spies.extend([Spied(environ["wsgi.input"], READERS), Spied(Errors(), WRITERS)])
        environ["wsgi.input"], environ["wsgi.errors"] = spies
        return app(environ, start_response)

    return server, spies


def posted(adapt: ToWSGI, serve: WSGIServer, app: Any) -> tuple[WSGIRequest, list[Spied]]:
    """Serve a request whose body comes in two parts, the second only when it is read; return the ended request."""
    server, spies = spied(adapt(app))
    request = serve(server, http_environ("POST", CONTENT_LENGTH="200000"), bytes(100_000), more_body=True)
    request.feed(bytes(100_000))
    return request.until_ended(), spies


APPS = pytest.mark.parametrize(
    "app",
    [Recording(), asgi_response(b"one", b"two"), failing, failing_late],
    ids=["success", "unread", "error", "late error"],
)


@clause("P3333-085")
@APPS
def test_streams_have_no_more_than_the_methods_of_the_pep(adapt: ToWSGI, serve: WSGIServer, app: Any) -> None:
    """The adapter uses only the attributes that PEP 3333 lists, and passes only arguments that every server accepts."""
    _, (input_stream, errors) = posted(adapt, serve, app)
    assert input_stream.looked_at <= READERS
    assert errors.looked_at <= WRITERS
    assert {len(args) for name, args in input_stream.calls if name == "read"} <= {1}


@clause("P3333-086")
@APPS
def test_streams_are_not_closed(adapt: ToWSGI, serve: WSGIServer, app: Any) -> None:
    """However a request ends, the adapter leaves its streams open, because they belong to the server."""
    for spy in posted(adapt, serve, app)[1]:
        assert "close" not in spy.looked_at


@clause("P3333-086")
@pytest.mark.parametrize("error", [None, ConnectionResetError("gone")], ids=["short", "error"])
def test_streams_are_not_closed_when_the_client_leaves(
    adapt: ToWSGI, serve: WSGIServer, error: Exception | None
) -> None:
    """The adapter leaves them open even if a read of the body failed."""
    server, spies = spied(adapt(Recording()))
    request = serve(server, http_environ("POST", CONTENT_LENGTH="6"), b"one", more_body=True)
    request.until_logged("read").disconnect(error)
    request.until_ended()
    assert [spy.looked_at & {"close", "__exit__"} for spy in spies] == [set(), set()]


@clause("P3333-087")
@APPS
def test_what_is_written_to_wsgi_errors_is_flushed_text(adapt: ToWSGI, serve: WSGIServer, app: Any) -> None:
    """If the adapter reports an error there, it writes lines of str, and flushes them."""
    _, (_, errors) = posted(adapt, serve, app)
    assert errors.calls == [] or errors.calls[-1][0] == "flush"
    for text in (args[0] for name, args in errors.calls if name == "write"):
        assert type(text) is str
        assert "\r" not in text


@clause("P3333-084")
@pytest.mark.parametrize("length", [1, 3, 65_536, 65_537, 200_000])
def test_the_body_is_read_up_to_content_length(adapt: ToWSGI, serve: WSGIServer, length: int) -> None:
    """No read asks for more than is left, because the next request may follow, and the whole body arrives."""
    app = Recording()
    environ = http_environ("POST", CONTENT_LENGTH=str(length))
    request = serve(adapt(app), environ, b"x" * length, b"POST / HTTP/1.1", more_body=True).finish()
    assert request.input.overreads == []
    assert joined(message["body"] for message in app.received) == b"x" * length


@clause("P3333-084", "RFC9112-004")
@pytest.mark.parametrize("length", [None, "", "0"], ids=["absent", "empty", "zero"])
@pytest.mark.parametrize("coding", [None, "chunked"], ids=["plain", "chunked"])
def test_no_body_is_not_read(adapt: ToWSGI, serve: WSGIServer, length: str | None, coding: str | None) -> None:
    """Without CONTENT_LENGTH, and without a server that marks the body's end, a read could wait for ever."""
    app = Recording()
    environ = http_environ("POST", CONTENT_LENGTH=length, HTTP_TRANSFER_ENCODING=coding)
    request = serve(adapt(app), environ, more_body=True).finish()
    assert request.values("read") == []
    assert [(message["body"], message["more_body"]) for message in app.received] == [(b"", False)]


@clause("RFC9112-004", "CONV-002")
@pytest.mark.parametrize("coding", [None, "chunked"], ids=["plain", "chunked"])
@pytest.mark.parametrize("content", [b"", b"abc", bytes(200_000)], ids=len)
def test_a_terminated_body_is_read_to_its_end(
    adapt: ToWSGI, serve: WSGIServer, coding: str | None, content: bytes
) -> None:
    """With wsgi.input_terminated, the stream itself marks the end of the body."""
    app = Recording()
    environ = http_environ("POST", HTTP_TRANSFER_ENCODING=coding, **{"wsgi.input_terminated": True})
    serve(adapt(app), environ, content).finish()
    assert joined(message["body"] for message in app.received) == content


@clause("RFC3875-027")
def test_the_body_is_as_long_as_content_length(adapt: ToWSGI, serve: WSGIServer) -> None:
    """If the stream has no end of its own, the bytes after the body belong to another request."""
    content = b"one, and the next request"

    class Endless:
        def read(self, size: int = -1) -> bytes:
            nonlocal content
            block, content = content[:size], content[size:]
            return block

    def server(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.input"] = Endless()
        return adapter(environ, start_response)

    adapter = adapt(app := Recording())
    serve(server, http_environ("POST", CONTENT_LENGTH="3")).finish()
    assert joined(message["body"] for message in app.received) == b"one"
    assert content == b", and the next request"


@clause("RFC3875-028")
@pytest.mark.parametrize("length", ["10", "100000"], ids=["small", "large"])
def test_a_body_that_ends_early_is_a_disconnect(adapt: ToWSGI, serve: WSGIServer, length: str) -> None:
    """The app gets http.disconnect within a few messages, and does not take the part for the whole body."""
    kinds: list[str] = []

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        more_body = True
        while more_body and len(kinds) < 5:
            try:
                message = await receive()
            except Exception as error:
                kinds.append(type(error).__name__)
                raise
            more_body = message.get("more_body", False)
            kinds.append(message["type"] if more_body or "body" not in message else "complete")
        kinds.append("over")

    request = serve(adapt(app), http_environ("POST", CONTENT_LENGTH=length), b"one")
    request.until(lambda: "over" in kinds, "the end of the app").until_ended()
    assert "complete" not in kinds
    assert len(kinds) < 5


@clause("P3333-149")
def test_a_body_is_bytes_whatever_the_stream_returns(adapt: ToWSGI, serve: WSGIServer) -> None:
    """If the server's read() returns another kind of byte string, the app gets bytes nevertheless."""

    def server(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.input"] = stream = Spied(environ["wsgi.input"], READERS)
        stream.read = lambda size: bytearray(stream._stream.read(size))  # type: ignore[attr-defined]  # in its place
        return adapter(environ, start_response)

    adapter = adapt(app := Recording())
    serve(server, http_environ("POST", "/", b"one")).finish()
    assert {type(message["body"]) for message in app.received} == {bytes}
    assert joined(message["body"] for message in app.received) == b"one"


@clause("P3333-159")
@pytest.mark.parametrize("read", [False, True])
def test_a_client_that_waits_for_100_continue_is_asked_by_receive(adapt: ToWSGI, serve: WSGIServer, read: bool) -> None:
    """A server sends 100 Continue at the first read, so the adapter reads only after the app has called receive()."""
    environ = http_environ("POST", "/", b"one", HTTP_EXPECT="100-continue")
    request = serve(adapt(Recording() if read else asgi_response(b"refused", status=417)), environ).finish()
    assert bool(request.values("read")) is read


@clause("P3333-161")
@pytest.mark.parametrize(
    "variables",
    [
        {"HTTP_CONNECTION": "close"},
        {"HTTP_CONNECTION": "keep-alive", "HTTP_KEEP_ALIVE": "timeout=5"},
        {"HTTP_TE": "trailers"},
        {"HTTP_CONNECTION": "Upgrade", "HTTP_UPGRADE": "h2c"},
        {"HTTP_TRAILER": "x-one"},
    ],
    ids=lambda variables: " ".join(variables),
)
def test_hop_by_hop_headers_of_a_request_change_nothing(
    adapt: ToWSGI, serve: WSGIServer, variables: dict[str, str]
) -> None:
    """They concern only client and server; the body and the response stay the same."""

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "headers": [(b"x-one", b"1")]})
        await send({**END, "body": (await receive())["body"]})

    request = serve(adapt(app), http_environ("POST", "/", b"one", **variables)).finish()
    assert (request.status, request.headers, request.body) == ("200 OK", [("x-one", "1")], b"one")
    assert request.input.overreads == []
