"""Detach every response to a fake WSGI server: give it a connection, and read what the loop writes to that.

`DetachedASGIToWSGI` stands for the adapter, a server like gunicorn around it, and a client. A fake server calls it as
it calls any WSGI app, and gets status, headers and blocks as the client has read them.
"""

import contextvars
import email.utils
import functools
import logging
import os
import re
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import anyio
import h11
import pytest

import bridge
from bridge import AdapterClosed
from bridge.asgi_to_wsgi import adapter
from bridge.asgi_to_wsgi.http.detaching import Detaching
from bridge.asgi_to_wsgi.http.streams import Blocks
from bridge.asgi_to_wsgi.sockets import maybe_connection
from bridge.runtime import PerProcess
from bridge.sansio.request_name import request_name
from bridge.sansio.websocket import is_websocket_request
from bridge.types import ASGIApp, Environ, ExcInfo, Headers, Message, Receive, Scope, Send, StartResponse, Write

# Tests that do not apply to detached responses, and why.
DIFFERENT = {
    "test_a_call_from_its_own_loop_is_refused": "the server reads the response on the loop that writes it",
    "test_a_dispatcher_is_asked": "the adapter hides its app",
    "test_a_file_for_head_or_shorter_than_promised_is_not_sent": "the loop reads the file by itself",
    "test_a_file_that_grows_is_sent_up_to_its_length": "the loop reads the file by itself",
    "test_a_file_that_shrinks_raises_into_the_server": "the loop reads the file by itself",
    "test_a_file_is_sent_by_path": "the loop reads the file by itself",
    "test_a_file_is_sent_by_the_servers_file_wrapper": "the loop reads the file by itself",
    "test_a_receive_that_is_given_up_leaves_nothing": "the test looks into the exchange",
    "test_a_request_holds_a_thread": "a detached response holds none",
    "test_a_request_whose_client_has_left_is_no_request": "the numbers tell what was detached",
    "test_a_background_task_is_no_request": "the numbers tell what was detached",
    "test_a_request_whose_task_cannot_be_made_fails_alone": "the test looks into the loop",
    "test_a_response_of_one_block_is_a_list_of_one": "the server reads it from the connection",
    "test_a_response_that_is_iterated_on_its_own_loop_is_refused": "the server reads it from the connection",
    "test_a_response_that_is_dropped_unclosed_is_closed": "the garbage collector may close the connection first",
    "test_a_server_that_closes_before_it_takes_the_last_block": "the system takes it",
    "test_a_server_that_does_not_read_stops_the_app": "the system takes more",
    "test_a_server_that_stops_before_the_end": "the loop has to notice that the client has left",
    "test_an_adapter_is_looked_through": "the adapter hides its app",
    "test_an_adapter_at_rest_counts_nothing": "the numbers tell what may be detached",
    "test_an_error_for_want_of_a_client_is_not_logged": "the loop has to notice that the client has left",
    "test_names_are_those_of_their_modules": "the adapter has another class",
    "test_nothing_is_sent_once_close_has_returned": "the loop has to notice that the client has left",
    "test_the_apps_of_a_wsgi_fallback_are_told_apart": "the adapter hides its app",
    "test_the_app_may_ask_on_its_own_loop": "the numbers tell what was detached",
}
ON_ASYNCIO_ONLY = {"test_the_app_runs_on_an_asyncio_loop", "test_the_loop_runs_between_requests"}

# How the adapter logs an error that would otherwise reach the server.
_RAISED = re.compile("(.*): .* (before it answered|in mid-response .*)")
# What the client gets then.
_ERROR = (b"500", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "22")])
# How often an app checks whether its response has been detached, and how long that may take, in seconds.
_TICK, _PATIENCE = 0.0005, 5.0

LOOPS: dict[str, dict[str, Any]] = {
    "asyncio": {},
    "uvloop": {"backend_options": {"use_uvloop": True}},
    "trio": {"backend": "trio"},
}

_connection: contextvars.ContextVar["Connection | None"] = contextvars.ContextVar("connection", default=None)
_connections: weakref.WeakSet["Connection"] = weakref.WeakSet()


class DetachedASGIToWSGI(bridge.ASGIToWSGI):
    """An `ASGIToWSGI` whose apps have read the request body, and then wait until their response is detached.

    If the server has a connection of its own, or the test sets `detach`, this class changes nothing.
    """

    loop = "asyncio"

    @functools.wraps(bridge.ASGIToWSGI.__init__)  # type: ignore[misc]  # for code that looks at the signature
    def __init__(self, app: ASGIApp, **options: Any) -> None:
        self._forced = "detach" not in options
        loop = {} if "backend" in options or "backend_options" in options else LOOPS[self.loop]
        super().__init__(app, **{"detach": "auto", "detach_after": 0, **loop, **options})
        if self._forced:
            self.app = _wait_until_decided(app)
            limit = options.get("max_detached", 10_000)
            self._detaching = PerProcess(lambda: _Deciding(False, 0, limit))

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if not self._forced or not _is_for_a_connection(environ):
            return super().__call__(environ, start_response)
        connection = Connection(environ, start_response)
        token = _connection.set(connection)
        try:
            environ["gunicorn.socket"] = connection.server
            iterable = super().__call__(environ, connection.start_response)
        except BaseException:
            connection.close()
            raise
        finally:
            _connection.reset(token)
            del environ["gunicorn.socket"]
        if not connection.was_taken:
            connection.close_with(iterable)
            return iterable
        connection.decided.set()
        assert list(iterable) == []
        try:
            connection.read_head()
        except BaseException:
            connection.close()
            raise
        return connection


class _Deciding(Detaching):
    """Lets an app go on when its response keeps its thread."""

    def maybe_take(self, *args: Any) -> Any:
        taken = super().maybe_take(*args)
        if taken is None and (connection := _connection.get()) is not None:
            connection.decided.set()
        return taken


def _is_for_a_connection(environ: Environ) -> bool:
    """Return whether the request has no connection of its own, and can be given one."""
    return (
        environ.get("SERVER_PROTOCOL", "").startswith("HTTP/1.")
        and str(environ.get("REQUEST_METHOD")).isalpha()  # fuzzing also sends others
        and environ["REQUEST_METHOD"] != "CONNECT"
        and not is_websocket_request(environ)
        and not {"gunicorn.socket", "werkzeug.socket", "waitress.client_disconnected"} & environ.keys()
        and maybe_connection(environ) is None
    )


def _wait_until_decided(app: ASGIApp) -> ASGIApp:
    async def wait(decided: threading.Event) -> None:
        with anyio.fail_after(_PATIENCE):
            while not decided.is_set():
                await anyio.sleep(_TICK)
            await anyio.sleep(_TICK)  # by then, the loop has begun to answer

    async def waiting_app(scope: Scope, receive: Receive, send: Send) -> None:
        connection = _connection.get()
        if connection is None:
            await app(scope, receive, send)
            return
        _connection.set(None)  # otherwise this would keep what a server has dropped
        connection.request_name = request_name(scope)
        decided, begun = connection.decided, False
        del connection

        async def receive_and_wait() -> Message:
            message = await receive()
            if message["type"] == "http.request" and not (message.get("more_body") or begun):
                await wait(decided)
            return message

        async def note_and_send(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        environ = scope["wsgi_environ"]
        if not (environ.get("CONTENT_LENGTH") or environ.get("wsgi.input_terminated")):
            await wait(decided)
        await app(scope, receive_and_wait, note_and_send)

    return waiting_app


class Connection:
    """The connection of one request, and what its client reads: the iterable of a detached response."""

    def __init__(self, environ: Environ, start_response: StartResponse) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.client = socket.create_connection(listener.getsockname())
            self.server, _ = listener.accept()
        self.decided = threading.Event()
        self.was_taken = False
        self.request_name = ""
        self.errors: deque[BaseException] = deque()
        self._environ = environ
        self._start_response = start_response
        self._inode = os.fstat(self.server.fileno()).st_ino
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 24)
        self._parser.send(h11.Request(method=environ["REQUEST_METHOD"], target="/", headers=[("Host", "example.org")]))
        self._parser.send(h11.EndOfMessage())
        self._chunked = False
        self._ended = False
        _connections.add(self)

    def start_response(self, status: str, headers: Headers, exc_info: ExcInfo | None = None, /) -> Write:
        """Pass the call on, unless it is the 202 for a server whose connection was taken."""
        if os.fstat(self.server.fileno()).st_ino == self._inode:
            return self._start_response(status, headers, *[exc_info][: exc_info is not None])
        assert (status, headers) == ("202 Accepted", [("Content-Length", "0")])
        self.was_taken = True
        return lambda block: None

    start_response.__module__ = "gunicorn.http.wsgi"  # a server that ASGIToWSGI(detach="auto") knows

    def read_head(self) -> None:
        """Read the head, and pass it to the server. Raises what the app raised before it."""
        while True:
            event = self._next_event()
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers.raw_items()]
            if isinstance(event, h11.Response):
                break
            self._environ["wsgi.early_hints"](headers)
        assert headers.pop() == ("Connection", "close")
        self._chunked = headers[-1:] == [("Transfer-Encoding", "chunked")]
        if self._chunked:
            headers.pop()
        if headers and headers[-1][0] == "Date" and _is_now(headers[-1][1]):
            headers.pop()
        if (b"%d" % event.status_code, headers) == _ERROR:
            raise self._error()
        self._start_response(f"{event.status_code} {event.reason.decode('latin-1')}", headers)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        block = b""
        while not self._ended:
            event = self._next_event()
            if isinstance(event, h11.EndOfMessage):
                self._ended = True
                _connections.discard(self)
                break
            block += bytes(event.data)
            if event.chunk_end or not self._chunked:
                return block
        if block:
            return block
        raise StopIteration

    def _next_event(self) -> Any:
        try:
            while (event := self._parser.next_event()) is h11.NEED_DATA:
                self._parser.receive_data(self.client.recv(65536))
        except (h11.RemoteProtocolError, ConnectionError):
            self._ended = True
            raise self._error() from None
        return event

    def _error(self) -> BaseException:
        """Return why the response was cut: what the app raised, or else the end of its loop."""
        return self.errors.popleft() if self.errors else AdapterClosed("the event loop has ended")

    def close_with(self, iterable: Iterable[bytes]) -> None:
        """Close when `iterable` is closed, which belongs to a response that has kept its thread."""
        if not isinstance(iterable, Blocks):
            self.close()
            return
        stop = iterable._stop
        assert stop is not None

        def stop_and_close() -> None:
            stop()
            self.close()

        iterable._stop = stop_and_close

    def close(self) -> None:
        """Close both ends, as if the client had left."""
        self._ended = True
        _connections.discard(self)
        self.server.close()
        self.client.close()

    __del__ = close  # for servers that do not call close()


def _is_now(date: str) -> bool:
    return abs(email.utils.parsedate_to_datetime(date).timestamp() - time.time()) < 60


def _pass_errors_on(record: logging.LogRecord) -> bool:
    """Pass an app's error on to the server, which gets it when nothing is detached; drop its log record then."""
    raised = _RAISED.fullmatch(record.getMessage())
    if raised and record.exc_info and record.exc_info[1]:
        for connection in list(_connections):
            if connection.request_name == raised[1]:
                connection.errors.append(record.exc_info[1])
                return False
    return True


def skip_what_differs(items: list[pytest.Item]) -> None:
    """Skip the tests that do not apply to detached responses."""
    for item in items:
        name = getattr(item, "originalname", item.name)
        if name in DIFFERENT:
            item.add_marker(pytest.mark.skip(f"detached: {DIFFERENT[name]}"))
        elif name in ON_ASYNCIO_ONLY and DetachedASGIToWSGI.loop == "trio":
            item.add_marker(pytest.mark.skip("detached on trio"))


def install(loop: str) -> None:
    """Make `bridge.ASGIToWSGI` detach, before anything imports it; on `loop`, unless its options name another."""
    DetachedASGIToWSGI.loop = loop
    bridge.ASGIToWSGI = adapter.ASGIToWSGI = DetachedASGIToWSGI  # type: ignore[misc]
    logging.getLogger("bridge").addFilter(_pass_errors_on)
