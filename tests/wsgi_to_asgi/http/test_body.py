"""`wsgi.input`, and when the messages of a body are received."""

import contextvars
import io
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import bridge.wsgi_to_asgi.http.body
import bridge.wsgi_to_asgi.http.exchange
from bridge import ClientDisconnected, ServerProtocolError, WSGIToASGI
from bridge.types import Environ, Message, StartResponse
from tests.fakes import ASGIServer, eventually, http_scope, request
from tests.wsgi_to_asgi.http.apps import OK, Blocks, answers, app_of, chunked, types


def reads(read: Callable[[Any], Any]) -> tuple[WSGIToASGI, list[Any]]:
    """Return an app that calls `read` with wsgi.input, and the list that gets what it returns."""
    results: list[Any] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        results.append(read(environ["wsgi.input"]))
        start_response(OK, [])
        return []

    return WSGIToASGI(app), results


@pytest.mark.parametrize("blocks", [[b"ab\ncd\nef"], [b"a", b"b\nc", b"", b"d\ne", b"f"], [b"", b"ab\ncd\nef", b""]])
@pytest.mark.parametrize(
    "read",
    [
        lambda stream: stream.read(),
        lambda stream: stream.read(-1),
        lambda stream: stream.read(None),
        lambda stream: [stream.read(size) for size in (3, 0, 100, 1)],
        lambda stream: [stream.readline(*limit) for limit in ((), (1,), (100,), (), ())],
        lambda stream: stream.readlines(),
        lambda stream: [*stream.readlines(4), stream.read()],
        lambda stream: list(stream),
        lambda stream: [stream.read(1), stream.readline(), next(stream), stream.read(), stream.read()],
    ],
    ids=["read", "read -1", "read None", "read n", "readline n", "readlines", "readlines n", "iterate", "mixed"],
)
async def test_the_input_reads_as_a_file_however_the_body_is_split(
    blocks: list[bytes], read: Callable[[Any], Any]
) -> None:
    """Each method of wsgi.input returns what io.BytesIO returns for the whole body, with a length or without."""
    app, results = reads(read)
    for scope in (http_scope(), chunked()):
        await request(app, scope, *blocks)
    assert results == [read(io.BytesIO(b"".join(blocks)))] * 2


@pytest.mark.parametrize("length", [None, b"0"])
@pytest.mark.parametrize("version", ["1.1", "2"])
async def test_a_request_without_a_body_waits_for_no_message(version: str, length: bytes | None) -> None:
    """No request hangs on servers that never answer receive() without a body (uvicorn with zttp over HTTP/2)."""
    headers = [(b"host", b"example.org"), *([(b"content-length", length)] if length else [])]
    scope = http_scope("GET" if length is None else "POST", http_version=version, headers=headers)
    for app, blocks in ((answers(b"one"), 1), (app_of(Blocks([bytes(300_000)] * 3).app), 3)):
        server = ASGIServer(app, scope, blocks=[])
        with anyio.fail_after(5):
            await server.run()
        assert server.complete
        assert len(types(server)) > blocks


@pytest.mark.parametrize("after", [0, 1])
async def test_a_body_that_nothing_announces_arrives(after: int) -> None:
    """HTTP/2 needs no Content-Length: the app's read waits for the body, and gets all of it."""
    app, results = reads(lambda stream: (stream.readline(), next(stream), list(stream), stream.read()))
    server = ASGIServer(app, http_scope("POST", http_version="2", headers=[]), blocks=[])
    blocks = [b"a\n", b"b\nc\n", b"d"]
    with anyio.fail_after(5):
        async with server.running():
            await eventually(lambda: server.receive_calls >= after)
            for number, block in enumerate(blocks, 1):
                server.feed(block, more_body=number < len(blocks))
    assert results == [(b"a\n", b"b\n", [b"c\n", b"d"], b"")]


async def test_the_input_where_nothing_announces_a_body_is_a_file() -> None:
    """It can be wrapped and closed like any file, and threads that use it at once share one stream."""

    def read(stream: Any) -> Any:
        threads = [threading.Thread(target=stream.readable) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with stream as same:
            text = io.TextIOWrapper(stream)
            lines = text.readlines()
            text.detach()
        return lines, same.closed, stream.closed

    app, results = reads(read)
    await request(app, http_scope(), b"one\nt", b"wo")
    assert results == [(["one\n", "two"], True, True)]


async def test_a_client_that_leaves_before_its_unannounced_body_is_an_error() -> None:
    """The body counts as empty only if the server says so."""

    def read(stream: Any) -> str:
        with pytest.raises(ClientDisconnected):
            stream.read()
        return "raised"

    app, results = reads(read)
    server = ASGIServer(app, blocks=[])
    with anyio.fail_after(5):
        async with server.running():
            await eventually(lambda: server.receive_calls)
            server.disconnect()
    assert results == ["raised"]


async def test_a_body_is_fetched_as_the_app_reads() -> None:
    """The app starts with the first block, and the next one is asked for when it reads."""
    first = threading.Event()
    results: list[bytes] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        results.append(environ["wsgi.input"].read(3))
        first.set()
        results.append(environ["wsgi.input"].read())
        start_response(OK, [])
        return []

    server = ASGIServer(app_of(app), blocks=[])
    server.feed(b"abc", more_body=True)
    async with server.running():
        assert await anyio.to_thread.run_sync(first.wait, 5)
        assert server.receive_calls <= 2
        server.feed(b"def", more_body=True)
        server.feed(b"ghi")
    assert results == [b"abc", b"defghi"]


async def test_no_thread_is_taken_before_the_first_message() -> None:
    """A client that has announced a body but sent only headers does not hold a worker thread."""
    calls: list[Environ] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        calls.append(environ)
        start_response(OK, [])
        return []

    for name, value in ((b"content-length", b"3"), (b"transfer-encoding", b"chunked")):
        calls.clear()
        server = ASGIServer(app_of(app), http_scope("POST", headers=[(name, value)]), blocks=[])
        async with server.running():
            await eventually(lambda server=server: server.receive_calls)  # type: ignore[misc]
            await anyio.wait_all_tasks_blocked()
            assert calls == []
            server.feed(b"abc")
        assert len(calls) == 1


async def test_the_app_runs_in_the_context_that_receive_has_left() -> None:
    """Context variables that middleware sets in its receive() are set for the app."""
    variable = contextvars.ContextVar("variable", default="unset")

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [])
        return [variable.get().encode()]

    adapter = app_of(app)

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        async def set_and_receive() -> Message:
            variable.set("by receive")
            message: Message = await receive()
            return message

        await adapter(scope, set_and_receive, send)

    server = ASGIServer(middleware, chunked())
    await server.run()
    assert b"".join(message.get("body", b"") for message in server.sent) == b"by receive"


@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="without the lock what a thread lets go of is counted later",
)
async def test_a_body_is_let_go_of_with_the_input() -> None:
    """A body that came in one message is freed with wsgi.input, while the response goes on."""
    body = bytes(1000)
    before, after = sys.getrefcount(body), []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [])
        environ.pop("wsgi.input").close()
        after.append(sys.getrefcount(body))
        yield b"one"

    server = ASGIServer(app_of(app), chunked(), blocks=[])
    server.feed(body)
    await server.run()
    assert after == [before]


@pytest.mark.parametrize("missing", ["method", "path"])
async def test_a_scope_that_is_not_whole_is_an_error_of_the_server(missing: str) -> None:
    """The error is raised to the server, and the worker thread is free for the next request."""
    adapter = answers(b"hello")
    scope = http_scope()
    del scope[missing]
    with pytest.raises(ServerProtocolError, match=f"no '{missing}'"):
        await ASGIServer(adapter, scope).run()
    assert (await request(adapter)).body == b"hello"


async def test_a_client_that_expects_100_continue_is_asked_when_the_app_reads() -> None:
    """With `Expect: 100-continue` the app's first read calls receive(), and nothing else does."""
    scope = http_scope("POST", headers=[(b"expect", b"100-continue"), (b"content-length", b"3")])
    server = ASGIServer(answers(b"no, thanks", headers=[("Content-Length", "10")]), scope, blocks=[])
    with anyio.fail_after(5):
        await server.run()
    assert (server.body, server.receive_calls) == (b"no, thanks", 0)

    app, results = reads(lambda stream: stream.read())
    await request(app, scope, b"abc")
    assert results == [b"abc"]


async def test_a_body_cut_short_is_an_error_and_no_end_of_file() -> None:
    """A read that meets http.disconnect raises ClientDisconnected, an OSError, each time."""

    def read(stream: Any) -> Any:
        errors = 0
        for _ in range(2):
            with pytest.raises(ClientDisconnected):
                stream.read()
            errors += 1
        return errors

    app, results = reads(read)
    server = ASGIServer(app, blocks=[])
    server.feed(b"abc", more_body=True)
    async with server.running():
        await eventually(lambda: server.receive_calls == 2)
        server.disconnect()
    assert results == [2]


@pytest.mark.parametrize("message", [{"type": "bogus"}, {}, None, {"type": "http.request", "body": "text"}])
async def test_a_message_that_is_none_is_the_servers_error(message: Any) -> None:
    """A message that receive() must not return raises an error to the server."""
    server = ASGIServer(answers(b"x"), chunked(), blocks=[])
    server.feed_message(message)
    with anyio.fail_after(5), pytest.raises(ServerProtocolError):
        await server.run()


@pytest.mark.parametrize(
    "keys", [{"query_string": "a=1"}, {"headers": 1}, {"headers": [("a", "b")]}, {"extensions": 1}, {"method": None}]
)
async def test_a_scope_that_cannot_be_read_is_the_servers_error(keys: Any) -> None:
    """Whatever is wrong with the scope, the error is raised to the server."""
    with pytest.raises(ServerProtocolError, match=next(iter(keys))):
        await request(answers(b"x"), http_scope(**keys))


async def test_the_body_may_be_left_unread() -> None:
    """An app that answers without reading is finished, however much of the body is still to come."""
    server = ASGIServer(answers(b"done", headers=[("Content-Length", "4")]), blocks=[])
    server.feed(b"abc", more_body=True)
    with anyio.fail_after(5):
        await server.run()
    assert server.complete


async def test_a_body_cannot_be_read_after_the_response() -> None:
    """A read or a wait in close() ends, because the response has ended."""
    results: list[Any] = []

    class Reading(Blocks):
        def app(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            self.environ = environ
            return super().app(environ, start_response)

        def close(self) -> None:
            with pytest.raises(ClientDisconnected):
                self.environ["wsgi.input"].read()
            results.append(self.environ["bridge.disconnected"].wait())
            super().close()

    blocks = Reading([b"x"])
    server = ASGIServer(app_of(blocks.app), blocks=[])
    server.feed(b"abc", more_body=True)
    with anyio.fail_after(5):
        await server.run()
    assert (results, blocks.closed) == ([False], 1)


async def test_an_app_that_yields_nothing_is_told_that_its_client_left() -> None:
    """An app that yields only empty blocks while it waits is stopped, although it sends nothing that could fail."""

    def nothing() -> Iterator[bytes]:
        while True:
            time.sleep(0.001)
            yield b""

    blocks = Blocks(nothing())
    server = ASGIServer(app_of(blocks.app))
    with anyio.fail_after(5):
        async with server.running():
            await eventually(lambda: blocks.taken > 3)
            server.disconnect()
    assert blocks.closed == 1


async def test_a_body_may_be_read_in_another_thread() -> None:
    """A thread that waits for the body blocks neither the response nor the loop, and is woken when the request ends."""
    sizes: list[int] = []
    ended = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        def read() -> None:
            try:
                while block := environ["wsgi.input"].read(3):
                    sizes.append(len(block))
            except ClientDisconnected:
                ended.set()

        threading.Thread(target=read, daemon=True).start()
        start_response(OK, [])
        for _ in range(100):
            yield bytes(10_000)

    server = ASGIServer(app_of(app), blocks=[])
    server.feed(b"abc", more_body=True)
    with anyio.fail_after(5):
        await server.run()
    assert len(server.body) == 1_000_000
    assert await anyio.to_thread.run_sync(ended.wait, 5)
    assert sizes == [3]


async def test_an_echo_streams_both_ways() -> None:
    """An app that yields what it reads answers each block before the next one comes."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [])
        while block := environ["wsgi.input"].read(3):
            yield block

    server = ASGIServer(app_of(app), blocks=[])
    server.feed(b"abc", more_body=True)
    async with server.running():
        for number, block in enumerate([b"def", b"ghi", b"jkl"]):
            await server.until_sent(2 + number)
            server.feed(block, more_body=True)
        await server.until_sent(5)
        server.feed(b"")
    assert server.body == b"abcdefghijkl"


@pytest.mark.parametrize("blocks", [[b"abc"], [b"a", b"bc"], [b"x" * 1024 * 1024, b"y"]])
async def test_buffer_body_gives_the_app_a_length(blocks: list[bytes]) -> None:
    """With buffer_body a body of unknown length is spooled, and CONTENT_LENGTH set."""
    body = b"".join(blocks)
    seen: list[Any] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append((environ["CONTENT_LENGTH"], environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))))
        start_response(OK, [])
        return []

    scope = http_scope("POST", headers=[(b"transfer-encoding", b"chunked")])
    await request(app_of(app, buffer_body=True), scope, *blocks)
    assert seen == [(str(len(body)), body)]


async def test_buffer_body_takes_the_transfer_encoding_away() -> None:
    """With buffer_body the environ has no Transfer-Encoding, or Bottle would decode the body a second time."""
    seen: list[Any] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(environ.get("HTTP_TRANSFER_ENCODING"))
        start_response(OK, [])
        return []

    scope = http_scope("POST", headers=[(b"transfer-encoding", b"chunked")])
    for blocks in ((b"abc",), (b"",)):
        await request(app_of(app, buffer_body=True), scope, *blocks)
    await request(app_of(app), scope, b"abc")
    assert seen == [None, None, "chunked"]


@pytest.mark.parametrize("option", ["buffer_body", "lend_loop"])
async def test_a_body_that_is_to_be_there_first_is_waited_for_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    """If nothing announces a body, the adapter waits a limited time for a first message that may do so."""
    seen: list[Any] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/reads":
            seen.append((environ.get("CONTENT_LENGTH"), environ["wsgi.input"].read()))
        start_response(OK, [])
        return [b"x"]

    adapter = app_of(app, **{option: True})
    for blocks in ((b"abc",), (b"a", b"bc"), (b"",)):
        await request(adapter, http_scope("POST", path="/reads"), *blocks)
    lengths = ["3", "3", None] if option == "buffer_body" else [None] * 3
    assert seen == list(zip(lengths, [b"abc", b"abc", b""], strict=True))
    monkeypatch.setattr(bridge.wsgi_to_asgi.http.exchange, "_PATIENCE", 0.05)
    for method in ("POST", "GET"):
        server = ASGIServer(adapter, http_scope(method), blocks=[])
        with anyio.fail_after(5):
            await server.run()
        assert (server.body, server.receive_calls) == (b"x", int(method == "POST" or option == "lend_loop"))


async def test_buffer_body_leaves_a_known_length_and_an_absent_body_alone() -> None:
    """With buffer_body a GET has no CONTENT_LENGTH, and a body with a Content-Length still streams."""
    seen: list[Any] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append((environ.get("CONTENT_LENGTH"), environ["wsgi.input"].read(2)))
        start_response(OK, [])
        return []

    adapter = app_of(app, buffer_body=True)
    await request(adapter)
    server = ASGIServer(adapter, http_scope("POST", headers=[(b"content-length", b"4")]), blocks=[])
    server.feed(b"ab", more_body=True)
    with anyio.fail_after(5):
        await server.run()
    assert seen == [(None, b""), ("4", b"ab")]
