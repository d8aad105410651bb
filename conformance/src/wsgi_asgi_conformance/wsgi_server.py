"""A fake WSGI server that records everything; an adapter that hangs does not block the tests.

Each request runs in a thread of its own. The test tells the client what to do, waits up to the deadline, and checks the
log.
"""

import io
import math
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias
from wsgiref import validate as wsgiref_validate

from wsgi_asgi_conformance.exchange import Exchange, Server, joined
from wsgi_asgi_conformance.samples import http_environ
from wsgi_asgi_conformance.types import Environ, Headers, WSGIApp

# The class under test; a test passes options only if it checks them.
ToWSGI: TypeAlias = Callable[..., WSGIApp]


class Input:
    """`wsgi.input` of one request: waits until it is fed, and notes each read.

    Logged: "read" when the adapter calls a method, with its name and size; "was read" when that returns, with the
    bytes. Never returns more than CONTENT_LENGTH allows; `overreads` lists the sizes that asked for more, with -1 for
    a read without a size. With `wsgi.input_terminated`, there is no such limit.
    """

    def __init__(self, request: "WSGIRequest", blocks: Iterable[bytes], more_body: bool) -> None:
        length = request.environ.get("CONTENT_LENGTH", "")
        self.overreads: list[int] = []
        self._request = request
        self._buffer = b"".join(blocks)
        self._ended = not more_body
        self._error: Exception | None = None
        self._left = math.inf if request.environ.get("wsgi.input_terminated") else 0
        if length.isdecimal():
            self._left = int(length)

    def feed(self, block: bytes, more_body: bool = False) -> None:
        """Add a block to the request's body."""
        with self._request.changed:
            self._buffer += block
            self._ended = not more_body
            self._request.changed.notify_all()

    def abort(self, error: Exception | None) -> None:
        """Make reads that wait for more raise `error`, now or later; with None, they return early, as at the end."""
        with self._request.changed:
            self._error = None if self._ended else error
            self._ended = True
            self._request.changed.notify_all()

    # IN THE REQUEST'S THREAD, or where the adapter reads

    def read(self, size: int = -1) -> bytes:
        return self._take("read", size, line=False)

    def readline(self, size: int = -1) -> bytes:
        return self._take("readline", size, line=True)

    def readlines(self, hint: int = -1) -> list[bytes]:
        return self._take("readlines", -1, line=False).splitlines(keepends=True)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def _take(self, name: str, size: int, line: bool) -> bytes:
        request = self._request
        request._record("read", (name, size))
        with request.changed:
            if self._left != math.inf and not line and not 0 <= size <= self._left:
                self.overreads.append(size)
            wanted = self._left if size < 0 else min(size, self._left)
            while not self._ended and len(self._buffer) < wanted and not (line and b"\n" in self._buffer):
                request.changed.wait()  # until the test feeds or aborts it, at its end at the latest
            end = self._buffer.find(b"\n") + 1 if line and b"\n" in self._buffer else len(self._buffer)
            if self._error is not None and len(self._buffer) < wanted:
                raise self._error
            end = int(min(end, wanted))
            block, self._buffer = self._buffer[:end], self._buffer[end:]
            self._left -= len(block)
            request._record("was read", block)
            return block


class Start(NamedTuple):
    """One call of `start_response`."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class WSGIRequest(Exchange):
    """One request of a WSGI server, in a thread of its own.

    Logged: "start_response", with a Start; "return", with the iterable; "block", with what was yielded;
    "write"; "exhausted"; "close" and "closed" around the iterable's close(), if it has one; "disconnect" when
    the test makes the client leave; and the entries of `Input`.
    """

    def __init__(
        self,
        app: WSGIApp,
        environ: Environ,
        deadline: float,
        hold_after: int | None,
        blocks: Iterable[bytes],
        more_body: bool,
    ) -> None:
        super().__init__(deadline, hold_after)
        self.app = app
        self.environ = environ
        self.input = Input(self, blocks, more_body)
        environ["wsgi.input"] = self.input
        threading.Thread(target=self._run, name="conformance request", daemon=True).start()

    # What the client does

    def feed(self, body: bytes, more_body: bool = False) -> None:
        """Add a block to the request's body."""
        self.input.feed(body, more_body)

    def hold(self) -> None:
        """Stop asking for blocks from now on, as for a client that does not read."""
        self._hold_after = self._counts["block"]

    def release(self) -> None:
        """Ask for blocks again."""
        with self.changed:
            self._hold_after = math.inf
            self.changed.notify_all()

    def disconnect(self, read_error: Exception | None = None) -> None:
        """Make the client leave: the server closes the iterable instead of asking for another block.

        A read that waits for more of the body raises `read_error`, or returns less than it asked for if that is None.
        """
        self._record("disconnect")
        self._disconnected = True
        self.input.abort(read_error)
        self.release()

    # What the test looks at

    @property
    def starts(self) -> list[Start]:
        """The calls of `start_response`."""
        return self.values("start_response")

    @property
    def status(self) -> str:
        """The status of the response."""
        return str(self._start().args[0])

    @property
    def headers(self) -> Headers:
        """The headers of the response."""
        return list(self._start().args[1])

    @property
    def blocks(self) -> list[Any]:
        """The blocks that the iterable has yielded."""
        return self.values("block")

    @property
    def body(self) -> bytes:
        """The body of the response, as far as it was yielded or written."""
        return joined(entry.value for entry in self.entries("block", "write"))

    def _start(self) -> Start:
        starts = self.starts
        assert starts, f"start_response was not called; the call ended with {self.error!r}"
        return starts[-1]

    # IN THE REQUEST'S THREAD

    def _run(self) -> None:
        self._record("call")
        try:
            iterable = self.app(self.environ, self._start_response)
            self._record("return", iterable)
            try:
                self._iterate(iter(iterable))
            finally:
                if hasattr(iterable, "close"):
                    self._record("close")
                    iterable.close()
                    self._record("closed")
        except BaseException as error:
            self._end(error)
        else:
            self._end(None)

    def _iterate(self, iterator: Iterator[bytes]) -> None:
        while self._wants_more():
            try:
                block = next(iterator)
            except StopIteration:
                self._record("exhausted")
                return
            self._record("block", block)
            assert self.starts or not block, "a block came before start_response was called"

    def _wants_more(self) -> bool:
        with self.changed:
            while self._counts["block"] >= self._hold_after:
                self.changed.wait()  # until the test releases it, at its end at the latest
            return not self._disconnected

    def _start_response(self, *args: Any, **kwargs: Any) -> Callable[[bytes], object]:
        again = bool(self.starts)
        self._record("start_response", Start(args, kwargs))
        exc_info = (*args, None, None, None)[2] or kwargs.get("exc_info")
        if exc_info and self.body:
            raise exc_info[1]
        assert exc_info or not again, "start_response was called again, without exc_info"
        return lambda block: self._record("write", block)


class WSGIServer(Server):
    """Serves requests in threads of their own; called with an app, it starts one.

    The request's body is `blocks`, or the environ's own; with `more_body`, the test feeds more of it later. The
    environ's CONTENT_LENGTH is not changed. The server takes `hold_after` blocks of the response, and the rest
    after `release()`.
    """

    def __init__(self, deadline: float, strict: bool = True) -> None:
        super().__init__(deadline, strict)
        self._requests: list[WSGIRequest] = []

    def __call__(
        self,
        app: WSGIApp,
        environ: Environ | None = None,
        *blocks: bytes,
        more_body: bool = False,
        hold_after: int | None = None,
    ) -> WSGIRequest:
        environ = http_environ() if environ is None else environ
        if not blocks and isinstance(environ.get("wsgi.input"), io.BytesIO):
            blocks = (environ["wsgi.input"].read(),)
        request = WSGIRequest(app, environ, self.deadline, hold_after, blocks, more_body)
        self._requests.append(request)
        return request

    def close(self) -> None:
        """End all requests, and abandon the threads of those that do not end."""
        self._end_all(self._requests)

    def check_starts(self) -> None:
        """Make `wsgiref.validate` check every call of start_response, including those that the test did not check."""
        for request in self._requests:
            for start in request.starts:
                wsgiref_validate.check_status(start.args[0])  # type: ignore[attr-defined]  # public, but not to typeshed
                wsgiref_validate.check_headers(start.args[1])  # type: ignore[attr-defined]
