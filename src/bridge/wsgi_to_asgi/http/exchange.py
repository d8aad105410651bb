"""One HTTP request to a WSGI app: its body in, its response out.

Everything here has one home, the loop or a worker thread, and a banner says which. What one side
tells the other goes through a deque and a wake-up; but for flags that only ever get set, no
attribute is written from both.
"""

import contextvars
import functools
import io
import logging
from collections import deque
from typing import BinaryIO

import anyio

from bridge.errors import AppProtocolError, ServerProtocolError, is_of_disconnect
from bridge.runtime import running_loop
from bridge.sansio.messages import type_from_message
from bridge.sansio.redacted import shown
from bridge.sansio.request import (
    BODILESS_METHODS,
    CONTINUE_EXPECTED,
    NOTHING_ANNOUNCED,
    announcement_from_scope,
    scope_error,
    with_header_pairs,
)
from bridge.sansio.request_name import request_name
from bridge.types import Environ, Message, Receive, Scope, Send, WSGIApp
from bridge.wsgi_to_asgi.http.body import RequestBody, block_from_message
from bridge.wsgi_to_asgi.http.call import WSGICall
from bridge.wsgi_to_asgi.http.environ import environ_for_request
from bridge.wsgi_to_asgi.http.hop import END, FINISHED, WATCH_WANTED, Exchange, body_message_from_items
from bridge.wsgi_to_asgi.http.streams import Disconnected, LateInput, RequestStream
from bridge.wsgi_to_asgi.runner import WorkerThreads

_logger = logging.getLogger("bridge")

# How long to wait for a body that nothing announces, if it is to be here before the app runs, in seconds: a server that
# says nothing in that time never will, where there is none.
_PATIENCE = 1.0


class HTTPExchange(Exchange):
    """One request and its response, between the loop and the worker thread that runs the app.

    The thread puts what it has to say in `outbox`, wakes the loop unless that is about to look
    anyway, and sleeps when it must wait for that to send, or for more of the request body. The app
    may read its body in a second thread.

    Who ends each wait: the loop, by its answer; `_leave`, on the loop, when the client has left,
    `send` failed or the task was cancelled; the thread itself, where the loop was closed.

    What most requests never need is not made for each: the defaults stand in for it. And what one
    side makes is as far as possible for itself, as it is dear to look at on the other.
    """

    # Written on the loop:
    _status = 0  # of it, once it has begun
    _whole_body: bytes | None = None  # where the first message had all of it; the thread takes it
    _body: RequestBody | None = None  # where it did not; made in any thread
    _streaming = False  # the response has begun, and its end is not in sight
    _failure: Exception | None = None
    _context: contextvars.Context | None = None  # for the thread, which takes it
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
        """Answer the request; return when the app is done with it, `close()` included."""
        # To await the first message here keeps slow clients out of the threads. If nothing announces a body there is
        # most likely none, and some servers never say so: that message is received while the app runs, if it asks. A
        # client that expects 100 Continue gets that when the app reads, and not before (RFC 9110 10.1.1).
        announcement = announcement_from_scope(self._scope)
        if announcement is CONTINUE_EXPECTED:
            self._body = RequestBody(self.loop.event)
        elif announcement is not NOTHING_ANNOUNCED:
            await self._take_first()
        elif self._lend_loop or (self._buffer_body and self._scope.get("method") not in BODILESS_METHODS):
            # What there is of a body is to be here before the app runs.
            with anyio.move_on_after(_PATIENCE):
                await self._take_first()
        if self.gone:
            return
        self._context = contextvars.copy_context()
        try:
            # One that waits its turn is watched from the start, as its client may leave before that comes; but not
            # where to receive would be to say 100 Continue.
            waits = not self._workers.submit(self._run) and announcement is not CONTINUE_EXPECTED
            if waits or not await self._work(watched=False):
                async with self.loop.beside(self._watch):
                    await self._work(watched=True)
        except BaseException:
            # Cancelled, or dropped together with the loop: to the app, the client has left.
            self._leave()
            self._context = None  # where the job never runs
            self.finished = True  # from here on the thread logs by itself
            self._log_error()
            raise
        finally:
            self.finished = True
            self.wake_sleepers()
            if self._body is not None:
                self._body.close()
        self._raise_outcome()

    async def _take_first(self) -> None:
        """Take the message that starts a request (ASGI HTTP spec, Request), and that is all of most bodies."""
        try:
            message = await self._receive()
        except OSError:
            self._leave()  # ASGI HTTP spec 2.4: that is how a server says that the client left
            return
        if type_from_message(message) == "http.request" and not message.get("more_body"):
            self._whole_body = block_from_message(message)
        else:
            self._take(message)

    async def _fetch_body(self) -> None:
        """Take one message from the server, once there is room: a block of the body, or that the client has left."""
        try:
            if self._body is not None and self._body.full:
                await self._body.wait_for_room(lambda: self._context is None)
            if self.gone or self.complete:
                return
            try:
                message = await self._receive()
            except OSError:
                self._leave()
                return
            self._take(message)
        except Exception as error:
            self._failure = error
            self._leave()

    def _take(self, message: Message) -> None:
        message_type = type_from_message(message)
        if message_type == "http.disconnect":
            if not self.complete:  # after that it says so of any client
                self._leave()
        elif message_type != "http.request":
            raise ServerProtocolError(f"expected http.request or http.disconnect, got {shown(message)}")
        elif self._whole_body is None:
            self._make_body().put(message)
            self.wake_sleepers()

    def _raise_outcome(self) -> None:
        """Raise what went wrong, if anything did and the server should know."""
        error, failure = self._error, self._failure
        if error is None and failure is None:
            return
        self._error = self._failure = None
        try:
            if failure is not None:
                raise failure from error
            if error is None or (self.gone and is_of_disconnect(error)):
                return
            if self.complete:
                # To raise it would have the server cut the connection, and with it the client's next request.
                text = "%s: the WSGI app raised after it had answered with %d"
                _logger.error(text, request_name(self._scope), self._status, exc_info=error)
                return
            if not isinstance(error, Exception):
                # SystemExit would stop the server's loop, CancelledError mean something else to it.
                raise AppProtocolError(f"the WSGI app raised {error!r:.200}") from error
            raise error
        finally:
            del failure, error  # each refers to this frame by its traceback

    async def _work(self, watched: bool) -> bool:
        """Do what the outbox says, until the thread is done; or return False if a watcher is needed.

        A small request whose response ends with its first block needs none, and costs no second task.
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
                        pass  # nobody is there to send it to
                    elif isinstance(item, bytes) or item is END:
                        message = body_message_from_items(item, outbox)
                        self._streaming = message["more_body"]
                        if not self._streaming:
                            self._set_complete()
                        size = len(message["body"])  # middleware may change it in place, as Starlette's gzip does
                        await self._send(message)
                        self.transmitted += size
                        self.wake_sleepers()
                        if not watched and self._streaming and outbox:
                            return False  # an app that is always ahead would keep us here
                    else:
                        message_type = item["type"]  # likewise
                        self._streaming = message_type == "http.response.start"
                        if self._streaming:
                            self._status = item["status"]
                        await self._send(item)
                        if message_type == "http.response.pathsend":
                            self.transmitted += 1
                            self._set_complete()
                if not watched and not self.gone and self._streaming:
                    return False
                self._told = False  # from here on, a thread that adds to the outbox wakes us
                if not self.outbox:  # else it did before that
                    self._event = self.loop.event()
                    await self._event.wait()
            except OSError:
                self._leave()  # ASGI HTTP spec 2.4: that is how a server says that the client left
            except Exception as error:
                self._failure = error
                self._leave()

    async def _watch(self) -> None:
        """Receive beside the response: the request's body, and `http.disconnect`, which is all that some servers say.

        What the app leaves unread is taken up to a limit, behind which a client that leaves goes
        unnoticed. So after a while more of it goes to disk.
        """
        ended = False
        while not (ended or self.gone or self.complete):
            # Behind that come a client that left, or a server's slip.
            ended = self._whole_body is not None or (self._body is not None and self._body.ended)
            await self._fetch_body()

    def _set_complete(self) -> None:
        """Note that the response has ended: the server gives no more of the request."""
        self.complete = True
        self.wake_sleepers()

    def _leave(self) -> None:
        """Let everybody know that there is no client any more."""
        self.gone = True
        self.wake_sleepers()

    # IN THE WORKER THREAD

    def _run(self) -> None:
        """Run the app, whatever happens; once, though a call that an exception from without cut short is repeated."""
        try:
            try:
                context, self._context = self._context, None  # that is not kept: it may come to refer to the environ
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
        except BaseException as late:  # thrown in by an app's watchdog (PyThreadState_SetAsyncExc), behind the app
            if self._error is None:
                self._error = late
            self._finish()

    def _finish(self) -> None:
        """Tell the loop that the app is done; does no harm twice."""
        if self.finished:
            self._log_error()
        self.outbox = self.outbox or deque()  # there is none where the app did not run
        self.outbox.append(FINISHED)
        self.tell()

    def _make_environ(self) -> Environ:
        return environ_for_request(self._scope, self._template, self._input_stream(), Disconnected(self))

    def _input_stream(self) -> BinaryIO:
        """Return `wsgi.input`: a body that is here, or a stream of what comes."""
        if self._whole_body is not None:
            body, self._whole_body = self._whole_body, b""  # which goes when the app lets go of it
            return io.BytesIO(body)
        if self._body is None:
            return LateInput(self._open_body)  # type: ignore[return-value]  # which is one by its __getattr__
        return self._open_body()

    # IN ANY THREAD

    def _open_body(self) -> BinaryIO:
        return io.BufferedReader(RequestStream(functools.partial(self._make_body().next_block, self)), 64 * 1024)

    def _make_body(self) -> RequestBody:
        """Return the body, which the loop and the thread may both be the first to need."""
        body: RequestBody = self._body or vars(self).setdefault("_body", RequestBody(self.loop.event))  # at once
        return body

    def _log_error(self) -> None:
        """Log what the app has raised, as its request was cancelled and nobody will raise it."""
        error, self._error = self._error, None  # that refers to this request by its traceback
        if error is not None and not is_of_disconnect(error):
            text = "%s: the WSGI app raised after its request was cancelled"
            _logger.error(text, request_name(self._scope), exc_info=error)
