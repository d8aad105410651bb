"""What clients of detached responses get at every stage, and what apps are told of clients that leave."""

import http.client
import itertools
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, cast

import anyio
import anyio.to_thread
import pytest

from bridge.asgi_to_wsgi.http import access, client
from bridge.asgi_to_wsgi.http.access import Answered
from bridge.types import Message, Receive, Scope, Send
from tests.asgi_to_wsgi.apps import Adapt
from tests.asgi_to_wsgi.http.detachable import Gate, block, body_of, connected, start, started, waiting
from tests.fakes import http_environ, in_thread, respond
from tests.processes import wait_until
from tests.sockets import read_all, read_until, reset

EVENTS = (b"content-type", b"text/event-stream")


class Told:
    """What an app was told: a context that records and swallows the errors that are raised in it."""

    def __init__(self) -> None:
        self.received: list[Message] = []
        self.error: BaseException | None = None
        self.done = threading.Event()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[True]:
        self.error = error
        self.done.set()
        return True


@pytest.mark.parametrize("header", [(b"bad name", b"1"), (b"content-length", b"many")])
def test_a_start_that_is_invalid_is_a_500(
    adapt: Adapt, header: tuple[bytes, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """The client gets a whole 500 instead of the invalid response, and the log has the reason."""
    gate = Gate()
    adapter = adapt(waiting(gate, started(EVENTS, header), body_of()), detach="always", detach_after=0)
    with connected(adapter) as server:
        in_thread(server.run)
        assert server.has_left
        gate.open()
        assert server.read() == (500, b"Internal Server Error\n")
    assert "the ASGI app raised before it answered" in caplog.text


def streaming(gate: Gate, told: Told, *headers: tuple[bytes, bytes]) -> Callable[[Scope, Receive, Send], Any]:
    """Return an app that starts, waits for `gate`, and streams until `send` raises, which it records in `told`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, *headers)
        await gate.wait()
        with told:
            while True:
                await block(send, b"x" * 1000, True)

    return app


LEAVE: dict[str, Callable[[socket.socket], object]] = {
    "closes": socket.socket.close,
    "half-closes": lambda client: client.shutdown(socket.SHUT_WR),
    "resets": reset,
}


@pytest.mark.parametrize("leave", LEAVE.values(), ids=LEAVE.keys())
def test_a_client_that_leaves_after_the_head_ends_the_stream(
    adapt: Adapt, leave: Callable[[socket.socket], object]
) -> None:
    """The app that waits for its first event is told at once, and its `send` raises (ASGI HTTP spec 2.4)."""
    told, heard, gate = Told(), threading.Event(), Gate()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def listen() -> None:
            await receive()
            told.received.append(await receive())
            heard.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            await streaming(gate, told, EVENTS)(scope, receive, send)

    with connected(adapt(app, detach="always", detach_after=60)) as server:
        in_thread(server.run)
        assert server.has_left
        read_until(server.client, b"\r\n\r\n")
        leave(server.client)
        assert heard.wait(5)
        gate.open()
        assert told.done.wait(5)
    assert told.received == [{"type": "http.disconnect"}]
    assert isinstance(told.error, OSError)


@pytest.mark.parametrize("leave", LEAVE.values(), ids=LEAVE.keys())
def test_a_client_that_leaves_in_mid_body_ends_the_stream(
    adapt: Adapt, leave: Callable[[socket.socket], object]
) -> None:
    """`send` raises even if the app never receives."""
    told, gate = Told(), Gate()
    gate.open()
    with connected(adapt(streaming(gate, told), detach="always", detach_after=60)) as server:
        in_thread(server.run)
        assert server.has_left
        read_until(server.client, b"x" * 1000)
        leave(server.client)
        assert told.done.wait(5)
    assert isinstance(told.error, OSError)


def test_a_client_that_has_left_before_its_response_leaves_ends_it(adapt: Adapt) -> None:
    """The adapter takes the connection of a client that has already closed it like any other, and tells the app."""
    told, gate = Told(), Gate()
    with connected(adapt(streaming(gate, told, EVENTS), detach="always", detach_after=60)) as server:
        server.client.close()
        in_thread(server.run)
        assert server.has_left
        gate.open()
        assert told.done.wait(5)
    assert isinstance(told.error, OSError)


def test_an_app_goes_on_after_its_response(adapt: Adapt) -> None:
    """Background work runs after the client has everything and has left, and no later `send` raises."""
    told, gate = Told(), Gate()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await start(send, EVENTS)
        await block(send, b"all", True)
        await block(send)
        await gate.wait()
        with told:
            told.received.append(await receive())
            await block(send, b"ignored")

    with connected(adapt(app, detach="always", detach_after=60)) as server:
        in_thread(server.run)
        assert server.read() == (200, b"all")
        server.client.close()
        gate.open()
        assert told.done.wait(5)
    assert told.received == [{"type": "http.disconnect"}]
    assert told.error is None


def test_an_error_after_the_response_does_not_touch_it(adapt: Adapt, caplog: pytest.LogCaptureFixture) -> None:
    """The client has the whole response, and the log has the error."""
    gate = Gate()
    adapter = adapt(
        waiting(gate, started(), body_of(b"whole"), error=ZeroDivisionError()), detach="always", detach_after=0
    )
    with connected(adapter) as server:
        in_thread(server.run)
        gate.open()
        assert server.read() == (200, b"whole")
    adapter.close()
    assert "the ASGI app raised after it had answered with 200" in caplog.text


@pytest.mark.parametrize("error", [ZeroDivisionError(), None], ids=["raises", "ends early"])
@pytest.mark.parametrize("body", [b"part", b"x" * 5_000_000], ids=["small", "large"])
def test_an_error_after_a_part_of_a_body_with_a_length_cuts_it(
    adapt: Adapt, body: bytes, error: Exception | None
) -> None:
    """The client gets the bytes that were sent before, fewer than the Content-Length."""
    gate = Gate()
    messages = (started((b"content-length", b"6000000")), body_of(body, True))
    adapter = adapt(waiting(gate, *messages, error=error), detach="always", detach_after=0)
    with connected(adapter) as server:
        in_thread(server.run)
        gate.open()
        with pytest.raises(http.client.IncompleteRead) as cut:
            server.read()
    assert cut.value.partial == body


def test_an_error_of_a_head_request_has_no_body(adapt: Adapt) -> None:
    """The adapter's own 500 to HEAD has no body, either (RFC 9110 9.3.2)."""
    gate = Gate()
    adapter = adapt(waiting(gate, error=ZeroDivisionError()), detach="always", detach_after=0)
    with connected(adapter, "HEAD") as server:
        in_thread(server.run)
        gate.open()
        received = read_all(server.client)
    assert received.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert received.endswith(b"\r\n\r\n")
    assert b"Content-Length: 22\r\n" in received


HINT: Message = {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]}


@pytest.mark.parametrize(
    ("protocol", "messages", "count"),
    [
        ("HTTP/1.1", (HINT, HINT, started(), body_of(b"late")), 2),
        ("HTTP/1.0", (HINT, started(), body_of(b"late")), 0),
        ("HTTP/1.1", (started(EVENTS), HINT, body_of(b"late")), 0),
    ],
    ids=["several", "HTTP/1.0", "behind the head"],
)
def test_early_hints_come_before_the_head_or_not_at_all(
    adapt: Adapt, protocol: str, messages: tuple[Message, ...], count: int
) -> None:
    """A client of HTTP/1.0 gets no 103, and no client gets one in the middle of a response."""
    gate = Gate()
    adapter = adapt(waiting(gate, *messages), detach="always", detach_after=0)
    keys = {"wsgi.early_hints": lambda headers: None, "SERVER_PROTOCOL": protocol}
    with connected(adapter, **keys) as server:
        in_thread(server.run)
        gate.open()
        received = read_all(server.client)
    assert received.count(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n") == count
    assert received.count(b"Link:") == count
    assert received.count(b"HTTP/1.1 200 OK\r\n") == 1
    assert b"late" in received


def test_what_a_client_sends_meanwhile_is_dropped(adapt: Adapt) -> None:
    """A second request on the connection, however long, neither fills it nor turns the close into a reset."""
    gate = Gate()
    body = b"y" * 300_000
    adapter = adapt(waiting(gate, started(), body_of(body)), detach="always", detach_after=0)
    with connected(adapter) as server:
        in_thread(server.run)
        assert server.has_left
        server.client.sendall(b"POST / HTTP/1.1\r\n" + b"x" * 20_000_000)  # more than the system's buffers hold
        gate.open()
        assert server.read() == (200, body)
        assert server.client.recv(1) == b""


def test_a_client_that_reads_at_last_is_not_given_up(adapt: Adapt, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client whose unsent bytes become fewer is reading, however slowly, and is not given up."""
    looks = itertools.count()
    enough = threading.Event()

    def fewer_each_time(sock: socket.socket) -> int:
        look = next(looks)
        if look == 10:
            enough.set()
        return 1_000_000 - look

    monkeypatch.setattr(client, "_unsent", fewer_each_time)
    monkeypatch.setattr(client, "STALL_TIMEOUT", 0.01)
    gate = Gate()
    gate.open()
    body = b"x" * 20_000_000  # more than the system's buffers hold
    adapter = adapt(waiting(gate, started(), body_of(body)), detach="always", detach_after=60)
    with connected(adapter) as server:
        in_thread(server.run)
        assert enough.wait(10)
        assert server.read() == (200, body)


@pytest.mark.parametrize("unsent", [0, 1000], ids=["all is read", "the rest is not read"])
def test_a_client_that_does_not_hang_up_is_left(adapt: Adapt, monkeypatch: pytest.MonkeyPatch, unsent: int) -> None:
    """Its place is free soon after it has everything, or after a stall, and the app's work is not cut short."""
    monkeypatch.setattr(client, "_LINGER", 0.01)
    monkeypatch.setattr(client, "STALL_TIMEOUT", 0.05 if unsent else 60.0)
    monkeypatch.setattr(client, "_unsent", lambda sock: unsent)
    gate = Gate()
    adapter = adapt(waiting(gate, started(), body_of(b"all")), detach="always", detach_after=0)
    with connected(adapter) as server:
        in_thread(server.run)
        assert adapter.statistics().detached == 1
        gate.open()
        wait_until(lambda: adapter.statistics().detached == 0)
        assert server.read() == (200, b"all")


def test_a_client_that_reads_its_rest_slowly_gets_it(adapt: Adapt, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection stays open while the client still reads the last bytes of the response."""
    looks = itertools.count()
    enough = threading.Event()

    def fewer_each_time(sock: socket.socket) -> int:
        look = next(looks)
        if look == 12:  # longer than a stall
            enough.set()
        return max(0, 20 - look)

    monkeypatch.setattr(client, "_LINGER", 0.05)
    monkeypatch.setattr(client, "STALL_TIMEOUT", 0.5)
    monkeypatch.setattr(client, "_unsent", fewer_each_time)
    gate = Gate()
    adapter = adapt(waiting(gate, started(), body_of(b"all")), detach="always", detach_after=0)
    with connected(adapter) as server:
        in_thread(server.run)
        gate.open()
        assert enough.wait(10)
        wait_until(lambda: adapter.statistics().detached == 0)
        assert server.read() == (200, b"all")


def test_a_file_does_not_hold_a_thread_for_a_client_that_does_not_read(
    adapt: Adapt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The response leaves the WSGI thread, and no thread reads from the disk while the client does not read."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789" * 2_000_000)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        limiter = anyio.to_thread.current_default_thread_limiter()
        if scope["path"] == "/threads":
            await start(send)
            await block(send, b"%d" % limiter.borrowed_tokens)
            return
        await start(send)
        await send({"type": "http.response.pathsend", "path": str(path)})

    adapter = adapt(app, detach="always", detach_after=60, pathsend=True)

    def borrowed() -> bytes:
        return respond(adapter, http_environ("GET", "/threads")).body

    with connected(adapter) as server:
        in_thread(server.run)
        assert server.has_left
        wait_until(lambda: borrowed() == b"0")
        assert server.read() == (200, path.read_bytes())


def test_a_file_may_come_after_the_response_has_left(adapt: Adapt, tmp_path: Path) -> None:
    """The private loop sends it."""
    path = tmp_path / "file"
    path.write_bytes(b"content of the file")
    gate = Gate()
    file: Message = {"type": "http.response.pathsend", "path": str(path)}
    adapter = adapt(waiting(gate, started(), file), detach="always", detach_after=0, pathsend=True)
    with connected(adapter) as server:
        in_thread(server.run)
        assert server.has_left
        gate.open()
        assert server.read() == (200, b"content of the file")


@pytest.mark.parametrize("protocol", ["HTTP/1.1", "HTTP/1.0"])
def test_a_client_that_wants_the_connection_closed_need_not_hang_up(
    adapt: Adapt, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a small response to `Connection: close`, the adapter closes without waiting."""
    monkeypatch.setattr(client, "_LINGER", 60.0)
    gate = Gate()
    adapter = adapt(waiting(gate, started(), body_of(b"all")), detach="always", detach_after=0)
    with connected(adapter, SERVER_PROTOCOL=protocol, HTTP_CONNECTION="close") as server:
        in_thread(server.run)
        gate.open()
        wait_until(lambda: adapter.statistics().detached == 0)
        assert server.read() == (200, b"all")


@pytest.mark.parametrize("cut", ["closes", "closes in mid-write", "half-closes", "stalls"])
def test_a_body_that_ends_by_the_close_is_never_cut_by_a_clean_end(
    adapt: Adapt, cut: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client of HTTP/1.0 that still reads gets a reset, whether the adapter closes or gives up on the client."""
    size = 100 if cut == "closes" else 20_000_000  # more than the system's buffers hold

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        await block(send, b"x" * size, True)
        await Gate().wait()

    if cut == "stalls":
        monkeypatch.setattr(client, "STALL_TIMEOUT", 0.05)
    adapter = adapt(app, detach="always", detach_after=60, shutdown_timeout=0.05)
    with connected(adapter, SERVER_PROTOCOL="HTTP/1.0") as server:
        in_thread(server.run)
        assert server.has_left
        read_until(server.client, b"x" * 100)
        if cut == "half-closes":
            server.client.shutdown(socket.SHUT_WR)
        elif cut != "stalls":
            in_thread(adapter.close)
        wait_until(lambda: not adapter.statistics().detached)
        with server.client.makefile("rb") as rest, pytest.raises(ConnectionResetError):
            rest.read()


def test_a_whole_body_that_ends_by_the_close_is_never_cut_by_a_clean_end(
    adapt: Adapt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The app has sent the end, but the system has not taken all bytes when the adapter gives up on the client."""
    monkeypatch.setattr(client, "STALL_TIMEOUT", 0.05)
    gate = Gate()
    noted: list[Answered] = []
    monkeypatch.setattr(access, "listeners", [noted.append])
    body = b"x" * 200_000  # more than the system's buffers hold, and few enough to be written together with the end
    adapter = adapt(waiting(gate, started(), body_of(body)), detach="always", detach_after=0)
    with connected(adapter, SERVER_PROTOCOL="HTTP/1.0") as server:
        server.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        server.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        in_thread(server.run)
        assert server.has_left
        gate.open()
        wait_until(lambda: not adapter.statistics().detached)
        with server.client.makefile("rb") as rest, pytest.raises(ConnectionResetError):
            rest.read()
    assert [answered.whole for answered in noted] == [False]


def test_a_client_that_sends_nothing_has_not_left(pair: tuple[socket.socket, socket.socket]) -> None:
    """The loop may be woken although there is nothing to read."""
    pair[0].setblocking(False)
    assert client.Client(pair[0], cast("Any", None))._read()


def test_many_small_blocks_are_written_in_turns(adapt: Adapt) -> None:
    """They wait together behind a large one, and are more than the system takes in one call (IOV_MAX)."""
    gate, sent = Gate(), threading.Event()
    large = b"x" * 200_000

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await start(send)
        await block(send, large, True)
        for _ in range(3000):
            await block(send, b"y", True)
        sent.set()
        await block(send)

    with connected(adapt(app, detach="always", detach_after=0)) as server:
        server.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # so that the large one is not taken whole
        in_thread(server.run)
        gate.open()
        assert sent.wait(5)
        assert server.read() == (200, large + b"y" * 3000)


def test_a_large_body_waits_for_a_client_that_wants_the_connection_closed(
    adapt: Adapt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a large response to `Connection: close`, the place stays taken until the client has hung up."""
    monkeypatch.setattr(client, "_LINGER", 60.0)
    body = b"x" * 100_000
    gate = Gate()
    adapter = adapt(waiting(gate, started(), body_of(body)), detach="always", detach_after=0)
    with connected(adapter, HTTP_CONNECTION="close") as server:
        server.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # so that the system cannot take it whole
        in_thread(server.run)
        gate.open()
        assert server.read() == (200, body)
        assert server.client.recv(1) == b""  # the adapter has ended only its own side
        respond(adapter, http_environ())  # the loop has gone on since
        assert adapter.statistics().detached == 1
        server.client.close()
        wait_until(lambda: adapter.statistics().detached == 0)
