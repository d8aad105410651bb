"""One HTTP request to a WSGI app, on the server's loop. Its twin is `asgi_to_wsgi/http/exchange.py`.

Each method runs on the loop or in a worker thread, and a banner says which. No attribute is written
from both, except flags that are only ever set.
"""

import contextvars
import functools
import io
import logging
from collections import deque
from typing import BinaryIO

import anyio

from bridge.errors import ServerProtocolError, is_of_disconnect
from bridge.runtime import running_loop
from bridge.sansio.announcement import BODILESS_METHODS, CONTINUE_EXPECTED, NOTHING_ANNOUNCED, announcement_from_scope
from bridge.sansio.messages import type_from_message
from bridge.sansio.redacted import shown
from bridge.sansio.request_headers import with_header_pairs
from bridge.sansio.request_name import request_name
from bridge.sansio.unreadable import scope_error
from bridge.types import Environ, Message, Receive, Scope, Send, WSGIApp
from bridge.wsgi_to_asgi.http.body import RequestBody, block_from_message
from bridge.wsgi_to_asgi.http.call import WSGICall
from bridge.wsgi_to_asgi.http.environ import environ_for_request
from bridge.wsgi_to_asgi.http.hop import END, FINISHED, WATCH_WANTED, Exchange, body_message_from_items
from bridge.wsgi_to_asgi.http.streams import Disconnected, LateInput, RequestStream
from bridge.wsgi_to_asgi.outcome import raise_outcome
from bridge.wsgi_to_asgi.runner import WorkerThreads

_logger = logging.getLogger("bridge")

# With `buffer_body` or `lend_loop`: how long to wait for the first message of a request that announces no body, in
# seconds. Some servers never send it.
_PATIENCE = 1.0


class HTTPExchange(Exchange):
    """One request and its response, between the loop and the worker thread that runs the app.

    The thread appends to `outbox`, and wakes the loop unless that is about to look. It sleeps while
    the loop has too much to send, or no block of the request body. The app may read in other threads.

    The loop ends each of these waits by its answer, or by `leave` when the client has left, `send`
    has failed or the task was cancelled. If the loop was closed, the thread notices that by itself.
    """

    # Written on the loop:
    _status = 0  # of the response, once it has begun
    _whole_body: bytes | None = None  # if the first message had all of it; the thread takes it
    _body: RequestBody | None = None  # if it did not; made in any thread
    _streaming = False  # the response has begun, and its end is not in the outbox
    _failure: Exception | None = None
    _context: contextvars.Context | None = None  # for the thread, which sets it to None when it starts
    # Written in the worker thread:
    _error: BaseException | None = None  # what the app raised

    def __init__(
        self,
        app: WSGIApp,
        workers: WorkerThreads,
        template: Environ,
        scope: Scope,
        receive: Receive,
        send: Send,
        buffer_body: bool = False,
        lend_loop: bool = False,
    ) -> None:
        self.loop = running_loop()
        self._app = app
        self._workers = workers
        self._template = template
        self._buffer_body = buffer_body
        self._lend_loop = lend_loop
        self._scope = with_header_pairs(scope)
        self._receive = receive
        self._send = send

    # ON THE LOOP

    async def serve(self) -> None:
        """Answer the request; return once the app has ended and its iterable is closed."""
        # Slow clients must not occupy threads, so the loop first awaits a message. It does not if no body is announced,
        # because some servers then send none; nor if receive() would send 100 Continue too early (RFC 9110 10.1.1).
        announcement = announcement_from_scope(self._scope)
        if announcement is CONTINUE_EXPECTED:
            self._body = RequestBody(self.loop.event)
        elif announcement is not NOTHING_ANNOUNCED:
            await self._take_first()
        elif self._lend_loop or (self._buffer_body and self._scope.get("method") not in BODILESS_METHODS):
            with anyio.move_on_after(_PATIENCE):
                await self._take_first()
        if self.gone:
            return
        self._context = contextvars.copy_context()
        try:
            # A request that waits for a thread is watched, because its client may leave before its turn.
            waits = not self._workers.submit(self._run) and announcement is not CONTINUE_EXPECTED
            if waits or not await self._work(watched=False):
                async with self.loop.beside(self._watch):
                    await self._work(watched=True)
        except BaseException:
            # The task was cancelled, or dropped together with its loop. To the app, the client has left.
            self.leave()
            self._context = None  # in case the job never runs
            self.finished = True  # from here on, the thread logs its own error
            self._log_error()
            raise
        finally:
            self.finished = True
            self.wake_sleepers()
            if self._body is not None:
                self._body.close()
        self._raise_outcome()

    async def _take_first(self) -> None:
        """Receive the first message, which holds most bodies whole (ASGI HTTP spec, Request)."""
        try:
            message = await self._receive()
        except OSError:  # the client has left (ASGI HTTP spec 2.4)
            self.leave()
            return
        if type_from_message(message) == "http.request" and not message.get("more_body"):
            self._whole_body = block_from_message(message)
        else:
            self._take(message)

    async def _fetch_body(self) -> None:
        """Receive one message, once there is room for it: a block of the body, or http.disconnect."""
        try:
            if self._body is not None and self._body.full:
                await self._body.wait_for_room(lambda: self._context is None)
            if self.gone or self.complete:
                return
            try:
                message = await self._receive()
            except OSError:
                self.leave()
                return
            self._take(message)
        except Exception as error:
            self._failure = error
            self.leave()

    def _take(self, message: Message) -> None:
        message_type = type_from_message(message)
        if message_type == "http.disconnect":
            if not self.complete:  # after the response, it is sent for every client
                self.leave()
        elif message_type != "http.request":
            raise ServerProtocolError(f"expected http.request or http.disconnect, got {shown(message)}")
        elif self._whole_body is None:
            self._make_body().put(message)
            self.wake_sleepers()

    def _raise_outcome(self) -> None:
        """Raise the error that the server should see, if there is one."""
        error, failure = self._error, self._failure
        if error is None and failure is None:
            return
        self._error = self._failure = None
        try:
            if failure is None and self.gone and is_of_disconnect(error):
                return
            if failure is None and self.complete:
                # The server would cut the connection if this raised, and lose the client's next request.
                text = "%s: the WSGI app raised after it had answered with %d"
                _logger.error(text, request_name(self._scope), self._status, exc_info=error)
                return
            raise_outcome(failure, error)
        finally:
            del failure, error  # whose tracebacks refer to this frame

    async def _work(self, watched: bool) -> bool:
        """Send what is in the outbox until the thread is done; return False if a watcher is needed first.

        A response that ends with its first block needs no watcher, and so no second task.
        """
        while True:
            try:
                outbox = self.outbox
                while outbox:
                    item = outbox.popleft()
                    if item is FINISHED:
                        return True
                    if item is WATCH_WANTED:
                        if self._body is not None:
                            self._body.wake_loop()
                        if not watched and not self.gone:
                            return False
                    elif self.gone:
                        pass  # there is nobody to send it to
                    elif isinstance(item, bytes) or item is END:
                        message = body_message_from_items(item, outbox)
                        self._streaming = message["more_body"]
                        if not self._streaming:
                            self.end_response()
                        size = len(message["body"])  # before Starlette's gzip middleware changes it in place
                        await self._send(message)
                        self.transmitted += size
                        self.wake_sleepers()
                        if not watched and self._streaming and outbox:
                            return False  # this loop would not end while the app stays ahead
                    else:
                        message_type = item["type"]  # likewise
                        self._streaming = message_type == "http.response.start"
                        if self._streaming:
                            self._status = item["status"]
                        elif message_type == "http.response.body":  # trailers follow; servers say http.disconnect here
                            self.end_response()
                        await self._send(item)
                        if message_type == "http.response.pathsend":
                            self.transmitted += 1
                            self.end_response()
                if not watched and not self.gone and self._streaming:
                    return False
                self._told = False  # from here on, a thread that appends to the outbox wakes the loop
                if not self.outbox:  # it may have appended just before that
                    self._event = self.loop.event()
                    await self._event.wait()
            except OSError:  # the client has left (ASGI HTTP spec 2.4)
                self.leave()
            except Exception as error:
                self._failure = error
                self.leave()

    async def _watch(self) -> None:
        """Receive the request body and http.disconnect while the response is sent.

        The disconnect comes only after the body, so what the app leaves unread is stored, up to a limit.
        """
        ended = False
        while not (ended or self.gone or self.complete):
            # After the end of the body, one more message comes: http.disconnect.
            ended = self._whole_body is not None or (self._body is not None and self._body.ended)
            await self._fetch_body()

    # IN THE WORKER THREAD

    def _run(self) -> None:
        """Run the app. Raises nothing; a second call, after an exception from outside, does not run the app again."""
        try:
            try:
                context, self._context = self._context, None  # not kept, because it may refer to the environ
                if context is not None and not self.gone:
                    self.outbox = deque()
                    try:
                        call = WSGICall(self, self._scope, self._scope["method"], self._scope.get("extensions") or ())
                    except (LookupError, TypeError) as error:
                        raise scope_error(self._scope) from error
                    context.run(call.run, self._app, self._make_environ, self._buffer_body, self._lend_loop)
            except BaseException as error:
                self._error = error
            self._finish()
        except BaseException as late:  # an app's watchdog raised it here after the app (PyThreadState_SetAsyncExc)
            if self._error is None:
                self._error = late
            self._finish()

    def _finish(self) -> None:
        """Tell the loop that the app is done. Idempotent."""
        if self.finished:
            self._log_error()
        self.outbox = self.outbox or deque()  # there is none if the app did not run
        self.outbox.append(FINISHED)
        self.tell()

    def _make_environ(self) -> Environ:
        return environ_for_request(self._scope, self._template, self._input_stream(), Disconnected(self))

    def _input_stream(self) -> BinaryIO:
        """Return `wsgi.input`: the whole body if it has arrived, else a stream of its blocks."""
        if self._whole_body is not None:
            body, self._whole_body = self._whole_body, b""  # so that only the app refers to it
            return io.BytesIO(body)
        if self._body is None:
            return LateInput(self._open_body)  # type: ignore[return-value]  # a stream by its __getattr__
        return self._open_body()

    # IN ANY THREAD

    def _open_body(self) -> BinaryIO:
        return io.BufferedReader(RequestStream(functools.partial(self._make_body().next_block, self)), 64 * 1024)

    def _make_body(self) -> RequestBody:
        """Return the body, which the loop or a thread is the first to need."""
        body: RequestBody = self._body or vars(self).setdefault("_body", RequestBody(self.loop.event))  # atomic
        return body

    def _log_error(self) -> None:
        """Log what the app has raised, because nobody can raise it to the server after a cancellation."""
        error, self._error = self._error, None  # its traceback refers to this request
        if error is not None and not is_of_disconnect(error):
            text = "%s: the WSGI app raised after its request was cancelled"
            _logger.error(text, request_name(self._scope), exc_info=error)
