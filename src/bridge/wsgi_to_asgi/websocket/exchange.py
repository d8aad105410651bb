"""One WebSocket to a WSGI app, on the server's loop. Its twin is `asgi_to_wsgi/websocket/exchange.py`.

WSGI does not define WebSockets, so WSGI libraries take the server's socket from the environ and speak
RFC 6455 on it. Here that socket is one end of a pair, and the exchange plays the client on the other
end. An app that needs no socket passes whole messages through `Messages` instead.
"""

import logging
import socket

import anyio
import anyio.abc
from wsproto import events as ws
from wsproto.frame_protocol import LOCAL_ONLY_CLOSE_REASONS, CloseReason

from bridge.errors import ServerProtocolError
from bridge.runtime import running_loop
from bridge.sansio.messages import DONE, type_from_message
from bridge.sansio.redacted import shown
from bridge.sansio.request_name import request_name
from bridge.sansio.websocket import code_and_reason_from_close
from bridge.types import Environ, Receive, Scope, Send
from bridge.wsgi_to_asgi.http.hop import END, FINISHED, Mark
from bridge.wsgi_to_asgi.outcome import raise_outcome
from bridge.wsgi_to_asgi.websocket.environ import complete_environ
from bridge.wsgi_to_asgi.websocket.messages import Accept, Close, Messages
from bridge.wsgi_to_asgi.websocket.pair import AppSocket, BridgeSocket, PairClient, call_when_closed, client_frame
from bridge.wsgi_to_asgi.websocket.server import ServerMessages
from bridge.wsgi_to_asgi.websocket.simple_websocket import take_over_simple_websocket
from bridge.wsgi_to_asgi.websocket.thread import AppThread

_logger = logging.getLogger("bridge")

# How long to wait for an app to end once its WebSocket is over, in seconds.
_EXIT_TIMEOUT = 5.0
# The codes below 3000 that a close frame can carry; 1005 stands for a frame without a code (RFC 6455 7.4.1).
_CLOSE_CODES = frozenset(CloseReason) - frozenset(LOCAL_ONLY_CLOSE_REASONS) | {CloseReason.NO_STATUS_RCVD}
_LONGEST_REASON = 123  # bytes: a close frame holds 125, and the code takes two (RFC 6455 5.5)
_STOPPED = (1012, "")  # "service restart": the server ends the WebSocket


class WebSocketExchange:
    """One WebSocket: the server on one side, the app's thread on the other. All of it runs on the loop.

    Two tasks carry messages, one each way, and each ends the other through a cancel scope. The app's
    threads wait on their socket, on `Messages`, or as sleepers of `AppThread`. `let_go` runs last,
    whatever happened, and ends all of those waits.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, environ: Environ) -> None:
        self.scope = scope
        self._loop = running_loop()
        self._receive = receive
        self._server = ServerMessages(scope, send)
        self._open = anyio.Event()  # set once the app has accepted
        self._receiving = anyio.CancelScope()
        self._received = anyio.Event()  # set once `receive` is no longer called
        self._conversation = anyio.CancelScope()
        self._end: tuple[int, str] | None = None  # code and reason from the side that ended it first
        self._failure: Exception | None = None
        ours, theirs = socket.socketpair()
        app_socket = AppSocket(theirs.detach(), self._loop)
        self._socket = BridgeSocket(ours, self._loop)
        self._messages = Messages(self._loop)
        self.thread = AppThread(scope, self._loop, app_socket, self._messages, self.stop)
        self._forget_loop = call_when_closed(self._loop, self.let_go)
        take_over_simple_websocket()
        subprotocols = environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "").split(", ")
        self._client = PairClient([name for name in subprotocols if name])
        complete_environ(environ, app_socket, self._client.key, self._messages, self.thread.disconnected)

    async def serve(self) -> None:
        """Carry messages both ways; return once the WebSocket is over and the app has ended or used up its time."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._pass_in)
                with self._conversation:
                    await self._converse(tasks)
                await self._conclude()
                tasks.cancel_scope.cancel()
        finally:
            self.let_go()
        self._raise_outcome()

    async def _converse(self, tasks: anyio.abc.TaskGroup) -> None:
        """Pass on all that the app says, and record how it ends."""
        try:
            await self._pass_out(tasks)
            # The app's WSGI response can be interpreted only now, because it may overtake a handshake on the socket.
            if self._server.state == "connecting":
                await self._refuse()
            elif self._end is None:
                self.thread.leave()
                with anyio.move_on_after(_EXIT_TIMEOUT):
                    await self.thread.until_done()
                self._finish(1011 if self.thread.failed else 1000)
        except OSError:
            self._leave(1006)  # the server reports a client that has left by OSError (ASGI WebSocket spec, Send)
        except Exception as error:
            self._fail(error)

    async def _conclude(self) -> None:
        """Close the WebSocket unless the client has, and wait for the app to end."""
        self.thread.disconnected.set()  # first, because a library's own thread may tell the app at any moment
        await self._receive_no_more()
        self.thread.leave()
        code, reason = self._end or (1000, "")
        try:
            if self._server.state == "open":
                await self._server.close(code, reason)
            elif self._server.state == "connecting" and self._end == _STOPPED:
                await self._server.close(1000)
        except OSError:
            pass  # the client has left meanwhile
        except Exception as error:
            self._failure = self._failure or error
        with anyio.move_on_after(_EXIT_TIMEOUT) as patience:
            while await self._socket.read() and not patience.cancel_called:
                pass  # discarded, because an app that sends into a full socket would never end
            await self.thread.until_done()
        if patience.cancelled_caught:
            text = "%s: the WSGI app still runs %g s after its WebSocket closed; its thread is left running"
            _logger.info(text, request_name(self.scope), _EXIT_TIMEOUT)

    def let_go(self) -> None:
        """Close the app's side and wake all of its threads. Idempotent."""
        self._forget_loop()
        self.thread.finished = True
        self.thread.leave()
        self.thread.disconnected.set()
        if self._end is None:
            self._end = _STOPPED  # the task was cancelled, or dropped together with the loop
        self._messages.finish(*self._closing_words())
        self._socket.close(self._closing_frame())

    # THE END

    def _finish(self, code: int, reason: str = "") -> None:
        """Record the end, unless there was one before, and stop the conversation."""
        if self._end is None:
            self._end = (code, reason)
        self._conversation.cancel()

    def _leave(self, code: int, reason: str = "") -> None:
        """Record that the client has left."""
        self._server.note_that_client_left()
        self.thread.disconnected.set()
        self._finish(code, reason)

    def stop(self) -> None:
        """End the WebSocket on behalf of the server."""
        self._finish(*_STOPPED)

    def _fail(self, error: Exception) -> None:
        """Record an error of the server or the app; `serve` raises it."""
        self._failure = error
        self._finish(1011)

    def _raise_outcome(self) -> None:
        """Raise the error that the server should see, if there is one."""
        failure, error = self._failure, self.thread.take_error() if self.thread.done else None
        self._failure = None
        try:
            raise_outcome(failure, error)
        finally:
            del failure, error  # whose tracebacks refer to this frame

    # FROM THE SERVER TO THE APP

    async def _pass_in(self) -> None:
        """Pass on what the server says, then tell the app of the end, whichever side caused it."""
        with self._receiving:
            try:
                await self._pass_messages_in()
            except OSError:
                self._leave(1006)
            except Exception as error:
                self._fail(error)
        self._received.set()
        self._messages.finish(*self._closing_words())
        if frame := self._closing_frame():
            await self._socket.write(frame)
        self._socket.write_eof()

    async def _pass_messages_in(self) -> None:
        while True:
            message = await self._receive()
            message_type = type_from_message(message)
            if message_type == "websocket.receive":
                content = message.get("bytes") if message.get("text") is None else message["text"]
                if not isinstance(content, (str, bytes)):
                    raise ServerProtocolError(f"websocket.receive has neither text nor bytes: {shown(message)}")
                if not self.thread.answered:
                    await self._open.wait()
                if self._messages.accepted:
                    await self._messages.put(content)
                elif self._client.is_open:
                    await self._socket.write(client_frame(content))
            elif message_type == "websocket.disconnect":
                code = message.get("code")
                self._leave(code if isinstance(code, int) else 1005, str(message.get("reason") or ""))
                return
            else:
                raise ServerProtocolError(
                    f"expected websocket.receive or websocket.disconnect, got {shown(message)} (ASGI WebSocket spec)"
                )

    async def _receive_no_more(self) -> None:
        """End the pending call of `receive`, because granian sends no close frame while there is one."""
        self._receiving.cancel()
        await self._received.wait()

    def _closing_words(self) -> tuple[int, str | None]:
        """Return the code and reason for the app's close frame; a reason of None means that there is no frame."""
        code, reason = self._end or (1000, "")
        return (code, reason) if code in _CLOSE_CODES or 3000 <= code <= 4999 else (CloseReason.NO_STATUS_RCVD, None)

    def _closing_frame(self) -> bytes:
        """Return the close frame for the app; b"" if none can be sent."""
        code, reason = self._closing_words()
        return b"" if reason is None or self._socket.mid_block else self._client.closing_frame(code, reason)

    # FROM THE APP TO THE SERVER

    async def _pass_out(self, tasks: anyio.abc.TaskGroup) -> None:
        """Pass on the app's messages, up to its close frame or the end of its stream."""
        # The loop checks for the end as well, because a flood of messages can delay a cancellation.
        while (block := await self._socket.read()) and self._end is None:
            for event in self._client.receive(block):
                if isinstance(event, (str, bytes)):
                    await self._server.send(event)
                elif isinstance(event, ws.Ping):
                    # In a task of its own: an app that does not read while it sends would otherwise block itself.
                    tasks.start_soon(self._socket.write, self._client.pong(event))
                else:
                    await self._obey(event)
                    if self._end is not None or self._server.state == DONE:
                        return
        if self._messages.accepted:
            self._socket.close(b"")
            await self._pass_messages_out()

    async def _pass_messages_out(self) -> None:
        """Pass on the messages of an app that needs no socket."""
        while items := await self._messages.take():
            for item in items:
                if isinstance(item, Accept):
                    await self._accept(item.subprotocol, [])
                elif isinstance(item, Close):
                    code = CloseReason.NORMAL_CLOSURE if item.code in LOCAL_ONLY_CLOSE_REASONS else item.code
                    code, reason = code_and_reason_from_close({"code": code, "reason": item.reason})
                    self._end = (code, reason.encode()[:_LONGEST_REASON].decode(errors="ignore"))
                else:
                    await self._server.send(item)
                self._messages.was_sent(item)
                if self._end is not None:
                    return

    async def _accept(self, subprotocol: str | None, headers: list[tuple[bytes, bytes]]) -> None:
        self.thread.answered = True
        await self._server.accept(subprotocol, headers)
        self._open.set()

    async def _obey(self, event: ws.Event) -> None:
        if isinstance(event, ws.AcceptConnection):
            await self._accept(event.subprotocol, event.extra_headers)
        elif isinstance(event, ws.CloseConnection):
            if self._end is None:  # otherwise it answers ours
                code = 1000 if event.code == CloseReason.NO_STATUS_RCVD else int(event.code)
                self._end = (code, event.reason or "")
        elif isinstance(event, ws.RejectConnection):
            self.thread.answered = True  # only the status of a response on the socket is passed on
            await self._receive_no_more()
            status = max(event.status_code, 400)
            await self._server.deny({"type": "http.response.start", "status": status, "headers": []})
            await self._server.deny({"type": "http.response.body", "body": b""})

    async def _refuse(self) -> None:
        """Pass on the app's ordinary HTTP response, if there is one."""
        while True:
            items = await self.thread.take_items()
            await self._receive_no_more()
            ended = END in items
            if FINISHED in items and not ended:
                return  # the app has raised, or has not responded
            for item in items:
                if not isinstance(item, bytes | Mark):
                    await self._server.deny(item)
            body = b"".join(item for item in items if isinstance(item, bytes))
            await self._server.deny({"type": "http.response.body", "body": body, "more_body": not ended})
            self.thread.transmitted += len(body)
            self.thread.wake_sleepers()
            if ended:
                return
