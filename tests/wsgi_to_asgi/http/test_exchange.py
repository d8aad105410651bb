import contextlib
import contextvars
import errno
import gc
import gzip
import io
import itertools
import math
import sys
import sysconfig
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import flask
import pytest

import bridge.wsgi_to_asgi.http.body
import bridge.wsgi_to_asgi.http.exchange
from bridge import AppProtocolError, ClientDisconnected, ServerProtocolError, WSGIToASGI
from bridge.runtime import running_loop
from bridge.types import Environ, Message, StartResponse
from bridge.wsgi_to_asgi.http.body import RequestBody
from bridge.wsgi_to_asgi.http.environ import environ_template
from bridge.wsgi_to_asgi.http.exchange import HTTPExchange
from bridge.wsgi_to_asgi.http.hop import FINISHED, Exchange, body_message_from_items
from bridge.wsgi_to_asgi.http.streams import Spool
from bridge.wsgi_to_asgi.runner import WorkerThreads
from tests.fakes import ASGIServer, eventually, http_scope, request
from tests.references import is_freed

OK = "200 OK"


def app_of(function: Callable[[Environ, StartResponse], Iterable[bytes]], **options: Any) -> WSGIToASGI:
    return WSGIToASGI(function, **options)


def answers(*blocks: bytes, status: str = OK, headers: list[tuple[str, str]] | None = None) -> WSGIToASGI:
    """Return an app that yields `blocks` from a generator, one by one."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, headers or [])
        return (block for block in blocks)

    return WSGIToASGI(app)


def types(server: ASGIServer) -> list[str]:
    return [message["type"].removeprefix("http.response.") for message in server.sent]


def chunked() -> dict[str, Any]:
    """Return the scope of a request that announces a body of unknown length."""
    return http_scope("POST", headers=[(b"transfer-encoding", b"chunked")])


class Blocks:
    """An iterable of a WSGI app that keeps book of what is done to it, and by which thread."""

    def __init__(self, blocks: Iterable[bytes], close_error: BaseException | None = None) -> None:
        self._blocks = iter(blocks)
        self._close_error = close_error
        self.taken = 0
        self.threads: list[int] = []
        self.closed = 0
        self.done = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self.threads.append(threading.get_ident())
        block = next(self._blocks)
        self.taken += 1
        return block

    def close(self) -> None:
        self.threads.append(threading.get_ident())
        self.closed += 1
        self.done.set()
        if self._close_error is not None:
            raise self._close_error

    def app(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        self.threads.append(threading.get_ident())
        start_response(OK, [])
        return self


def endless() -> Iterator[bytes]:
    """Blocks without end, which several requests may take from at once, as from a generator they may not."""
    return itertools.repeat(b"x" * 1000)


# --- The response -------------------------------------------------------------------------------


async def test_a_response_of_one_block_is_two_messages() -> None:
    """A list of one block leaves as a start and one last body message."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("201 Created", [("X-Camel", "caf\xe9"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
        return [b"hello"]

    server = await request(app_of(app))
    assert server.sent == [
        {
            "type": "http.response.start",
            "status": 201,
            "headers": [(b"x-camel", b"caf\xe9"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")],
        },
        {"type": "http.response.body", "body": b"hello", "more_body": False},
    ]


async def test_a_body_that_fills_its_content_length_ends_at_once() -> None:
    """The block that completes the Content-Length is the last one that is sent, and no more than one other is made."""
    blocks = Blocks([b"hello", b"surplus", b"never"])

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [("Content-Length", "5")])
        return blocks

    server = await request(app_of(app))
    assert types(server) == ["start", "body"]
    assert (server.body, blocks.taken, blocks.closed) == (b"hello", 2, 1)


@pytest.mark.parametrize("by_write", [False, True])
async def test_code_behind_the_last_block_of_a_generator_runs(by_write: bool) -> None:
    """It has given its whole Content-Length, and may yet have a file to delete; the client does not wait for that."""
    seen = threading.Event()
    ran: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response(OK, [("Content-Length", "5")])
        if by_write:
            write(b"hello")

        def blocks() -> Iterator[bytes]:
            try:
                if not by_write:
                    yield b"hello"
                assert seen.wait(5)
                ran.append("behind the last block")
                yield b"surplus"
                ran.append("behind the surplus")
            finally:
                ran.append("finally")

        return blocks()

    server = ASGIServer(app_of(app))
    async with server.running():
        await eventually(lambda: server.complete)
        seen.set()
    assert server.body == b"hello"
    assert ran == ["behind the last block", "finally"]


async def test_an_error_behind_the_last_block_of_a_generator_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """As one in close() is: the client has its response."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [("Content-Length", "5")])
        yield b"hello"
        raise ZeroDivisionError("behind the end")

    server = await request(app_of(app))
    assert (server.body, server.complete) == (b"hello", True)
    assert "ZeroDivisionError: behind the end" in caplog.text


@pytest.mark.parametrize("blocks", [[], [b""], [b"", b""]])
async def test_an_empty_body_still_has_a_start_and_an_end(blocks: list[bytes]) -> None:
    """An iterable without data sends the headers at its end (PEP 3333, Buffering and Streaming)."""
    server = await request(answers(*blocks, status="204 No Content"))
    assert (server.status, server.body, server.complete) == (204, b"", True)
    assert types(server) == ["start", "body"]


async def test_each_block_leaves_before_the_next_is_asked_for() -> None:
    """The app waits, before its second block, for the first one to have been sent."""
    seen = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [])
        yield b"one"
        assert seen.wait(5)
        yield b"two"

    server = ASGIServer(app_of(app))
    async with server.running():
        await server.until_sent(2)
        seen.set()
    assert (server.body, server.complete) == (b"onetwo", True)


async def test_write_sends_before_it_returns_and_before_the_iterable() -> None:
    """Data of write() comes first, and its headers cannot be taken back (PEP 3333, The write() Callable)."""
    seen = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response(OK, [])
        write(b"one")
        assert seen.wait(5)
        write(b"two")
        return [b"three"]

    server = ASGIServer(app_of(app))
    async with server.running():
        await server.until_sent(2)
        seen.set()
    assert (server.body, server.complete) == (b"onetwothree", True)


async def test_write_refuses_what_is_not_bytes_or_too_much_or_too_late() -> None:
    """write() raises into the app for a str, for bytes beyond Content-Length, and after the request."""
    kept: list[Callable[[bytes], object]] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response(OK, [("Content-Length", "3")])
        kept.append(write)
        with pytest.raises(TypeError, match="str"):
            write("abc")  # type: ignore[arg-type]
        with pytest.raises(AppProtocolError, match="Content-Length"):
            write(b"abcd")
        return []

    server = await request(app_of(app))
    assert (server.body, server.complete) == (b"abc", True)
    with pytest.raises(AppProtocolError, match="ended"):
        kept[0](b"x")


async def test_headers_wait_for_the_first_non_empty_block() -> None:
    """An error after two empty blocks reaches the server before anything was sent (PEP 3333, Buffering)."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [])
        yield b""
        yield b""
        raise ZeroDivisionError

    server = ASGIServer(app_of(app))
    with pytest.raises(ZeroDivisionError):
        await server.run()
    assert server.sent == []


async def test_exc_info_replaces_a_start_that_was_not_sent() -> None:
    """start_response with exc_info has the last word while nothing has left."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [("Content-Length", "1"), ("X-Old", "1")])
        yield b""
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            exc_info = sys.exc_info()
            assert exc_info[1] is not None
            start_response("500 Oops", [("X-New", "1")], exc_info)
        yield b"sorry"

    server = await request(app_of(app))
    assert (server.status, server.headers, server.body) == (500, [(b"x-new", b"1")], b"sorry")


async def test_exc_info_after_output_is_raised_and_cuts_the_response() -> None:
    """start_response with exc_info re-raises the very exception once a block has left."""
    errors: list[BaseException] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [])
        yield b"partial"
        try:
            raise ZeroDivisionError
        except ZeroDivisionError as error:
            errors.append(error)
            start_response("500 Oops", [], sys.exc_info())

    server = ASGIServer(app_of(app))
    with pytest.raises(ZeroDivisionError) as caught:
        await server.run()
    assert caught.value is errors[0]
    assert (server.body, server.complete) == (b"partial", False)


async def test_the_exception_of_exc_info_is_not_kept() -> None:
    """A handled exception dies with its except block, not with the request (PEP 3333: no circular reference)."""
    alive: list[bool] = []

    class Handled(Exception):
        pass

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        def fail() -> "weakref.ref[BaseException]":
            try:
                raise Handled
            except Handled as error:
                start_response("500 Oops", [], sys.exc_info())
                return weakref.ref(error)

        reference = fail()
        gc.collect()
        alive.append(reference() is not None)
        return [b"sorry"]

    await request(app_of(app))
    assert alive == [False]


@pytest.mark.parametrize("error", [ZeroDivisionError("mid"), StopIteration("mid")])
async def test_an_error_in_mid_body_cuts_the_response(error: Exception) -> None:
    """What the iterable raises reaches the server, behind what was sent and without an end."""

    class Failing(Blocks):
        def __next__(self) -> bytes:
            if self.taken == 1:
                self.taken += 1
                raise ZeroDivisionError("mid")
            return super().__next__()

    blocks = Failing([b"partial", b"never"])
    server = ASGIServer(app_of(blocks.app))
    with pytest.raises(ZeroDivisionError, match="mid"):
        await server.run()
    assert (server.body, server.complete, blocks.closed) == (b"partial", False, 1)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration()])
async def test_an_exception_that_would_stop_the_loop_is_an_error_of_the_request(error: BaseException) -> None:
    """SystemExit and its like end the request, and neither the loop nor the worker thread."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/":
            raise error
        start_response(OK, [])
        return [b"fine"]

    adapter = app_of(app, workers=1)
    with pytest.raises((AppProtocolError, RuntimeError)):
        await ASGIServer(adapter).run()
    assert (await request(adapter, http_scope(path="/again"))).body == b"fine"


@pytest.mark.parametrize("result", ["text", b"bytes", None, 42, ["text"], [None], [65], [bytearray(b"x")]])
async def test_a_body_that_is_not_bytes_is_a_type_error(result: Any) -> None:
    """A str, a bare bytes or a chunk that is not bytes is refused, with its type in the message."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [])
        return result  # type: ignore[no-any-return]

    server = ASGIServer(app_of(app))
    expected = "bytes" if isinstance(result, list) else "None" if result is None else type(result).__name__
    with pytest.raises(TypeError, match=expected):
        await server.run()
    assert server.sent == []


async def test_an_app_that_does_not_call_start_response_is_refused() -> None:
    """A body without a start is the app's error, and nothing of it is sent."""
    server = ASGIServer(app_of(lambda environ, start_response: [b"x"]))
    with pytest.raises(AppProtocolError, match="start_response"):
        await server.run()
    assert server.sent == []


async def test_start_response_may_come_with_the_first_block() -> None:
    """A generator calls start_response when it is first iterated, even behind an empty block."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        yield b""
        start_response(OK, [])
        yield b"late"

    assert (await request(app_of(app))).body == b"late"


async def test_surplus_beyond_content_length_is_dropped_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Bytes beyond Content-Length are dropped, iteration stops a block later, and the log says so."""
    blocks = Blocks([b"ab", b"cdef", b"surplus", b"never"])

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [("content-LENGTH", "3")])
        return blocks

    server = await request(app_of(app))
    assert (server.body, server.complete, blocks.taken, blocks.closed) == (b"abc", True, 3, 1)
    assert "longer than its Content-Length of 3" in caplog.text


async def test_an_empty_body_short_of_content_length_is_an_error_before_any_byte() -> None:
    """A response that has not begun when the fault shows can still become a 500."""
    server = ASGIServer(answers(headers=[("Content-Length", "30")]))
    with pytest.raises(AppProtocolError, match="30 bytes short"):
        await server.run()
    assert server.sent == []


async def test_a_body_short_of_content_length_is_cut() -> None:
    """Too little data reaches the server as an error, so that the client sees a cut response."""
    server = ASGIServer(answers(b"abc", headers=[("Content-Length", "30")]))
    with pytest.raises(AppProtocolError, match="27 bytes short"):
        await server.run()
    assert (server.body, server.complete) == (b"abc", False)


@pytest.mark.parametrize(("method", "status"), [("HEAD", OK), ("GET", "204 No Content"), ("GET", "304 Not Modified")])
async def test_a_response_without_a_body_has_none(method: str, status: str) -> None:
    """HEAD, 204 and 304 lose what the app gave as a body, and a 204 its Content-Length too."""
    blocks = Blocks([b"abc", b"def"])

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, [("Content-Length", "1234")])
        return blocks

    server = await request(app_of(app), http_scope(method))
    headers = [] if status.startswith("204") else [(b"content-length", b"1234")]
    assert (server.headers, server.body, server.complete) == (headers, b"", True)
    assert (blocks.taken, blocks.closed) == (1, 1)


@pytest.mark.parametrize("blocks", [[], [b"", b""]], ids=["no block", "empty blocks"])
async def test_a_body_that_a_proxy_sends_has_no_length(blocks: list[bytes]) -> None:
    """An app that leaves its file to nginx (X-Accel-Redirect) gives the file's length, and an empty body."""
    headers = [("X-Accel-Redirect", "/files/a"), ("Content-Length", "1234")]
    server = await request(answers(*blocks, headers=headers))
    assert (server.headers, server.body) == ([(b"x-accel-redirect", b"/files/a")], b"")
    assert server.complete


async def test_a_body_that_no_proxy_sends_has_its_length() -> None:
    """What the app sends itself after all is passed on with its length."""
    headers = [("X-Accel-Redirect", "/files/a"), ("Content-Length", "3")]
    server = await request(answers(b"", b"abc", headers=headers))
    assert server.headers == [(b"x-accel-redirect", b"/files/a"), (b"content-length", b"3")]
    assert server.body == b"abc"


async def test_a_second_start_response_is_refused() -> None:
    """A second call without exc_info raises into the app, and the first one stands."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("201 Created", [])
        with pytest.raises(AppProtocolError, match="again"):
            start_response("202 Accepted", [])
        return [b"x"]

    assert (await request(app_of(app))).status == 201


async def test_a_header_with_a_line_break_is_refused_by_name() -> None:
    """CR and LF in a header raise in start_response, with the header's name, and nothing is sent."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [("X-Evil", "a\r\nSet-Cookie: b")])
        return [b"x"]

    server = ASGIServer(app_of(app))
    with pytest.raises(AppProtocolError, match="X-Evil"):
        await server.run()
    assert server.sent == []


# --- close() ------------------------------------------------------------------------------------


async def test_close_runs_once_in_the_thread_and_context_of_the_app() -> None:
    """The call, each next() and close() share a thread that is not the loop's, and one context."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    values: list[str] = []

    class InContext(Blocks):
        def close(self) -> None:
            values.append(variable.get())
            super().close()

    blocks = InContext([b"a", b"b"])

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        values.append(variable.get())
        variable.set("the app's")
        return blocks.app(environ, start_response)

    variable.set("the caller's")
    server = await request(app_of(app))
    assert values == ["the caller's", "the app's"]
    assert variable.get() == "the caller's"
    assert (blocks.closed, len(set(blocks.threads))) == (1, 1)
    assert server.send_threads == {threading.get_ident()} != set(blocks.threads)


async def test_the_response_is_through_before_close() -> None:
    """A slow close() does not keep the end of the response from the client, only the call from returning."""
    seen = threading.Event()

    class Slow(Blocks):
        def close(self) -> None:
            assert seen.wait(5)
            super().close()

    blocks = Slow([b"a"])
    server = ASGIServer(app_of(blocks.app))
    async with server.running():
        await eventually(lambda: server.complete)
        assert not server.finished.is_set()
        seen.set()
    assert blocks.closed == 1


@pytest.mark.parametrize("error", [ZeroDivisionError("in close"), SystemExit("in close")], ids=repr)
async def test_an_error_in_close_is_logged(caplog: pytest.LogCaptureFixture, error: BaseException) -> None:
    """What close() raises after the response is not lost; raised to the server it would cut the next request off."""
    blocks = Blocks([b"a"], close_error=error)
    server = await request(app_of(blocks.app))
    assert (server.body, server.complete) == (b"a", True)
    assert f"{type(error).__name__}: in close" in caplog.text


async def test_write_is_refused_in_close() -> None:
    """The response has ended by then, and what came behind its end would be nobody's."""

    class Late(Blocks):
        def app(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            self.write = start_response(OK, [])
            return self

        def close(self) -> None:
            with pytest.raises(AppProtocolError, match="ended"):
                self.write(b"late")
            super().close()

    blocks = Late([b"a"])
    server = await request(app_of(blocks.app))
    assert (server.body, server.complete, blocks.closed) == (b"a", True, 1)


async def test_an_error_in_close_reaches_the_server_of_a_response_that_was_cut() -> None:
    """What close() raises in mid-response goes the way of any error there."""

    def blocks() -> Iterator[bytes]:
        yield b"a"
        raise ValueError("in mid-response")

    iterable = Blocks(blocks(), close_error=ZeroDivisionError("in close"))
    server = ASGIServer(app_of(iterable.app))
    with pytest.raises(ZeroDivisionError, match="in close") as caught:
        await server.run()
    assert isinstance(caught.value.__context__, ValueError)
    assert (server.body, server.complete) == (b"a", False)


# --- The client leaves --------------------------------------------------------------------------


@pytest.mark.parametrize("send_error", [None, OSError("gone")])
async def test_a_stream_stops_when_its_client_leaves(send_error: Exception | None) -> None:
    """Whether send() raises or says nothing: iteration stops at the next block, and close() runs in its thread."""
    blocks = Blocks(endless())
    server = ASGIServer(app_of(blocks.app))
    with anyio.fail_after(5):
        async with server.running():
            await server.until_sent(3)
            server.disconnect(send_error)
    assert (blocks.closed, len(set(blocks.threads))) == (1, 1)
    assert not server.complete


async def test_a_server_may_change_the_messages_that_it_gets() -> None:
    """Starlette's GZipMiddleware does; what is on the way is counted as the app gave it, or it would wait for ever."""

    class Gzip(ASGIServer):
        async def _send(self, message: Message, /) -> None:
            await super()._send(dict(message))
            if "body" in message:
                message["body"] = b""

    server = Gzip(answers(*[bytes(64 * 1024)] * 40))
    with anyio.fail_after(5):
        await server.run()
    assert len(server.body) == 40 * 64 * 1024


async def test_a_block_that_comes_while_the_loop_looks_is_no_end() -> None:
    """Without the interpreter's lock the app goes on in the midst of any line."""

    class Outbox(deque[Any]):
        def __bool__(self) -> bool:
            some = len(self) > 0
            self.append(b"two")
            return some

    outbox = Outbox()
    message = body_message_from_items(bytes(100_000), outbox)
    assert (message["more_body"], list(outbox)) == (True, [b"two"])


async def test_a_thread_that_tells_while_the_loop_looks_is_heard() -> None:
    """The loop has found nothing in the outbox, and does not sleep yet: what comes then wakes it."""
    proceed = threading.Event()
    exchanges: list[HTTPExchange] = []
    looks = 0

    class Outbox(deque[Any]):
        def __bool__(self) -> bool:
            nonlocal looks
            some = len(self) > 0
            if not some and threading.get_ident() == here:
                looks += 1
                if looks == 2:  # the last one before it sleeps
                    proceed.set()
                    while not len(self):  # the app's end comes now
                        time.sleep(0.001)
                    while not exchanges[0]._told:
                        time.sleep(0.001)
            return some

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        exchange: HTTPExchange = environ["bridge.disconnected"]._exchange
        exchanges.append(exchange)
        outbox = Outbox()
        exchange.outbox = outbox
        call = start_response.__self__  # type: ignore[attr-defined]
        call._outbox = outbox
        exchange.tell()
        assert proceed.wait(5)
        start_response(OK, [])
        return []

    here = threading.get_ident()
    with anyio.fail_after(5):
        server = ASGIServer(app_of(app))
        await server.run()
    assert (looks, server.complete) == (2, True)


@pytest.mark.parametrize("asks", [True, False])
async def test_a_stream_that_is_always_ahead_is_watched(asks: bool) -> None:
    """Though the next block waits whenever send() returns; and at once, for an app that asks `bridge.disconnected`."""
    wanted = threading.Semaphore(1)
    passed_on = 0
    receive_calls: list[int] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        nonlocal passed_on
        if asks:
            environ["bridge.disconnected"].is_set()
        start_response(OK, [])
        for _ in range(5):
            assert wanted.acquire(timeout=5)
            yield b"x"
            passed_on += 1

    class Behind(ASGIServer):
        async def _send(self, message: Message, /) -> None:
            await super()._send(message)
            await anyio.lowlevel.checkpoint()  # trio takes tasks in any order: a turn for all of them
            if message["type"] == "http.response.body":
                wanted.release()
            await eventually(lambda: passed_on >= min(len(self.sent), 5))
            receive_calls.append(self.receive_calls)

    server = Behind(app_of(app))
    with anyio.fail_after(5):
        await server.run()
    assert receive_calls[0 if asks else 3] == 2


async def test_a_blocked_stream_stops_when_its_client_leaves() -> None:
    """A thread that waits for room is woken, though the server's send() never returned."""
    blocks = Blocks(endless())
    server = ASGIServer(app_of(blocks.app))
    with anyio.fail_after(5):
        async with server.running():
            server.hold_sends()
            await server.until_sent(1)
            server.disconnect()
    assert blocks.closed == 1


async def test_a_server_error_in_send_ends_the_request_and_is_raised() -> None:
    """What send() raises besides OSError is the server's own, and goes back to it, after close()."""
    blocks = Blocks(endless())
    server = ASGIServer(app_of(blocks.app))
    server.send_error = ZeroDivisionError("in send")
    with anyio.fail_after(5), pytest.raises(ZeroDivisionError, match="in send"):
        await server.run()
    assert blocks.closed == 1


async def test_a_cancelled_request_frees_its_thread() -> None:
    """Cancellation is as a client that left: the call ends at once, the thread at its next block."""
    blocks = Blocks(endless())
    adapter = app_of(blocks.app, workers=1)
    server = ASGIServer(adapter)
    async with server.running_cancellable() as cancel:
        server.hold_sends()
        await server.until_sent(1)
        cancel()
    assert await anyio.to_thread.run_sync(blocks.done.wait, 5)
    assert blocks.closed == 1
    assert (await request(WSGIToASGI(Blocks([b"x"]).app))).body == b"x"


@pytest.mark.parametrize("early", [True, False])
async def test_what_an_app_raises_beside_a_cancellation_is_logged(
    caplog: pytest.LogCaptureFixture, early: bool
) -> None:
    """Nobody is there to raise it to; an app that was only told that its client left has nothing to report."""
    entered, proceed, raised = threading.Event(), threading.Event(), threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        entered.set()
        assert proceed.wait(5)
        try:
            if environ["PATH_INFO"] == "/told":
                raise ClientDisconnected
            raise ZeroDivisionError("unseen")
        finally:
            raised.set()

    for path in ("/told", "/"):
        for event in (entered, proceed, raised):
            event.clear()
        server = ASGIServer(app_of(app, workers=1), http_scope(path=path))
        async with server.running_cancellable() as cancel:
            assert await anyio.to_thread.run_sync(entered.wait, 5)
            if early:
                proceed.set()
                assert raised.wait(5)  # with the loop, which does not hear of it
            cancel()
        proceed.set()
        assert await anyio.to_thread.run_sync(raised.wait, 5)
    await eventually(lambda: "raised after its request was cancelled" in caplog.text)
    assert caplog.text.count("raised after") == 1
    assert "ZeroDivisionError: unseen" in caplog.text


async def test_what_an_app_raises_amid_a_cancellation_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The loop has looked for an error, and there was none yet: from then on the thread logs by itself."""
    entered, proceed = threading.Event(), threading.Event()

    class WatchedExchange(HTTPExchange):
        def _log_error(self) -> None:
            super()._log_error()
            if threading.get_ident() == here:
                proceed.set()
                while FINISHED not in self.outbox:
                    time.sleep(0.001)

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        entered.set()
        assert proceed.wait(5)
        raise ZeroDivisionError("unseen")

    here = threading.get_ident()
    workers = WorkerThreads(1)

    async def adapter(scope: Any, receive: Any, send: Any) -> None:
        await WatchedExchange(app, workers, environ_template(True, True), scope, receive, send).serve()

    server = ASGIServer(adapter)
    async with server.running_cancellable() as cancel:
        assert await anyio.to_thread.run_sync(entered.wait, 5)
        cancel()
    assert caplog.text.count("ZeroDivisionError: unseen") == 1


async def test_a_thread_that_sleeps_wakes_to_a_request_that_has_finished() -> None:
    """Whoever is woken at the end sees that it is the end: the next look would be seconds later."""
    sleeping, woken = threading.Event(), threading.Event()
    states: list[bool] = []

    class WatchedExchange(HTTPExchange):
        def wake_sleepers(self) -> None:
            super().wake_sleepers()
            states.append(self.finished)
            if sleeping.is_set() and not self.finished:  # the sleeper looks, and goes back to sleep
                time.sleep(0.05)

        def sleep_while(self, blocked: Callable[[], bool], timeout: float = 5) -> None:
            sleeping.set()
            super().sleep_while(blocked, timeout)
            woken.set()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        threading.Thread(target=environ["bridge.disconnected"].wait, daemon=True).start()
        assert sleeping.wait(5)
        raise ZeroDivisionError

    workers = WorkerThreads(1)

    async def adapter(scope: Any, receive: Any, send: Any) -> None:
        await WatchedExchange(app, workers, environ_template(True, True), scope, receive, send).serve()

    with pytest.raises(ZeroDivisionError):
        await ASGIServer(adapter).run()
    assert states[-1] is True
    assert await anyio.to_thread.run_sync(woken.wait, 3)


async def test_a_client_that_leaves_before_the_first_message_costs_no_thread() -> None:
    """http.disconnect in place of a body that was announced: the app does not run."""
    calls: list[Environ] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        calls.append(environ)
        return []

    server = ASGIServer(app_of(app), chunked(), blocks=[])
    server.disconnect()
    await server.run()
    assert calls == []
    assert server.sent == []


async def test_a_client_that_leaves_while_its_request_waits_its_turn_costs_no_call() -> None:
    """Under overload, what nobody waits for any more is not run."""
    entered, proceed = threading.Event(), threading.Event()
    calls: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        calls.append(environ["PATH_INFO"])
        entered.set()
        assert proceed.wait(5)
        start_response(OK, [])
        return []

    adapter = app_of(app, workers=1)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ASGIServer(adapter, http_scope(path="/held")).run)
            assert await anyio.to_thread.run_sync(entered.wait, 5)
            waiting = [ASGIServer(adapter, http_scope(path="/left")), ASGIServer(adapter, http_scope(path="/stays"))]
            for server in waiting:
                tasks.start_soon(server.run)
            await anyio.wait_all_tasks_blocked()
            waiting[0].disconnect()
            await anyio.wait_all_tasks_blocked()
            proceed.set()
    assert calls == ["/held", "/stays"]
    assert waiting[1].complete


async def test_a_client_that_expects_100_continue_waits_its_turn_for_it() -> None:
    """A server says 100 Continue at the first receive: not before the app reads, also where no worker is free."""
    entered, proceed = threading.Event(), threading.Event()
    received: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/held":
            entered.set()
            assert proceed.wait(5)
        start_response(OK, [])
        return []

    adapter = app_of(app, workers=1)
    scope = http_scope("POST", path="/waits", headers=[(b"expect", b"100-continue"), (b"content-length", b"3")])

    async def receive() -> Message:
        received.append("receive")
        return {"type": "http.request", "body": b"abc", "more_body": False}

    async def send(message: Message) -> None:
        pass

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ASGIServer(adapter, http_scope(path="/held")).run)
            assert await anyio.to_thread.run_sync(entered.wait, 5)
            tasks.start_soon(adapter, scope, receive, send)
            await anyio.wait_all_tasks_blocked()
            assert received == []
            proceed.set()


async def test_write_raises_once_the_client_has_left() -> None:
    """An app that streams by write() ends by ClientDisconnected, which nobody reports as an error."""
    raised = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response(OK, [])
        try:
            while True:
                write(b"x" * 1000)
        except ClientDisconnected:
            raised.set()
            raise

    server = ASGIServer(app_of(app))
    with anyio.fail_after(5):
        async with server.running():
            await server.until_sent(2)
            server.disconnect()
    assert raised.is_set()


@pytest.mark.parametrize("at", ["first", "later"])
async def test_receive_may_say_by_an_error_that_the_client_has_left(at: str) -> None:
    """An OSError of receive() means what http.disconnect does, and is nobody's error."""
    called: list[bool] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        called.append(environ["bridge.disconnected"].wait(5))
        start_response(OK, [])
        return []

    async def receive() -> Message:
        if at == "first" or received:
            raise OSError("gone")
        received.append(True)
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        raise AssertionError(f"sent to nobody: {message!r}")

    received: list[bool] = []
    with anyio.fail_after(5):
        await app_of(app)(chunked(), receive, send)
    assert called == ([] if at == "first" else [True])


async def test_two_threads_that_write_at_once_both_go_on() -> None:
    """One message may make room for both: who wakes one alone leaves the other waiting for a second one."""
    block = b"x" * 300_000
    threads: list[threading.Thread] = []
    ended: list[bool] = []
    exchanges: list[HTTPExchange] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        exchanges.append(environ["bridge.disconnected"]._exchange)
        write = start_response(OK, [])
        write(b"small, so that all leaves as one")
        threads.extend(threading.Thread(target=write, args=(block,), daemon=True) for _ in range(2))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2)
            ended.append(not thread.is_alive())
        return []

    server = ASGIServer(app_of(app))
    server.hold_sends()
    with anyio.fail_after(10):
        async with server.running():
            await eventually(lambda: exchanges and len(exchanges[0]._sleepers) == 2)
            server.release_sends()
    assert ended == [True, True]
    assert [len(message["body"]) for message in server.sent[1:]] == [600_032, 0]


async def test_disconnected_tells_a_long_request() -> None:
    """`bridge.disconnected` is set for an app that has sent nothing yet and asks."""
    asked = threading.Event()
    told: list[bool] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        disconnected = environ["bridge.disconnected"]
        told.append(disconnected.is_set())
        told.append(disconnected.wait(0.01))
        asked.set()
        told.append(disconnected.wait(5))
        told.append(disconnected.is_set())
        start_response(OK, [])
        return []

    server = ASGIServer(app_of(app))
    with anyio.fail_after(5):
        async with server.running():
            assert await anyio.to_thread.run_sync(asked.wait, 5)
            server.disconnect()
    assert told == [False, False, True, True]


async def test_a_response_that_is_through_is_no_disconnect() -> None:
    """What a server's receive() says after the response does not reach an app that is about to close()."""
    told: list[bool] = []

    class Asking(Blocks):
        def close(self) -> None:
            told.append(self.environ["bridge.disconnected"].wait(0.05))
            super().close()

        def app(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            self.environ = environ
            return super().app(environ, start_response)

    blocks = Asking([b"x"])
    server = ASGIServer(app_of(blocks.app))
    async with server.running():
        await eventually(lambda: server.complete)
        server.feed_message({"type": "http.disconnect"})
    assert told == [False]


async def test_disconnected_ends_its_wait_with_the_request() -> None:
    """A thread that waits for the client to leave is let go when the request ends without that."""
    told: list[bool] = []
    threads: list[threading.Thread] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        waiting = threading.Event()

        def wait() -> None:
            waiting.set()
            told.append(environ["bridge.disconnected"].wait())
            told.append(environ["bridge.disconnected"].wait())

        threads.append(threading.Thread(target=wait, daemon=True))
        threads[0].start()
        waiting.wait(5)
        start_response(OK, [])
        return [b"x"]

    await request(app_of(app))
    await anyio.to_thread.run_sync(threads[0].join, 5)
    assert told == [False, False]


async def test_a_small_response_costs_no_second_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the response ends with its first block there is nothing to watch, and a task group costs as much again."""

    def refuse() -> None:
        raise AssertionError("made a task group")

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response(OK, [])
        return [b"hello"]

    adapter = app_of(app)
    monkeypatch.setattr(anyio, "create_task_group", refuse)
    assert (await request(adapter)).body == b"hello"


async def test_a_request_that_does_not_ask_is_not_watched() -> None:
    """A response that ends with its first block has the server asked for one message, and for none without a body."""
    app = answers(b"hello", headers=[("Content-Length", "5")])
    assert (await request(app)).receive_calls == 0
    assert (await request(app, chunked(), b"body")).receive_calls == 1


async def test_a_server_that_repeats_itself_is_not_asked_for_ever() -> None:
    """A receive() that goes on about a body that has ended is left alone."""
    proceed = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [])
        yield b"one"
        assert proceed.wait(5)
        yield b"two"

    server = ASGIServer(app_of(app))
    async with server.running():
        server.feed(b"")
        server.feed(b"")
        await eventually(lambda: server.receive_calls == 2)
        proceed.set()
    assert (server.body, server.receive_calls) == (b"onetwo", 2)


# --- Backpressure -------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "most"), [(1024 * 1024, 2), (16 * 1024, 18), (100, 2700)])
async def test_a_client_that_does_not_read_stops_the_app(size: int, most: int) -> None:
    """No more than 256 KiB and a block are on the way to a client that does not read."""
    count = 2 * most + 16
    blocks = Blocks(b"x" * size for _ in range(count))
    server = ASGIServer(app_of(blocks.app))
    with anyio.fail_after(20):
        async with server.running():
            server.hold_sends()
            await server.until_sent(1)
            await quiescence(lambda: blocks.taken)
            assert blocks.taken <= most
            server.release_sends()
    assert len(server.body) == size * count
    assert server.complete


async def quiescence(value: Callable[[], int]) -> None:
    """Wait until `value` has stopped changing, for a tenth of a second."""
    last = -1
    while (now := value()) != last:
        last = now
        await anyio.sleep(0.1)


# --- The request body ---------------------------------------------------------------------------


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
    """Each method of wsgi.input gives what io.BytesIO gives for the whole body, announced or not."""
    app, results = reads(read)
    for scope in (http_scope(), chunked()):
        await request(app, scope, *blocks)
    assert results == [read(io.BytesIO(b"".join(blocks)))] * 2


@pytest.mark.parametrize("length", [None, b"0"])
@pytest.mark.parametrize("version", ["1.1", "2"])
async def test_a_request_without_a_body_waits_for_no_message(version: str, length: bytes | None) -> None:
    """Some servers never answer receive() where there is no body (uvicorn with zttp over HTTP/2); no request hangs."""
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
    """HTTP/2 needs no Content-Length: what the app reads is waited for, and is there to the last byte."""
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
    """It can be wrapped and closed as any other, and threads that use it at once share one stream."""

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
    """Nothing but the server's word makes it an empty body."""

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
    """A client that has announced a body, and sent its headers only, does not hold a worker thread."""
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
    """A middleware may set variables when the body begins, too."""
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
    """What came in one message is not kept while the response goes on."""
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
    """It goes back to where it came from, and the worker thread is there for the next request."""
    adapter = answers(b"hello")
    scope = http_scope()
    del scope[missing]
    with pytest.raises(ServerProtocolError, match=f"no '{missing}'"):
        await ASGIServer(adapter, scope).run()
    assert (await request(adapter)).body == b"hello"


async def test_a_client_that_expects_100_continue_is_asked_when_the_app_reads() -> None:
    """With `Expect: 100-continue` the first message is awaited by the first read, and not without one."""
    scope = http_scope("POST", headers=[(b"expect", b"100-continue"), (b"content-length", b"3")])
    server = ASGIServer(answers(b"no, thanks", headers=[("Content-Length", "10")]), scope, blocks=[])
    with anyio.fail_after(5):
        await server.run()
    assert (server.body, server.receive_calls) == (b"no, thanks", 0)

    app, results = reads(lambda stream: stream.read())
    await request(app, scope, b"abc")
    assert results == [b"abc"]


async def test_a_body_cut_short_is_an_error_and_no_end_of_file() -> None:
    """A read that meets http.disconnect raises ClientDisconnected, an OSError, again and again."""

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
    """What receive() must not give is raised back to the server."""
    server = ASGIServer(answers(b"x"), chunked(), blocks=[])
    server.feed_message(message)
    with anyio.fail_after(5), pytest.raises(ServerProtocolError):
        await server.run()


@pytest.mark.parametrize(
    "keys", [{"query_string": "a=1"}, {"headers": 1}, {"headers": [("a", "b")]}, {"extensions": 1}, {"method": None}]
)
async def test_a_scope_that_cannot_be_read_is_the_servers_error(keys: Any) -> None:
    """It is raised back to the server, whatever of the scope is wrong."""
    with pytest.raises(ServerProtocolError, match=next(iter(keys))):
        await request(answers(b"x"), http_scope(**keys))


async def test_the_body_may_be_left_unread() -> None:
    """An app that answers without reading is done, whatever of the body is still to come."""
    server = ASGIServer(answers(b"done", headers=[("Content-Length", "4")]), blocks=[])
    server.feed(b"abc", more_body=True)
    with anyio.fail_after(5):
        await server.run()
    assert server.complete


async def test_an_unread_body_is_not_piled_up() -> None:
    """While a response streams, 1 MiB of an unread body is taken and no more, and nothing is lost."""
    proceed = threading.Event()
    results: list[bytes] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        assert not environ["bridge.disconnected"].is_set()  # which has the connection watched early
        start_response(OK, [])
        yield b"one"
        assert proceed.wait(5)
        results.append(environ["wsgi.input"].read())
        yield b"two"

    server = ASGIServer(app_of(app), blocks=[bytes(100_000)] * 40)
    async with server.running():
        await server.until_sent(2)
        await eventually(lambda: server.receive_calls >= 11)
        await anyio.wait_all_tasks_blocked()
        assert server.receive_calls == 11
        proceed.set()
    assert results == [bytes(4_000_000)]


async def test_a_client_that_leaves_behind_an_unread_body_is_noticed() -> None:
    """A stream whose request body nobody reads ends as any other."""
    blocks = Blocks(endless())
    server = ASGIServer(app_of(blocks.app), blocks=[])
    for _ in range(10):
        server.feed(bytes(100_000), more_body=True)
    with anyio.fail_after(5):
        async with server.running():
            await eventually(lambda: server.receive_calls > 10)
            server.disconnect()
    assert blocks.closed == 1


@pytest.mark.parametrize("sends", [True, False])
async def test_a_body_left_unread_for_long_goes_to_disk(monkeypatch: pytest.MonkeyPatch, sends: bool) -> None:
    """Of a large body that the app leaves unread nothing is lost, and its client can be seen to leave."""
    monkeypatch.setattr(bridge.wsgi_to_asgi.http.body, "_PATIENCE", 0.05)
    proceed = threading.Event()
    results: list[Any] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [])
        if sends:
            yield b"one"
        results.append(environ["bridge.disconnected"].is_set())
        assert proceed.wait(5)
        results.append(sum(len(block) for block in iter(lambda: environ["wsgi.input"].read(70_000), b"")))
        results.append(environ["bridge.disconnected"].wait(5))

    server = ASGIServer(app_of(app), blocks=[bytes(100_000)] * 40)
    with anyio.fail_after(10):
        async with server.running():
            await eventually(lambda: server.receive_calls > 40)
            proceed.set()
            await eventually(lambda: len(results) == 2)
            server.disconnect()
    assert results == [False, 4_000_000, True]


def cut_when_told(told: threading.Event) -> tuple[WSGIToASGI, list[Any]]:
    """Return an app that reads all that there is of its body once `told`, and the list that gets how much, and how."""
    results: list[Any] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        stream = environ["wsgi.input"]
        results.append(len(stream.read(1)))
        environ["bridge.disconnected"].is_set()  # which has the connection watched
        assert told.wait(5)
        for _ in range(2):
            try:
                while block := stream.read(10_000):
                    results[0] += len(block)
                results.append("end")
            except ClientDisconnected:
                results.append("cut")
        return []

    return app_of(app, workers=1), results


async def test_a_body_on_disk_is_cut_with_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of a body has come, was spooled, and is dropped as the request is cancelled: that is not its end."""
    monkeypatch.setattr(bridge.wsgi_to_asgi.http.body, "_PATIENCE", 0.05)
    cancelled = threading.Event()
    app, results = cut_when_told(cancelled)
    server = ASGIServer(app, chunked(), blocks=[bytes(100_000)] * 40)
    async with server.running_cancellable() as cancel:
        await eventually(lambda: server.receive_calls > 40)
        cancel()
    cancelled.set()
    await eventually(lambda: len(results) == 3)
    assert results[1:] == ["cut", "cut"]
    assert 0 < results[0] < 4_000_000


async def test_a_body_in_memory_outlives_its_request() -> None:
    """Every byte of it is here, so it can be read to its end."""
    cancelled = threading.Event()
    app, results = cut_when_told(cancelled)
    server = ASGIServer(app, chunked(), blocks=[bytes(1000)] * 40)
    async with server.running_cancellable() as cancel:
        await eventually(lambda: server.receive_calls > 40)
        cancel()
    cancelled.set()
    await eventually(lambda: len(results) == 3)
    assert results == [40_000, "end", "end"]


class Request(Exchange):
    """An exchange whose body is all there, unless the test says what `read_on` and `sleep_while` do."""

    def read_on(self) -> None:
        raise AssertionError("asked for more")

    def sleep_while(self, blocked: Callable[[], bool], timeout: float = math.inf) -> None:
        raise AssertionError("slept")


@pytest.mark.parametrize("end", ["gone", "complete", "finished"])
def test_what_came_before_the_end_is_read_before_it(end: str) -> None:
    """The last block, and then the end, come while the reader looks: it looks for the end first."""
    body, connection = RequestBody(lambda: anyio.Event()), Request()

    class Blocks(deque[bytes]):
        def __bool__(self) -> bool:
            empty = not len(self)
            if empty and not body.ended:
                body.put({"body": b"last"})
                setattr(connection, end, True)
            return not empty

    body._blocks = Blocks()
    connection.sleep_while = lambda blocked, timeout=0.0: None  # type: ignore[method-assign]
    connection.read_on = lambda: None  # type: ignore[method-assign]
    assert [body.next_block(connection), body.next_block(connection)] == [b"last", b""]


async def test_no_more_than_a_limit_goes_to_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind that the client waits; when the app has read it all, the disk is free, and blocks wait in memory again."""
    monkeypatch.setattr(bridge.wsgi_to_asgi.http.body, "_PATIENCE", 0.05)
    monkeypatch.setattr(bridge.wsgi_to_asgi.http.body, "_DISK_LIMIT", 1_000_000)
    spools: list[Spool] = []

    class Noted(Spool):
        def __init__(self) -> None:
            super().__init__()
            spools.append(self)

    monkeypatch.setattr(bridge.wsgi_to_asgi.http.body, "Spool", Noted)
    proceed = threading.Semaphore(0)
    read: list[int] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [])
        yield b"one"
        for size in (2_100_000, 100_000, -1):
            assert proceed.acquire(timeout=5)
            read.append(len(environ["wsgi.input"].read(size)))

    server = ASGIServer(app_of(app), chunked(), blocks=[])
    for _ in range(60):
        server.feed(bytes(100_000), more_body=True)
    with anyio.fail_after(20):
        async with server.running():
            # 11 in memory, 10 on disk, and no more, however long that takes.
            await eventually(lambda: server.receive_calls == 21)
            await anyio.sleep(0.2)
            assert (server.receive_calls, spools[0].size) == (21, 1_000_000)
            proceed.release()
            await eventually(lambda: read == [2_100_000])
            assert spools[0].closed
            proceed.release()
            # Memory has its limit, and the time that the app gets for it, as before.
            await eventually(lambda: len(spools) == 2)
            await eventually(lambda: server.receive_calls == 21 + 1 + 11 + 10)
            server.feed(b"")
            proceed.release()
    assert read == [2_100_000, 100_000, 3_800_000]
    assert server.complete
    assert all(spool.closed for spool in spools)


async def test_a_reader_that_keeps_up_has_no_body_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """After one pause, and once it has read what was spooled, there is backpressure as before the pause."""
    monkeypatch.setattr(bridge.wsgi_to_asgi.http.body, "_PATIENCE", 0.05)
    body = RequestBody(running_loop().event)
    connection = Request()
    for _ in range(11):
        body.put({"body": bytes(100_000), "more_body": True})
    full = [body.full]
    await body.wait_for_room(lambda: True)
    body.put({"body": b"on disk", "more_body": True})
    full.append(body.full)
    assert [len(body.next_block(connection)) for _ in range(12)] == [100_000] * 11 + [7]
    for _ in range(11):
        full.append(body.full)
        body.put({"body": bytes(100_000), "more_body": True})
    assert [*full, body.full] == [True, *[False] * 12, True]
    assert body._spool is None


async def test_nothing_is_spooled_for_a_request_that_has_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client waits for a worker anyway; its leaving is seen while no more than 1 MiB is unread."""
    monkeypatch.setattr(bridge.wsgi_to_asgi.http.body, "_PATIENCE", 0.02)
    spools: list[Spool] = []

    class Noted(Spool):
        def __init__(self) -> None:
            super().__init__()
            spools.append(self)

    monkeypatch.setattr(bridge.wsgi_to_asgi.http.body, "Spool", Noted)
    entered, proceed, reading = threading.Event(), threading.Event(), threading.Event()
    results: list[Any] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/held":
            entered.set()
            assert proceed.wait(5)
        else:
            assert reading.wait(5)
            results.append(len(environ["wsgi.input"].read()))
        start_response(OK, [])
        return []

    adapter = app_of(app, workers=1)
    server = ASGIServer(adapter, chunked(), blocks=[bytes(100_000)] * 30)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ASGIServer(adapter, http_scope(path="/held")).run)
            assert await anyio.to_thread.run_sync(entered.wait, 5)
            tasks.start_soon(server.run)
            await eventually(lambda: server.receive_calls == 11)
            await anyio.sleep(0.2)
            assert (server.receive_calls, spools) == (11, [])
            proceed.set()
            await eventually(lambda: spools)  # now it has one, and does not read
            reading.set()
    assert results == [3_000_000]


@pytest.mark.parametrize("at", ["put", "__init__"])
async def test_a_disk_that_is_full_is_no_client_that_left(monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """An OSError of our own, from where unread bodies go, reaches the server."""

    class FullDisk(Spool):
        pass

    def fail(*args: object) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    setattr(FullDisk, at, fail)

    monkeypatch.setattr(bridge.wsgi_to_asgi.http.body, "_PATIENCE", 0.02)
    monkeypatch.setattr(bridge.wsgi_to_asgi.http.body, "Spool", FullDisk)
    blocks = Blocks(endless())
    server = ASGIServer(app_of(blocks.app), blocks=[bytes(100_000)] * 20)
    with anyio.fail_after(5), pytest.raises(OSError, match="No space left"):
        await server.run()
    assert blocks.closed == 1


async def test_a_body_cannot_be_read_after_the_response() -> None:
    """A read, or a wait, in close() meets the end of the response, and not one that nobody would end."""
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
    """An app that waits by empty blocks sends nothing that could fail, and is stopped all the same."""

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
    """A thread that waits for the body holds up neither the response nor the loop, and ends with the request."""
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
    """With buffer_body nothing says any more that the body is chunked: Bottle would decode it once more."""
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
    """Where nothing announces a body, the first message may tell that there is one, and a server may never tell."""
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
    """With buffer_body a GET has no CONTENT_LENGTH, and a body that has one still streams."""
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


# --- The environ --------------------------------------------------------------------------------


async def environ_of(adapter_options: dict[str, Any] | None = None, **scope: Any) -> Environ:
    seen: list[Environ] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(environ)
        start_response(OK, [])
        return []

    await request(app_of(app, **(adapter_options or {})), http_scope(**scope))
    return seen[0]


async def test_the_environ_has_what_wsgi_wants(capsys: pytest.CaptureFixture[str]) -> None:
    """The wsgi. variables of PEP 3333 are there, and tell the truth."""
    environ = await environ_of()
    assert type(environ) is dict
    assert environ["wsgi.version"] == (1, 0)
    environ["wsgi.errors"].writelines(["a line\n", "another\n"])
    assert capsys.readouterr().err == "a line\nanother\n"
    assert environ["wsgi.input_terminated"] is True
    assert (environ["wsgi.multithread"], environ["wsgi.multiprocess"], environ["wsgi.run_once"]) == (True, True, False)
    assert (await environ_of({"workers": 1}))["wsgi.multithread"] is False
    assert (await environ_of({"multiprocess": False}))["wsgi.multiprocess"] is False
    assert environ["asgi.scope"]["type"] == "http"
    assert "wsgi.early_hints" not in environ


async def test_differing_content_lengths_are_answered_400() -> None:
    """A request that contradicts itself is refused in plain words, and the app does not run."""
    server = await request(
        answers(b"never"), http_scope("POST", headers=[(b"content-length", b"3"), (b"content-length", b"5")])
    )
    assert (server.status, server.complete) == (400, True)
    assert b"Content-Length" in server.body


async def test_early_hints_become_messages_where_the_server_has_them() -> None:
    """`wsgi.early_hints` sends the Link headers ahead of the response, and nothing once that has begun."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        hints = environ["wsgi.early_hints"]
        hints([("Link", "</style.css>; rel=preload"), ("X-Other", "no")])
        start_response(OK, [])
        yield b"x"
        hints([("Link", "too late")])

    server = await request(app_of(app), http_scope(extensions={"http.response.early_hint": {}}))
    assert server.sent[0] == {"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]}
    assert "early_hint" not in types(server)[1:]


# --- Files --------------------------------------------------------------------------------------


def sends_file(file: Any, *arguments: int, headers: list[tuple[str, str]] | None = None) -> WSGIToASGI:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, headers or [])
        return environ["wsgi.file_wrapper"](file, *arguments)  # type: ignore[no-any-return]

    return WSGIToASGI(app)


async def test_a_file_is_sent_by_path_where_the_server_can(tmp_path: Path) -> None:
    """A plain file at its start becomes http.response.pathsend, and is closed."""
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    file = path.open("rb")
    scope = http_scope(extensions={"http.response.pathsend": {}})
    server = await request(sends_file(file, 8192, headers=[("Content-Length", "3")]), scope)
    assert server.sent[1:] == [{"type": "http.response.pathsend", "path": str(path)}]
    assert file.closed


async def test_a_server_may_change_the_message_of_a_file(tmp_path: Path) -> None:
    """Middleware that reads the file itself, say: that it was sent is noted all the same, and ends the app's wait."""

    class Changes(ASGIServer):
        async def _send(self, message: Message, /) -> None:
            await super()._send(dict(message))
            message["type"] = "http.response.body"

    path = tmp_path / "file"
    path.write_bytes(b"abc")
    file = path.open("rb")
    server = Changes(sends_file(file), http_scope(extensions={"http.response.pathsend": {}}))
    with anyio.fail_after(5):
        await server.run()
    assert file.closed


async def test_a_file_is_closed_when_its_server_has_it(tmp_path: Path) -> None:
    """close(), which may delete the file, comes after send() of its path has returned."""
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    file = path.open("rb")
    server = ASGIServer(sends_file(file), http_scope(extensions={"http.response.pathsend": {}}))
    async with server.running():
        server.hold_sends()
        await server.until_sent(1)
        await anyio.wait_all_tasks_blocked()
        assert not file.closed
        server.release_sends()
    assert file.closed


@pytest.mark.parametrize("why", ["no extension", "offset", "length", "head", "no name", "decodes"])
async def test_a_file_that_is_not_fit_for_it_is_sent_in_blocks(tmp_path: Path, why: str) -> None:
    """Without the extension, from an offset, with another length or without a name the file is read."""
    path = tmp_path / "file"
    path.write_bytes(b"abcdef")
    file: Any = io.BytesIO(b"abcdef") if why == "no name" else path.open("rb")
    if why == "decodes":
        file.close()
        path.write_bytes(gzip.compress(b"abcdef"))
        file = gzip.open(path)  # noqa: SIM115  # as the others: the adapter closes it
    if why == "offset":
        file.seek(2)
    scope = http_scope(
        "HEAD" if why == "head" else "GET",
        extensions={} if why == "no extension" else {"http.response.pathsend": {}},
    )
    headers = [("Content-Length", "4")] if why in ("offset", "length") else []
    server = await request(sends_file(file, headers=headers), scope)
    expected = {"offset": b"cdef", "length": b"abcd", "head": b""}.get(why, b"abcdef")
    assert (server.body, server.complete, file.closed) == (expected, True, True)


class Counted(io.BytesIO):
    """A file that counts what is read of it."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        block = super().read(size)
        self.count += len(block)
        return block


async def test_a_range_of_a_file_is_all_that_is_read_of_it() -> None:
    """Werkzeug seeks to its start by the wrapper, and closes the file."""
    content = bytes(range(256)) * 40_000
    file = Counted(content)
    app = flask.Flask("ranges")

    @app.get("/")
    def view() -> flask.Response:
        return flask.send_file(file, "application/octet-stream", conditional=True)

    server = await request(WSGIToASGI(app), http_scope(headers=[(b"host", b"h"), (b"range", b"bytes=-100")]))
    assert (server.status, server.body) == (206, content[-100:])
    assert file.count == 100
    assert file.closed


@pytest.mark.parametrize("names", [[], ["tell"], ["seek", "tell"], ["seek", "tell", "seekable"]], ids=repr)
async def test_a_file_wrapper_can_do_what_its_file_can(names: list[str]) -> None:
    """What the file has not, the wrapper has not either, and needs not."""
    whole = io.BytesIO(b"abcdef")
    file = SimpleNamespace(**{name: getattr(whole, name) for name in ["read", *names]})
    seen: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [])
        wrapper = environ["wsgi.file_wrapper"](file)
        seen.extend(name for name in ("close", "seek", "tell", "seekable") if hasattr(wrapper, name))
        if "seek" in names:
            wrapper.seek(2)
            assert wrapper.tell() == 2
        return wrapper  # type: ignore[no-any-return]

    assert (await request(WSGIToASGI(app))).body == (b"cdef" if "seek" in names else b"abcdef")
    assert seen == names


@pytest.mark.parametrize("move", ["seek", "next"])
async def test_a_file_that_its_wrapper_has_moved_is_not_sent_by_path(tmp_path: Path, move: str) -> None:
    """What is sent starts where the file is, and by path it would be all of it."""
    path = tmp_path / "file"
    path.write_bytes(b"ab" * 100_000)

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [])
        wrapper = environ["wsgi.file_wrapper"](path.open("rb"))
        _ = wrapper.seek(1) if move == "seek" else next(wrapper)
        return wrapper  # type: ignore[no-any-return]

    server = await request(WSGIToASGI(app), http_scope(extensions={"http.response.pathsend": {}}))
    assert server.body == (b"ab" * 100_000)[1 if move == "seek" else 64 * 1024 :]


# --- The whole ----------------------------------------------------------------------------------


async def test_many_requests_at_once_keep_apart() -> None:
    """Two hundred concurrent requests on a few threads each get their own answer."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [])
        body = environ["wsgi.input"].read()
        return iter([environ["PATH_INFO"].encode(), b" ", body])

    adapter = app_of(app, workers=4)
    servers = [
        ASGIServer(adapter, http_scope("POST", f"/{number}"), [b"body ", b"%d" % number]) for number in range(200)
    ]
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for server in servers:
                tasks.start_soon(server.run)
    assert [server.body for server in servers] == [b"/%d body %d" % (number, number) for number in range(200)]


async def test_a_thousand_abandoned_streams_leave_the_pool_whole() -> None:
    """Streams whose clients leave free their threads; four of them serve a thousand, and the next request."""
    streams: list[Blocks] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        streams.append(Blocks(endless()))
        return streams[-1].app(environ, start_response)

    adapter = app_of(app, workers=4)

    async def abandon() -> None:
        server = ASGIServer(adapter)
        async with server.running():
            await server.until_sent(2, timeout=30)
            server.disconnect()

    with anyio.fail_after(50):
        for _ in range(20):
            async with anyio.create_task_group() as tasks:
                for _ in range(50):
                    tasks.start_soon(abandon)
    assert [blocks.closed for blocks in streams] == [1] * 1000


async def test_nothing_of_a_request_is_left(anyio_backend_name: str) -> None:
    """After a request no reference to its environ remains, so that none waits for the garbage collector."""

    class Token:
        pass

    references: list[weakref.ref[Token]] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        token = Token()
        environ["test.token"] = token
        references.append(weakref.ref(token))
        start_response(OK, [])
        return [b"x"]

    adapter = app_of(app, workers=1)
    gc.disable()
    try:
        await request(adapter)
        await eventually(lambda: is_freed(references[0]))  # the worker thread is about to drop it
    finally:
        gc.enable()


async def test_nothing_waits_for_the_garbage_collector() -> None:
    """What a request is made of has no cycle: collecting it would cost more than the request."""

    class OfServer(dict[str, Any]):
        pass

    variable: contextvars.ContextVar[Environ] = contextvars.ContextVar("environ")

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        variable.set(environ)  # and never reset, as by some libraries
        start_response(OK, [("Content-Length", "1")])
        return [b"x"]

    adapter = app_of(app, workers=1)
    gc.disable()
    try:
        for blocks in ([b""], [b"one", b"two"]):
            server = ASGIServer(adapter, OfServer(http_scope()), blocks)
            scope = weakref.ref(server.scope)
            await server.run()
            del server
            await eventually(lambda scope=scope: is_freed(scope))  # type: ignore[misc]
    finally:
        gc.enable()


async def test_nothing_of_a_context_is_left_where_the_app_never_ran() -> None:
    """A request that is cancelled in the queue lets go of its context, however long it stays there."""

    class Token:
        pass

    variable: contextvars.ContextVar[Token] = contextvars.ContextVar("token")
    references: list[weakref.ref[Token]] = []
    entered, proceed = threading.Event(), threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        entered.set()
        assert proceed.wait(5)
        start_response(OK, [])
        return []

    async def wait_in_vain(adapter: WSGIToASGI) -> None:
        token = Token()
        references.append(weakref.ref(token))
        variable.set(token)
        await ASGIServer(adapter).run()

    async def be_cancelled(adapter: WSGIToASGI) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_in_vain, adapter)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()

    adapter = app_of(app, workers=1)
    async with ASGIServer(adapter).running():
        assert await anyio.to_thread.run_sync(entered.wait, 5)
        await be_cancelled(adapter)
        gc.collect()  # of the cancellation itself
        try:
            assert is_freed(references[0])
        finally:
            proceed.set()


async def test_nothing_of_an_error_is_left() -> None:
    """Nor does what the app raised refer to itself by way of its request, which it would keep with it."""

    class Oops(Exception):
        pass

    references: list[weakref.ref[Oops]] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        error = Oops()
        references.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    adapter = app_of(app, workers=1)
    gc.disable()
    try:
        with contextlib.suppress(Oops):
            await ASGIServer(adapter).run()
        await eventually(lambda: is_freed(references[0]))
    finally:
        gc.enable()
