"""Faults that other adapters of this direction have or had, and that no other test covers."""

import io
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import anyio
import pytest

from bridge import AppProtocolError, WSGIToASGI
from bridge.types import Environ, Message, StartResponse
from tests.fakes import ASGIServer, http_scope, request


class StrictServer(ASGIServer):
    """A server that, like uvicorn, raises if an app sends more than its Content-Length."""

    async def _send(self, message: Message, /) -> None:
        await super()._send(message)
        if len(self.body) > int(dict(self.headers)[b"content-length"]):
            raise RuntimeError("Response content longer than Content-Length")


async def test_surplus_does_not_use_up_the_threads() -> None:
    """An app that yields more than its Content-Length does not lose a thread with each request."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "3")])
        return [b"x"] * 40

    adapter = WSGIToASGI(app, workers=2)
    for _ in range(5):
        server = StrictServer(adapter)
        with anyio.fail_after(5):
            await server.run()
        assert (server.body, server.complete) == (b"xxx", True)


async def test_generator_that_is_not_run_to_its_end_is_closed() -> None:
    """A generator that has reached its Content-Length still runs its `finally`."""
    ended: list[bool] = []

    def blocks() -> Iterator[bytes]:
        try:
            while True:
                yield b"x"
        finally:
            ended.append(True)

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "3")])
        iterable = blocks()
        alive.append(iterable)
        return iterable

    alive: list[Iterator[bytes]] = []  # so that the garbage collector does not close it
    assert (await request(WSGIToASGI(app))).body == b"xxx"
    assert ended == [True]


async def test_thirty_requests_run_at_once() -> None:
    """Thirty requests run at once by default, not only ten or one."""
    barrier = threading.Barrier(30)

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        barrier.wait(5)
        start_response("200 OK", [])
        return [b"hello"]

    adapter = WSGIToASGI(app)
    async with anyio.create_task_group() as tasks:
        for _ in range(30):
            tasks.start_soon(request, adapter)


async def test_start_response_after_output_is_refused_in_words() -> None:
    """A second start_response without exc_info after a block is an error with a clear message."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield b"partial"
        start_response("500 Oops", [])
        yield b"more"

    server = ASGIServer(WSGIToASGI(app))
    with pytest.raises(AppProtocolError, match="again without exc_info"):
        await server.run()
    assert (server.body, server.complete) == (b"partial", False)


async def test_nothing_is_sent_to_a_client_that_has_left() -> None:
    """After the client has left, no more blocks go to the server, which might log each of them."""
    left = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield b"first"
        assert environ["bridge.disconnected"].wait(5)
        left.set()
        for _ in range(100):
            yield b"more"

    class Server(ASGIServer):
        late = 0

        async def _send(self, message: Message, /) -> None:
            self.late += left.is_set()
            await super()._send(message)

    server = Server(WSGIToASGI(app))
    with anyio.fail_after(5):
        async with server.running():
            await server.until_sent(2)
            server.disconnect()
    assert left.is_set()
    assert server.late == 0


# --- The request body ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "read",
    [
        lambda stream: stream.readlines(),
        lambda stream: stream.readlines(10),
        lambda stream: [stream.readline(), stream.readline(10), stream.read(10), stream.read()],
        lambda stream: list(stream),
    ],
    ids=["readlines", "readlines n", "readline", "iterate"],
)
@pytest.mark.parametrize("blocks", [[b""], [b"", b""]], ids=["one message", "two"])
async def test_empty_body_has_no_lines(blocks: list[bytes], read: Callable[[Any], Any]) -> None:
    """readlines() of an empty body returns an empty list."""
    results: list[Any] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        results.append(read(environ["wsgi.input"]))
        start_response("200 OK", [])
        return []

    await request(WSGIToASGI(app), None, *blocks)
    assert results == [read(io.BytesIO())]


async def test_upload_that_is_given_up_is_nobodys_error(caplog: pytest.LogCaptureFixture) -> None:
    """A client that leaves during an upload is not reported to the server as an exception."""
    reading = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        reading.set()
        start_response("200 OK", [])
        return [environ["wsgi.input"].read()]

    server = ASGIServer(WSGIToASGI(app), blocks=[])
    server.feed(b"half", more_body=True)
    with anyio.fail_after(5):
        async with server.running():
            assert await anyio.to_thread.run_sync(reading.wait, 5)
            server.disconnect()
    assert (server.sent, caplog.text) == ([], "")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # one loop is enough, because only the copying costs time
@pytest.mark.parametrize(
    "read",
    [lambda stream: stream.read(), lambda stream: stream.read(1 << 24), lambda stream: stream.readline()],
    ids=["read", "read n", "readline"],
)
async def test_body_of_many_messages_costs_linear_time(read: Callable[[Any], bytes]) -> None:
    """A body of many messages takes linear time; joining it by `body += chunk` would take seconds."""
    lengths: list[int] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        lengths.append(len(read(environ["wsgi.input"])))
        start_response("200 OK", [])
        return []

    blocks = [bytes(1 << 13)] * (1 << 11)
    start = time.process_time()
    await request(WSGIToASGI(app), None, *blocks)
    assert time.process_time() - start < 2
    assert lengths == [1 << 24]


# --- The environ --------------------------------------------------------------------------------


async def test_environ_has_nothing_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environ holds no variables of the process, such as secrets, and its SCRIPT_NAME has no effect."""
    monkeypatch.setenv("SCRIPT_NAME", "/process")
    monkeypatch.setenv("OF_THE_PROCESS", "secret")
    seen: list[Environ] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(environ)
        start_response("200 OK", [])
        return []

    await request(WSGIToASGI(app), http_scope(path="/app/x", root_path="/app", raw_path=None))
    assert (seen[0]["SCRIPT_NAME"], seen[0]["PATH_INFO"]) == ("/app", "/x")
    assert "OF_THE_PROCESS" not in seen[0]
