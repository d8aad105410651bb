"""`receive()`, and how `wsgi.input` is read."""

import io
import threading
import types
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from bridge import ClientDisconnected, ServerProtocolError
from bridge.asgi_to_wsgi.http import body as body_module
from bridge.types import Message, Receive, Scope, Send
from tests.asgi_to_wsgi.apps import Adapt
from tests.asgi_to_wsgi.http.apps import answers, body, reads, start, until
from tests.fakes import WSGIServer, http_environ, respond

# --- The request body ---------------------------------------------------------------------------


class Input:
    """A `wsgi.input` that returns one of `blocks` per read, but no more than `size` bytes; then b"", or an error."""

    def __init__(self, *blocks: bytes, error: Exception | None = None, strict: bool = False) -> None:
        self._data = io.BytesIO(b"".join(blocks))
        self._error = error
        self._strict = strict
        self.reads: list[int] = []
        self.threads: set[int] = set()

    def read(self, size: int) -> bytes:
        self.reads.append(size)
        self.threads.add(threading.get_ident())
        block = self._data.read(size)
        if not block and self._error is not None:
            raise self._error
        assert block or not self._strict, "read beyond the end"
        return block

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"wsgi.input.{name} was asked for")


class Held(Input):
    """A `wsgi.input` whose reads wait until `proceed` is set."""

    def __init__(self, *blocks: bytes) -> None:
        super().__init__(*blocks)
        self.reading, self.proceed = threading.Event(), threading.Event()

    def read(self, size: int) -> bytes:
        self.reading.set()
        assert self.proceed.wait(5)
        return super().read(size)


@pytest.mark.parametrize("size", [0, 1, 1000, 64 * 1024, 64 * 1024 + 1, 300_000, 2_000_000])
def test_a_body_is_read_to_its_length_and_not_beyond(adapt: Adapt, size: int) -> None:
    """The messages make up the body, each is limited, and only the last one has no `more_body`.

    A small body is one message. Otherwise the last message is empty, because Sanic waits for that.
    """
    results: list[Any] = []
    stream = Input(bytes(size), strict=True)
    environ = http_environ("POST", CONTENT_LENGTH=str(size), **{"wsgi.input": stream})
    server = respond(adapt(reads(results)), environ)
    assert server.body == b"%d" % size
    assert [message["more_body"] for message in results] == [True] * (len(results) - 1) + [False]
    assert max(len(message["body"]) for message in results) <= 512 * 1024
    assert len(results) == 1 if size <= 64 * 1024 else results[-1]["body"] == b""
    assert stream.threads <= server.threads


@pytest.mark.parametrize(("sizes", "expected"), [([3], [3]), ([1, 2], [1, 2, 0])])
def test_a_body_that_is_asked_for_is_one_message_or_ends_with_an_empty_one(
    adapt: Adapt, sizes: list[int], expected: list[int]
) -> None:
    """A body that comes at once is one message, although the client waited for the app to ask for it."""

    class InPackets(Input):
        def read(self, size: int) -> bytes:
            return super().read(min(size, packets.pop(0)))

    packets = list(sizes)
    results: list[Any] = []
    stream = InPackets(b"abc", strict=True)
    environ = http_environ("POST", HTTP_EXPECT="100-continue", CONTENT_LENGTH="3", **{"wsgi.input": stream})
    assert respond(adapt(reads(results)), environ).body == b"3"
    assert [len(message["body"]) for message in results] == expected
    assert [message["more_body"] for message in results] == [True] * (len(expected) - 1) + [False]


def test_blocks_grow_while_they_come_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks grow, because each costs a hop; if a client is slow, the app gets what has come so far."""
    now = 0.0

    class Slow(Input):
        def read(self, size: int) -> bytes:
            nonlocal now
            now += 0.01 if len(self.reads) == 5 else 0.001
            return super().read(size)

    monkeypatch.setattr(body_module, "time", types.SimpleNamespace(monotonic=lambda: now))
    stream = Slow(bytes(4 * 1024 * 1024))
    request_body = body_module.RequestBody({"CONTENT_LENGTH": str(4 * 1024 * 1024), "wsgi.input": stream})
    while request_body.read()[1]:
        pass
    assert [size // 1024 for size in stream.reads[:8]] == [64, 128, 256, 512, 512, 512, 64, 128]


@pytest.mark.parametrize("length", [None, ""])
def test_without_a_length_there_is_no_body(adapt: Adapt, length: str | None) -> None:
    """Without CONTENT_LENGTH and wsgi.input_terminated the stream is not read."""
    results: list[Any] = []
    stream = Input(b"not ours")
    assert respond(adapt(reads(results)), http_environ(CONTENT_LENGTH=length, **{"wsgi.input": stream})).body == b"0"
    assert results == [{"type": "http.request", "body": b"", "more_body": False}]
    assert stream.reads == []


@pytest.mark.parametrize("headers", [{}, {"HTTP_TRANSFER_ENCODING": "chunked"}])
@pytest.mark.parametrize("size", [0, 3, 200_000])
def test_a_stream_that_knows_its_end_is_read_to_it(adapt: Adapt, headers: dict[str, str], size: int) -> None:
    """With wsgi.input_terminated a body without CONTENT_LENGTH is read until it ends."""
    results: list[Any] = []
    keys: dict[str, Any] = {"wsgi.input": Input(bytes(size)), "wsgi.input_terminated": True, **headers}
    assert respond(adapt(reads(results)), http_environ("POST", **keys)).body == b"%d" % size


@pytest.mark.parametrize("length", [3, 0])
def test_a_length_may_be_an_int(adapt: Adapt, length: int) -> None:
    """An int as CONTENT_LENGTH, which some middleware and test clients set, bounds the body too, even 0."""
    results: list[Any] = []
    keys: dict[str, Any] = {
        "CONTENT_LENGTH": length,
        "wsgi.input": Input(b"one and more"),
        "wsgi.input_terminated": True,
    }
    assert respond(adapt(reads(results)), http_environ("POST", **keys)).body == b"%d" % length


def test_a_body_is_read_when_the_app_asks(adapt: Adapt) -> None:
    """If a body is large, or its client expects 100 Continue, it is read only when the app asks for it."""
    for length, headers in ((100_000, dict[str, str]()), (10, {"HTTP_EXPECT": "100-continue"})):
        stream = Input(bytes(length))
        keys: dict[str, Any] = {"CONTENT_LENGTH": str(length), "wsgi.input": stream, **headers}
        assert respond(adapt(answers(start(), body(b"no"))), http_environ("POST", **keys)).body == b"no"
        assert stream.reads == []
        assert respond(adapt(reads([])), http_environ("POST", **keys)).body == b"%d" % length


@pytest.mark.parametrize("length", [100, 200_000])
@pytest.mark.parametrize("error", [None, OSError("reset"), ValueError("bad chunk")])
def test_an_aborted_upload_is_a_disconnect_once(adapt: Adapt, length: int, error: Exception | None) -> None:
    """A body that ends early is http.disconnect for the app, an error for the server, and is read once."""
    done = threading.Event()
    received: list[Message] = []
    sent: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "http.request":
            received.append(message)
        received.append(await receive())
        try:
            await send(start())
        except OSError as disconnected:
            sent.append(disconnected)
        done.set()

    stream = Input(b"x" * 50, error=error)
    environ = http_environ("POST", CONTENT_LENGTH=str(length), **{"wsgi.input": stream})
    with pytest.raises(type(error or ClientDisconnected())):
        respond(adapt(app), environ)
    assert done.wait(5)
    assert received[-1] == {"type": "http.disconnect"}
    assert all(message["body"] == b"x" * 50 and message["more_body"] for message in received[:-1])
    assert len(sent) == 1
    assert len(stream.reads) == 2


def test_a_cancelled_receive_loses_nothing(adapt: Adapt) -> None:
    """A receive() that is cancelled while the stream is read leaves the block for the next one."""
    stream = Held(bytes(100_000))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def listen() -> None:
            await receive()

        with anyio.CancelScope() as cancelled:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listen)
                await until(stream.reading)
                cancelled.cancel()
        assert cancelled.cancelled_caught
        stream.proceed.set()
        results: list[Any] = []
        await reads(results)(scope, receive, send)

    environ = http_environ("POST", CONTENT_LENGTH="100000", **{"wsgi.input": stream})
    assert respond(adapt(app), environ).body == b"100000"


def test_a_receive_that_is_given_up_leaves_nothing(adapt: Adapt) -> None:
    """Cancelling receive() again and again leaves no waiters behind."""
    waiters: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for _ in range(100):
            with anyio.CancelScope() as given_up:
                given_up.cancel()
                await receive()
        exchange: Any = receive.__self__  # type: ignore[attr-defined]
        waiters.append(len(exchange._change._waiting))
        await answers(start(), body(b"x"))(scope, receive, send)

    assert respond(adapt(app)).body == b"x"
    assert waiters == [0]


def test_a_slow_body_does_not_stop_the_loop(adapt: Adapt) -> None:
    """While one request's stream blocks its thread, the loop serves another."""
    stream = Held(bytes(100_000))
    results: list[Any] = []
    adapter = adapt(reads(results))
    environ = http_environ("POST", CONTENT_LENGTH="100000", **{"wsgi.input": stream})
    slow = WSGIServer(adapter, environ)
    thread = threading.Thread(target=slow.run, daemon=True)
    thread.start()
    assert stream.reading.wait(5)
    assert respond(adapt(answers(start(), body(b"quick")))).body == b"quick"
    stream.proceed.set()
    thread.join(5)
    assert slow.body == b"100000"


def test_an_echo_streams_both_ways(adapt: Adapt) -> None:
    """An app that sends what it receives answers as the body comes."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        more_body = True
        while more_body:
            message = await receive()
            more_body = message["more_body"]
            await send(body(message["body"], more_body))

    data = bytes(range(256)) * 2000
    assert respond(adapt(app), http_environ("POST", "/", data)).body == data


# --- A wrong wsgi.input ---------------------------------------------------------------------------


@pytest.mark.parametrize("block", ["text", 5, None])
def test_an_input_that_reads_no_bytes_is_the_servers_error(adapt: Adapt, block: Any) -> None:
    """wsgi.input is a stream of bytes (PEP 3333, Input and Error Streams)."""

    class Input:
        def read(self, size: int) -> Any:
            return block

    with pytest.raises(ServerProtocolError, match=f"read.. must return bytes, got {type(block).__name__}"):
        respond(adapt(reads([])), http_environ("POST", "/", b"body", **{"wsgi.input": Input()}))


def test_a_body_that_was_read_before_is_told_from_nothing_else(adapt: Adapt) -> None:
    """The error says how much of the body came, and that middleware may have read it."""
    environ = http_environ("POST", "/", b"some data")
    assert environ["wsgi.input"].read() == b"some data"
    text = "after 0 of 9 bytes: the client left, or the body was read before"
    with pytest.raises(ClientDisconnected, match=text):
        respond(adapt(reads([])), environ)
    with pytest.raises(ClientDisconnected, match="after 4 of 9 bytes"):
        respond(adapt(reads([])), http_environ("POST", "/", b"some", CONTENT_LENGTH="9"))


def test_an_environ_without_input_is_the_servers_error(adapt: Adapt) -> None:
    """wsgi.input must be in the environ (PEP 3333, environ Variables)."""
    with pytest.raises(ServerProtocolError, match=r"no wsgi\.input"):
        respond(adapt(reads([])), http_environ("POST", "/", b"body", **{"wsgi.input": None}))
