"""What an app does in its thread: start_response, write(), its iterable and close()."""

import contextvars
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from bridge import AppProtocolError, ClientDisconnected
from bridge.types import Environ, StartResponse
from tests.fakes import ASGIServer, eventually, http_scope, request
from tests.wsgi_to_asgi.http.apps import OK, Blocks, answers, app_of, types

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
    """The block that completes the Content-Length is sent as the last one, and at most one more is asked for."""
    blocks = Blocks([b"hello", b"surplus", b"never"])

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(OK, [("Content-Length", "5")])
        return blocks

    server = await request(app_of(app))
    assert types(server) == ["start", "body"]
    assert (server.body, blocks.taken, blocks.closed) == (b"hello", 2, 1)


@pytest.mark.parametrize("by_write", [False, True])
async def test_code_behind_the_last_block_of_a_generator_runs(by_write: bool) -> None:
    """A generator that has yielded its whole Content-Length runs to its end, and the client does not wait for that."""
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
    """Like an error in close(), it is logged, because the client has its whole response."""

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
    """A call of start_response with exc_info replaces the first one while nothing has been sent."""

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
    """start_response with exc_info re-raises the same exception once a block has been sent."""
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
    """A handled exception is freed after its except block, not after the request (PEP 3333: no circular reference)."""
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
    """What the iterable raises reaches the server after the blocks that were sent, and the response has no end."""

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
    """SystemExit and KeyboardInterrupt end the request, but neither the loop nor the worker thread."""

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
    """A body without start_response is the app's error, and none of it is sent."""
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
    """For HEAD, 204 and 304 the app's body is dropped, and for 204 its Content-Length too."""
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
    """If nginx sends the file (X-Accel-Redirect), the app's body is empty, and its Content-Length is dropped."""
    headers = [("X-Accel-Redirect", "/files/a"), ("Content-Length", "1234")]
    server = await request(answers(*blocks, headers=headers))
    assert (server.headers, server.body) == ([(b"x-accel-redirect", b"/files/a")], b"")
    assert server.complete


async def test_a_body_that_no_proxy_sends_has_its_length() -> None:
    """If the app sends the body itself, its Content-Length is passed on."""
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
    """The client gets the end of the response before a slow close() returns; only the adapter's call waits for it."""
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
    """An error of close() after the response is logged; if it reached the server, it would cut off the next request."""
    blocks = Blocks([b"a"], close_error=error)
    server = await request(app_of(blocks.app))
    assert (server.body, server.complete) == (b"a", True)
    assert f"{type(error).__name__}: in close" in caplog.text


async def test_write_is_refused_in_close() -> None:
    """write() raises in close(), because the response has ended."""

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
    """What close() raises in the middle of a response reaches the server, as any error there does."""

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


async def test_write_raises_once_the_client_has_left() -> None:
    """write() raises ClientDisconnected once the client has left, and nobody reports that as an error."""
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


# --- Early hints ----------------------------------------------------------------------------------


async def test_early_hints_become_messages_where_the_server_has_them() -> None:
    """`wsgi.early_hints` sends the Link headers before the response, and nothing once the response has begun."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        hints = environ["wsgi.early_hints"]
        hints([("Link", "</style.css>; rel=preload"), ("X-Other", "no")])
        start_response(OK, [])
        yield b"x"
        hints([("Link", "too late")])

    server = await request(app_of(app), http_scope(extensions={"http.response.early_hint": {}}))
    assert server.sent[0] == {"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]}
    assert "early_hint" not in types(server)[1:]
