"""http.response.trailers, through the callable of a WSGI server. Its twin is in wsgi_to_asgi/http."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge import AppProtocolError, ClientDisconnected
from bridge.types import Environ, Headers, Message, Receive, Scope, Send
from tests.asgi_to_wsgi.apps import Adapt
from tests.asgi_to_wsgi.http.apps import Recorder, answers, body, start, until
from tests.asgi_to_wsgi.http.detachable import Gate, connected, waiting
from tests.fakes import WSGIServer, http_environ, in_thread, respond

KEYS = ["wsgi.ext.http.send_trailers", "gunicorn.http2.send_trailers"]
TRAILING = start(trailers=True)


def trailers(*headers: tuple[bytes, bytes], **keys: Any) -> Message:
    return {"type": "http.response.trailers", "headers": list(headers), **keys}


STATUS = trailers((b"grpc-status", b"0"))


class Server(WSGIServer):
    """A server that accepts trailers, and records them with the number of blocks that came before."""

    def __init__(
        self, app: Any, environ: Environ | None = None, key: str = KEYS[0], te: str | None = "trailers"
    ) -> None:
        super().__init__(app, environ or http_environ(HTTP_TE=te))
        self.told: list[tuple[int, Headers]] = []
        self.environ[key] = self.send_trailers

    def send_trailers(self, headers: Headers) -> None:
        self.threads.add(threading.get_ident())
        self.told.append((len(self.blocks), headers))


def serve(app: Any, *args: Any, **keys: Any) -> Server:
    server = Server(app, *args, **keys)
    in_thread(server.run)
    return server


@pytest.mark.parametrize("key", KEYS)
def test_trailers_reach_the_server_before_its_body_ends(adapt: Adapt, key: str) -> None:
    """The server gets the trailers once, in the request's thread, after the last block and before the iterable ends."""
    server = serve(adapt(answers(TRAILING, body(b"one", True), body(b"two"), STATUS)), key=key)
    assert (server.body, server.told) == (b"onetwo", [(len(server.blocks), [("grpc-status", "0")])])
    assert len(server.threads) == 1


@pytest.mark.parametrize("key", KEYS)
def test_trailers_are_offered_where_the_server_takes_them(adapt: Adapt, key: str) -> None:
    """An app sees the extension in its scope, and only if there is a callable."""
    seen: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append("http.response.trailers" in scope["extensions"])
        await answers(start(), body(b"x"))(scope, receive, send)

    serve(adapt(app), key=key)
    respond(adapt(app))
    respond(adapt(app), http_environ(**{key: "not callable"}))
    assert seen == [True, False, False]


def test_trailers_of_several_messages_are_one_list(adapt: Adapt) -> None:
    """`more_trailers` says that more will come, and the server gets all of them at the end."""
    first = trailers((b"a", b"1"), more_trailers=True)
    server = serve(adapt(answers(TRAILING, body(b"x"), first, trailers((b"b", b"2"), (b"a", b"3")))))
    assert [headers for _, headers in server.told] == [[("a", "1"), ("b", "2"), ("a", "3")]]


def test_trailers_come_behind_a_content_length(adapt: Adapt) -> None:
    """A body that fills its Content-Length does not end a response that has promised trailers."""
    seen = threading.Event()
    app = answers(start(200, (b"content-length", b"5"), trailers=True), body(b"hello"), seen, STATUS)
    server = Server(adapt(app))

    def run() -> None:
        for block in server.call():
            server.blocks.append(block)
            seen.set()
        server.close()

    in_thread(run)
    assert server.body == b"hello"
    assert server.told == [(len(server.blocks), [("grpc-status", "0")])]


@pytest.mark.parametrize("te", [None, "deflate"])
def test_a_client_that_does_not_ask_gets_no_trailers(adapt: Adapt, te: str | None) -> None:
    """Without `TE: trailers` they are dropped, and the response is whole (docs/extensions, HTTP Trailers)."""
    server = serve(adapt(answers(TRAILING, body(b"one"), STATUS)), te=te)
    assert (server.body, server.told) == (b"one", [])


def test_a_response_to_head_has_no_trailers(adapt: Adapt) -> None:
    """Trailers follow content, which HEAD does not have (RFC 9110 6.5)."""
    server = serve(adapt(answers(TRAILING, body(b"one"), STATUS)), http_environ("HEAD", HTTP_TE="trailers"))
    assert (server.body, server.told) == (b"", [])


@pytest.mark.parametrize("offered", [True, False])
def test_the_trailer_header_leaves_with_the_trailers(adapt: Adapt, offered: bool) -> None:
    """The header lists the trailers (docs/extensions, HTTP Trailers); without trailers it is dropped."""
    app = adapt(answers(start(200, (b"trailer", b"grpc-status"), (b"x-a", b"1"), trailers=True), body(), STATUS))
    server = serve(app) if offered else respond(app)
    assert server.headers == ([("trailer", "grpc-status")] if offered else []) + [("x-a", "1")]


@pytest.mark.parametrize("header", [(b"content-length", b"1"), (b"x-a", b"1\r\n"), ("x-a", "1")])
def test_an_invalid_trailer_is_raised_to_the_app(adapt: Adapt, header: Any) -> None:
    """`send` raises, and so does the server's next block, because the response is not complete."""
    app = adapt(answers(TRAILING, body(b"one"), trailers(header)))
    server = Server(app)
    with pytest.raises(AppProtocolError):
        in_thread(server.run)
    assert server.told == []


def test_a_promise_that_is_not_kept_is_an_error(adapt: Adapt) -> None:
    """An app that returns without its trailers has not sent a whole response."""
    server = Server(adapt(answers(TRAILING, body(b"one"))))
    with pytest.raises(AppProtocolError, match="trailers due"):
        in_thread(server.run)


def test_the_error_of_a_servers_callable_reaches_the_server(adapt: Adapt) -> None:
    """The iterable raises the error, as it does for `wsgi.early_hints`."""
    server = Server(adapt(answers(TRAILING, body(b"one", True), body(b"two"), STATUS)))

    def fails(headers: Headers) -> None:
        raise BlockingIOError("no trailers now")

    server.environ[KEYS[0]] = fails
    with pytest.raises(BlockingIOError, match="no trailers now"):
        in_thread(server.run)


def test_a_server_that_closes_early_is_told_no_trailers(adapt: Adapt) -> None:
    """The app is told that its client has left, and the callable is not used after the call."""
    app = Recorder(TRAILING, body(b"one", True), endless=True)
    server = Server(adapt(app))

    def run() -> None:
        next(server.call())
        server.close()

    in_thread(run)
    assert app.done.wait(5)
    assert isinstance(app.error, ClientDisconnected)
    assert server.told == []


def test_a_file_has_its_trailers_behind_it(adapt: Adapt, tmp_path: Path) -> None:
    """Trailers follow http.response.pathsend as they follow a body, and the file is closed."""
    path = tmp_path / "file"
    path.write_bytes(b"of a file")
    file = {"type": "http.response.pathsend", "path": str(path)}
    environ = http_environ(HTTP_TE="trailers", **{"wsgi.file_wrapper": lambda *args: pytest.fail("no trailers then")})
    server = serve(adapt(answers(TRAILING, file, STATUS), pathsend=True), environ)
    assert (server.body, server.told) == (b"of a file", [(len(server.blocks), [("grpc-status", "0")])])


def test_a_file_that_the_server_drops_is_closed(adapt: Adapt, tmp_path: Path) -> None:
    """If a server reads nothing of the file, it is closed, and the app is told that its client has left."""
    path = tmp_path / "file"
    path.write_bytes(b"of a file")
    late, done = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(TRAILING)
        await send({"type": "http.response.pathsend", "path": str(path)})
        await until(late)
        with pytest.raises(ClientDisconnected):
            await send(STATUS)
        done.set()

    server = Server(adapt(app, pathsend=True))

    def run() -> None:
        server.call()
        server.close()
        late.set()

    in_thread(run)
    assert done.wait(5)
    assert server.told == []


def test_trailers_pass_through_both_adapters(adapt: Adapt) -> None:
    """The trailers of a WSGI app behind both adapters reach the callable of the outermost server."""
    from bridge import WSGIToASGI

    def app(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"one"
        environ[KEYS[0]]([("Grpc-Status", "0")])

    server = serve(adapt(WSGIToASGI(app)), key=KEYS[1])
    assert (server.body, [headers for _, headers in server.told]) == (b"one", [[("grpc-status", "0")]])


@pytest.mark.parametrize("key", KEYS)
def test_trailers_keep_a_response_in_its_thread(adapt: Adapt, key: str) -> None:
    """Only the server can send them, so a server that does keeps its connection."""
    gate = Gate()
    adapter = adapt(waiting(gate, TRAILING, body(b"x"), STATUS), detach="always", detach_after=0)
    with connected(adapter, HTTP_TE="trailers") as connection:
        server = Server(adapter, connection.environ, key=key)
        threading.Timer(0.1, gate.open).start()
        in_thread(server.run)
    assert (server.body, server.told) == (b"x", [(len(server.blocks), [("grpc-status", "0")])])
