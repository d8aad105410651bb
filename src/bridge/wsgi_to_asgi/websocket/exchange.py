"""One WebSocket of a WSGI app, as ASGI messages.

WSGI has no word for WebSockets, so the libraries of its apps take the server's socket out of the
environ, and speak RFC 6455 there by themselves. Here that socket is one end of a pair, and on the
other one the session plays the client. An app that needs no socket says its `Messages` as they are.
"""

import logging
import re
import socket

import anyio
import anyio.abc
from wsproto import events as ws
from wsproto.frame_protocol import LOCAL_ONLY_CLOSE_REASONS, CloseReason

from bridge.errors import AppProtocolError, ServerProtocolError
from bridge.runtime import running_loop
from bridge.sansio.messages import DONE, WEBSOCKET, event_from_message, next_state, type_from_message
from bridge.sansio.redacted import shown
from bridge.sansio.request_name import request_name
from bridge.sansio.websocket import code_and_reason_from_close
from bridge.types import Environ, Message, Receive, Scope, Send
from bridge.wsgi_to_asgi.http.hop import END, FINISHED, Mark
from bridge.wsgi_to_asgi.websocket.environ import complete_environ
from bridge.wsgi_to_asgi.websocket.messages import Accept, Close, Content, Messages
from bridge.wsgi_to_asgi.websocket.pair import AppSocket, BridgeSocket, PairClient, call_when_closed, client_frame
from bridge.wsgi_to_asgi.websocket.simple_websocket import take_over_simple_websocket
from bridge.wsgi_to_asgi.websocket.thread import AppThread

_logger = logging.getLogger("bridge")

# How long an app may go on once its WebSocket is over, in seconds, until it is left to itself.
_EXIT_TIMEOUT = 5.0
# The codes that a close frame can carry, besides those of libraries and apps; 1005 stands for none.
_CLOSE_CODES = frozenset(CloseReason) - frozenset(LOCAL_ONLY_CLOSE_REASONS) | {CloseReason.NO_STATUS_RCVD}
_LONGEST_REASON = 123  # bytes, of the 125 that a close frame has room for
_STOPPED = (1012, "")  # "service restart": by the server, that is


class WebSocketExchange:
    """One WebSocket: the server on one side, the app's thread on the other. All of it runs on the loop.

    Two tasks carry messages, and end each other by cancel scopes. What the app's threads wait for
    is on its socket, or on the lock of `AppThread`; `let_go`, which comes last, whatever happened,
    ends both.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, environ: Environ) -> None:
        self.scope = scope
        self._loop = running_loop()
        self._state = "connecting"  # of sansio.messages.WEBSOCKET
        self._receive = receive
        self._send = send
        self._can_deny = "websocket.http.response" in (scope.get("extensions") or ())
        self._knows_reason = _spec_version(scope) >= (2, 3)
        self._open = anyio.Event()  # set when accepted
        self._receiving = anyio.CancelScope()
        self._received = anyio.Event()  # `receive` is not called any more
        self._conversation = anyio.CancelScope()
        self._end: tuple[int, str] | None = None  # code and reason, by whoever was first to end it
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
        """Carry messages both ways until the WebSocket is over, and the app is, or has had its time for that."""
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
        """Pass on all that the app has to say; note how it ends."""
        try:
            await self._pass_out(tasks)
            # Only here is it certain what the app's response means: it comes by another way than
            # the handshake, and may be faster.
            if self._state == "connecting":
                await self._refuse()
            elif self._end is None:
                self.thread.hush()
                with anyio.move_on_after(_EXIT_TIMEOUT):
                    await self.thread.until_done()
                self._finish(1011 if self.thread.failed else 1000)
        except OSError:
            self._leave(1006)  # ASGI WebSocket spec: that is how a server says that the client left
        except Exception as error:
            self._fail(error)

    async def _conclude(self) -> None:
        """Close the WebSocket unless the client did, and see the app out."""
        self.thread.disconnected.set()  # first, as a library's own thread may be fast to tell the app
        await self._receive_no_more()
        self.thread.hush()
        code, reason = self._end or (1000, "")
        try:
            if self._state == "open":
                with_reason = {"reason": reason} if reason and self._knows_reason else {}
                await self._tell_server({"type": "websocket.close", "code": code, **with_reason})
            elif self._state == "connecting" and self._end == _STOPPED:
                await self._tell_server({"type": "websocket.close", "code": 1000})
        except OSError:
            pass  # the client was faster
        except Exception as error:
            self._failure = self._failure or error
        with anyio.move_on_after(_EXIT_TIMEOUT) as patience:
            while await self._socket.read() and not patience.cancel_called:
                pass  # or an app that sends would never come to its end
            await self.thread.until_done()
        if patience.cancelled_caught:
            text = "%s: the WSGI app went on for %g s after its WebSocket was over: left to itself"
            _logger.info(text, request_name(self.scope), _EXIT_TIMEOUT)

    def let_go(self) -> None:
        """End the app's end, and with it whatever its threads wait for."""
        self._forget_loop()
        self.thread.finished = True
        self.thread.hush()
        self.thread.disconnected.set()
        if self._end is None:
            self._end = _STOPPED  # cancelled, or dropped together with the loop
        self._messages.finish(*self._closing_words())
        self._socket.close(self._closing_frame())

    # THE END

    def _finish(self, code: int, reason: str = "") -> None:
        """Note an end, if it is the first."""
        if self._end is None:
            self._end = (code, reason)
        self._conversation.cancel()

    def _leave(self, code: int, reason: str = "") -> None:
        """Note that the client has left."""
        self._state = DONE
        self.thread.disconnected.set()
        self._finish(code, reason)

    def stop(self) -> None:
        """End as the server."""
        self._finish(*_STOPPED)

    def _fail(self, error: Exception) -> None:
        """Note what is the server's fault, or the app's; `serve` will raise it."""
        self._failure = error
        self._finish(1011)

    def _raise_outcome(self) -> None:
        """Raise what went wrong, if anything did and the server should know."""
        failure, error = self._failure, self.thread.take_error() if self.thread.done else None
        self._failure = None
        try:
            if failure is not None:
                raise failure from error
            if error is not None and not isinstance(error, Exception):
                # SystemExit would stop the server's loop, CancelledError mean something else to it.
                raise AppProtocolError(f"the WSGI app raised {error!r:.200}") from error
            if error is not None:
                raise error
        finally:
            del failure, error  # each refers to this frame by its traceback

    # FROM THE SERVER TO THE APP

    async def _pass_in(self) -> None:
        """Pass on what the server has to say; at the end, whoever caused that, tell the app."""
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
        """End the call of `receive`: while there is one, granian keeps a close frame to itself."""
        self._receiving.cancel()
        await self._received.wait()

    def _closing_words(self) -> tuple[int, str | None]:
        """Return what a close frame to the app says; no reason at all stands for no frame."""
        code, reason = self._end or (1000, "")
        return (code, reason) if code in _CLOSE_CODES or 3000 <= code <= 4999 else (CloseReason.NO_STATUS_RCVD, None)

    def _closing_frame(self) -> bytes:
        """Return the close frame for the app; b"" where it can have none."""
        code, reason = self._closing_words()
        return b"" if reason is None or self._socket.mid_block else self._client.closing_frame(code, reason)

    # FROM THE APP TO THE SERVER

    async def _pass_out(self, tasks: anyio.abc.TaskGroup) -> None:
        """Pass on the app's messages, up to its close frame or the end of what it writes."""
        # The end is looked at as well, as a flood of messages can keep a cancellation from being delivered.
        while (block := await self._socket.read()) and self._end is None:
            for event in self._client.receive(block):
                if isinstance(event, (str, bytes)):
                    await self._send_content(event)
                elif isinstance(event, ws.Ping):
                    # Beside the reading: an app that does not read while it sends would wait for itself.
                    tasks.start_soon(self._socket.write, self._client.pong(event))
                else:
                    await self._obey(event)
                    if self._end is not None or self._state == DONE:
                        return
        if self._messages.accepted:
            self._socket.close(b"")
            await self._pass_messages_out()

    async def _pass_messages_out(self) -> None:
        """The same, where the app needs no socket."""
        while items := await self._messages.take():
            for item in items:
                if isinstance(item, Accept):
                    await self._accept(item.subprotocol, [])
                elif isinstance(item, Close):
                    code = CloseReason.NORMAL_CLOSURE if item.code in LOCAL_ONLY_CLOSE_REASONS else item.code
                    code, reason = code_and_reason_from_close({"code": code, "reason": item.reason})
                    self._end = (code, reason.encode()[:_LONGEST_REASON].decode(errors="ignore"))
                else:
                    await self._send_content(item)
                self._messages.was_sent(item)
                if self._end is not None:
                    return

    async def _send_content(self, content: Content) -> None:
        await self._tell_server({"type": "websocket.send", "text" if isinstance(content, str) else "bytes": content})

    async def _accept(self, subprotocol: str | None, headers: list[tuple[bytes, bytes]]) -> None:
        self.thread.answered = True
        await self._tell_server({"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers})
        self._open.set()

    async def _obey(self, event: ws.Event) -> None:
        if isinstance(event, ws.AcceptConnection):
            await self._accept(event.subprotocol, event.extra_headers)
        elif isinstance(event, ws.CloseConnection):
            if self._end is None:  # else it is the answer to ours
                code = 1000 if event.code == CloseReason.NO_STATUS_RCVD else int(event.code)
                self._end = (code, event.reason or "")
        elif isinstance(event, ws.RejectConnection):
            self.thread.answered = True  # of a response on the socket, its status is what there is to say
            await self._receive_no_more()
            await self._deny({"type": "http.response.start", "status": max(event.status_code, 400), "headers": []})
            await self._deny({"type": "http.response.body", "body": b""})

    async def _refuse(self) -> None:
        """Pass on the app's ordinary response, if it gives one."""
        while True:
            items = await self.thread.take_items()
            await self._receive_no_more()
            ended = END in items
            if FINISHED in items and not ended:
                return  # the app has raised, or given no response
            for item in items:
                if not isinstance(item, bytes | Mark):
                    await self._deny(item)
            body = b"".join(item for item in items if isinstance(item, bytes))
            await self._deny({"type": "http.response.body", "body": body, "more_body": not ended})
            self.thread.transmitted += len(body)
            self.thread.wake_sleepers()
            if ended:
                return

    async def _deny(self, message: Message) -> None:
        """Send a message of an HTTP response; where the server has no way for that, say no."""
        if self._can_deny:
            await self._tell_server({**message, "type": f"websocket.{message['type']}"})
        elif self._state == "connecting":
            await self._tell_server({"type": "websocket.close", "code": 1000})

    async def _tell_server(self, message: Message) -> None:
        if self._state != DONE:  # else the client has left, and the end is under way
            self._state = next_state(WEBSOCKET, self._state, event_from_message(message))
            await self._send(message)


def _spec_version(scope: Scope) -> tuple[int, ...]:
    """Return the version of the ASGI WebSocket spec that the server keeps."""
    version = str((scope.get("asgi") or {}).get("spec_version") or "2.0")
    return tuple(int(number) for number in re.findall("[0-9]+", version))
